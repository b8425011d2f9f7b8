//! What a container may do and what it sees beside its resources: memory file systems, limits of its processes,
//! capabilities, kernel settings, names. The words are those of Docker and Compose.

use crate::{
    form::short_or_full,
    ids::is_label,
    quantity::Bytes,
    schema::text_schema,
    service::Service,
    settings::{PATH_BYTES_MAX, PATH_PATTERN, is_path},
    user::{Principal, principal_pattern},
    validate::{Found, HOST_BYTES_MAX},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::{borrow::Cow, collections::BTreeSet, path::Path};

/// The capabilities of a container that changes none: what the entry points of common images (nginx, postgres, redis)
/// need to hand over their files and step down to their own user, and nothing that reaches outside.
pub const CAPABILITIES_DEFAULT: &[&str] =
    &["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"];
/// All capabilities that a container may have. The others (`NET_ADMIN`, `NET_RAW`, `SYS_*`, `MKNOD`...) reach beyond it.
pub const CAPABILITIES_ALLOWED: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
];
/// Kernel settings that belong to the container's own network or its own shared memory and message queues.
const SYSCTLS: &[&str] = &[
    "fs.mqueue.msg_default",
    "fs.mqueue.msg_max",
    "fs.mqueue.msgsize_default",
    "fs.mqueue.msgsize_max",
    "fs.mqueue.queues_max",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",
];
/// Limits of processes. `nice`, `rtprio` and `rttime` are not among them: with these a process takes the processor from
/// others.
const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nofile",
    "nproc",
    "rss",
    "sigpending",
    "stack",
];

/// The size of a memory file system that names none.
const TMPFS_BYTES_DEFAULT: u64 = 64 << 20;
/// The smallest and the largest size of a memory file system.
const TMPFS_BYTES: (u64, u64) = (4 << 10, 1 << 40);
/// The most processes and threads of one container.
pub const PIDS_MAX: u32 = 1 << 22;
/// The longest value of a kernel setting.
const SYSCTL_CHARS_MAX: usize = 256;
/// The longest host name, as the kernel has it.
pub(crate) const HOSTNAME_BYTES_MAX: usize = 63;
/// How readily a container is killed when memory is short: at least as readily as the platform's own processes.
pub(crate) const OOM_SCORE_ADJ_MAX: i16 = 1_000;

/// A file system in memory, empty at each start. In files a bare path means 64Mi.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "TmpfsForm")]
pub struct Tmpfs {
    /// Where it is in the container.
    pub path: String,
    /// How much it holds; it counts as memory of the container.
    pub size: Bytes,
    /// The mode of its directory in octal.
    pub mode: String,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum TmpfsForm {
    Path(#[schemars(with = "MountPoint")] String),
    Full(TmpfsFields),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TmpfsFields {
    #[schemars(with = "MountPoint")]
    path: String,
    #[serde(default = "tmpfs_size_default")]
    size: Bytes,
    #[serde(default = "tmpfs_mode_default")]
    #[schemars(regex(pattern = "^0*[01]?[0-7]{1,3}$"))]
    mode: String,
}

fn tmpfs_size_default() -> Bytes {
    Bytes(TMPFS_BYTES_DEFAULT)
}

fn tmpfs_mode_default() -> String {
    "1777".to_owned()
}

impl<'de> Deserialize<'de> for TmpfsForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_full(deserializer, "a path, or a path with size and mode", Self::Path, Self::Full)
    }
}

impl From<TmpfsForm> for Tmpfs {
    fn from(form: TmpfsForm) -> Self {
        let TmpfsFields { path, size, mode } = match form {
            TmpfsForm::Path(path) => TmpfsFields { path, size: tmpfs_size_default(), mode: tmpfs_mode_default() },
            TmpfsForm::Full(fields) => fields,
        };
        Self { path, size, mode }
    }
}

impl Tmpfs {
    /// The mode of its directory.
    pub fn mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o1777)
    }
}

/// The limit of a process; -1 is none. In files a bare number means both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "UlimitForm")]
pub struct Ulimit {
    /// The limit that holds; a process may raise it up to the other.
    pub soft: i64,
    /// The limit that only root may raise.
    pub hard: i64,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum UlimitForm {
    Both(#[schemars(range(min = -1, max = i64::MAX))] i64),
    Full(UlimitFields),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UlimitFields {
    #[schemars(range(min = -1, max = i64::MAX))]
    soft: i64,
    #[schemars(range(min = -1, max = i64::MAX))]
    hard: i64,
}

impl<'de> Deserialize<'de> for UlimitForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_full(deserializer, "a number (-1: no limit), or a soft and a hard one", Self::Both, Self::Full)
    }
}

impl From<UlimitForm> for Ulimit {
    fn from(form: UlimitForm) -> Self {
        match form {
            UlimitForm::Both(limit) => Self { soft: limit, hard: limit },
            UlimitForm::Full(UlimitFields { soft, hard }) => Self { soft, hard },
        }
    }
}

impl Ulimit {
    /// Soft and hard limit as the kernel has them: no limit is the largest number.
    pub fn values(self) -> (u64, u64) {
        let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
        (value(self.soft), value(self.hard))
    }
}

/// `CAP_CHOWN` of `chown`, `CHOWN` and `CAP_CHOWN`.
fn full_name(capability: &str) -> String {
    let upper = capability.to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

/// The capabilities of a container: the default ones without those of `drop` (`ALL`: without any), and those of `add`.
pub fn capabilities(add: &[String], drop: &[String]) -> BTreeSet<String> {
    let dropped: BTreeSet<String> = drop.iter().map(|name| full_name(name)).collect();
    let kept = CAPABILITIES_DEFAULT.iter().filter(|name| !dropped.contains("CAP_ALL") && !dropped.contains(**name));
    kept.map(|name| (*name).to_owned()).chain(add.iter().map(|name| full_name(name))).collect()
}

fn capability_pattern() -> String {
    let names: Vec<&str> = CAPABILITIES_ALLOWED.iter().map(|name| name.trim_start_matches("CAP_")).collect();
    format!("^(CAP_)?({})$", names.join("|"))
}

text_schema!(
    /// A capability that may be added.
    pub(crate) AddedCapability,
    { "type": "string", "pattern": capability_pattern() }
);
text_schema!(
    /// A capability that may be dropped.
    pub(crate) DroppedCapability,
    { "type": "string", "pattern": "^[A-Z][A-Z_]{0,62}$" }
);
text_schema!(
    /// A name of a kernel setting.
    pub(crate) SysctlName,
    { "enum": SYSCTLS }
);
text_schema!(
    /// A value of a kernel setting.
    pub(crate) SysctlValue,
    { "type": "string", "pattern": r"^[^\x00-\x1f]+$", "maxLength": SYSCTL_CHARS_MAX }
);
text_schema!(
    /// A name of a limit of processes.
    pub(crate) UlimitName,
    { "enum": ULIMITS }
);
text_schema!(
    /// A group by number or name.
    pub(crate) GroupName,
    { "type": "string", "pattern": principal_pattern() }
);
text_schema!(
    /// An absolute path.
    pub(crate) PathText,
    { "type": "string", "maxLength": PATH_BYTES_MAX, "anyOf": [{ "const": "/" }, { "pattern": PATH_PATTERN }] }
);
text_schema!(
    /// Where something may be mounted.
    MountPoint,
    {
        "type": "string",
        "maxLength": PATH_BYTES_MAX,
        "pattern": PATH_PATTERN,
        "not": { "pattern": "^/+(proc|sys|dev)(/|$)" },
    }
);

/// What is wrong with these fields of a service.
pub(crate) fn validate(found: &mut Found, service: &Service) {
    let path_problem = "it must be an absolute path without `.` and `..`";
    if let Some(dir) = &service.working_dir {
        found.unless(dir == "/" || is_path(dir), "working_dir", path_problem);
    }
    memory(found, service);
    for (field, count) in [
        ("ulimits", service.ulimits.len()),
        ("cap_add", service.cap_add.len()),
        ("cap_drop", service.cap_drop.len()),
        ("extra_hosts", service.extra_hosts.len()),
        ("group_add", service.group_add.len()),
    ] {
        found.count(field, count);
    }
    kernel(found, service);
    capabilities_problems(found, service);
    if let Some(name) = &service.hostname {
        let good = name.len() <= HOSTNAME_BYTES_MAX && name.split('.').all(is_label);
        found.unless(
            good,
            "hostname",
            format!("`{name}` is not a host name of at most {HOSTNAME_BYTES_MAX} characters"),
        );
    }
    for name in service.extra_hosts.keys() {
        let good = name.len() <= HOST_BYTES_MAX && name.split('.').all(is_label);
        found.unless(good, format!("extra_hosts.{name}"), "it is not a host name");
    }
    for (i, group) in service.group_add.iter().enumerate() {
        if let Err(problem) = group.parse::<Principal>() {
            found.unless(false, format!("group_add[{i}]"), problem);
        }
    }
    if let Some(limit) = service.pids_limit {
        found.between("pids_limit", limit.into(), 1, PIDS_MAX.into());
    }
    if let Some(score) = service.oom_score_adj {
        let message =
            format!("{score} is not from 0 to {OOM_SCORE_ADJ_MAX}; a negative one would put the platform at risk");
        found.unless((0..=OOM_SCORE_ADJ_MAX).contains(&score), "oom_score_adj", message);
    }
}

fn memory(found: &mut Found, service: &Service) {
    found.count("tmpfs", service.tmpfs.len());
    let (least, most) = TMPFS_BYTES;
    let mut paths = BTreeSet::new();
    for (i, tmpfs) in service.tmpfs.iter().enumerate() {
        let kernel = ["/proc", "/sys", "/dev"].iter().any(|dir| Path::new(&tmpfs.path).starts_with(dir));
        let path = format!("tmpfs[{i}].path");
        found.unless(is_path(&tmpfs.path), &path, "it must be an absolute path without `.` and `..`, and not `/`");
        found.unless(!kernel, &path, "nothing is mounted below /proc, /sys and /dev; for /dev/shm there is `shm_size`");
        found.unless(paths.insert(Path::new(&tmpfs.path)), path, "the path is listed twice");
        found.between(&format!("tmpfs[{i}].size"), tmpfs.size.0, least, most);
        let is_mode = u32::from_str_radix(&tmpfs.mode, 8).is_ok_and(|mode| mode <= 0o1777);
        found.unless(is_mode, format!("tmpfs[{i}].mode"), "write it in octal, as in \"1777\"");
    }
    if let Some(size) = service.shm_size {
        found.between("shm_size", size.0, least, most);
    }
}

fn kernel(found: &mut Found, service: &Service) {
    for (name, limit) in &service.ulimits {
        let path = format!("ulimits.{name}");
        let message = format!("there is no such limit for a container; possible: {}", ULIMITS.join(", "));
        found.unless(ULIMITS.contains(&name.as_str()), &path, message);
        found.unless(limit.soft >= -1 && limit.hard >= -1, &path, "a limit is at least 0; -1 means no limit");
        let (soft, hard) = limit.values();
        found.unless(soft <= hard, path, "the soft limit is above the hard one");
    }
    for (name, value) in &service.sysctls {
        let path = format!("sysctls.{name}");
        let message = format!("a container cannot set it for itself alone; possible: {}", SYSCTLS.join(", "));
        found.unless(SYSCTLS.contains(&name.as_str()), &path, message);
        let good = (1..=SYSCTL_CHARS_MAX).contains(&value.chars().count()) && !value.contains(|c: char| c < ' ');
        found.unless(good, path, format!("a value has 1 to {SYSCTL_CHARS_MAX} characters"));
    }
}

fn capabilities_problems(found: &mut Found, service: &Service) {
    for (i, name) in service.cap_add.iter().enumerate() {
        let message = format!(
            "`{name}` cannot be added: it would reach beyond the container, or does not exist; possible: {}",
            CAPABILITIES_ALLOWED.join(", ")
        );
        found.unless(CAPABILITIES_ALLOWED.contains(&&*full_name(name)), format!("cap_add[{i}]"), message);
    }
    for (i, name) in service.cap_drop.iter().enumerate() {
        let good =
            (1..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        found.unless(good, format!("cap_drop[{i}]"), "name a capability such as `CHOWN`, or `ALL`");
    }
    if service.image == "host" {
        let message = "a container that sees the host's files cannot have it; leave it out, or use an image";
        found.unless(service.cap_add.is_empty(), "cap_add", message);
        found.unless(service.group_add.is_empty(), "group_add", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Validate;

    fn service(fields: &str) -> Service {
        let text = format!(r#"{{"name":"web","image":"nginx",{fields}}}"#);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn paths(service: &Service) -> Vec<String> {
        service.validate().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn short_and_full_forms_are_read() {
        let read = service(
            r#""tmpfs":["/run",{"path":"/tmp","size":"1Mi","mode":"755"}],"ulimits":{"nofile":1024,"core":{"soft":0,"hard":-1}}"#,
        );
        assert_eq!(read.tmpfs[0], Tmpfs { path: "/run".into(), size: Bytes::mib(64), mode: "1777".into() });
        assert_eq!((read.tmpfs[1].size, read.tmpfs[1].mode()), (Bytes::mib(1), 0o755));
        assert_eq!(read.ulimits["nofile"].values(), (1_024, 1_024));
        assert_eq!(read.ulimits["core"].values(), (0, u64::MAX));
        assert_eq!(paths(&read), Vec::<String>::new());
    }

    #[test]
    fn capabilities_are_the_default_ones_less_the_dropped_and_with_the_added() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(capabilities(&[], &[]).len(), CAPABILITIES_DEFAULT.len());
        let only = capabilities(&words("net_bind_service CAP_IPC_LOCK"), &words("ALL"));
        assert_eq!(only.into_iter().collect::<Vec<_>>(), ["CAP_IPC_LOCK", "CAP_NET_BIND_SERVICE"]);
        let fewer = capabilities(&[], &words("CHOWN CAP_KILL MKNOD"));
        assert_eq!(fewer.len(), CAPABILITIES_DEFAULT.len() - 2);
    }

    #[test]
    fn what_reaches_beyond_a_container_is_refused_by_name() {
        let bad = service(
            r#""working_dir":"srv","tmpfs":["/dev/shm","/a/../b",{"path":"/x","size":1},"/x","//"],"shm_size":1,
               "ulimits":{"rtprio":1,"nofile":{"soft":2,"hard":1}},"sysctls":{"vm.swappiness":"1","net.core.somaxconn":""},
               "cap_add":["NET_ADMIN","chown"],"cap_drop":["a b"],"hostname":"A_b","extra_hosts":{"B c":"10.0.0.1"},
               "group_add":["a:b"],"pids_limit":0,"oom_score_adj":-1"#,
        );
        assert_eq!(
            paths(&bad),
            [
                "working_dir",
                "tmpfs[0].path",
                "tmpfs[1].path",
                "tmpfs[2].size",
                "tmpfs[3].path",
                "tmpfs[4].path",
                "shm_size",
                "ulimits.nofile",
                "ulimits.rtprio",
                "sysctls.net.core.somaxconn",
                "sysctls.vm.swappiness",
                "cap_add[0]",
                "cap_drop[0]",
                "hostname",
                "extra_hosts.B c",
                "group_add[0]",
                "pids_limit",
                "oom_score_adj"
            ]
        );
        let mut host = service(r#""command":["/bin/true"],"cap_add":["CHOWN"],"group_add":["5"]"#);
        assert_eq!(paths(&host), Vec::<String>::new());
        host.image = "host".into();
        assert_eq!(paths(&host), ["cap_add", "group_add"]);
    }
}
