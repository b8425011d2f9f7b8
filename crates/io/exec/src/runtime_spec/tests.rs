//! What the specification says, field by field, for a few containers.

use std::collections::BTreeSet;

use super::*;
use crate::cgroup::CgroupMode;

fn facts() -> NodeFacts {
    NodeFacts {
        cgroup_mode: CgroupMode::V2,
        limits_cpu: true,
        limits_memory: true,
        limits_swap: true,
        limits_pids: true,
        runs_containers: true,
        missing: Vec::new(),
        cgroup_namespaces: true,
        user_namespaces: true,
        seccomp: true,
        nft: true,
        open_files_max: 20_000,
        cpu_millis: 2_000,
        memory_bytes: 1 << 34,
        kernel: "6.1".to_owned(),
        architecture: "x86_64".to_owned(),
    }
}

fn value(spec: &ContainerSpec, with_seccomp: bool) -> Value {
    let facts = facts();
    let hidden = [PathBuf::from("/var/lib/heptad")];
    let around = Surroundings {
        facts: &facts,
        cgroup: "/heptad/a/web",
        rootfs_dir: Path::new("/bundle/rootfs"),
        etc_files: &[],
        cgroup_mounts: &[PathBuf::from("/sys/fs/cgroup/memory")],
        hidden_dirs: &hidden,
        with_seccomp,
    };
    serde_json::to_value(build(spec, &around).expect("a specification")).expect("JSON")
}

fn overlay() -> ContainerSpec {
    let rootfs = RootFs::Overlay { lower_dirs: vec![PathBuf::from("/layers/a")] };
    ContainerSpec::new("web", rootfs, vec!["/bin/server".to_owned()])
}

#[test]
fn privileges_are_the_named_ones_only() {
    let value = value(&overlay(), false);
    let process = &value["process"];
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["capabilities"]["inheritable"], json!([]));
    assert_eq!(process["capabilities"]["ambient"], json!([]));
    let bounding: BTreeSet<String> =
        serde_json::from_value(process["capabilities"]["bounding"].clone()).expect("names");
    assert_eq!(bounding, overlay().capabilities);
}

#[test]
fn control_groups_are_covered_read_only() {
    let value = value(&overlay(), false);
    let paths = value["linux"]["readonlyPaths"].as_array().expect("a list").clone();
    assert!(paths.ends_with(&[json!("/sys/fs/cgroup"), json!("/sys/fs/cgroup/memory")]), "{paths:?}");
}

#[test]
fn limits_become_resources() {
    let mut spec = overlay();
    spec.limits.cpu_millis = Some(250);
    spec.limits.memory_bytes = Some(1);
    spec.limits.pids_max = 7;
    spec.limits.open_files_max = 1 << 30;
    let value = value(&spec, false);
    let resources = &value["linux"]["resources"];
    assert_eq!(resources["cpu"]["quota"], 25_000);
    assert_eq!(resources["cpu"]["period"], 100_000);
    assert_eq!(resources["cpu"]["shares"], 256);
    assert_eq!(resources["memory"]["limit"], MEMORY_BYTES_MIN);
    assert_eq!(resources["memory"]["swap"], MEMORY_BYTES_MIN);
    assert_eq!(resources["pids"]["limit"], 7);
    spec.limits.cpu_millis = Some(1);
    let cpu = self::value(&spec, false)["linux"]["resources"]["cpu"].clone();
    assert_eq!((cpu["quota"].as_u64(), cpu["period"].as_u64()), (Some(1_000), Some(1_000_000)), "as little as asked");
    let files = json!({"type": "RLIMIT_NOFILE", "soft": 20_000, "hard": 20_000});
    assert!(value["process"]["rlimits"].as_array().expect("a list").contains(&files), "{value}");
}

#[test]
fn no_namespace_of_the_host_is_shared_unless_asked() {
    let kinds = |spec: &ContainerSpec| -> BTreeSet<String> {
        let value = value(spec, false);
        let list = value["linux"]["namespaces"].as_array().expect("a list").clone();
        list.iter().map(|entry| entry["type"].as_str().expect("text").to_owned()).collect()
    };
    let all = ["cgroup", "ipc", "mount", "network", "pid", "uts"].map(str::to_owned);
    assert_eq!(kinds(&overlay()), BTreeSet::from(all));
    let mut spec = overlay();
    spec.network = Network::Host;
    assert!(!kinds(&spec).contains("network"));
    assert!(value(&spec, false)["linux"]["sysctl"].is_null());
}

#[test]
fn the_hosts_files_are_read_only_and_partly_hidden() {
    let spec = ContainerSpec::new("tool", RootFs::Host, vec!["/bin/true".to_owned()]);
    let value = value(&spec, false);
    assert_eq!(value["root"]["readonly"], true);
    assert_eq!(value["process"]["user"]["uid"], 65_534);
    let mounts = value["mounts"].as_array().expect("a list");
    for hidden in ["/root", "/home", "/run", "/var/lib/heptad", "/tmp"] {
        let found = mounts.iter().find(|mount| mount["destination"] == hidden).expect(hidden);
        assert_eq!(found["type"], "tmpfs");
    }
    let masked = value["linux"]["maskedPaths"].as_array().expect("a list");
    assert!(masked.contains(&json!("/etc/shadow")) && masked.contains(&json!("/proc/kcore")));
}

#[test]
fn seccomp_is_written_for_runtimes_that_read_it() {
    assert!(value(&overlay(), false)["linux"]["seccomp"].is_null());
    assert_eq!(value(&overlay(), true)["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
}

#[test]
fn commands_inherit_and_override() {
    let mut spec = overlay();
    spec.env.insert("A".to_owned(), "1".to_owned());
    spec.env.insert("B".to_owned(), "1".to_owned());
    let command = ExecCommand {
        args: vec!["id".to_owned()],
        env: [("B".to_owned(), "2".to_owned())].into(),
        cwd: Some(PathBuf::from("/srv")),
        ..ExecCommand::default()
    };
    let value = process(&spec, &facts(), &command);
    assert_eq!(value["env"], json!(["A=1", "B=2", format!("PATH={PATH_DEFAULT}")]));
    assert_eq!((value["cwd"].as_str(), value["user"]["uid"].as_u64()), (Some("/srv"), Some(0)));
}
