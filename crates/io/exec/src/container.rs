//! A driver's specification of one container. Knows no service, image reference or placement: the agent has resolved
//! these into paths, numbers and strings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use heptad_model::sandbox::{CAPABILITIES_ALLOWED, CAPABILITIES_DEFAULT, PIDS_MAX};
use heptad_model::{SIGTERM, USER_ID_MAX, Ulimit};
use serde::{Deserialize, Serialize};

use crate::error::SpecProblem;

/// The user of containers that name none and see the host's files.
pub const NOBODY_UID: u32 = 65_534;

const ARGS_MAX: usize = 4_096;
const ENV_MAX: usize = 4_096;
const MOUNTS_MAX: usize = 256;
const STRINGS_BYTES_MAX: usize = 96 * 1024;
/// Large enough for one record with every byte escaped.
const LOG_FILE_BYTES_MIN: u64 = 128 * 1024;
const ID_BYTES_MAX: usize = 128;

/// One container, ready to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// Unique on this node: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 128 bytes.
    pub id: String,
    /// Where its files come from. The process driver ignores it.
    pub rootfs: RootFs,
    /// Program and arguments. A program without `/` is looked up in `PATH`.
    pub args: Vec<String>,
    /// The whole environment; `PATH` is added if absent.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory inside the container, absolute.
    pub cwd: PathBuf,
    #[serde(default)]
    pub user: User,
    #[serde(default)]
    pub limits: Limits,
    /// Applied in this order, after the platform's own mounts.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Hidden in addition to the platform's own list.
    #[serde(default)]
    pub masked_paths: Vec<PathBuf>,
    #[serde(default)]
    pub network: Network,
    pub hostname: String,
    /// Content of `/etc/resolv.conf`; the rootfs's own file if absent.
    #[serde(default)]
    pub resolv_conf: Option<String>,
    /// Content of `/etc/hosts`; the rootfs's own file if absent.
    #[serde(default)]
    pub hosts: Option<String>,
    /// The exact set; see [`CAPABILITIES_DEFAULT`] and [`CAPABILITIES_ALLOWED`].
    #[serde(default = "default_capabilities")]
    pub capabilities: BTreeSet<String>,
    /// Always true for [`RootFs::Host`].
    #[serde(default)]
    pub read_only_root: bool,
    /// Kernel settings of its own name spaces, beside the platform's.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Whether the shim's first process in it stays above the program, as its reaper.
    #[serde(default)]
    pub init: bool,
    #[serde(default)]
    pub log: LogLimits,
    /// The time between the stop signal and SIGKILL when the caller of stop names no other.
    #[serde(default = "default_stop_grace_ms")]
    pub stop_grace_ms: u64,
    /// The signal that asks the container to end, 1 to 64.
    #[serde(default = "default_stop_signal")]
    pub stop_signal: i32,
    /// Not interpreted; returned by `list`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RootFs {
    /// Unpacked layers, top first. Writes go to a directory of the container's own, which is removed with it.
    Overlay { lower_dirs: Vec<PathBuf> },
    /// The host's root file system read-only, with a private `/tmp`, and with `/root`, `/home`, `/run`, password hashes
    /// and the platform's own data hidden. File systems mounted below `/` are not seen, but for `/usr`, `/opt`, `/nix`.
    Host,
}

/// Numeric ids: whoever knows the image's `/etc/passwd` resolves names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub additional_gids: Vec<u32>,
}

impl User {
    /// Whether the kernel takes the numbers literally: to it 4294967295 means "leave it as it is".
    fn is_valid(&self) -> bool {
        [self.uid, self.gid].iter().chain(&self.additional_gids).all(|id| *id <= USER_ID_MAX)
    }

    /// Whether it, or one of its groups, is root's.
    fn has_root(&self) -> bool {
        [self.uid, self.gid].iter().chain(&self.additional_gids).any(|id| *id == 0)
    }

    /// `nobody`, for containers that see the host's files.
    pub fn nobody() -> Self {
        Self { uid: NOBODY_UID, gid: NOBODY_UID, additional_gids: Vec::new() }
    }
}

/// The most that the container may use; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub cpu_millis: Option<u64>,
    /// Raised to [`heptad_model::MEMORY_BYTES_MIN`], below which no service is accepted.
    pub memory_bytes: Option<u64>,
    pub pids_max: u32,
    /// Clamped to what this process may grant.
    pub open_files_max: u64,
    /// Of each process, by their names in small letters; `nofile` goes before `open_files_max`.
    pub ulimits: BTreeMap<String, Ulimit>,
    pub shm_bytes: u64,
    /// 0 to 1000: how readily the kernel kills it when memory is short.
    pub oom_score_adj: i16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_millis: None,
            memory_bytes: None,
            pids_max: 1_024,
            open_files_max: 1 << 20,
            ulimits: BTreeMap::new(),
            shm_bytes: 64 << 20,
            // Containers are killed before the platform.
            oom_score_adj: 500,
        }
    }
}

/// One mount beside the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Mount {
    /// A file or directory of the host.
    Bind { source: PathBuf, target: PathBuf, read_only: bool },
    /// Memory, released with the container and counted against its memory limit.
    Tmpfs { target: PathBuf, size_bytes: u64, mode: u32 },
}

impl Mount {
    /// Where it appears in the container.
    pub fn target(&self) -> &PathBuf {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// The network the container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A new, empty namespace.
    #[default]
    None,
    /// An existing namespace, by path.
    Namespace(PathBuf),
    /// The host's own. Only where a policy allows it; the process driver always works like this.
    Host,
}

/// Bounds of what a container's output may occupy: `file_bytes_max * files_max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogLimits {
    pub file_bytes_max: u64,
    pub files_max: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes_max: 8 * 1024 * 1024, files_max: 3 }
    }
}

fn default_capabilities() -> BTreeSet<String> {
    CAPABILITIES_DEFAULT.iter().map(|name| (*name).to_owned()).collect()
}

fn default_stop_grace_ms() -> u64 {
    10_000
}

fn default_stop_signal() -> i32 {
    SIGTERM
}

impl ContainerSpec {
    /// A container with the defaults: capabilities of [`CAPABILITIES_DEFAULT`], no network, no limits but pids.
    /// With [`RootFs::Host`] it has no capability and runs as nobody.
    pub fn new(id: impl Into<String>, rootfs: RootFs, args: Vec<String>) -> Self {
        let id = id.into();
        let host = rootfs == RootFs::Host;
        Self {
            hostname: id.chars().take(63).collect(),
            id,
            rootfs,
            args,
            env: BTreeMap::new(),
            cwd: PathBuf::from("/"),
            user: if host { User::nobody() } else { User::default() },
            limits: Limits::default(),
            mounts: Vec::new(),
            masked_paths: Vec::new(),
            network: Network::None,
            resolv_conf: None,
            hosts: None,
            capabilities: if host { BTreeSet::new() } else { default_capabilities() },
            read_only_root: host,
            sysctls: BTreeMap::new(),
            init: false,
            log: LogLimits::default(),
            stop_grace_ms: default_stop_grace_ms(),
            stop_signal: SIGTERM,
            labels: BTreeMap::new(),
        }
    }

    /// All mistakes in it, at once.
    pub fn problems(&self) -> Vec<SpecProblem> {
        let mut found = Problems::default();
        found.check(id_is_valid(&self.id), "id", "1 to 128 of [A-Za-z0-9_.-], the first a letter or digit");
        found.check((1..=ARGS_MAX).contains(&self.args.len()), "args", "1 to 4096 strings");
        found.check(self.args.first().is_some_and(|program| !program.is_empty()), "args[0]", "a program");
        found.check(self.args.iter().all(|arg| !arg.contains('\0')), "args", "no NUL byte");
        found.check(self.env.len() <= ENV_MAX, "env", "at most 4096 variables");
        found.check(self.env.iter().all(env_is_valid), "env", "names without `=`, nothing with a NUL byte");
        found.check(self.strings_bytes() <= STRINGS_BYTES_MAX, "args and env", "at most 96 KiB together");
        let clean = self.cwd.is_absolute() && !self.cwd.components().any(|part| part.as_os_str() == "..");
        found.check(clean, "cwd", "an absolute path without `..`");
        found.check(self.user.is_valid(), "user", "numbers from 0 to 2147483647");
        found.check((0..=1_000).contains(&self.limits.oom_score_adj), "limits.oom_score_adj", "0 to 1000");
        let contained = self.rootfs != RootFs::Host || self.capabilities.is_empty();
        found.check(contained, "capabilities", "none where the host's files are seen");
        let rootless = self.rootfs != RootFs::Host || !self.user.has_root();
        found.check(rootless, "user", "neither root nor its group where the host's files are seen");
        found.check((1..=64).contains(&self.stop_signal), "stop_signal", "1 to 64");
        found.check(hostname_is_valid(&self.hostname), "hostname", "1 to 63 of [A-Za-z0-9.-]");
        found.check((1..=PIDS_MAX).contains(&self.limits.pids_max), "limits.pids_max", "1 to 4194304");
        found.check(self.limits.cpu_millis != Some(0), "limits.cpu_millis", "at least 1");
        found.check(self.limits.open_files_max > 0, "limits.open_files_max", "at least 1");
        found.check(self.log.file_bytes_max >= LOG_FILE_BYTES_MIN, "log.file_bytes_max", "at least 131072");
        found.check((1..=100).contains(&self.log.files_max), "log.files_max", "1 to 100");
        self.check_mounts(&mut found);
        for name in &self.capabilities {
            let allowed = CAPABILITIES_ALLOWED.contains(&name.as_str());
            found.check(allowed, &format!("capabilities.{name}"), "one of the capabilities that may be given");
        }
        found.0
    }

    fn check_mounts(&self, found: &mut Problems) {
        found.check(self.mounts.len() <= MOUNTS_MAX, "mounts", "at most 256");
        for (index, mount) in self.mounts.iter().enumerate() {
            let target = mount.target();
            let clean = target.is_absolute() && !target.components().any(|part| part.as_os_str() == "..");
            found.check(clean, &format!("mounts[{index}].target"), "an absolute path without `..`");
            let hides_kernel = ["/proc", "/sys", "/dev"].iter().any(|kernel| target.starts_with(kernel));
            found.check(!hides_kernel, &format!("mounts[{index}].target"), "not below /proc, /sys or /dev");
            if let Mount::Bind { source, .. } = mount {
                found.check(source.is_absolute(), &format!("mounts[{index}].source"), "an absolute path");
            }
        }
        if let RootFs::Overlay { lower_dirs } = &self.rootfs {
            let usable = !lower_dirs.is_empty() && lower_dirs.iter().all(|dir| dir.is_absolute());
            found.check(usable, "rootfs.overlay.lower_dirs", "one or more absolute paths");
        }
    }

    fn strings_bytes(&self) -> usize {
        let args: usize = self.args.iter().map(|arg| arg.len() + 1).sum();
        let env: usize = self.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        args + env
    }
}

#[derive(Default)]
struct Problems(Vec<SpecProblem>);

impl Problems {
    fn check(&mut self, holds: bool, path: &str, expected: &'static str) {
        if !holds {
            self.0.push(SpecProblem { path: path.to_owned(), expected });
        }
    }
}

pub(crate) fn id_is_valid(id: &str) -> bool {
    id.len() <= ID_BYTES_MAX
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn hostname_is_valid(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn env_is_valid((name, value): (&String, &String)) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

impl fmt::Display for RootFs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlay { lower_dirs } => write!(out, "overlay of {} layers", lower_dirs.len()),
            Self::Host => out.write_str("the host's root"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec::new("web-1", RootFs::Host, vec!["/bin/true".to_owned()])
    }

    #[test]
    fn a_host_container_is_unprivileged_by_default() {
        let spec = spec();
        assert_eq!(spec.problems(), vec![]);
        assert_eq!((spec.user.uid, spec.capabilities.len(), spec.read_only_root), (65_534, 0, true));
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut spec = spec();
        spec.id = "../x".to_owned();
        spec.cwd = PathBuf::from("relative");
        spec.capabilities.insert("CAP_SYS_ADMIN".to_owned());
        spec.mounts.push(Mount::Tmpfs { target: PathBuf::from("/a/../proc"), size_bytes: 1, mode: 0o755 });
        spec.mounts.push(Mount::Tmpfs { target: PathBuf::from("/proc/x"), size_bytes: 1, mode: 0o755 });
        let paths: Vec<_> = spec.problems().into_iter().map(|problem| problem.path).collect();
        assert_eq!(
            paths,
            ["id", "cwd", "capabilities", "mounts[0].target", "mounts[1].target", "capabilities.CAP_SYS_ADMIN"]
        );
    }

    #[test]
    fn no_user_is_what_the_kernel_reads_as_another() {
        let paths = |rootfs: &RootFs, uid, gid, more: &[u32]| {
            let mut spec = ContainerSpec::new("a", rootfs.clone(), vec!["x".to_owned()]);
            spec.user = User { uid, gid, additional_gids: more.to_vec() };
            spec.problems().into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        let image = RootFs::Overlay { lower_dirs: vec![PathBuf::from("/l")] };
        for rootfs in [&image, &RootFs::Host] {
            assert_eq!(paths(rootfs, u32::MAX, 5, &[]), ["user"]);
            assert_eq!(paths(rootfs, 5, u32::MAX, &[]), ["user"]);
            assert_eq!(paths(rootfs, 5, 5, &[6, USER_ID_MAX + 1]), ["user"]);
            assert_eq!(paths(rootfs, 5, USER_ID_MAX, &[6]), Vec::<String>::new());
        }
        assert_eq!(paths(&image, 0, 0, &[0]), Vec::<String>::new());
        for (uid, gid, more) in [(0, 5, vec![]), (5, 0, vec![]), (5, 5, vec![0])] {
            assert_eq!(paths(&RootFs::Host, uid, gid, &more), ["user"]);
        }
    }

    #[test]
    fn old_files_without_the_optional_fields_are_read() {
        let text = r#"{"id":"a","rootfs":"host","args":["x"],"cwd":"/","hostname":"a"}"#;
        let spec: ContainerSpec = serde_json::from_str(text).expect("the minimal form");
        assert_eq!(spec.capabilities.len(), CAPABILITIES_DEFAULT.len());
        assert_eq!(spec.limits.pids_max, 1_024);
    }
}
