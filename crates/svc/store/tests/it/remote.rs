//! Storage nodes of other machines: everything over connections that can be cut, machines that join and leave.

use crate::support::{Random, blob_options, options};
use bytes::Bytes;
use heptad_shard::{StorageNode, StorageNodeName, members};
use heptad_store::{
    BlobConnector, BlobNode, BoxFuture, Disks, DistributedStorage, GarbageMemory, Io, LocalNode, MemoryMetaStore,
    NodeState, Options, RemoteHost, RemoteNode, serve_blobs,
};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

const DISKS: [&str; 3] = ["disk1", "disk2", "disk3"];
const PIPE_BYTES: usize = 64 << 10;

/// A machine with three disks that is reached through pipes.
#[derive(Debug)]
struct Machine {
    name: String,
    disks: Arc<Disks>,
    /// No connection can be made.
    is_down: AtomicBool,
    /// Connections are made and nothing ever comes over them.
    is_mute: AtomicBool,
    served: Mutex<Vec<AbortHandle>>,
    _dir: tempfile::TempDir,
}

impl Machine {
    fn new(name: &str) -> Arc<Self> {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        let mut disks: Disks = BTreeMap::new();
        for disk in DISKS {
            let node = LocalNode::open(disk, dir.path().join(disk), blob_options()).expect("the disk opens");
            disks.insert(disk.to_owned(), Arc::new(node));
        }
        let (is_down, is_mute, served) = Default::default();
        Arc::new(Self { name: name.to_owned(), disks: Arc::new(disks), is_down, is_mute, served, _dir: dir })
    }

    fn nodes(self: &Arc<Self>) -> Vec<Arc<dyn BlobNode>> {
        let host = RemoteHost::new(Arc::new(Way(self.clone())));
        let node = |disk| RemoteNode::new(&format!("{}/{disk}", self.name), disk, 64 << 20, host.clone());
        DISKS.map(|disk| Arc::new(node(disk)) as Arc<dyn BlobNode>).to_vec()
    }

    fn described(&self) -> Vec<StorageNode> {
        DISKS.map(|disk| StorageNode::new(&format!("{}/{disk}", self.name), 64 << 20)).to_vec()
    }

    /// As a machine whose power is cut: connections end, and none can be made.
    fn cut(&self) {
        self.is_down.store(true, SeqCst);
        self.served.lock().expect("no panic").drain(..).for_each(|task| task.abort());
    }
}

#[derive(Debug)]
struct Way(Arc<Machine>);

impl BlobConnector for Way {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            if self.0.is_down.load(SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let (disks, mute) = (self.0.disks.clone(), self.0.is_mute.load(SeqCst));
            let task = tokio::spawn(async move {
                if mute {
                    std::future::pending::<()>().await;
                }
                let _ = serve_blobs(disks, far).await;
            });
            self.0.served.lock().expect("no panic").push(task.abort_handle());
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

fn all(machines: &[&Arc<Machine>]) -> (Vec<Arc<dyn BlobNode>>, Vec<StorageNodeName>) {
    let described: Vec<Vec<StorageNode>> = machines.iter().map(|machine| machine.described()).collect();
    let chosen = members(&described, 3).into_iter().map(|node| node.name).collect();
    (machines.iter().flat_map(|machine| machine.nodes()).collect(), chosen)
}

fn only(nodes: &[Arc<dyn BlobNode>], names: &[StorageNodeName]) -> Vec<Arc<dyn BlobNode>> {
    nodes.iter().filter(|node| names.contains(node.name())).cloned().collect()
}

async fn open(machines: &[&Arc<Machine>], options: Options) -> DistributedStorage {
    let (nodes, chosen) = all(machines);
    let meta = Arc::new(MemoryMetaStore::default());
    DistributedStorage::open(only(&nodes, &chosen), meta, options).await.expect("the storage opens")
}

async fn fill(storage: &DistributedStorage, random: &mut Random, count: usize) -> Vec<(String, Bytes)> {
    let mut objects = Vec::new();
    for i in 0..count {
        let (key, content) = (format!("object-{i}"), random.bytes(60_000));
        storage.put_bytes("data", &key, content.clone()).await.expect("stored");
        objects.push((key, content));
    }
    objects
}

async fn assert_all(storage: &DistributedStorage, objects: &[(String, Bytes)]) {
    for (key, content) in objects {
        assert_eq!(&storage.get_bytes("data", key, u64::MAX).await.expect("read"), content, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_machines_lose_one_and_get_it_back() {
    let mut random = Random::seeded("machines");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let storage = open(&[a, b, c], options()).await;
    let mut objects = fill(&storage, &mut random, 20).await;
    b.cut();
    assert_all(&storage, &objects).await;
    storage.put_bytes("data", "later", "with two machines".into()).await.expect("a majority is enough");
    objects.push(("later".to_owned(), "with two machines".into()));
    let status = storage.status().await;
    let states: Vec<NodeState> = status.nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Ready, NodeState::Unavailable, NodeState::Ready]);

    b.is_down.store(false, SeqCst);
    let mut report = storage.repair_once(&mut GarbageMemory::default()).await.expect("repaired");
    for _ in 0..100 {
        if report.blobs_waiting == 0 && storage.status().await.shards_whole == 50 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        report = storage.repair_once(&mut GarbageMemory::default()).await.expect("repaired");
    }
    assert_eq!(storage.status().await.shards_whole, 50, "{report:?}");
    // The one that was away alone has everything.
    a.cut();
    c.cut();
    assert_all(&storage, &objects).await;
    assert!(storage.put_bytes("data", "more", "x".into()).await.is_err(), "one of three is no majority");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_and_shrinks_and_every_copy_moves_to_where_it_belongs() {
    let mut random = Random::seeded("grow");
    let machines = ["a", "b", "c", "d"].map(Machine::new);
    let [a, b, c, d] = &machines;
    let storage = open(&[a], options()).await;
    let objects = fill(&storage, &mut random, 20).await;
    let steps: [&[&Arc<Machine>]; 4] = [&[a, b], &[a, b, c], &[a, b, c, d], &[b, c, d]];
    for step in steps {
        let present: Vec<&Arc<Machine>> = if step[0].name == "a" { step.to_vec() } else { vec![a, b, c, d] };
        let (nodes, _) = all(&present);
        let (_, chosen) = all(step);
        assert!(storage.set_nodes(nodes, &chosen).await.expect("a placement"), "copies must move");
        assert_all(&storage, &objects).await;
        let mut memory = GarbageMemory::default();
        let first = storage.repair_once(&mut memory).await.expect("repaired");
        assert!(first.copies_restored > 0, "{first:?}");
        let mut last = first;
        for _ in 0..5 {
            last = storage.repair_once(&mut memory).await.expect("repaired");
        }
        assert_eq!((last.copies_missing, last.copies_dropped, last.blobs_lost), (0, 0, 0), "{last:?}");
        assert_all(&storage, &objects).await;
        let status = storage.status().await;
        let outside = status.nodes.iter().filter(|node| !chosen.contains(&node.name));
        assert_eq!(outside.map(|node| node.blobs).sum::<u64>(), 0, "{:?}", status.nodes);
    }
    a.cut();
    b.cut();
    assert_all(&storage, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_does_not_answer_delays_a_read_by_little() {
    let mut random = Random::seeded("mute");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    a.is_mute.store(true, SeqCst);
    let storage = open(&[a, b, c], Options { read_hedge_ms: 20, ..options() }).await;
    let begun = Instant::now();
    let objects = fill(&storage, &mut random, 5).await;
    assert_all(&storage, &objects).await;
    // Far below the time that an operation of a node may take: nobody waited for the mute one alone.
    assert!(begun.elapsed() < Duration::from_millis(options().node_timeout_ms / 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_coordinator_follows_what_the_first_decides() {
    let mut random = Random::seeded("two coordinators");
    let machines = ["a", "b", "c", "d"].map(Machine::new);
    let [a, b, c, d] = &machines;
    let meta = Arc::new(MemoryMetaStore::default());
    let (nodes, chosen) = all(&[a, b, c]);
    let first = DistributedStorage::open(only(&nodes, &chosen), meta.clone(), options()).await.expect("opens");
    let second = DistributedStorage::open(only(&nodes, &chosen), meta, options()).await.expect("opens");
    let objects = fill(&first, &mut random, 10).await;
    assert_all(&second, &objects).await;
    let (nodes, chosen) = all(&[a, b, c, d]);
    assert!(first.set_nodes(nodes.clone(), &chosen).await.expect("a placement"));
    second.follow_nodes(nodes).await.expect("followed");
    assert_eq!(second.status().await.epoch, first.status().await.epoch);
    second.put_bytes("data", "new", "by the second".into()).await.expect("stored");
    assert_eq!(first.get_bytes("data", "new", 100).await.expect("read"), "by the second");
    first.repair_once(&mut GarbageMemory::default()).await.expect("repaired");
    assert_all(&second, &objects).await;
}
