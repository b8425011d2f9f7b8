//! The few facts that /proc tells about other processes: parent, start time, state, environment. Changes nothing.

use std::fs;

/// One line of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcStat {
    pub(crate) pid: i32,
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// User and system time, in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// In clock ticks since boot.
    pub(crate) start_time: u64,
    pub(crate) resident_pages: u64,
}

impl ProcStat {
    pub(crate) fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name is in parentheses and may hold anything, parentheses too.
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            pid: head.split(' ').next()?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            cpu_ticks: number(11)? + number(12)?,
            start_time: number(19)?,
            resident_pages: number(21)?,
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// The process with this pid and start time, if it lives.
pub(crate) fn is_alive(pid: i32, start_time: u64) -> bool {
    ProcStat::read(pid).is_some_and(|stat| stat.start_time == start_time && stat.is_alive())
}

/// Whether a process was executed with this `NAME=VALUE`.
pub(crate) fn environment_has(pid: i32, wanted: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}

/// All processes.
pub(crate) fn all() -> Vec<ProcStat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| ProcStat::read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// Children, their children, and so on; only live ones.
pub(crate) fn descendants(ancestor: i32) -> Vec<ProcStat> {
    let all = all();
    let mut found = vec![ancestor];
    let mut result = Vec::new();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        for stat in all.iter().filter(|stat| stat.parent == parent && !found.contains(&stat.pid)).collect::<Vec<_>>() {
            found.push(stat.pid);
            if stat.is_alive() {
                result.push(*stat);
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let line = "42 (a) b (c) S 1 41 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 999 1000 33 18446744073709551615 1";
        let stat = ProcStat::parse(line).expect("parsed");
        assert_eq!((stat.pid, stat.state, stat.parent, stat.group), (42, 'S', 1, 41));
        assert_eq!((stat.cpu_ticks, stat.start_time, stat.resident_pages), (11, 999, 33));
    }

    #[test]
    fn this_process_is_found_below_its_parent() {
        let me = ProcStat::read(std::process::id() as i32).expect("this process");
        assert!(is_alive(me.pid, me.start_time));
        assert!(!is_alive(me.pid, me.start_time + 1));
        assert!(descendants(me.parent).iter().any(|stat| stat.pid == me.pid));
    }
}
