//! The life of services: placed, scaled, replaced one by one, deleted; pending with a reason; over restarts.

use crate::common::{Agent, World, all_ready, node, options, resources, service};
use heptad_api::{Manifest, Object, WatchChange, operations::ApplyRequest};
use heptad_client::Client;
use heptad_control::{Control, ServerParts};
use heptad_model::{Container, ContainerStatus, Event, Namespace, Service, Snapshot};
use heptad_state::EmbeddedStore;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

async fn scale(world: &World, replicas: u32) {
    let patch = json!({ "replicas": replicas });
    world.client.patch::<Service>(&Namespace::default(), "web", &patch, None).await.expect("scaled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_scale_up_and_down_to_zero_and_leave_nothing() {
    let world = World::new().await;
    let _agents = [
        Agent::start(&world.client, &node("n1", 4000, 4096)).await,
        Agent::start(&world.client, &node("n2", 4000, 4096)).await,
    ];
    world.client.create(&service("web", 4)).await.expect("created");
    let four = world.containers_until(all_ready(4)).await;
    let on = |name: &str, all: &[Container]| all.iter().filter(|c| c.node.as_ref() == Some(&name.into())).count();
    assert_eq!((on("n1", &four), on("n2", &four)), (2, 2), "replicas are spread");
    world.snapshot().await;
    scale(&world, 9).await;
    world.containers_until(all_ready(9)).await;
    scale(&world, 1).await;
    // Never too many, at any committed moment.
    for _ in 0..20 {
        world.snapshot().await;
    }
    world.containers_until(all_ready(1)).await;
    scale(&world, 0).await;
    world.containers_until(<[_]>::is_empty).await;
    scale(&world, 3).await;
    world.containers_until(all_ready(3)).await;
    world.client.delete::<Service>(&Namespace::default(), "web", None).await.expect("deleted");
    for _ in 0..5 {
        world.snapshot().await;
    }
    world.containers_until(<[_]>::is_empty).await;
    let empty = world.snapshot().await;
    assert!(empty.nodes.iter().all(|n| n.allocated == resources(0, 0) && n.containers.is_empty()));
    let reasons: BTreeSet<String> =
        world.client.list::<Event>().await.expect("a list").items.into_iter().map(|e| e.object.reason).collect();
    for reason in ["Created", "Scheduled", "Ready", "Scaled"] {
        assert!(reasons.contains(reason), "{reasons:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_image_replaces_containers_one_by_one() {
    let world = World::new().await;
    let _agent = Agent::start(&world.client, &node("n1", 4000, 4096)).await;
    world.client.create(&service("web", 3)).await.expect("created");
    world.containers_until(all_ready(3)).await;
    let before = world.client.list::<Container>().await.expect("a list");
    let mut watch = world.client.watch::<Container>(Some(before.revision + 1)).await.expect("a watch");
    let patch = json!({"args": ["again"]});
    world.client.patch::<Service>(&Namespace::default(), "web", &patch, None).await.expect("patched");
    let changed = |all: &[Container]| all_ready(3)(all) && all.iter().all(|c| c.template.args == ["again"]);
    world.containers_until(changed).await;
    let last = world.client.list::<Container>().await.expect("a list").revision;
    // Replays what was committed, revision by revision.
    let items = before.items.into_iter().map(|item| (item.object.id.clone(), item.object));
    let mut alive: BTreeMap<_, Container> = items.collect();
    let mut seen = before.revision;
    while seen < last {
        let batch = watch.next().await.expect("no error").expect("no end");
        seen = batch.revision;
        for event in batch.events {
            match event.change {
                WatchChange::Put => alive.insert(event.object.id.clone(), event.object),
                WatchChange::Delete => alive.remove(&event.object.id),
            };
        }
        let wanted: Vec<&Container> = alive.values().filter(|c| c.is_alive()).collect();
        assert!(wanted.len() <= 4, "one successor at a time: revision {seen}");
        assert!(wanted.iter().filter(|c| c.ready).count() >= 3, "new ones first: revision {seen}");
    }
    assert_eq!(alive.values().filter(|c| c.is_alive()).count(), 3);
    world.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_room_is_pending_with_a_reason_until_there_is() {
    let world = World::new().await;
    let client = &world.client;
    let _small = Agent::start(client, &node("n1", 150, 4096)).await;
    client.create(&service("web", 2)).await.expect("created");
    let one_ready = |all: &[Container]| {
        all.iter().filter(|c| c.ready).count() == 1 && all.iter().any(|c| c.reason == "Unschedulable")
    };
    let containers = world.containers_until(one_ready).await;
    let pending = containers.iter().find(|c| !c.ready).expect("one is pending");
    assert_eq!((pending.node.as_ref(), pending.status), (None, ContainerStatus::Pending));
    assert!(pending.message.contains("cpu"), "{}", pending.message);
    let why = client.why(&service("web", 2).key()).await.expect("an answer");
    assert_eq!((why.replicas, why.ready, why.containers.len()), (2, 1, 1));
    let unplaced = why.containers[0].unplaced.as_ref().expect("a report");
    let group = &unplaced.groups[0];
    assert_eq!((group.reason.as_str(), group.nodes, &group.examples), ("cpu", 1, &unplaced.refusals));
    let refusal = &unplaced.refusals[0];
    let said = [&refusal.asked, &refusal.allocatable, &refusal.allocated, &refusal.free].map(Option::as_deref);
    assert_eq!(said, [Some("100m"), Some("150m"), Some("100m"), Some("50m")]);
    assert!(why.summary.contains("1 of 2 replicas are ready"), "{}", why.summary);
    // What did not change is not written.
    world.quiet_revision().await;
    let before = client.list::<Container>().await.expect("a list").items;
    world.looked_again().await;
    assert_eq!(client.list::<Container>().await.expect("a list").items, before);
    let _large = Agent::start(client, &node("n2", 1000, 4096)).await;
    world.containers_until(all_ready(2)).await;
    let why = client.why(&service("web", 2).key()).await.expect("an answer");
    assert!(why.summary.contains("as wanted"), "{}", why.summary);
    assert!(client.verify().await.expect("an answer").holds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_others_and_deletions_of_wanted_containers_are_refused() {
    let world = World::new().await;
    let _agent = Agent::start(&world.client, &node("n1", 1000, 4096)).await;
    world.client.create(&service("web", 1)).await.expect("created");
    let id = world.containers_until(all_ready(1)).await[0].id.clone();
    let stranger = crate::common::running(&"n2".into());
    assert!(world.client.report_container(&id, &stranger).await.expect_err("another node").is_conflict());
    assert!(world.client.delete_container(&id, &"n1".into()).await.expect_err("wanted").is_conflict());
    let revision = world.quiet_revision().await;
    let same = crate::common::running(&"n1".into());
    world.client.report_container(&id, &same).await.expect("accepted");
    assert_eq!(world.client.version().await.expect("a version").revision, revision, "nothing changed, nothing written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_the_same_store_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = async || {
        let store = EmbeddedStore::open(dir.path().join("state"), Default::default()).expect("it opens");
        Control::start(options(&dir), Arc::new(store), ServerParts::default()).await.expect("it starts")
    };
    let control = start().await;
    let client = Client::unix(dir.path().join("api.sock"));
    let agent = Agent::start(&client, &node("n1", 1000, 4096)).await;
    client.create(&service("web", 3)).await.expect("created");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let all: Vec<Container> =
            client.list().await.expect("a list").items.into_iter().map(|i: Object<Container>| i.object).collect();
        if all_ready(3)(&all) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(agent);
    crate::common::quiet_revision(&client).await;
    let before = client.snapshot().await.expect("a snapshot");
    control.shutdown().await;
    let control = start().await;
    let after = client.snapshot().await.expect("a snapshot");
    // The new process took over the leadership, and changed nothing else.
    assert_eq!(after.revision, before.revision + 1);
    assert_eq!(Snapshot { revision: before.revision, ..after }, before);
    control.shutdown().await;
}

/// Each node gets one of each service, so that a piece of the plan has as many nodes and services as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_for_very_many_is_committed_in_pieces_that_the_store_takes() {
    let world = World::new().await;
    for number in 0..30 {
        world.client.replace(&node(&format!("n{number}"), 16_000, 65_536), None).await.expect("registered");
    }
    let objects = (0..40).map(|number| Manifest::Service(service(&format!("s{number}"), 30))).collect();
    world.client.apply(&ApplyRequest { objects }).await.expect("applied");
    let bound = |all: &[Container]| all.len() == 1_200 && all.iter().all(|c| c.node.is_some());
    world.containers_until(bound).await;
    world.snapshot().await;
}
