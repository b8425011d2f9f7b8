//! Control groups as files: where a container's group is in each hierarchy, its members, what it used, its end. The OCI
//! runtime writes the limits; this file only reads, kills and removes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::driver::Usage;

/// Which generation of control groups this node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMode {
    V1,
    V2,
    /// v1 hierarchies that hold the controllers, and a v2 mount beside them.
    Hybrid,
    None,
}

const ROOT: &str = "/sys/fs/cgroup";
const RMDIR_RETRY_DELAY_MS: u64 = 2;
const PROBE_PREFIX: &str = "heptad-probe-";

/// The mounted hierarchies, found once.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchies {
    pub(crate) mode: CgroupMode,
    /// v1: controller -> mount point.
    v1: BTreeMap<String, PathBuf>,
    /// All mount points, v1 and v2, in which a runtime may create our group.
    mounts: Vec<PathBuf>,
}

impl Hierarchies {
    /// As mounted now.
    pub(crate) fn find() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn parse(mountinfo: &str) -> Self {
        let mut v1 = BTreeMap::new();
        let mut mounts = Vec::new();
        let mut v2_root = false;
        let mut v2_beside = false;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let kind = right.split(' ').next().unwrap_or_default();
            if !point.starts_with(ROOT) || mounts.contains(&point) {
                continue;
            }
            match kind {
                "cgroup2" if point == Path::new(ROOT) => v2_root = true,
                "cgroup2" => v2_beside = true,
                "cgroup" => {
                    for option in right.rsplit(' ').next().unwrap_or_default().split(',') {
                        v1.insert(option.to_owned(), point.clone());
                    }
                }
                _ => continue,
            }
            mounts.push(point);
        }
        let mode = match (v2_root, v2_beside, v1.is_empty()) {
            (true, _, _) => CgroupMode::V2,
            (false, true, false) => CgroupMode::Hybrid,
            (false, false, false) => CgroupMode::V1,
            (false, _, true) => CgroupMode::None,
        };
        Self { mode, v1, mounts }
    }

    fn file(&self, controller: &str, group: &str, v1_name: &str, v2_name: &str) -> Option<PathBuf> {
        let group = group.trim_start_matches('/');
        match self.mode {
            CgroupMode::V2 => Some(Path::new(ROOT).join(group).join(v2_name)),
            CgroupMode::V1 | CgroupMode::Hybrid => Some(self.v1.get(controller)?.join(group).join(v1_name)),
            CgroupMode::None => None,
        }
    }

    /// How many processes the kernel has killed in this group for lack of memory.
    pub(crate) fn oom_kills(&self, group: &str) -> u64 {
        self.file("memory", group, "memory.oom_control", "memory.events")
            .and_then(|path| fs::read_to_string(path).ok())
            .and_then(|text| field(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// Where the hierarchies are mounted.
    pub(crate) fn mounts(&self) -> &[PathBuf] {
        &self.mounts
    }

    /// All processes in this group and the groups below it, in any hierarchy.
    pub(crate) fn pids(&self, group: &str) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .tree(group)
            .iter()
            .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .filter(|pid| *pid > 0)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Thaws every process in the group, whoever froze it: a frozen process takes no signal.
    pub(crate) fn thaw(&self, group: &str) {
        for dir in self.tree(group) {
            // Each hierarchy has one of the files, or none; writing to a running group changes nothing.
            for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                if let Ok(mut file) = OpenOptions::new().write(true).open(dir.join(file)) {
                    let _ = io::Write::write_all(&mut file, word.as_bytes());
                }
            }
        }
    }

    /// Sends SIGKILL to every process in the group, once.
    pub(crate) fn kill_all(&self, group: &str) {
        self.thaw(group);
        if self.mode == CgroupMode::V2 {
            let killed = fs::write(Path::new(ROOT).join(group.trim_start_matches('/')).join("cgroup.kill"), "1");
            if killed.is_ok() {
                return;
            }
        }
        for pid in self.pids(group) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }

    /// The group's existing directories.
    pub(crate) fn dirs(&self, group: &str) -> Vec<PathBuf> {
        let group = group.trim_start_matches('/');
        if group.is_empty() {
            return Vec::new();
        }
        self.mounts.iter().map(|mount| mount.join(group)).filter(|dir| dir.is_dir()).collect()
    }

    /// The group's existing directories and all below them, parents first.
    fn tree(&self, group: &str) -> Vec<PathBuf> {
        let mut found = self.dirs(group);
        let mut next = 0;
        while let Some(dir) = found.get(next) {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let below: Vec<PathBuf> =
                entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect();
            found.extend(below);
            next += 1;
        }
        found
    }

    /// Names of the groups directly below this one, in any hierarchy.
    pub(crate) fn children(&self, group: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .dirs(group)
            .iter()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Removes the group and everything below it. The kernel says "busy" for a moment after the last process is gone.
    pub(crate) fn remove(&self, group: &str, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        for dir in self.dirs(group) {
            loop {
                match remove_tree(&dir) {
                    Ok(()) => break,
                    Err(error) if Instant::now() >= deadline => return Err(error),
                    Err(_) => std::thread::sleep(Duration::from_millis(RMDIR_RETRY_DELAY_MS)),
                }
            }
        }
        Ok(())
    }

    /// Removes the group if it is empty; ignores one that is not.
    pub(crate) fn remove_if_empty(&self, group: &str) {
        for dir in self.dirs(group) {
            let _ = fs::remove_dir(dir);
        }
    }

    /// What the group uses now.
    pub(crate) fn usage(&self, group: &str) -> Usage {
        let read = |controller, v1, v2| {
            self.file(controller, group, v1, v2).and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
        };
        let memory = read("memory", "memory.usage_in_bytes", "memory.current").trim().parse().unwrap_or(0);
        let pids = read("pids", "pids.current", "pids.current").trim().parse().unwrap_or(0);
        let cpu = read("cpuacct", "cpuacct.usage", "cpu.stat");
        let cpu_usec = match self.mode {
            CgroupMode::V2 => field(&cpu, "usage_usec").unwrap_or(0),
            _ => cpu.trim().parse::<u64>().unwrap_or(0) / 1_000,
        };
        Usage { memory_bytes: memory, cpu_usec, pids }
    }

    /// Groups of processes that were killed during the trial.
    fn remove_dead_probes(&self) {
        for entry in self.mounts.iter().filter_map(|mount| fs::read_dir(mount).ok()).flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PROBE_PREFIX);
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    /// Whether the limits can be set, tried on a group created for it: `(cpu, memory, swap, pids)`.
    pub(crate) fn probe(&self) -> Probe {
        // The group is named after the process: two threads must not remove each other's.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_dead_probes();
        let group = format!("{PROBE_PREFIX}{}", std::process::id());
        match self.mode {
            CgroupMode::None => return Probe::default(),
            CgroupMode::V2 => {
                let all = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).unwrap_or_default();
                let has = |name: &str| all.split_whitespace().any(|word| word == name);
                let writable = fs::create_dir(Path::new(ROOT).join(&group)).is_ok();
                self.remove_if_empty(&group);
                let memory = writable && has("memory");
                let swap = memory && Path::new("/proc/swaps").exists();
                return Probe { cpu: writable && has("cpu"), memory, swap, pids: writable && has("pids") };
            }
            CgroupMode::V1 | CgroupMode::Hybrid => {}
        }
        let try_one = |controller: &str, file: &str| {
            let Some(dir) = self.v1.get(controller).map(|mount| mount.join(&group)) else { return false };
            let _ = fs::create_dir(&dir);
            dir.join(file).exists()
        };
        let probe = Probe {
            cpu: try_one("cpu", "cpu.cfs_quota_us"),
            memory: try_one("memory", "memory.limit_in_bytes"),
            swap: try_one("memory", "memory.memsw.limit_in_bytes"),
            pids: try_one("pids", "pids.max"),
        };
        self.remove_if_empty(&group);
        probe
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probe {
    pub(crate) cpu: bool,
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) pids: bool,
}

/// Only directories of groups can be removed; their files cannot and need not be.
fn remove_tree(dir: &Path) -> io::Result<()> {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path())?;
            }
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_are_found_per_controller() {
        let text = "\
            30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(text);
        assert_eq!(found.mode, CgroupMode::Hybrid);
        let quota = found.file("cpu", "/a/b", "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(quota, Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us")));
        assert_eq!(found.file("pids", "/a", "pids.max", "pids.max"), None);
    }

    #[test]
    fn unified_and_absent_hierarchies_are_told_apart() {
        let unified = "31 30 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Hierarchies::parse(unified).mode, CgroupMode::V2);
        assert_eq!(Hierarchies::parse("").mode, CgroupMode::None);
    }

    #[test]
    fn fields_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
    }
}
