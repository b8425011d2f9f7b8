//! Deployers that place and release on the same nodes at once never exceed a capacity (guarantee G4).

use crate::common::{node, resources, service};
use heptad_capacity::Allocation;
use heptad_control::{Objects, Options, Reconciler};
use heptad_model::{
    Container, DesiredState, Namespace, Port, Service,
    invariants::{Guarantee, verify},
};
use heptad_state::{BoxFuture, Layer, MemoryStore, RangeRequest, RangeResponse, Store, StoreExt, Txn, TxnResponse};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::RwLock;

/// Containers that are placed and released again by all deployers together.
const RELEASES: usize = 10_000;
/// Most rounds of one deployer; in each, a service is placed and another one released.
const ROUNDS_MAX: usize = 10_000;
/// Services that one deployer has at a time.
const SERVICES_AT_ONCE: usize = 2;
/// Rounds between two looks of a deployer at everything, and compactions, which keep the memory store quick.
const JUDGE_EVERY: usize = 4;

/// A store in memory that lets others go first before each operation, and counts transactions whose compares failed.
#[derive(Debug, Default)]
struct Contended {
    inner: MemoryStore,
    refused: AtomicUsize,
    done: AtomicUsize,
}

impl Layer for Contended {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, heptad_state::Result<RangeResponse>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.inner.range(request).await
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, heptad_state::Result<TxnResponse>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let done = self.inner.txn(txn).await?;
            let counter = if done.succeeded { &self.done } else { &self.refused };
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(done)
        })
    }
}

/// A small generator, so that a run can be repeated by its seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

struct Deployer {
    name: &'static str,
    objects: Objects,
    reconciler: Reconciler,
    draw: Draw,
    deployed: Vec<String>,
}

impl Deployer {
    fn new(name: &'static str, store: Arc<dyn Store>, seed: u64) -> Self {
        let options = Options { events_max: 10, ..Options::default() };
        let objects = Objects::new(store, options.service_cidr, options.events_max);
        let reconciler = Reconciler::standalone(objects.clone(), options);
        Self { name, objects, reconciler, draw: Draw(seed), deployed: Vec::new() }
    }

    /// Places one service, then releases another. Returns how many containers were released.
    async fn round(&mut self, number: usize) -> usize {
        let name = format!("{}{number}", self.name);
        let replicas = 4 + u32::try_from(self.draw.below(8)).expect("small");
        let mut wanted =
            Service { resources: resources(50 + self.draw.below(300), 16).into(), ..service(&name, replicas) };
        if self.draw.below(8) == 0 {
            wanted.ports = vec![Port { host_port: Some(80), ..Port::tcp(8080) }];
        }
        self.objects.create(wanted).await.expect("created");
        self.deployed.push(name);
        self.reconciler.once().await.expect("placed");
        if self.deployed.len() <= SERVICES_AT_ONCE {
            return 0;
        }
        let victim = self.deployed.remove(usize::try_from(self.draw.below(2)).expect("small"));
        self.objects.delete::<Service>(&Namespace::default(), &victim, None).await.expect("deleted");
        self.release().await
    }

    /// What the agents of all nodes would do, whoever's containers these are.
    async fn release(&self) -> usize {
        let mut released = 0;
        for item in self.objects.list::<Container>(None).await.expect("a list").items {
            let container = item.object;
            if let (DesiredState::Stopped, Some(node)) = (container.desired, &container.node) {
                // The other deployer may have released it a moment ago.
                released += usize::from(self.objects.remove_container(&container.id, node).await.is_ok());
            }
        }
        released
    }
}

/// Every capacity holds, and every node's row is what its containers say.
async fn judge(objects: &Objects) -> usize {
    let snapshot = objects.snapshot().await.expect("a snapshot");
    assert_eq!(Guarantee::G4.findings(&snapshot), [], "revision {}", snapshot.revision);
    assert_eq!(verify(&snapshot), [], "revision {}", snapshot.revision);
    let mut bound = 0;
    for node in &snapshot.nodes {
        let own: Vec<&Container> = snapshot.containers.iter().filter(|c| c.node.as_ref() == Some(&node.name)).collect();
        let row = Allocation::of(own.iter().copied());
        assert_eq!(node.allocated, row.resources, "node {} at revision {}", node.name, snapshot.revision);
        assert_eq!(node.containers, row.containers.into_iter().collect::<Vec<_>>());
        bound += own.len();
    }
    bound
}

/// Rounds until all is done; returns how many containers were bound at most.
async fn work(mut deployer: Deployer, released: Arc<AtomicUsize>, history: Arc<RwLock<()>>) -> usize {
    let mut fullest = 0;
    for round in 0..ROUNDS_MAX {
        if released.load(Ordering::Relaxed) >= RELEASES {
            return fullest;
        }
        let needed = history.read().await;
        released.fetch_add(deployer.round(round).await, Ordering::Relaxed);
        if round % JUDGE_EVERY == 0 {
            fullest = fullest.max(judge(&deployer.objects).await);
        }
        drop(needed);
        if round % JUDGE_EVERY == 0 {
            let _nobody_reads = history.write().await;
            let store = deployer.objects.store();
            let revision = store.current_revision().await.expect("a revision");
            store.compact(revision).await.expect("compacted");
        }
    }
    panic!("{ROUNDS_MAX} rounds released only {} containers", released.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "a failed run is repeated by its seed")]
async fn two_deployers_never_exceed_a_capacity() {
    let seed = std::env::var("HEPTAD_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("HEPTAD_TEST_SEED={seed}");
    let contended = Arc::new(Contended::default());
    let store: Arc<dyn Store> = contended.clone();
    let a = Deployer::new("a", store.clone(), seed);
    let b = Deployer::new("b", store.clone(), seed + 1);
    let objects = a.objects.clone();
    for (name, cpu_millis) in [("n1", 2000), ("n2", 1500), ("n3", 1100)] {
        objects.create(node(name, cpu_millis, 1000)).await.expect("registered");
    }
    let released = Arc::new(AtomicUsize::new(0));
    let history = Arc::new(RwLock::new(()));
    let tasks = [a, b].map(|deployer| tokio::spawn(work(deployer, released.clone(), history.clone())));
    let mut fullest = 0;
    for task in tasks {
        fullest = fullest.max(task.await.expect("no panic"));
    }
    judge(&objects).await;
    assert!(fullest >= 5, "the nodes were never full enough to be contended");
    let (refused, done) = (contended.refused.load(Ordering::Relaxed), contended.done.load(Ordering::Relaxed));
    println!("{done} transactions done, {refused} refused, at most {fullest} containers bound");
    assert!(refused >= RELEASES / 100, "only {refused} transactions were refused: the deployers did not meet");
    let (remembered, _) = store.list("/rollouts/").await.expect("rows");
    assert!(remembered.len() <= 2 * (SERVICES_AT_ONCE + 1), "deleted services are forgotten");
    assert!(store.get("/addresses").await.expect("read").is_some());
}
