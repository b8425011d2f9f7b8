//! CPU time of a process, from /proc. The steadiest figure on a shared machine.

use anyhow::{Context, Result};
use std::time::Duration;

/// The kernel reports times in this unit to user space on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of all threads of a process, ended ones too.
pub(crate) fn of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = parse(&stat).with_context(|| format!("{path} has an unknown form"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The command's name may hold spaces and brackets; the fields are counted from behind it.
fn parse(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no VmRSS"))? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_counted_behind_the_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 6 7 20 0 9 0 1 2 3";
        assert_eq!(super::parse(stat), Some(300));
        assert_eq!(super::parse("7 a"), None);
    }
}
