//! The arrows of made-up workspaces.

use super::*;
use crate::metadata::{Dependency, DependencyKind, Node, Package, Resolve};

/// A workspace under `/w` of crates in directories, with arrows `(from, to, kind)`.
fn metadata(crates: &[(&str, &str)], arrows: &[(&str, &str, Option<&str>)]) -> Metadata {
    let package = |(name, dir): &(&str, &str)| Package {
        id: format!("id:{name}"),
        name: (*name).to_owned(),
        manifest_path: Path::new("/w").join(dir).join("Cargo.toml"),
    };
    let node = |(name, _): &(&str, &str)| Node {
        id: format!("id:{name}"),
        deps: arrows.iter().filter(|(from, ..)| from == name).map(dependency).collect(),
    };
    Metadata {
        packages: crates.iter().map(package).collect(),
        workspace_members: crates
            .iter()
            .filter(|(_, dir)| !dir.starts_with("registry"))
            .map(|(name, _)| format!("id:{name}"))
            .collect(),
        workspace_root: "/w".into(),
        target_directory: "/w/target".into(),
        resolve: Resolve { nodes: crates.iter().map(node).collect() },
    }
}

fn dependency((_, to, kind): &(&str, &str, Option<&str>)) -> Dependency {
    Dependency { pkg: format!("id:{to}"), dep_kinds: vec![DependencyKind { kind: kind.map(str::to_owned) }] }
}

const CRATES: [(&str, &str); 13] = [
    ("heptad-model", "crates/core/model"),
    ("heptad-sched", "crates/core/sched"),
    ("heptad-state", "crates/io/state"),
    ("heptad-control", "crates/svc/control"),
    ("heptad-client", "crates/svc/client"),
    ("heptad-proxy", "crates/svc/proxy"),
    ("heptad", "crates/heptad"),
    ("xtask", "dev/xtask"),
    ("regex", "registry/regex"),
    ("tokio", "registry/tokio"),
    ("between", "registry/between"),
    ("microlp", "registry/microlp"),
    ("web-time", "registry/web-time"),
];

fn found(arrows: &[(&str, &str, Option<&str>)]) -> Vec<String> {
    violations(&metadata(&CRATES, arrows))
}

#[test]
fn the_architecture_is_allowed() {
    let arrows = [
        ("heptad-sched", "heptad-model", None),
        ("heptad-state", "tokio", None),
        ("heptad-control", "heptad-sched", None),
        ("heptad-control", "heptad-state", None),
        ("heptad-control", "heptad-client", Some("dev")),
        ("heptad", "heptad-control", None),
        ("heptad", "heptad-proxy", None),
        ("xtask", "heptad", None),
        ("heptad-sched", "regex", None),
    ];
    assert_eq!(found(&arrows), Vec::<String>::new());
}

#[test]
fn each_forbidden_arrow_is_named() {
    for (from, to, kind) in [
        ("heptad-model", "heptad-sched", None),
        ("heptad-sched", "heptad-state", None),
        ("heptad-state", "heptad-sched", None),
        ("heptad-proxy", "heptad-control", None),
        ("heptad-control", "heptad-client", None),
        ("heptad-control", "heptad-client", Some("build")),
        ("heptad-proxy", "heptad-state", Some("dev")),
        ("heptad-control", "heptad", None),
        ("heptad-control", "xtask", Some("dev")),
        ("heptad", "xtask", None),
    ] {
        let found = found(&[(from, to, kind)]);
        assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
        assert!(found[0].starts_with(&format!("{from} -> {to}: forbidden because ")), "{found:?}");
    }
}

#[test]
fn core_may_not_reach_a_runtime_by_any_way() {
    let arrows = [("heptad-sched", "regex", None), ("regex", "between", None), ("between", "tokio", None)];
    assert_eq!(
        found(&arrows),
        [
            "heptad-sched -> tokio: forbidden because core crates run nothing (by heptad-sched -> regex -> between -> tokio)"
        ]
    );
}

#[test]
fn core_may_reach_a_clock_only_where_a_decision_says_so() {
    let mut arrows = vec![("heptad-sched", "microlp", None), ("microlp", "web-time", None)];
    assert_eq!(found(&arrows), Vec::<String>::new());
    arrows.extend([("heptad-sched", "regex", None), ("regex", "web-time", None)]);
    assert_eq!(
        found(&arrows),
        ["heptad-sched -> web-time: forbidden because time is an argument (by heptad-sched -> regex -> web-time)"]
    );
}

#[test]
fn tests_of_core_and_of_its_dependencies_may_use_a_runtime() {
    let arrows =
        [("heptad-sched", "tokio", Some("dev")), ("heptad-sched", "regex", None), ("regex", "tokio", Some("dev"))];
    assert_eq!(found(&arrows), Vec::<String>::new());
}

#[test]
fn crates_lie_where_their_name_says_and_are_known() {
    let crates = [
        ("heptad-model", "crates/io/model"),
        ("heptad-sched", "crates/core/scheduler"),
        ("heptad-other", "crates/svc/other"),
        ("heptad-lost", "lost"),
    ];
    let found = violations(&metadata(&crates, &[]));
    let starts = ["heptad-lost: it lies on no shelf", "heptad-model: it lies on the shelf io, not core"];
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(starts.iter().all(|start| found.iter().any(|line| line.starts_with(start))), "{found:#?}");
}

#[test]
fn rules_speak_only_of_crates_that_have_rules() {
    for rule in RULES {
        for name in rule.may_use.iter().chain(rule.tests_may_use) {
            assert!(RULES.iter().any(|other| other.name == *name), "{} may use {name}, which is unknown", rule.name);
        }
    }
}

#[test]
fn this_repository_keeps_its_arrows() {
    let root = workspace::root().expect("it has a root");
    let metadata = metadata::load(&root).expect("cargo knows the workspace");
    assert_eq!(violations(&metadata), Vec::<String>::new());
    assert!(metadata.workspace_members.len() > 10);
}
