//! The optimiser on a live control plane: what it suggests, what it begins, what it does by itself, and what verify says.

use crate::common::{Agent, World, all_ready, node, service};
use heptad_api::{Manifest, operations::ApplyRequest, optimization::OptimizeRequest};
use heptad_control::{OptimizeMode, ServerParts};
use heptad_model::{Container, CpuMillis, Event, Namespace, NodeName, ResourceVector, Service, invariants::Guarantee};
use heptad_state::MemoryStore;
use std::{sync::Arc, time::Duration};

fn with_cpu(name: &str, cpu: u64) -> Service {
    let resources = ResourceVector { cpu_millis: CpuMillis(cpu), ..ResourceVector::ZERO };
    Service { resources: resources.into(), stop_grace_ms: 0, ..service(name, 1) }
}

/// Two nodes with 300 and 600 of 1,000 in use, after a container left.
async fn two_nodes_half_empty(mode: OptimizeMode) -> (World, [Agent; 2]) {
    let change = |options: &mut heptad_control::Options| {
        (options.optimize, options.optimize_interval_ms) = (mode, 100);
    };
    let world = World::with(Arc::new(MemoryStore::new()), change, ServerParts::default()).await;
    let agents = [
        Agent::start(&world.client, &node("n1", 1000, 4096)).await,
        Agent::start(&world.client, &node("n2", 1000, 4096)).await,
    ];
    for (i, (name, cpu)) in [("leaves", 600), ("stays", 600), ("small", 300)].into_iter().enumerate() {
        world.client.create(&with_cpu(name, cpu)).await.expect("created");
        world.containers_until(all_ready(i + 1)).await;
    }
    world.client.delete::<Service>(&Namespace::default(), "leaves", None).await.expect("deleted");
    (world, agents)
}

fn on_one_node(all: &[Container]) -> bool {
    all_ready(2)(all) && all[0].node == all[1].node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suggested_move_is_certified_and_frees_its_node_once_it_is_begun() {
    let (world, _agents) = two_nodes_half_empty(OptimizeMode::Off).await;
    world.containers_until(all_ready(2)).await;
    let found = world.client.optimization(None).await.expect("an answer");
    assert_eq!((found.nodes_used, found.nodes_used_after, found.moves.len(), found.begun), (2, 1, 1, 0), "{found:#?}");
    assert!(found.moves[0].now && found.moves[0].service.name == "small");
    let certified = &found.certified;
    assert_eq!((certified.cost_before, certified.cost), (200, 101), "two nodes; one node and a move");
    assert!(certified.lower_bound <= 101 && certified.lower_bound > 0, "{certified:?}");
    assert_eq!(world.client.optimization(Some(0)).await.expect("an answer").moves, [], "a budget of no moves");
    let begun = world.client.optimize(&OptimizeRequest::default()).await.expect("begun");
    assert_eq!(begun.begun, 1);
    let all = world.containers_until(on_one_node).await;
    assert_eq!(all[0].node, Some(NodeName::from("n2")));
    let found = world.client.optimization(None).await.expect("an answer");
    assert_eq!((found.nodes_used, found.moves.len(), found.certified.gap_ppm), (1, 0, 0), "{found:#?}");
    world.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_moves_by_itself_or_only_says_so() {
    let (world, _agents) = two_nodes_half_empty(OptimizeMode::Auto).await;
    world.containers_until(on_one_node).await;
    let (world, _agents) = two_nodes_half_empty(OptimizeMode::Suggest).await;
    let suggested = || async {
        let events = world.client.list::<Event>().await.expect("a list").items;
        events.iter().any(|item| item.object.reason == "Suggestion" && item.object.subject == "node/n1")
    };
    crate::common::until("a suggestion", suggested).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let events = world.client.list::<Event>().await.expect("a list").items;
    assert_eq!(events.iter().filter(|item| item.object.reason == "Suggestion").count(), 1, "it is said once");
    assert!(!on_one_node(&world.containers().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_a_plan_say_how_far_from_the_best_they_are() {
    let (world, _agents) = two_nodes_half_empty(OptimizeMode::Off).await;
    world.containers_until(all_ready(2)).await;
    let report = world.client.verify().await.expect("an answer");
    assert_eq!(report.guarantees.len(), Guarantee::ALL.len());
    let of = |id| report.guarantees.iter().find(|report| report.id == id).expect("it is told");
    let optimality = of(Guarantee::G5);
    assert!(optimality.checked && optimality.figures[0].contains("P = 200"), "{optimality:?}");
    let fullness = of(Guarantee::G7);
    let mergeable =
        |condition: &heptad_api::report::ConditionReport| !condition.holds && condition.condition.contains("n1");
    assert!(fullness.conditions.iter().any(mergeable), "{fullness:?}");
    assert!(report.holds());
    let request = ApplyRequest { objects: vec![Manifest::Service(with_cpu("new", 400))] };
    let plain = world.client.plan(&request).await.expect("a plan");
    assert_eq!(plain.optimal, None);
    let optimal = world.client.plan_optimal(&request).await.expect("a plan").optimal.expect("it was asked");
    assert_eq!((optimal.placements.len(), optimal.unplaced), (1, 0));
    assert_eq!((optimal.certified.cost, optimal.certified.lower_bound), (0, 0), "both nodes are used anyway");
}
