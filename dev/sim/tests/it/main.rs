//! Tests of the simulation itself: the same seed gives the same log, and planted defects are found.

use std::process::{Command, Output};

/// Seeds within which every defect must be found.
const SEEDS_MAX: u64 = 60;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heptad-sim")).args(arguments).output().expect("the simulation runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in ["3", "4", "5", "6"] {
        let (first, second) = (sim(&["--seed", seed, "--log"]), sim(&["--seed", seed, "--log"]));
        assert!(text(&first).contains(" hash "), "{}", text(&first));
        let different = text(&first).lines().zip(text(&second).lines()).position(|(a, b)| a != b);
        assert_eq!(different, None, "seed {seed}: the first line that differs");
        assert_eq!(text(&first), text(&second), "seed {seed}");
    }
}

#[test]
fn other_seeds_give_other_logs() {
    let hash = |seed| text(&sim(&["--seed", seed])).rsplit(' ').next().map(str::to_owned);
    assert_ne!(hash("3"), hash("4"));
}

/// The seeds that fail say why, and how to run them alone.
fn is_found(mutation: &str) {
    for seed in 0..SEEDS_MAX {
        let output = sim(&["--seed", &seed.to_string(), "--mutation", mutation]);
        if !output.status.success() {
            let said = text(&output);
            assert!(said.contains(&format!("seed {seed}: FAILED: ")), "{said}");
            assert!(said.contains(&format!("--seed {seed} --mutation {mutation} --log")), "{said}");
            return;
        }
    }
    panic!("{mutation} was not found within {SEEDS_MAX} seeds");
}

#[test]
fn commits_that_do_not_compare_what_nodes_gave_are_found() {
    is_found("blind-allocations");
}

#[test]
fn commits_that_do_not_compare_a_services_set_are_found() {
    is_found("blind-replicas");
}

#[test]
fn commits_that_do_not_compare_containers_are_found() {
    is_found("blind-containers");
}

#[test]
fn leaders_that_were_replaced_and_write_are_found() {
    is_found("blind-generation");
}

#[test]
fn lost_writes_are_found() {
    is_found("lost-writes");
}

#[test]
fn watches_that_skip_changes_are_found() {
    is_found("skipped-events");
}

#[test]
fn agents_that_take_what_is_not_theirs_are_found() {
    is_found("greedy-agents");
}

#[test]
fn agents_that_do_not_stop_containers_are_found() {
    is_found("deaf-agents");
}

#[test]
fn agents_that_start_what_is_finished_are_found() {
    is_found("restless-agents");
}

#[test]
fn many_seeds_are_counted_and_a_failure_is_theirs() {
    let good = sim(&["--seeds", "0..3"]);
    assert!(good.status.success() && text(&good).contains("3 of 3 seeds"), "{}", text(&good));
    let bad = sim(&["--seeds", "0..2", "--mutation", "greedy-agents"]);
    assert!(!bad.status.success() && text(&bad).contains("failed seeds"), "{}", text(&bad));
    let late = sim(&["--seeds", "0..100", "--jobs", "1", "--time-limit-s", "0"]);
    assert!(!late.status.success() && text(&late).contains("only"), "{}", text(&late));
}
