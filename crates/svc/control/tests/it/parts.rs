//! Parts of the containers: following a node's part gives the same result as listing it, whoever follows, and from
//! whatever revision on.

use crate::common::{Agent, World, all_ready, node, running, service, until};
use heptad_api::{Object, WatchChange, operations::ContainerReport};
use heptad_client::{Part, State, watch_part};
use heptad_model::{Container, ContainerStatus, DesiredState, Job, Mode, Namespace, NodeName, Service};
use serde_json::json;
use std::collections::BTreeMap;

/// What a reader of a part knows about each container.
fn known(state: &State<Container>) -> BTreeMap<String, Container> {
    let view = state.view();
    view.objects.iter().map(|(key, item)| (key.clone(), item.object.clone())).collect()
}

async fn scale(world: &World, replicas: u32) {
    let patch = json!({ "replicas": replicas });
    world.client.patch::<Service>(&Namespace::default(), "web", &patch, None).await.expect("scaled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_ends_as_what_is_there() {
    let world = World::new().await;
    let client = &world.client;
    let parts = || [Part::All, Part::Node("n1".into()), Part::Node("n2".into())];
    let early: Vec<_> = parts().into_iter().map(|part| watch_part::<Container>(client, part)).collect();
    let _agents =
        [Agent::start(client, &node("n1", 2000, 4096)).await, Agent::start(client, &node("n2", 2000, 4096)).await];
    client.create(&service("web", 8)).await.expect("created");
    world.containers_until(all_ready(8)).await;
    let late: Vec<_> = parts().into_iter().map(|part| watch_part::<Container>(client, part)).collect();
    scale(&world, 3).await;
    world.containers_until(all_ready(3)).await;
    scale(&world, 60).await;
    let full = |all: &[Container]| all.len() == 60 && all.iter().filter(|c| c.ready).count() == 40;
    let there = world.containers_until(full).await;
    let of = |name: &str| there.iter().filter(|c| c.node.as_ref() == Some(&name.into())).cloned().collect::<Vec<_>>();
    for states in [&early, &late] {
        let wanted = [there.clone(), of("n1"), of("n2")];
        for (state, wanted) in states.iter().zip(&wanted) {
            until("a part is whole", async || known(state).values().eq(wanted.iter())).await;
        }
    }
    let listed = client.list_part::<Container>(&Part::Node("n1".into())).await.expect("a list");
    assert_eq!(listed.items.into_iter().map(|item| item.object).collect::<Vec<_>>(), of("n1"));
    assert!(client.list_part::<Service>(&Part::Node("n1".into())).await.is_err(), "only containers are on nodes");
}

/// A finished container holds nothing of its node any more, but its record stays: a node that comes back must know it,
/// or the container could never be deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_knows_what_has_finished_there() {
    let world = World::new().await;
    let client = &world.client;
    let name = NodeName::from("n1");
    client.replace(&node("n1", 2000, 4096), None).await.expect("the node registers");
    client.heartbeat(&name).await.expect("it lives");
    let job = Service { mode: Mode::Job(Job::default()), ..service("work", 1) };
    client.create(&job).await.expect("created");
    let bound = world.containers_until(|all| all.iter().any(|c| c.node.as_ref() == Some(&name))).await;
    let report = ContainerReport { status: ContainerStatus::Succeeded, ready: false, ..running(&name) };
    client.report_container(&bound[0].id, &report).await.expect("heard");
    let part = || Part::Node(name.clone());
    let listed = client.list_part::<Container>(&part()).await.expect("a list");
    assert_eq!(listed.items.iter().map(|item| &item.object.id).collect::<Vec<_>>(), [&bound[0].id]);
    assert!(listed.items[0].object.is_finished());
    client.delete::<Service>(&Namespace::default(), "work", None).await.expect("deleted");
    let back = watch_part::<Container>(client, part());
    until("it is to go", async || known(&back).values().any(|c| c.desired == DesiredState::Stopped)).await;
    client.delete_container(&bound[0].id, &name).await.expect("gone");
    until("nothing is left", async || known(&back).is_empty()).await;
}

/// The shared lines, and those of a watch that reads the store itself, say the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_late_is_told_the_same() {
    let world = World::new().await;
    let client = &world.client;
    let _agent = Agent::start(client, &node("n1", 2000, 4096)).await;
    let from = client.version().await.expect("a version").revision + 1;
    let mut shared = client.watch::<Container>(Some(from)).await.expect("a watch");
    client.create(&service("web", 6)).await.expect("created");
    world.containers_until(all_ready(6)).await;
    scale(&world, 0).await;
    world.containers_until(<[_]>::is_empty).await;
    let last = client.version().await.expect("a version").revision;
    // This one begins earlier than its channel.
    let mut node = client.watch_part::<Container>(&Part::Node("n1".into()), Some(from)).await.expect("a watch");
    let mut late = client.watch::<Container>(Some(from)).await.expect("a watch");
    let mut direct = world.control.objects().watch::<Container>(None, Some(from)).await.expect("a watch");
    let mut bound: BTreeMap<_, Object<Container>> = BTreeMap::new();
    let mut revision = 0;
    while revision < last {
        let wanted = direct.next().await.expect("no error");
        revision = wanted.revision;
        if wanted.events.is_empty() {
            continue;
        }
        for watch in [&mut shared, &mut late] {
            let mut found = watch.next().await.expect("no error").expect("no end");
            while found.events.is_empty() {
                found = watch.next().await.expect("no error").expect("no end");
            }
            assert_eq!(found, wanted);
        }
    }
    let mut seen = 0;
    while seen < last {
        let batch = node.next().await.expect("no error").expect("no end");
        seen = batch.revision;
        for event in batch.events {
            assert!(event.object.node.is_some());
            match event.change {
                WatchChange::Put => {
                    let object = Object { revision: seen, object: event.object };
                    bound.insert(object.object.id.clone(), object);
                }
                WatchChange::Delete => assert!(bound.remove(&event.object.id).is_some()),
            }
        }
    }
    assert!(bound.is_empty(), "{bound:?}");
}
