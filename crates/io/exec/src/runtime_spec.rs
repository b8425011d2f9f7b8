//! From a container's specification to an OCI runtime specification: a pure function that writes every field itself, so
//! that no library's defaults slip in. Touches nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use heptad_model::MEMORY_BYTES_MIN;
use libcontainer::oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::container::{ContainerSpec, Mount, Network, RootFs};
use crate::driver::ExecCommand;
use crate::facts::NodeFacts;
use crate::seccomp;

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CPU_PERIOD_USEC: u64 = 100_000;
/// The kernel's longest period, for shares that would be below its smallest quota with the usual one.
const CPU_PERIOD_USEC_MAX: u64 = 1_000_000;
/// The kernel's smallest quota.
const CPU_QUOTA_USEC_MIN: u64 = 1_000;
const SHARES_PER_CPU: u64 = 1_024;

const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Among the host's files: password hashes, private keys.
const HOST_MASKED_PATHS: &[&str] = &[
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
];
/// Among the host's directories: shown empty.
const HOST_EMPTY_DIRS: &[&str] = &["/root", "/home", "/run", "/mnt", "/media"];

/// What the function needs besides the container's own specification.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    pub facts: &'a NodeFacts,
    /// An absolute path in every hierarchy.
    pub cgroup: &'a str,
    pub rootfs_dir: &'a Path,
    /// Files to show as `/etc/hosts` and so on: source, target.
    pub etc_files: &'a [(PathBuf, &'static str)],
    /// Where hierarchies of control groups are mounted on this node; shown at the same paths, read-only.
    pub cgroup_mounts: &'a [PathBuf],
    /// The platform's own directories, hidden from containers that see the host's files.
    pub hidden_dirs: &'a [PathBuf],
    /// Write the seccomp profile into the specification, for a runtime that reads it there.
    pub with_seccomp: bool,
}

/// The whole specification.
pub fn build(spec: &ContainerSpec, around: &Surroundings<'_>) -> Result<Spec, serde_json::Error> {
    let host = spec.rootfs == RootFs::Host;
    serde_json::from_value(json!({
        "ociVersion": "1.0.2",
        "root": {"path": around.rootfs_dir, "readonly": spec.read_only_root || host},
        "hostname": spec.hostname,
        "mounts": mounts(spec, around),
        "process": process(spec, around.facts, &ExecCommand { args: spec.args.clone(), ..ExecCommand::default() }),
        "linux": linux(spec, around),
    }))
}

/// The process of a container, or of a command in it.
pub(crate) fn process(spec: &ContainerSpec, facts: &NodeFacts, command: &ExecCommand) -> Value {
    let mut env = spec.env.clone();
    env.extend(command.env.clone());
    env.entry("PATH".to_owned()).or_insert_with(|| PATH_DEFAULT.to_owned());
    let env: Vec<String> = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let user = command.user.as_ref().unwrap_or(&spec.user);
    let mut user_value = json!({"uid": user.uid, "gid": user.gid, "umask": 0o022});
    if !user.additional_gids.is_empty() {
        user_value["additionalGids"] = json!(user.additional_gids);
    }
    json!({
        "terminal": false,
        "user": user_value,
        "args": command.args,
        "env": env,
        "cwd": command.cwd.as_ref().unwrap_or(&spec.cwd),
        "noNewPrivileges": true,
        "oomScoreAdj": spec.limits.oom_score_adj,
        // Nothing is inheritable or ambient: only files and root's own rules grant these.
        "capabilities": {
            "bounding": spec.capabilities,
            "effective": spec.capabilities,
            "permitted": spec.capabilities,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": rlimits(spec, facts),
    })
}

fn rlimits(spec: &ContainerSpec, facts: &NodeFacts) -> Vec<Value> {
    let files = spec.limits.open_files_max;
    let mut all = BTreeMap::from([("nofile", (files, files)), ("core", (0, 0))]);
    all.extend(spec.limits.ulimits.iter().map(|(name, limit)| (name.as_str(), limit.values())));
    let clamped = all.into_iter().map(|(name, (soft, hard))| {
        let most = if name == "nofile" { facts.open_files_max } else { u64::MAX };
        json!({"type": format!("RLIMIT_{}", name.to_ascii_uppercase()), "soft": soft.min(most), "hard": hard.min(most)})
    });
    clamped.collect()
}

fn mounts(spec: &ContainerSpec, around: &Surroundings<'_>) -> Vec<Value> {
    let mount = |kind: &str, target: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let shm_size = format!("size={}", spec.limits.shm_bytes);
    let mut all = vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
        mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        mount("cgroup", CGROUP_ROOT, &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    if spec.rootfs == RootFs::Host {
        for dir in HOST_EMPTY_DIRS.iter().filter(|dir| Path::new(dir).is_dir()) {
            all.push(mount("tmpfs", dir, &["nosuid", "nodev", "noexec", "mode=755", "size=1024k"]));
        }
        for dir in around.hidden_dirs {
            let target = dir.to_string_lossy();
            all.push(mount("tmpfs", &target, &["nosuid", "nodev", "noexec", "mode=755", "size=64k"]));
        }
        for dir in ["/tmp", "/var/tmp"] {
            all.push(mount("tmpfs", dir, &["nosuid", "nodev", "mode=1777", "size=262144k"]));
        }
    }
    for (source, target) in around.etc_files {
        all.push(bind(source, Path::new(target), true));
    }
    all.extend(spec.mounts.iter().map(|asked| match asked {
        Mount::Bind { source, target, read_only } => bind(source, target, *read_only),
        Mount::Tmpfs { target, size_bytes, mode } => json!({
            "destination": target, "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", format!("size={size_bytes}"), format!("mode={mode:o}")],
        }),
    }));
    all
}

fn bind(source: &Path, target: &Path, read_only: bool) -> Value {
    let access = if read_only { "ro" } else { "rw" };
    json!({"destination": target, "type": "bind", "source": source,
        "options": ["rbind", "rprivate", "nosuid", "nodev", access]})
}

fn linux(spec: &ContainerSpec, around: &Surroundings<'_>) -> Value {
    let mut masked: Vec<PathBuf> = MASKED_PATHS.iter().map(PathBuf::from).collect();
    if spec.rootfs == RootFs::Host {
        masked.extend(HOST_MASKED_PATHS.iter().map(PathBuf::from));
    }
    masked.extend(spec.masked_paths.iter().cloned());
    // Runtimes may mount the hierarchies writable below their read-only root: a read-only mount covers each.
    let mut read_only: Vec<PathBuf> = READ_ONLY_PATHS.iter().map(PathBuf::from).collect();
    read_only.push(PathBuf::from(CGROUP_ROOT));
    read_only.extend(around.cgroup_mounts.iter().filter(|point| *point != Path::new(CGROUP_ROOT)).cloned());
    let mut value = json!({
        "cgroupsPath": around.cgroup,
        "resources": resources(spec, around.facts),
        "namespaces": namespaces(spec, around.facts),
        "rootfsPropagation": "private",
        "maskedPaths": masked,
        "readonlyPaths": read_only,
        "devices": [],
    });
    let mut sysctls = BTreeMap::new();
    if spec.network != Network::Host {
        // The namespace is the container's own, so its low ports and its ping need no privilege.
        sysctls.insert("net.ipv4.ip_unprivileged_port_start", "0");
        sysctls.insert("net.ipv4.ping_group_range", "0 2147483647");
    }
    sysctls.extend(spec.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if !sysctls.is_empty() {
        value["sysctl"] = json!(sysctls);
    }
    if around.with_seccomp {
        value["seccomp"] = seccomp::oci_profile(&around.facts.architecture).unwrap_or(Value::Null);
    }
    value
}

fn namespaces(spec: &ContainerSpec, facts: &NodeFacts) -> Vec<Value> {
    let mut all: Vec<Value> = ["pid", "mount", "uts", "ipc"].iter().map(|kind| json!({"type": kind})).collect();
    if facts.cgroup_namespaces {
        all.push(json!({"type": "cgroup"}));
    }
    match &spec.network {
        Network::None => all.push(json!({"type": "network"})),
        Network::Namespace(path) => all.push(json!({"type": "network", "path": path})),
        Network::Host => {}
    }
    all
}

fn resources(spec: &ContainerSpec, facts: &NodeFacts) -> Value {
    let mut value = json!({
        "devices": [{"allow": false, "access": "rwm"}],
    });
    if facts.limits_pids {
        value["pids"] = json!({"limit": spec.limits.pids_max});
    }
    if let Some(asked) = spec.limits.memory_bytes {
        let bytes = asked.max(MEMORY_BYTES_MIN);
        value["memory"] = json!({ "limit": bytes });
        if facts.limits_swap {
            value["memory"]["swap"] = json!(bytes);
        }
    }
    if let Some(millis) = spec.limits.cpu_millis {
        let quota = |period: u64| millis.saturating_mul(period) / 1_000;
        let tiny = quota(CPU_PERIOD_USEC) < CPU_QUOTA_USEC_MIN;
        let period = if tiny { CPU_PERIOD_USEC_MAX } else { CPU_PERIOD_USEC };
        let shares = (millis.saturating_mul(SHARES_PER_CPU) / 1_000).clamp(2, 262_144);
        value["cpu"] = json!({"quota": quota(period), "period": period, "shares": shares});
    }
    value
}

#[cfg(test)]
mod tests;
