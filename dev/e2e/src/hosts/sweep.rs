//! What hosts leave on the machine, found by their name: the test's process number, its start time, and a count.
//! Removes what killed tests left.

use super::groups::Groups;
use crate::machine::{numbers_in, started};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

const PREFIX: &str = "heptad-hosts-";
/// Not below /tmp, because containers see a private one.
const PARENT: &str = "/var/tmp";

/// A name that no other process and no other call gives.
pub(super) fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id();
    let ticks = i32::try_from(own).ok().and_then(started).expect("a process knows when it was started");
    format!("{PREFIX}{own}-{ticks}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn dir_of(name: &str) -> PathBuf {
    Path::new(PARENT).join(name)
}

/// Whether the process that gave this name lives.
fn has_owner(name: &str) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
    let owner: Option<i32> = parts.next().and_then(|text| text.parse().ok());
    let ticks: Option<u64> = parts.next().and_then(|text| text.parse().ok());
    owner.is_some_and(|pid| ticks.is_some() && started(pid) == ticks)
}

/// Removes what killed tests have left; returns their names.
pub(super) fn sweep() -> BTreeSet<String> {
    let entries = fs::read_dir(PARENT).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut dead: BTreeSet<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    dead.extend(Groups::named(PREFIX));
    dead.retain(|name| !has_owner(name));
    dead.iter().for_each(|name| remove(name));
    dead
}

/// Removes what can be found by the name.
pub(super) fn remove(name: &str) {
    Groups::new(name).remove();
    let _ = fs::remove_dir_all(dir_of(name));
}

/// All that can be found of the hosts of that name, in words; `namespaces` are those of their networks. Empty: nothing.
pub(super) fn traces(name: &str, namespaces: &[u64]) -> Vec<String> {
    let mut out = Groups::new(name).traces();
    let dir = dir_of(name);
    out.extend(dir.exists().then(|| format!("directory {}", dir.display())));
    for pid in numbers_in("/proc") {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_there = super::netns_of(pid).is_some_and(|found| namespaces.contains(&found));
        if is_there || String::from_utf8_lossy(&command).contains(name) {
            out.push(format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    out.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")));
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = disks.filter_map(|disk| fs::read_to_string(disk.path().join("loop/backing_file")).ok());
    out.extend(files.filter(|file| file.contains(name)).map(|file| format!("disk of {}", file.trim())));
    out
}
