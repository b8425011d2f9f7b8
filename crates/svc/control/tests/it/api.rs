//! Objects over the API: what the server keeps, optimistic concurrency, patches, apply, plan.

use crate::common::{Agent, World, all_ready, node, resources, service, until};
use heptad_api::{
    ErrorCode, Manifest, Object,
    operations::{ApplyRequest, Outcome},
};
use heptad_client::Client;
use heptad_model::{Event, EventKind, Namespace, NetworkPolicy, Node, NodeStatus, Selector, Service};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

fn home() -> Namespace {
    Namespace::default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_keeps_id_address_and_generation() {
    let world = World::new().await;
    let client = &world.client;
    let mut wanted = service("web", 0);
    wanted.id = "mine".into();
    wanted.generation = 99;
    let first = client.create(&wanted).await.expect("created");
    assert_ne!(first.object.id, "mine");
    assert_eq!(first.object.generation, 1);
    let address = first.object.address.expect("it has an address");
    assert_eq!(client.create(&wanted).await.expect_err("it exists").code(), Some(ErrorCode::AlreadyExists));
    let same = client.replace(&wanted, None).await.expect("unchanged");
    assert_eq!(same, first, "what is so already is not written");
    wanted.replicas = 1;
    wanted.address = Some([1, 2, 3, 4].into());
    let second = client.replace(&wanted, None).await.expect("replaced");
    assert_eq!((second.object.generation, second.object.address), (2, Some(address)));
    let other = client.create(&service("other", 0)).await.expect("created");
    assert_ne!(other.object.address, Some(address));
    client.delete::<Service>(&home(), "web", None).await.expect("deleted");
    let anew = client.create(&service("web", 0)).await.expect("created again");
    assert_ne!(anew.object.id, first.object.id);
    assert_eq!(anew.object.address, Some(address), "a freed address is the first choice of the same name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_services_get_different_addresses() {
    let world = World::new().await;
    let made = (0..40).map(|i| {
        let client = world.client.clone();
        tokio::spawn(async move { client.create(&service(&format!("s{i}"), 0)).await })
    });
    let made: Vec<_> = made.collect();
    let mut addresses = BTreeSet::new();
    for task in made {
        let service = task.await.expect("no panic").expect("created");
        assert!(addresses.insert(service.object.address.expect("it has one")));
    }
    assert_eq!(addresses.len(), 40);
}

async fn increment(client: Client) -> u32 {
    let mut conflicts = 0;
    for _ in 0..10 {
        loop {
            let mut old: Object<Service> = client.get(&home(), "web").await.expect("there");
            let count: u32 = old.object.labels.get("count").map_or(0, |text| text.parse().expect("a number"));
            old.object.labels.insert("count".into(), (count + 1).to_string());
            match client.replace(&old.object, Some(old.revision)).await {
                Ok(_) => break,
                Err(error) => assert!(error.is_conflict(), "{error}"),
            }
            conflicts += 1;
        }
    }
    conflicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_update_is_lost_with_if_match() {
    let world = World::new().await;
    world.client.create(&service("web", 0)).await.expect("created");
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(increment(world.client.clone()))).collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let last: Object<Service> = world.client.get(&home(), "web").await.expect("there");
    assert_eq!(last.object.labels["count"], "80");
    assert_eq!(last.object.generation, 81);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_merge_and_are_validated() {
    let world = World::new().await;
    let client = &world.client;
    client.create(&service("web", 0)).await.expect("created");
    let patch = json!({"environment": {"A": "1"}, "resources": {"cpu_millis": "250m"}});
    let patched = client.patch::<Service>(&home(), "web", &patch, None).await.expect("patched");
    assert_eq!(patched.object.environment["A"], "1");
    assert_eq!(patched.object.resources, resources(250, 64).into(), "what the patch does not name stays");
    let gone = client.patch::<Service>(&home(), "web", &json!({"environment": null}), None).await.expect("patched");
    assert!(gone.object.environment.is_empty());
    let stale = client.patch::<Service>(&home(), "web", &json!({"replicas": 2}), Some(patched.revision)).await;
    assert!(stale.expect_err("changed since").is_conflict());
    for (patch, code) in [
        (json!({"image": ""}), ErrorCode::Invalid),
        (json!({"imag": "x"}), ErrorCode::Invalid),
        (json!({"name": "other"}), ErrorCode::BadRequest),
        (json!(7), ErrorCode::Invalid),
    ] {
        let error = client.patch::<Service>(&home(), "web", &patch, None).await.expect_err("refused");
        assert_eq!(error.code(), Some(code), "{patch}");
    }
}

fn policy(name: &str) -> NetworkPolicy {
    NetworkPolicy {
        id: String::new(),
        name: name.to_owned(),
        namespace: home(),
        selector: Selector::default(),
        ingress: Some(Vec::new()),
        egress: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_is_all_or_nothing_and_writes_only_what_differs() {
    let world = World::new().await;
    let client = &world.client;
    let bad = Service { image: String::new(), ..service("bad", 0) };
    let objects = vec![Manifest::Policy(policy("deny")), Manifest::Service(bad)];
    let error = client.apply(&ApplyRequest { objects }).await.expect_err("one is invalid");
    assert_eq!(error.code(), Some(ErrorCode::Invalid));
    assert!(error.to_string().contains("objects[1].image"), "{error}");
    assert!(client.list::<NetworkPolicy>().await.expect("a list").items.is_empty());

    let objects = vec![Manifest::Policy(policy("deny")), Manifest::Service(service("web", 0))];
    let request = ApplyRequest { objects };
    let first = client.apply(&request).await.expect("applied");
    assert!(first.results.iter().all(|r| r.outcome == Outcome::Created));
    let again = client.apply(&request).await.expect("applied");
    assert!(again.results.iter().all(|r| r.outcome == Outcome::Unchanged));
    // Reconcilers write beside it, but not the policy.
    let kept = client.get::<NetworkPolicy>(&Namespace::default(), "deny").await.expect("it is there").revision;
    assert_eq!(kept, first.revision);
    let twice = ApplyRequest { objects: vec![Manifest::Policy(policy("a")), Manifest::Policy(policy("a"))] };
    assert_eq!(client.apply(&twice).await.expect_err("twice").code(), Some(ErrorCode::BadRequest));

    // Two hundred services in one transaction, all with addresses of their own.
    let many = (0..200).map(|i| Manifest::Service(service(&format!("s{i}"), 0))).collect();
    let done = client.apply(&ApplyRequest { objects: many }).await.expect("applied");
    let services = client.list::<Service>().await.expect("a list");
    let at_once = services.items.iter().filter(|item| item.revision == done.revision).count();
    assert_eq!(at_once, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_would_happen_and_changes_nothing() {
    let world = World::new().await;
    let client = &world.client;
    let _agent = Agent::start(client, &node("n1", 350, 1024)).await;
    client.create(&service("web", 2)).await.expect("created");
    world.containers_until(all_ready(2)).await;
    let before = world.quiet_revision().await;
    let changed = Service { image: "host".into(), args: vec!["x".into()], ..service("web", 2) };
    let large = Service { resources: resources(200, 64).into(), ..service("large", 1) };
    let objects = vec![Manifest::Service(changed), Manifest::Service(large), Manifest::Service(service("web2", 0))];
    let plan = client.plan(&ApplyRequest { objects }).await.expect("a plan");
    assert_eq!(client.version().await.expect("a version").revision, before);
    assert_eq!(
        plan.results.iter().map(|r| r.outcome).collect::<Vec<_>>(),
        [Outcome::Updated, Outcome::Created, Outcome::Created]
    );
    assert_eq!(plan.results[0].changes[0].path, "args");
    assert_eq!(plan.replaced["default/web"], 2);
    assert!(plan.warnings.iter().any(|w| w.contains("no health check")), "{:?}", plan.warnings);
    let placed: Vec<_> = plan.placements.iter().map(|p| (p.service.name.as_str(), p.replicas)).collect();
    assert_eq!(placed, [("web", 2)]);
    assert_eq!(plan.unplaced.len(), 1);
    assert_eq!(plan.unplaced[0].service.name, "large");
    assert_eq!(plan.unplaced[0].refusals[0].dimension, Some(heptad_model::Dimension::Cpu));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_show_what_they_gave_and_cannot_go_or_shrink_before_it_is_back() {
    let world = World::new().await;
    let client = &world.client;
    let agent = Agent::start(client, &node("n1", 1000, 1024)).await;
    client.create(&service("web", 2)).await.expect("created");
    world.containers_until(all_ready(2)).await;
    let seen: Object<Node> = client.get(&home(), "n1").await.expect("there");
    assert_eq!(seen.object.allocated, resources(200, 128));
    assert_eq!(seen.object.containers.len(), 2);
    assert_eq!(client.list::<Node>().await.expect("a list").items[0].object, seen.object);
    let small = client.replace(&node("n1", 150, 1024), None).await.expect_err("too small");
    assert_eq!(small.code(), Some(ErrorCode::Invalid));
    assert!(client.delete::<Node>(&home(), "n1", None).await.expect_err("in use").is_conflict());
    client.delete::<Service>(&home(), "web", None).await.expect("deleted");
    world.containers_until(<[_]>::is_empty).await;
    drop(agent);
    client.delete::<Node>(&home(), "n1", None).await.expect("deleted");
    assert!(world.snapshot().await.nodes.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_unknown_then_not_ready_and_ready_when_it_reports() {
    let store = std::sync::Arc::new(heptad_state::MemoryStore::new());
    let quick = |options: &mut heptad_control::Options| {
        (options.node_unknown_ms, options.node_not_ready_ms, options.heartbeat_check_ms) = (1_500, 3_000, 20);
    };
    let world = World::with(store, quick, Default::default()).await;
    let client = &world.client;
    client.replace(&node("n1", 1000, 1024), None).await.expect("registered");
    let status = async || client.get::<Node>(&home(), "n1").await.expect("there").object.status;
    let revision = client.version().await.expect("a version").revision;
    for _ in 0..10 {
        client.heartbeat(&"n1".into()).await.expect("heard");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.version().await.expect("a version").revision, revision, "heartbeats write nothing");
    until("unknown", async || status().await == NodeStatus::Unknown).await;
    until("not ready", async || status().await == NodeStatus::NotReady).await;
    client.heartbeat(&"n1".into()).await.expect("heard");
    assert_eq!(status().await, NodeStatus::Ready);
    assert!(client.heartbeat(&"n2".into()).await.expect_err("unknown").is_not_found());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_newest_events_are_kept_in_their_order() {
    let store = std::sync::Arc::new(heptad_state::MemoryStore::new());
    let world = World::with(store, |options| options.events_max = 50, Default::default()).await;
    for i in 0..200 {
        let event = Event {
            id: "mine".into(),
            at_ms: 1,
            kind: EventKind::Normal,
            reason: "Tested".into(),
            subject: "container/x".into(),
            message: i.to_string(),
        };
        let made = world.client.create_event(&event).await.expect("recorded").object;
        assert!(made.id != "mine" && made.at_ms > 1);
    }
    let events = world.client.list::<Event>().await.expect("a list").items;
    assert!((50..=50 + 64).contains(&events.len()), "{}", events.len());
    let numbers: Vec<u32> = events.iter().map(|item| item.object.message.parse().expect("a number")).collect();
    assert!(numbers.is_sorted() && numbers.last() == Some(&199), "{numbers:?}");
}
