//! Several servers on one store: one leads, all answer, a new one goes on, and whoever led before writes nothing more.

use crate::common::{Agent, World, all_ready, node, service, until};
use heptad_control::{ControlHandle, Leadership, Options, ServerParts, Servers};
use heptad_model::{Container, ContainerStatus, Event, Namespace, Node, NodeStatus, Service};
use heptad_state::{BoxFuture, Compare, Layer, MemoryStore, Op, Result, Store, StoreExt, Txn, TxnResponse};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

const LEASE_MS: u64 = 2_400;
const FENCE: &[u8] = b"/leader/generation";

/// One server's way to the store. While it is shut, transactions wait; those that waited keep only the compare of the
/// fence, so that nothing else stands against them when it opens.
#[derive(Debug)]
struct Gate {
    inner: Arc<MemoryStore>,
    open: watch::Sender<bool>,
    waited: AtomicUsize,
    came_late: Arc<AtomicUsize>,
    /// What was written late.
    passed_late: Arc<Mutex<Vec<Vec<Op>>>>,
}

/// What a server says of itself it may say at any time.
fn is_of_a_server(key: &[u8], value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value);
    key.starts_with(b"/servers/") || (key.starts_with(b"/events/") && value.contains("\"subject\":\"server/"))
}

impl Gate {
    fn new(inner: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            open: watch::Sender::new(true),
            waited: AtomicUsize::new(0),
            came_late: Arc::default(),
            passed_late: Arc::default(),
        })
    }

    async fn pass(&self, mut txn: Txn) -> Result<TxnResponse> {
        if *self.open.borrow() {
            return self.inner.txn(txn).await;
        }
        let writes = txn.then.iter().any(|op| match op {
            Op::Range { .. } => false,
            Op::Put { key, value } => !is_of_a_server(key, value),
            Op::Delete { .. } => true,
        });
        self.waited.fetch_add(usize::from(writes), Ordering::SeqCst);
        let mut open = self.open.subscribe();
        // The request is on its way: whoever waits for its answer may go, it does not come back.
        let inner = self.inner.clone();
        txn.compares.retain(|compare: &Compare| compare.key == FENCE);
        let asked = txn.then.clone();
        let (came_late, passed_late) = (self.came_late.clone(), self.passed_late.clone());
        let late = tokio::spawn(async move {
            let _ = open.wait_for(|open| *open).await;
            let done = inner.txn(txn).await;
            if writes && done.as_ref().is_ok_and(|done| done.succeeded) {
                passed_late.lock().expect("nobody panics").push(asked);
            }
            came_late.fetch_add(usize::from(writes), Ordering::SeqCst);
            done
        });
        late.await.expect("no panic")
    }
}

impl Layer for Gate {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(self.pass(txn))
    }
}

async fn server(name: &str, store: Arc<dyn Store>, change: impl FnOnce(&mut Options)) -> World {
    let parts = ServerParts { version: "1".to_owned(), ..ServerParts::default() };
    let elected = |options: &mut Options| {
        options.server_name = name.to_owned();
        options.server_url = Some(format!("https://{name}:7443"));
        options.leadership = Leadership::Elected { lease_ms: LEASE_MS, renew_interval_ms: 100 };
        change(options);
    };
    World::with(store, elected, parts).await
}

async fn leads(control: &ControlHandle) {
    until("a server leads", async || control.is_leader()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_all_answer_and_the_next_goes_on() {
    let store = Arc::new(MemoryStore::new());
    let a = server("a", store.clone(), |_| {}).await;
    leads(&a.control).await;
    let b = server("b", store.clone(), |_| {}).await;
    let servers = Servers::new(store.clone());
    assert_eq!(servers.leader().await.expect("read").as_deref(), Some("a"));
    let names: Vec<String> = servers.list().await.expect("read").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b"]);
    // Everything is asked of the one that does not lead.
    let _agent = Agent::start(&b.client, &node("n1", 4000, 4096)).await;
    b.client.create(&service("web", 3)).await.expect("created");
    b.containers_until(all_ready(3)).await;
    assert!(a.control.is_leader() && !b.control.is_leader());
    let before: Vec<_> = b.containers().await.into_iter().map(|container| container.id).collect();
    a.control.shutdown().await;
    leads(&b.control).await;
    assert_eq!(servers.leader().await.expect("read").as_deref(), Some("b"));
    let patch = serde_json::json!({ "replicas": 4 });
    b.client.patch::<Service>(&Namespace::default(), "web", &patch, None).await.expect("scaled");
    let after = b.containers_until(all_ready(4)).await;
    assert!(before.iter().all(|id| after.iter().any(|container| container.id == *id)), "nothing was replaced");
    b.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_writes_of_a_paused_leader_are_refused() {
    let store = Arc::new(MemoryStore::new());
    let gate = Gate::new(store.clone());
    let quick = |options: &mut Options| (options.node_unknown_ms, options.node_not_ready_ms) = (200, 60_000);
    let a = server("a", gate.clone(), quick).await;
    leads(&a.control).await;
    let b = server("b", store.clone(), |_| {}).await;
    b.client.replace(&node("n1", 4000, 4096), None).await.expect("registered");
    b.client.create(&service("first", 1)).await.expect("created");
    b.containers_until(|all| all.iter().any(|container| container.node.is_some())).await;
    gate.open.send_replace(false);
    // The paused leader wants to place containers, and to say that a node is silent.
    b.client.create(&service("web", 2)).await.expect("created");
    until("it tried to write", async || gate.waited.load(Ordering::SeqCst) >= 2).await;
    leads(&b.control).await;
    until("the paused one stopped by itself", async || !a.control.is_leader()).await;
    b.containers_until(|all| all.iter().filter(|container| container.node.is_some()).count() == 3).await;
    let before = store.current_revision().await.expect("read");
    gate.open.send_replace(true);
    until("all that waited has come", async || {
        gate.came_late.load(Ordering::SeqCst) == gate.waited.load(Ordering::SeqCst)
    })
    .await;
    let passed = gate.passed_late.lock().expect("nobody panics").clone();
    assert!(passed.is_empty(), "of {} that waited: {passed:?}", gate.waited.load(Ordering::SeqCst));
    let rows = store.list("/").await.expect("read").0;
    let changed: Vec<String> = rows
        .iter()
        .filter(|kv| kv.mod_revision > before)
        .filter(|kv| !kv.key.starts_with(b"/leader/lease") && !is_of_a_server(&kv.key, &kv.value))
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect();
    assert_eq!(changed, Vec::<String>::new());
    assert!(!a.control.is_leader() && b.control.is_leader());
    b.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_gives_every_node_the_full_time() {
    let store = Arc::new(MemoryStore::new());
    let gate = Gate::new(store.clone());
    let quick = |options: &mut Options| (options.node_unknown_ms, options.node_not_ready_ms) = (LEASE_MS, 2 * LEASE_MS);
    let a = server("a", gate.clone(), quick).await;
    leads(&a.control).await;
    let b = server("b", store.clone(), quick).await;
    for name in ["alive", "dead"] {
        a.client.replace(&node(name, 1000, 1024), None).await.expect("registered");
    }
    let (alive, dead) = ("alive".into(), "dead".into());
    a.client.heartbeat(&alive).await.expect("heard");
    b.client.heartbeat(&dead).await.expect("heard, and only remembered");
    gate.open.send_replace(false);
    leads(&b.control).await;
    let began = std::time::Instant::now();
    let status = async |name: &str| {
        let node = b.client.get::<Node>(&Namespace::default(), name).await.expect("a node");
        node.object.status
    };
    while began.elapsed() < Duration::from_millis(LEASE_MS * 2 / 3) {
        assert_eq!((status("alive").await, status("dead").await), (NodeStatus::Ready, NodeStatus::Ready));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("the silent one is noticed, the other is not", async || {
        b.client.heartbeat(&alive).await.expect("heard");
        assert_eq!(status("alive").await, NodeStatus::Ready);
        status("dead").await == NodeStatus::NotReady
    })
    .await;
    b.client.heartbeat(&dead).await.expect("heard");
    assert_eq!(status("dead").await, NodeStatus::Ready, "it is back");
    let events = b.client.list::<Event>().await.expect("a list").items;
    assert!(events.iter().all(|item| item.object.subject != "node/alive"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_off_is_shown_so_though_nobody_can_write_it() {
    let store = Arc::new(MemoryStore::new());
    let gate = Gate::new(store.clone());
    let quick = |options: &mut Options| {
        (options.node_unknown_ms, options.node_not_ready_ms, options.heartbeat_check_ms) = (100, 200, 60_000);
        // A server whose store is silent for several renewals refuses to answer.
        options.leadership = Leadership::Elected { lease_ms: 600_000, renew_interval_ms: 60_000 };
    };
    let a = server("a", gate.clone(), quick).await;
    leads(&a.control).await;
    a.client.replace(&node("n1", 4000, 4096), None).await.expect("registered");
    a.client.create(&service("web", 1)).await.expect("created");
    let bound = a.containers_until(|all| all.iter().any(|container| container.node.is_some())).await.remove(0);
    gate.open.send_replace(false);
    until("it is off", async || {
        let node = a.client.get::<Node>(&Namespace::default(), "n1").await.expect("a node");
        node.object.status == NodeStatus::NotReady
    })
    .await;
    let listed = a.client.list::<Node>().await.expect("a list").items.remove(0).object;
    assert_eq!(listed.status, NodeStatus::NotReady, "in a list too");
    let container = a.client.get::<Container>(&Namespace::default(), bound.id.as_str()).await.expect("there").object;
    assert_eq!(
        (container.status, a.containers().await[0].status),
        (ContainerStatus::Unknown, ContainerStatus::Unknown)
    );
    let rows = store.list("/nodes/").await.expect("read").0;
    assert!(String::from_utf8_lossy(&rows[0].value).contains("\"status\":\"Ready\""), "nothing was written");
    a.client.heartbeat(&"n1".into()).await.expect("heard");
    let back = a.client.get::<Node>(&Namespace::default(), "n1").await.expect("a node").object;
    assert_eq!(back.status, NodeStatus::Ready);
    gate.open.send_replace(true);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_alone_writes_nothing_while_idle() {
    let store = Arc::new(MemoryStore::new());
    let world = World::with(store.clone(), |_| {}, ServerParts::default()).await;
    assert!(world.control.is_leader(), "at once");
    let revision = store.current_revision().await.expect("read");
    // The clock goes on as soon as nobody has anything to do.
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(store.current_revision().await.expect("read"), revision);
    let rows = store.list("/").await.expect("read").0;
    assert_eq!(rows.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [FENCE]);
}
