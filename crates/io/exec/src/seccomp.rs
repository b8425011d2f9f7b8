//! The system calls that containers may make: the usual allow-list of container engines, kept as data beside this file,
//! compiled to BPF here, and put into the form of `config.json` for an external runtime.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, TargetArch, compile_from_json, sock_filter};
use serde::Deserialize;
use serde_json::{Value, json};

const ALLOWED: &str = include_str!("seccomp/allowed.json");

/// The newest call at the time the list was made. Newer ones answer "not implemented", on which programs fall back;
/// "not permitted" would make some of them give up.
const NEWEST_CALL: u32 = 462;
/// Its flags are behind a pointer, which a filter cannot see; libraries fall back to `clone`.
const CLONE3: u32 = 435;
/// New mount, cgroup, uts, ipc, user, pid, net and time namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
/// The execution domains of ordinary programs, with and without fixed addresses, and the query for the present one.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Why the profile is not available.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("no seccomp profile for the architecture {architecture}")]
    Architecture { architecture: String },
    #[error("cannot compile the seccomp profile")]
    Compile(#[source] seccompiler::Error),
}

#[derive(Deserialize)]
struct Allowed {
    every_architecture: Vec<String>,
    #[serde(flatten)]
    by_architecture: BTreeMap<String, Vec<String>>,
}

impl Allowed {
    fn names(architecture: &str) -> Option<Vec<String>> {
        let mut allowed: Self = serde_json::from_str(ALLOWED).expect("the file is part of the program and tested");
        let own = allowed.by_architecture.remove(architecture)?;
        allowed.every_architecture.extend(own);
        Some(allowed.every_architecture)
    }
}

/// The programs to install, in this order, for the machine that this program was built for.
pub(crate) fn compile(architecture: &str) -> Result<Vec<BpfProgram>, SeccompError> {
    let unknown = || SeccompError::Architecture { architecture: architecture.to_owned() };
    let target = TargetArch::try_from(architecture).map_err(|_| unknown())?;
    let mut rules: Vec<Value> = vec![json!({"syscall": "clone3"})];
    for name in Allowed::names(architecture).ok_or_else(unknown)? {
        rules.push(json!({ "syscall": name }));
    }
    rules.push(json!({"syscall": "clone", "args": [
        {"index": 0, "type": "qword", "op": {"masked_eq": CLONE_NAMESPACES}, "val": 0}]}));
    rules.push(json!({"syscall": "socket", "args": [{"index": 0, "type": "dword", "op": "ne", "val": AF_VSOCK}]}));
    for domain in PERSONALITIES {
        rules.push(json!({"syscall": "personality", "args": [
            {"index": 0, "type": "dword", "op": "eq", "val": domain}]}));
    }
    let filter = json!({"container": {
        "mismatch_action": {"errno": libc::EPERM}, "match_action": "allow", "filter": rules}});
    let mut compiled = compile_from_json(filter.to_string().as_bytes(), target).map_err(SeccompError::Compile)?;
    let allow_list = compiled.remove("container").expect("the filter was given this name above");
    Ok(vec![allow_list, not_implemented()])
}

/// If two filters refuse, the later one's error number is returned.
fn not_implemented() -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(JUMP_IF_GREATER, 2, 0, NEWEST_CALL),
        step(JUMP_IF_EQUAL, 1, 0, CLONE3),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

/// The same profile as `linux.seccomp` of a `config.json`.
pub(crate) fn oci_profile(architecture: &str) -> Option<Value> {
    let names = Allowed::names(architecture)?;
    let oci_architecture = format!("SCMP_ARCH_{}", architecture.to_uppercase());
    let mut rules = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}]}),
    ];
    for domain in PERSONALITIES {
        rules.push(json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": domain, "op": "SCMP_CMP_EQ"}]}));
    }
    Some(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": [oci_architecture],
        "syscalls": rules,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiles_for_every_architecture_that_it_names() {
        for architecture in ["x86_64", "aarch64", "riscv64"] {
            let programs = compile(architecture).expect("compiles");
            assert_eq!(programs.len(), 2);
            assert!(programs[0].len() > 250 && programs[0].len() < 4_096, "{}", programs[0].len());
        }
        assert!(matches!(compile("pdp11"), Err(SeccompError::Architecture { .. })));
    }

    #[test]
    fn what_reaches_the_host_is_not_in_the_list() {
        let names = Allowed::names("x86_64").expect("known");
        for refused in [
            "mount",
            "unshare",
            "setns",
            "keyctl",
            "add_key",
            "bpf",
            "reboot",
            "kexec_load",
            "init_module",
            "io_uring_setup",
            "userfaultfd",
            "perf_event_open",
            "open_by_handle_at",
            "pivot_root",
            "move_mount",
            "clone",
        ] {
            assert!(!names.iter().any(|name| name == refused), "{refused}");
        }
        for needed in ["execve", "futex", "epoll_wait", "openat", "fork", "rseq", "statx"] {
            assert!(names.iter().any(|name| name == needed), "{needed}");
        }
    }
}
