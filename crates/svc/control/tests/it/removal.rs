//! Nodes that are taken out of the cluster: what they run is stopped first, and what must never run twice is replaced
//! only when that is certain. All promises hold at every moment.

use crate::common::{Agent, World, all_ready, node, service, until};
use heptad_api::work::{DrainStatus, RemoveNodeRequest};
use heptad_control::{Options, ServerParts};
use heptad_model::{Container, Mode, Namespace, Node, NodeName, NodeStatus, Service};
use heptad_state::MemoryStore;
use std::{sync::Arc, time::Duration};

const FORCE: RemoveNodeRequest = RemoveNodeRequest { force: true, fenced: false };
const FENCED: RemoveNodeRequest = RemoveNodeRequest { force: false, fenced: true };

fn n1() -> NodeName {
    "n1".into()
}

fn of<'a>(all: &'a [Container], name: &str) -> Vec<&'a Container> {
    all.iter().filter(|c| c.service.name == name).collect()
}

fn is_on(container: &Container, name: &str) -> bool {
    container.node.as_ref().is_some_and(|node| node.as_str() == name)
}

impl World {
    async fn find_n1(&self) -> Option<Node> {
        match self.client.get::<Node>(&Namespace::default(), "n1").await {
            Err(error) if error.is_not_found() => None,
            found => Some(found.expect("an answer").object),
        }
    }

    async fn drain_n1(&self) -> DrainStatus {
        self.client.drain_status(&n1()).await.expect("it is there")
    }

    /// Checks all promises until the node is gone; `once` never has two containers that may run.
    async fn n1_is_gone(&self) {
        let gone = || async {
            let snapshot = self.snapshot().await;
            let bound = of(&snapshot.containers, "once").iter().filter(|c| c.node.is_some()).count();
            assert!(bound <= 1, "{:#?}", snapshot.containers);
            self.find_n1().await.is_none()
        };
        until("n1 is gone", gone).await;
    }
}

/// A daemon, one that must never run twice, and another, all on n1; then another node that has only the daemon.
async fn two_nodes(world: &World) -> [Agent; 2] {
    let first = Agent::start(&world.client, &node("n1", 4000, 4096)).await;
    let daemon = Service { mode: Mode::Daemon, ..service("each", 1) };
    for service in [daemon, Service { never_twice: true, ..service("once", 1) }, service("web", 1)] {
        world.client.create(&service).await.expect("created");
    }
    world.containers_until(all_ready(3)).await;
    let second = Agent::start(&world.client, &node("n2", 4000, 4096)).await;
    world.containers_until(all_ready(4)).await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_is_removed_with_what_is_on_every_node() {
    let world = World::new().await;
    let _agents = two_nodes(&world).await;
    let error = world.client.remove_node(&n1(), &RemoveNodeRequest::default()).await.expect_err("it has others");
    assert!(error.is_conflict() && error.to_string().contains("drain it first"), "{error}");
    assert!(!world.find_n1().await.expect("it stays").removing);
    world.client.drain(&n1()).await.expect("it is emptied");
    until("n1 is empty", || async { world.drain_n1().await.left.is_empty() }).await;
    assert_eq!(world.drain_n1().await.staying, 1, "the daemon");
    let node = world.client.remove_node(&n1(), &RemoveNodeRequest::default()).await.expect("it needs no force");
    assert!(node.object.removing);
    world.n1_is_gone().await;
    let left = world.containers_until(all_ready(3)).await;
    assert!(left.iter().all(|c| is_on(c, "n2")), "{left:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_runs_goes_when_it_has_stopped_everything() {
    let world = World::new().await;
    let _agents = two_nodes(&world).await;
    world.client.remove_node(&n1(), &FORCE).await.expect("it begins");
    world.n1_is_gone().await;
    let left = world.containers_until(all_ready(3)).await;
    assert!(left.iter().all(|c| is_on(c, "n2")), "{left:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_never_run_twice_waits_until_a_silent_node_is_said_to_be_off() {
    let soon = |options: &mut Options| (options.node_unknown_ms, options.node_not_ready_ms) = (1_000, 2_000);
    let world = World::with(Arc::new(MemoryStore::new()), soon, ServerParts::default()).await;
    let [first, _second] = two_nodes(&world).await;
    let error = world.client.remove_node(&n1(), &FENCED).await.expect_err("it reports");
    assert!(error.is_conflict() && error.to_string().contains("reports"), "{error}");
    drop(first);
    until("n1 is lost", || async { world.find_n1().await.is_some_and(|n| n.status == NodeStatus::NotReady) }).await;
    world.client.remove_node(&n1(), &FORCE).await.expect("it begins");
    let web_is_back = |all: &[Container]| of(all, "web").iter().any(|c| c.ready && is_on(c, "n2"));
    let all = world.containers_until(web_is_back).await;
    // A pass later nothing has changed.
    world.client.create(&service("later", 1)).await.expect("created");
    world.containers_until(|all| of(all, "later").iter().any(|c| c.ready)).await;
    assert!(of(&all, "once").len() == 1 && is_on(of(&all, "once")[0], "n1"), "{all:#?}");
    let status = world.drain_n1().await;
    let once = status.left.iter().find(|left| left.service.name == "once").expect("it is waited for");
    assert!(status.removing && once.waits_for.contains("node remove n1 --fenced"), "{status:?}");
    assert!(once.waits_for.contains("stops it within 6"), "about ten minutes: {status:?}");

    let back = world.client.uncordon(&n1()).await.expect("it is taken back").object;
    assert_eq!((back.removing, back.draining, back.unschedulable), (false, false, false));
    world.client.remove_node(&n1(), &FORCE).await.expect("it begins again");
    world.client.remove_node(&n1(), &FENCED).await.expect("somebody knows it");
    world.n1_is_gone().await;
    let left = world.containers_until(|all| all_ready(4)(all) && of(all, "once").len() == 1).await;
    assert!(left.iter().all(|c| is_on(c, "n2")), "{left:#?}");
    // Nothing comes back by itself.
    tokio::time::timeout(Duration::from_secs(5), world.quiet_revision()).await.expect("all is at rest");
}
