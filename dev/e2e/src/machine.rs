//! What one platform has on this machine: processes, control groups, links, rules, mounts, directories. Finds it by the
//! platform's instance and data directory, so that platforms beside it do not matter, and removes it.

use crate::image::try_tool;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const REMOVE_SECONDS_MAX: u64 = 10;

/// Fails unless the tests run as root.
pub fn require_root() {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    assert_eq!(id.stdout, b"0\n", "these tests make containers: run them as root");
}

/// A process of the machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it was started, in clock ticks after boot: with the number, this is unique.
    pub started: u64,
    /// Its words.
    pub command: String,
}

/// What belongs to one platform.
#[derive(Clone, Debug)]
pub struct Machine {
    instance: String,
    data_dir: PathBuf,
}

impl Machine {
    /// The platform whose data is there. It must have been started.
    pub fn of(data_dir: &Path) -> Self {
        let file = data_dir.join("platform.json");
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let value: serde_json::Value = serde_json::from_slice(&text).expect("platform.json is JSON");
        let instance = value["instance"].as_str().expect("it names the instance").to_owned();
        Self { instance, data_dir: data_dir.to_owned() }
    }

    /// The short name in links, tables and groups.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The processes in the platform's containers.
    pub fn container_processes(&self) -> Vec<Process> {
        let pids: BTreeSet<i32> = self.groups().iter().flat_map(|group| pids_of(group)).collect();
        pids.into_iter().filter_map(process).collect()
    }

    /// The processes that watch over containers.
    pub fn shims(&self) -> Vec<Process> {
        self.helpers().into_iter().filter(|process| process.command.contains("shim --bundle")).collect()
    }

    /// Shims and whatever else was started for the data directory.
    fn helpers(&self) -> Vec<Process> {
        let data_dir = self.data_dir.to_string_lossy().into_owned();
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let all = numbers_in("/proc").into_iter().filter(|pid| *pid != own).filter_map(process);
        all.filter(|process| process.command.contains(&data_dir)).collect()
    }

    /// The platform's control groups, deepest first.
    fn groups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        let tops = hierarchies.chain([root.to_owned()]).map(|top| top.join(format!("heptad-{}", self.instance)));
        let mut out = Vec::new();
        tops.for_each(|top| collect_dirs(&top, &mut out));
        out
    }

    fn links(&self) -> Vec<String> {
        let (bridge, pair) = (format!("hep-{}", self.instance), format!("hv{}-", self.instance));
        let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| *name == bridge || name.starts_with(&pair)).collect()
    }

    /// How many containers have a link to the platform's bridge.
    pub fn attached(&self) -> usize {
        self.links().iter().filter(|link| link.starts_with("hv")).count()
    }

    fn tables(&self) -> Vec<String> {
        let listed = try_tool("nft", &["list", "tables"]).unwrap_or_default();
        let own = format!("heptad_{}", self.instance);
        listed.lines().filter(|line| line.ends_with(&own)).map(str::to_owned).collect()
    }

    fn runtime_dir(&self) -> PathBuf {
        Path::new("/run/heptad").join(&self.instance)
    }

    /// Files of configs and secrets.
    fn settings_dir(&self) -> PathBuf {
        Path::new("/run/heptad").join(format!("{}-settings", self.instance))
    }

    fn mounts(&self) -> Vec<String> {
        let dirs = [self.runtime_dir(), self.data_dir.clone()];
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        points.filter(|point| dirs.iter().any(|dir| Path::new(point).starts_with(dir))).map(str::to_owned).collect()
    }

    /// The default socket, if it leads to this platform.
    fn link_to_socket(&self) -> Option<PathBuf> {
        let link = PathBuf::from("/run/heptad/api.sock");
        let target = fs::read_link(&link).ok()?;
        target.starts_with(&self.data_dir).then_some(link)
    }

    /// Everything of the platform that is on the machine, in words. Empty: nothing is left.
    pub fn traces(&self) -> Vec<String> {
        let mut out: Vec<String> = self.container_processes().iter().map(|p| format!("process {p:?}")).collect();
        out.extend(self.helpers().iter().map(|p| format!("process {p:?}")));
        out.extend(self.groups().iter().map(|group| format!("control group {}", group.display())));
        out.extend(self.links().iter().map(|link| format!("link {link}")));
        out.extend(self.tables().iter().map(|table| format!("rules {table}")));
        out.extend(self.mounts().iter().map(|mount| format!("mount {mount}")));
        let dirs = [self.runtime_dir(), self.settings_dir(), self.data_dir.clone()].map(Some);
        let dirs = dirs.into_iter().chain([self.link_to_socket()]);
        out.extend(dirs.flatten().filter(|dir| dir.exists()).map(|dir| format!("path {}", dir.display())));
        out
    }

    /// Removes everything. The platform's own process must have ended.
    pub fn remove(&self) {
        let until = Instant::now() + Duration::from_secs(REMOVE_SECONDS_MAX);
        loop {
            let shims = self.helpers();
            let mut doomed: BTreeSet<i32> = descendants(shims.iter().map(|shim| shim.pid));
            doomed.extend(self.container_processes().iter().map(|process| process.pid));
            if doomed.is_empty() || Instant::now() > until {
                break;
            }
            // Only numbers that were just found to be this platform's.
            let words: Vec<String> = doomed.iter().map(ToString::to_string).collect();
            let words: Vec<&str> = ["-9"].into_iter().chain(words.iter().map(String::as_str)).collect();
            let _ = try_tool("kill", &words);
            std::thread::sleep(Duration::from_millis(20));
        }
        for mount in self.mounts().iter().rev() {
            let _ = try_tool("umount", &["-l", mount]);
        }
        for table in self.tables() {
            let words: Vec<&str> = ["delete"].into_iter().chain(table.split(' ')).collect();
            let _ = try_tool("nft", &words);
        }
        for link in self.links() {
            let _ = try_tool("ip", &["link", "delete", &link]);
        }
        while !self.groups().is_empty() && Instant::now() < until {
            self.groups().iter().for_each(|group| drop(fs::remove_dir(group)));
        }
        if let Some(link) = self.link_to_socket() {
            let _ = fs::remove_file(link);
        }
        let _ = fs::remove_dir_all(self.runtime_dir());
        let _ = fs::remove_dir_all(self.settings_dir());
        let _ = fs::remove_dir_all(&self.data_dir);
    }
}

/// `top` and all directories below it, deepest first.
pub(crate) fn collect_dirs(top: &Path, out: &mut Vec<PathBuf>) {
    if !top.is_dir() {
        return;
    }
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        collect_dirs(&entry.path(), out);
    }
    out.push(top.to_owned());
}

pub(crate) fn pids_of(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

pub(crate) fn numbers_in(dir: &str) -> Vec<i32> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of `/proc/PID/stat` after the name, which may hold spaces.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = text.rsplit_once(") ")?;
    Some(after.split(' ').map(str::to_owned).collect())
}

pub(crate) fn process(pid: i32) -> Option<Process> {
    let fields = stat(pid)?;
    // A process that ended and was not yet waited for does not count.
    if fields.first()? == "Z" {
        return None;
    }
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&words).replace('\0', " ");
    Some(Process { pid, started: fields.get(19)?.parse().ok()?, command })
}

/// The processes and everything that they started.
pub(crate) fn descendants(roots: impl Iterator<Item = i32>) -> BTreeSet<i32> {
    let parents: BTreeMap<i32, i32> =
        numbers_in("/proc").into_iter().filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect();
    let mut out: BTreeSet<i32> = roots.collect();
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| out.contains(parent) && !out.contains(pid))
            .map(|(p, _)| *p)
            .collect();
        if more.is_empty() {
            return out;
        }
        out.extend(more);
    }
}

/// The processes that it started and that have not ended.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let is_child = |other: &i32| stat(*other).is_some_and(|fields| fields.get(1) == Some(&pid.to_string()));
    numbers_in("/proc").into_iter().filter(is_child).collect()
}

/// When it was started, in clock ticks after boot.
pub(crate) fn started(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Sends a signal; says nothing if nobody is there. Only to numbers that were just found to be the test's own.
pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    assert!(pid >= 0, "{pid} would mean many processes");
    if pid > 1 {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// Stops these processes (SIGSTOP).
pub(crate) fn pause(pids: impl IntoIterator<Item = i32>) {
    pids.into_iter().for_each(|pid| kill(pid, nix::sys::signal::Signal::SIGSTOP));
}

/// Lets stopped processes go on. Some stop themselves again when they see that their child is still stopped.
pub(crate) fn resume(pids: impl IntoIterator<Item = i32>) {
    let mut left: Vec<i32> = pids.into_iter().collect();
    let until = Instant::now() + Duration::from_secs(REMOVE_SECONDS_MAX);
    while !left.is_empty() && Instant::now() < until {
        left.iter().for_each(|pid| kill(*pid, nix::sys::signal::Signal::SIGCONT));
        std::thread::sleep(Duration::from_millis(5));
        left.retain(|pid| stat(*pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "T")));
    }
}
