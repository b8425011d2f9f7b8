//! Two leaders that place the same containers at the same moment: each has its plan ready before either may commit. No rule
//! and no capacity is ever broken, what one of them lost is planned again, and in the end everything has its place.

use crate::common::{node, resources, service};
use heptad_capacity::Allocation;
use heptad_control::{Objects, Options, Reconciler};
use heptad_model::{
    Container, DesiredState, Namespace, NodeName, Service, Snapshot,
    invariants::verify,
    placement::{AffinityRule, TopologySpread},
};
use heptad_state::{BoxFuture, Layer, Limits, MemoryStore, Result, Store, Txn, TxnResponse};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Barrier, time::timeout};

const ROUNDS: usize = 12;
/// So few rows that every plan has many pieces, of which each leader wins some.
const ROWS_MAX: usize = 40;
/// Longest wait of one leader for the other.
const MEET_S_MAX: u64 = 20;
/// Looks at everything within which all is placed.
const LOOKS_MAX: usize = 50;
/// Compared and changed by whatever looks at more than one node.
const GUARD: &[u8] = b"/placements/guard";
const ZONES: [&str; 3] = ["a", "b", "c"];

/// One leader's way to the store: its first binding with a rule waits until the other leader has one too.
#[derive(Debug)]
struct Leader {
    inner: Arc<MemoryStore>,
    both: Arc<Barrier>,
    waits: AtomicBool,
    met: AtomicUsize,
    refused: AtomicUsize,
}

impl Leader {
    async fn commit(&self, txn: Txn) -> Result<TxnResponse> {
        let guarded = txn.compares.iter().any(|compare| compare.key == GUARD);
        if guarded && self.waits.swap(false, Ordering::SeqCst) {
            let met = timeout(Duration::from_secs(MEET_S_MAX), self.both.wait()).await;
            self.met.fetch_add(usize::from(met.is_ok()), Ordering::SeqCst);
        }
        tokio::task::yield_now().await;
        let done = self.inner.txn(txn).await?;
        self.refused.fetch_add(usize::from(guarded && !done.succeeded), Ordering::SeqCst);
        Ok(done)
    }
}

impl Layer for Leader {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(self.commit(txn))
    }
}

fn small(name: String, replicas: u32, cpu_millis: u64) -> Service {
    Service { resources: resources(cpu_millis, 16).into(), ..service(&name, replicas) }
}

/// One of each kind of rule, and something without.
fn wanted(round: usize) -> Vec<Service> {
    let (web, cache) = (format!("web{round}"), format!("cache{round}"));
    let on = |name: &str| AffinityRule::on_services(&[name]);
    let by_zone = AffinityRule { topology_key: "zone".to_owned(), ..on(&web) };
    vec![
        Service { anti_affinity: vec![by_zone], ..small(web.clone(), 3, 200) },
        // It asks for no processor: whatever else was packed beside web, there is room for it.
        Service { affinity: vec![on(&web)], ..small(cache, 3, 0) },
        Service { anti_affinity: vec![on(&web)], ..small(format!("alone{round}"), 2, 200) },
        Service {
            topology_spread: vec![TopologySpread { topology_key: "zone".to_owned(), max_skew: 1, required: true }],
            ..small(format!("even{round}"), 6, 150)
        },
        small(format!("plain{round}"), 10, 100),
    ]
}

/// On which node each replica is.
fn nodes_of(snapshot: &Snapshot, name: &str) -> Vec<NodeName> {
    let own = snapshot.containers.iter().filter(|c| c.service.name == name && c.is_alive());
    own.filter_map(|container| container.node.clone()).collect()
}

fn zones_of(snapshot: &Snapshot, name: &str) -> BTreeMap<String, usize> {
    let mut zones: BTreeMap<String, usize> = BTreeMap::new();
    for on in nodes_of(snapshot, name) {
        let node = snapshot.nodes.iter().find(|node| node.name == on).expect("it exists");
        *zones.entry(node.labels["zone"].clone()).or_default() += 1;
    }
    zones
}

/// What holds at every moment, whether everything is placed yet or not.
fn judge(snapshot: &Snapshot, round: usize) {
    assert_eq!(verify(snapshot), [], "revision {}", snapshot.revision);
    for node in &snapshot.nodes {
        let row = Allocation::of(snapshot.containers.iter().filter(|c| c.node.as_ref() == Some(&node.name)));
        assert_eq!(node.allocated, row.resources, "node {} at revision {}", node.name, snapshot.revision);
        assert_eq!(node.containers, row.containers.into_iter().collect::<Vec<_>>());
    }
    let web = nodes_of(snapshot, &format!("web{round}"));
    assert!(zones_of(snapshot, &format!("web{round}")).values().all(|count| *count == 1), "one in each zone");
    assert!(nodes_of(snapshot, &format!("cache{round}")).iter().all(|node| web.contains(node)), "beside web");
    assert!(nodes_of(snapshot, &format!("alone{round}")).iter().all(|node| !web.contains(node)), "apart from web");
    let even = zones_of(snapshot, &format!("even{round}"));
    let count = |zone: &str| even.get(zone).copied().unwrap_or(0);
    let (least, most) = (ZONES.iter().map(|z| count(z)).min(), ZONES.iter().map(|z| count(z)).max());
    assert!(most <= least.map(|least| least + 1), "{even:?}");
}

async fn remove(objects: &Objects, round: usize) {
    for service in wanted(round) {
        objects.delete::<Service>(&Namespace::default(), &service.name, None).await.expect("deleted");
    }
    for item in objects.list::<Container>(None).await.expect("a list").items {
        if let (DesiredState::Stopped, Some(node)) = (item.object.desired, &item.object.node) {
            objects.remove_container(&item.object.id, node).await.expect("released");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_leaders_with_ready_plans_break_no_rule_and_place_everything() {
    let limits = Limits { txn_ops_max: ROWS_MAX, ..Limits::default() };
    let inner = Arc::new(MemoryStore::with_limits(limits));
    let both = Arc::new(Barrier::new(2));
    let leaders = [(); 2].map(|()| {
        let (inner, both) = (inner.clone(), both.clone());
        let (met, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Leader { inner, both, waits: AtomicBool::new(false), met, refused })
    });
    let reconcilers = leaders.clone().map(|store| {
        let options = Options { events_max: 10, ..Options::default() };
        let objects = Objects::new(store, options.service_cidr, options.events_max);
        Reconciler::standalone(objects, options)
    });
    let objects = Objects::new(inner, Options::default().service_cidr, 10);
    for number in 0..12 {
        let mut node = node(&format!("n{number}"), 1_000, 4_096);
        node.labels.insert("zone".to_owned(), ZONES[number % 3].to_owned());
        objects.create(node).await.expect("registered");
    }
    for round in 0..ROUNDS {
        for service in wanted(round) {
            objects.create(service).await.expect("created");
        }
        leaders.iter().for_each(|leader| leader.waits.store(true, Ordering::SeqCst));
        let all = |snapshot: &Snapshot| {
            wanted(round).iter().all(|s| nodes_of(snapshot, &s.name).len() == s.replicas as usize)
        };
        for look in 0.. {
            assert!(look < LOOKS_MAX, "not everything of round {round} is placed: {:#?}", objects.snapshot().await);
            let (a, b) = tokio::join!(reconcilers[0].once(), reconcilers[1].once());
            a.and(b).expect("no error");
            leaders.iter().for_each(|leader| leader.waits.store(false, Ordering::SeqCst));
            let snapshot = objects.snapshot().await.expect("a snapshot");
            judge(&snapshot, round);
            if all(&snapshot) {
                break;
            }
        }
        if round > 0 {
            remove(&objects, round - 1).await;
        }
    }
    let sum =
        |of: fn(&Leader) -> &AtomicUsize| leaders.iter().map(|leader| of(leader).load(Ordering::SeqCst)).sum::<usize>();
    let (met, refused) = (sum(|leader| &leader.met) / 2, sum(|leader| &leader.refused));
    assert!(met >= ROUNDS / 2, "they met in {met} rounds of {ROUNDS}");
    assert!(refused >= met, "of two that met one must lose: {refused} of {met}");
}
