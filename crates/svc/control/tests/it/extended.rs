//! Devices and gangs through the whole control plane: who gets which device, and that no part of a gang is ever bound.

use crate::common::{Agent, World, all_ready, node, resources, service};
use heptad_control::{Objects, Options, Reconciler};
use heptad_model::{
    Container, ContainerId, DesiredState, DeviceMillis, Mode, Namespace, Node, NodeName, Service, invariants::verify,
};
use heptad_state::{Limits, MemoryStore, Store, StoreExt};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

fn with_gpus(name: &str, gpus: u32) -> Node {
    Node { devices: [("gpu".to_owned(), gpus)].into(), ..node(name, 8_000, 8_192) }
}

fn asking(name: &str, replicas: u32, gpu_millis: u32) -> Service {
    let mut service = Service { stop_grace_ms: 0, ..service(name, replicas) };
    service.resources.devices.insert("gpu".to_owned(), DeviceMillis(gpu_millis));
    service
}

fn gang(name: &str, replicas: u32) -> Service {
    Service { gang: true, ..asking(name, replicas, 1_000) }
}

fn indices(container: &Container) -> Vec<u32> {
    container.devices.get("gpu").cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_given_by_index_kept_and_given_to_the_next() {
    let world = World::new().await;
    let _agent = Agent::start(&world.client, &with_gpus("n1", 3)).await;
    world.client.create(&asking("pair", 1, 2_000)).await.expect("created");
    let pair = world.containers_until(all_ready(1)).await.remove(0);
    assert_eq!(indices(&pair), [0, 1]);
    world.client.create(&asking("share", 2, 500)).await.expect("created");
    let all = world.containers_until(all_ready(3)).await;
    assert!(all.iter().filter(|c| c.service.name == "share").all(|c| indices(c) == [2]), "both share one");
    world.client.create(&asking("late", 1, 2_000)).await.expect("created");
    let told = |all: &[Container]| {
        let late = all.iter().find(|c| c.service.name == "late");
        late.is_some_and(|c| c.node.is_none() && c.message.contains("the only node refuses: gpu"))
    };
    world.containers_until(told).await;
    let node: Node = world.client.get(&Namespace::default(), "n1").await.expect("the node").object;
    assert_eq!(node.allocated_devices["gpu"], DeviceMillis(3_000));
    // An agent's reports on a container, and a restart, leave it its devices.
    let again: Container = world.client.get(&Namespace::default(), pair.id.as_str()).await.expect("it is there").object;
    assert_eq!(indices(&again), [0, 1]);
    let why = world.client.why(&service("late", 1).key()).await.expect("a report");
    let refusals = why.containers.iter().filter_map(|c| c.unplaced.as_ref()).flat_map(|u| &u.refusals);
    let text = |figure: &Option<String>| figure.clone().unwrap_or_default();
    let told = refusals.map(|r| [r.reason.clone(), text(&r.asked), text(&r.allocatable), text(&r.free)]);
    assert_eq!(told.collect::<Vec<_>>(), [["gpu", "2", "3", "0"].map(str::to_owned)]);
    world.client.delete::<Service>(&Namespace::default(), "pair", None).await.expect("deleted");
    let all = world.containers_until(all_ready(3)).await;
    let late = all.iter().find(|c| c.service.name == "late").expect("it is there");
    assert_eq!(indices(late), [0, 1]);
    world.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_fewer_devices_than_it_gave_is_refused() {
    let world = World::new().await;
    let _agent = Agent::start(&world.client, &with_gpus("n1", 2)).await;
    world.client.create(&asking("both", 1, 2_000)).await.expect("created");
    world.containers_until(all_ready(1)).await;
    let refused = world.client.replace(&with_gpus("n1", 1), None).await.expect_err("one is given");
    assert!(refused.to_string().contains("devices.gpu"), "{refused}");
    let more = serde_json::json!({ "devices": { "gpu": 4 } });
    world.client.patch::<Node>(&Namespace::default(), "n1", &more, None).await.expect("more are welcome");
    let too_many = asking("many", 1, 17_000);
    let refused = world.client.create(&too_many).await.expect_err("no node can have so many");
    assert!(refused.to_string().contains("resources.gpu: 17 are more than the 16"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_waits_whole_with_its_reason_and_is_placed_when_room_comes() {
    let world = World::new().await;
    let _first = Agent::start(&world.client, &with_gpus("n1", 2)).await;
    world.client.create(&gang("train", 4)).await.expect("created");
    let waits = |all: &[Container]| {
        let says = |c: &Container| {
            let start = "gang of 4: 2 could be placed, the next fails because the only node refuses: gpu; ";
            c.node.is_none() && c.message.starts_with(start)
        };
        all.len() == 4 && all.iter().all(says)
    };
    world.containers_until(waits).await;
    // What it does not hold is available to others.
    world.client.create(&asking("other", 1, 1_000)).await.expect("created");
    world.containers_until(|all| all.iter().any(|c| c.service.name == "other" && c.ready)).await;
    let why = world.client.why(&service("train", 1).key()).await.expect("a report");
    let said = why.containers.iter().find_map(|c| c.unplaced.as_ref()?.gang.clone()).expect("it says how far it got");
    assert_eq!(said, "gang of 4: 1 could be placed, the next fails because");
    let _second = Agent::start(&world.client, &with_gpus("n2", 3)).await;
    let all = world.containers_until(all_ready(5)).await;
    let mut given: Vec<(Option<NodeName>, Vec<u32>)> = all.iter().map(|c| (c.node.clone(), indices(c))).collect();
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 5, "each has one of its own");
    world.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_job_runs_whole() {
    let world = World::new().await;
    let _first = Agent::start(&world.client, &with_gpus("n1", 2)).await;
    let job = Service { mode: Mode::Job(heptad_model::Job::default()), ..gang("train", 3) };
    world.client.create(&job).await.expect("created");
    world.containers_until(|all| all.len() == 3 && all.iter().all(|c| c.message.starts_with("gang of 3: 2"))).await;
    let _second = Agent::start(&world.client, &with_gpus("n2", 1)).await;
    world.containers_until(all_ready(3)).await;
    world.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_plan_is_committed_in_pieces_and_no_gang_is_parted_by_them() {
    let limits = Limits { txn_ops_max: 200, ..Limits::default() };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_limits(limits));
    let Deployer { objects, reconciler, .. } = Deployer::new("a", store.clone());
    for i in 0..20 {
        objects.create(node(&format!("n{i}"), 8_000, 8_192)).await.expect("registered");
    }
    // They are planned in an order in which every piece ends in the middle of a gang.
    for (i, size) in [30, 1, 50, 7, 128, 3, 40].into_iter().enumerate() {
        for (name, gang) in [(format!("gang{i}"), true), (format!("single{i}"), false)] {
            let mut service = Service { gang, ..service(&name, size) };
            service.resources = resources(10, 16).into();
            objects.create(service).await.expect("created");
        }
    }
    reconciler.once().await.expect("placed");
    assert_eq!(whole(&objects).await.len(), 14, "all have nodes");
    let (rows, _) = store.list("/containers/").await.expect("rows");
    let mut revisions: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for row in &rows {
        let container: Container = serde_json::from_slice(&row.value).expect("a container");
        revisions.entry(container.service.name).or_default().insert(row.mod_revision);
    }
    let all: BTreeSet<&u64> = revisions.values().flatten().collect();
    assert!(all.len() >= 4, "{} transactions: the plan was not large", all.len());
    for (name, revisions) in revisions.iter().filter(|(name, _)| name.starts_with("gang")) {
        assert_eq!(revisions.len(), 1, "{name} was bound in {} transactions", revisions.len());
    }
}

/// Gangs that one deployer places and releases.
const ROUNDS: usize = 60;

struct Deployer {
    name: &'static str,
    objects: Objects,
    reconciler: Reconciler,
}

impl Deployer {
    fn new(name: &'static str, store: Arc<dyn Store>) -> Self {
        let options = Options { events_max: 10, ..Options::default() };
        let objects = Objects::new(store, options.service_cidr, options.events_max);
        Self { name, reconciler: Reconciler::standalone(objects.clone(), options), objects }
    }

    /// Gangs of several sizes come and go; each time, everything that is bound is checked. Returns how many gangs had
    /// nodes, and how many had to wait.
    async fn work(self) -> (usize, usize) {
        let (mut placed, mut waiting) = (0, 0);
        for round in 0..ROUNDS {
            let name = format!("{}{round}", self.name);
            let mut wanted = gang(&name, 2 + u32::try_from(round % 4).expect("small"));
            wanted.resources.cpu_millis = resources(100, 0).cpu_millis;
            self.objects.create(wanted).await.expect("created");
            self.reconciler.once().await.expect("placed");
            let bound = whole(&self.objects).await;
            *if bound.contains_key(&name) { &mut placed } else { &mut waiting } += 1;
            if round > 0 {
                let victim = format!("{}{}", self.name, round - 1);
                self.objects.delete::<Service>(&Namespace::default(), &victim, None).await.expect("deleted");
                self.reconciler.once().await.expect("stopped");
            }
            self.release().await;
        }
        (placed, waiting)
    }

    async fn release(&self) {
        for item in self.objects.list::<Container>(None).await.expect("a list").items {
            if let (DesiredState::Stopped, Some(node)) = (item.object.desired, &item.object.node) {
                // The other deployer may have released it a moment ago.
                let _ = self.objects.remove_container(&item.object.id, node).await;
            }
        }
    }
}

/// Of every wanted gang, either all containers have nodes or none has; returns those that have.
async fn whole(objects: &Objects) -> BTreeMap<String, Vec<ContainerId>> {
    let snapshot = objects.snapshot().await.expect("a snapshot");
    assert_eq!(verify(&snapshot), [], "revision {}", snapshot.revision);
    let mut bound: BTreeMap<String, Vec<ContainerId>> = BTreeMap::new();
    for service in &snapshot.services {
        let own = snapshot.containers.iter().filter(|c| c.service == service.key() && c.is_alive());
        let (on_nodes, others): (Vec<_>, Vec<_>) = own.partition(|c| c.node.is_some());
        assert!(
            on_nodes.is_empty() || (others.is_empty() && on_nodes.len() == service.replicas as usize),
            "at revision {} {} of {} containers of {} have nodes",
            snapshot.revision,
            on_nodes.len(),
            service.replicas,
            service.name,
        );
        if !on_nodes.is_empty() {
            bound.insert(service.name.clone(), on_nodes.into_iter().map(|c| c.id.clone()).collect());
        }
    }
    bound
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployers_that_race_never_leave_a_part_of_a_gang() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (a, b) = (Deployer::new("a", store.clone()), Deployer::new("b", store.clone()));
    let objects = a.objects.clone();
    for (name, gpus) in [("n1", 4), ("n2", 3), ("n3", 1)] {
        objects.create(with_gpus(name, gpus)).await.expect("registered");
    }
    let tasks = [a, b].map(|deployer| tokio::spawn(deployer.work()));
    let (mut placed, mut waiting) = (0, 0);
    for task in tasks {
        let (had, had_not) = task.await.expect("no panic");
        (placed, waiting) = (placed + had, waiting + had_not);
    }
    whole(&objects).await;
    assert!(placed >= ROUNDS / 4, "only {placed} gangs were placed");
    assert!(waiting >= ROUNDS / 20, "only {waiting} gangs had to wait: there was room enough for all");
}
