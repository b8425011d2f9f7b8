//! What this node can enforce and how much it has, read from the kernel. Decides nothing: it reports limits that cannot
//! be enforced, so that placement can refuse them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupMode, Hierarchies};

/// The resources of one node. Whatever is `false` here makes a start fail that needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    pub cgroup_mode: CgroupMode,
    pub limits_cpu: bool,
    pub limits_memory: bool,
    /// Swap is bounded with the memory.
    pub limits_swap: bool,
    pub limits_pids: bool,
    /// Root, the needed namespaces and overlayfs are there.
    pub runs_containers: bool,
    /// What is missing if `runs_containers` is false; one sentence each.
    pub missing: Vec<String>,
    pub cgroup_namespaces: bool,
    pub user_namespaces: bool,
    pub seccomp: bool,
    pub nft: bool,
    /// Its own hard limit, the most that a container can get.
    pub open_files_max: u64,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub kernel: String,
    /// Of the machine, as uname says it (`x86_64`).
    pub architecture: String,
}

/// Checks once; costs a few milliseconds (it creates and removes a control group as a trial).
pub fn facts() -> NodeFacts {
    let hierarchies = Hierarchies::find();
    let root = nix::unistd::geteuid().is_root();
    let probe = if root { hierarchies.probe() } else { Default::default() };
    let missing = missing_for_containers(root, hierarchies.mode);
    let (kernel, architecture) = uname();
    NodeFacts {
        cgroup_mode: hierarchies.mode,
        limits_cpu: probe.cpu,
        limits_memory: probe.memory,
        limits_swap: probe.swap,
        limits_pids: probe.pids,
        runs_containers: missing.is_empty(),
        missing,
        cgroup_namespaces: namespace_exists("cgroup"),
        user_namespaces: namespace_exists("user"),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        nft: find_program("nft").is_some(),
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(_, hard)| hard),
        cpu_millis: std::thread::available_parallelism().map_or(1, |count| count.get() as u64) * 1_000,
        memory_bytes: memory_bytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        kernel,
        architecture,
    }
}

fn missing_for_containers(root: bool, mode: CgroupMode) -> Vec<String> {
    let mut missing = Vec::new();
    if !root {
        missing.push("containers need root".to_owned());
    }
    if mode == CgroupMode::None {
        missing.push("no control groups are mounted below /sys/fs/cgroup".to_owned());
    }
    for name in ["pid", "mnt", "uts", "ipc", "net"] {
        if !namespace_exists(name) {
            missing.push(format!("the kernel has no {name} namespaces"));
        }
    }
    let overlay_known = fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("overlay"));
    let overlay_module = PathBuf::from(format!("/lib/modules/{}/kernel/fs/overlayfs", uname().0));
    if !overlay_known && !overlay_module.exists() {
        missing.push("the kernel has no overlayfs".to_owned());
    }
    missing
}

fn namespace_exists(name: &str) -> bool {
    Path::new("/proc/self/ns").join(name).exists()
}

fn uname() -> (String, String) {
    nix::sys::utsname::uname().map_or_else(
        |_| (String::new(), std::env::consts::ARCH.to_owned()),
        |names| (names.release().to_string_lossy().into_owned(), names.machine().to_string_lossy().into_owned()),
    )
}

fn memory_bytes(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    kib.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// Finds a program in the usual places of system programs.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:       24000 kB\nMemFree: 1 kB\n"), 24_000 * 1_024);
        assert_eq!(memory_bytes("garbage"), 0);
    }
}
