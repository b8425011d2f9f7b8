//! A host's control group in every hierarchy of the machine, v1, v2 or both: through it everything of a host is found,
//! even what a killed test has left. Knows no namespace.

use crate::machine::{collect_dirs, pids_of};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const ROOT: &str = "/sys/fs/cgroup";
const REMOVE_SECONDS_MAX: u64 = 10;
/// Where the processes of a v2 group are: a group that gives controllers to others has none of its own.
const LEAF: &str = "heptad-host";

/// The hierarchies: `.` if there is one for all controllers, else the directories of ROOT.
pub(super) fn hierarchies() -> Vec<String> {
    if Path::new(ROOT).join("cgroup.procs").exists() {
        return vec![".".to_owned()];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    // Some are links to others, such as `cpu` to `cpu,cpuacct`.
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = real.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| Path::new(ROOT).join(name).join("cgroup.procs").exists());
    names.sort_unstable();
    names
}

/// One group, by its path below each hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    path: String,
}

impl Groups {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// All groups of ROOT with that beginning of their name.
    pub(super) fn named(prefix: &str) -> BTreeSet<String> {
        let tops = hierarchies().into_iter().map(|name| Path::new(ROOT).join(name));
        let entries = tops.flat_map(|top| fs::read_dir(top).into_iter().flatten().flatten());
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    fn tops(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|name| Path::new(ROOT).join(name).join(&self.path)).collect()
    }

    /// Makes the group; what is above it gives it its controllers.
    pub(super) fn create(&self) -> std::io::Result<()> {
        for hierarchy in hierarchies() {
            let mut dir = Path::new(ROOT).join(hierarchy);
            for part in self.path.split('/') {
                give_controllers(&dir);
                let above = dir.clone();
                dir.push(part);
                fs::create_dir_all(&dir)?;
                // New v1 `cpuset` groups are empty.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let empty = |text: String| text.trim().is_empty();
                    if fs::read_to_string(dir.join(file)).is_ok_and(empty) && !dir.join("cgroup.controllers").exists() {
                        fs::write(dir.join(file), fs::read_to_string(above.join(file))?)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Moves the host's first processes out of the way, so that its group can give controllers to those below it.
    pub(super) fn settle(&self) -> std::io::Result<()> {
        for top in self.tops().into_iter().filter(|top| top.join("cgroup.controllers").exists()) {
            fs::create_dir_all(top.join(LEAF))?;
            for pid in pids_of(&top) {
                fs::write(top.join(LEAF).join("cgroup.procs"), pid.to_string())?;
            }
            give_controllers(&top);
        }
        Ok(())
    }

    /// The files into which a process writes itself to be in the host.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        let inner = |top: PathBuf| if top.join(LEAF).is_dir() { top.join(LEAF) } else { top };
        self.tops().into_iter().map(|top| inner(top).join("cgroup.procs")).collect()
    }

    fn all(&self) -> Vec<PathBuf> {
        let mut out = Vec::new();
        self.tops().iter().for_each(|top| collect_dirs(top, &mut out));
        out
    }

    /// The directories that exist, in words.
    pub(super) fn traces(&self) -> Vec<String> {
        self.all().iter().map(|dir| format!("control group {}", dir.display())).collect()
    }

    /// All processes in it and below.
    pub(super) fn pids(&self) -> BTreeSet<i32> {
        self.all().iter().flat_map(|dir| pids_of(dir)).collect()
    }

    /// The processes of the groups right below it whose names begin so, and of what is below these.
    pub(super) fn pids_below(&self, prefix: &str) -> BTreeSet<i32> {
        let tops = self.tops();
        let is_so = |dir: &Path| {
            let below = tops.iter().find_map(|top| dir.strip_prefix(top).ok());
            below.is_some_and(|below| below.to_string_lossy().starts_with(prefix))
        };
        self.all().iter().filter(|dir| is_so(dir)).flat_map(|dir| pids_of(dir)).collect()
    }

    /// Kills all that is in it, and removes it with all below.
    pub(super) fn remove(&self) {
        let until = Instant::now() + Duration::from_secs(REMOVE_SECONDS_MAX);
        while Instant::now() < until {
            let all = self.all();
            if all.is_empty() {
                return;
            }
            self.pids().into_iter().for_each(|pid| crate::machine::kill(pid, nix::sys::signal::Signal::SIGKILL));
            if all.iter().filter(|dir| fs::remove_dir(dir).is_err()).count() > 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Lets groups below this one in a v2 hierarchy limit what it can limit itself. One by one, because one may be refused.
fn give_controllers(dir: &Path) {
    let all = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in all.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}
