//! Storage nodes of other machines: everything over connections that can be cut, machines that join and leave.

use crate::support::{Random, blob_options, options};
use bytes::Bytes;
use heptad_store::{
    BlobConnector, BlobNode, BoxFuture, Disks, DistributedStorage, GarbageMemory, Io, LocalNode, MemoryMetaStore,
    MetaStore, NodeState, Options, RemoteHost, RemoteNode, StorageStatus, serve_blobs,
};
use std::{
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
const POLL: Duration = Duration::from_millis(10);
const WAIT: Duration = Duration::from_secs(60);

/// A machine with three disks that is reached through pipes.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    disks: Mutex<Arc<Disks>>,
    /// No connection can be made.
    is_down: AtomicBool,
    /// Connections are made and nothing ever comes over them.
    is_mute: AtomicBool,
    served: Mutex<Vec<AbortHandle>>,
    pub(crate) dir: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        let (disks, is_down, is_mute, served) = Default::default();
        let machine = Self { name: name.to_owned(), disks, is_down, is_mute, served, dir };
        machine.power_on();
        Arc::new(machine)
    }

    pub(crate) fn nodes(self: &Arc<Self>) -> Vec<Arc<dyn BlobNode>> {
        self.nodes_by(&Arc::default())
    }

    /// The same by a way of its own, which is barred as long as `is_barred` says so.
    pub(crate) fn nodes_by(self: &Arc<Self>, is_barred: &Arc<AtomicBool>) -> Vec<Arc<dyn BlobNode>> {
        let host = RemoteHost::new(Arc::new(Way(self.clone(), is_barred.clone())));
        let node = |disk| RemoteNode::new(&self.name, disk, 64 << 20, host.clone());
        DISKS.map(|disk| Arc::new(node(disk)) as Arc<dyn BlobNode>).to_vec()
    }

    /// Opens its disks and answers.
    pub(crate) fn power_on(&self) {
        let disks = DISKS.map(|disk| {
            let node = LocalNode::open(disk, self.dir.path().join(disk), blob_options()).expect("the disk opens");
            (disk.to_owned(), Arc::new(node) as Arc<dyn BlobNode>)
        });
        *self.disks.lock().expect("no panic") = Arc::new(disks.into());
        self.is_down.store(false, SeqCst);
    }

    /// It can be reached again.
    pub(crate) fn reach(&self) {
        self.is_down.store(false, SeqCst);
    }

    /// Ends everything on it, so that its disks are free for whoever opens them next.
    pub(crate) async fn power_off(&self) {
        self.cut();
        let disks = std::mem::take(&mut *self.disks.lock().expect("no panic"));
        // Connections that were cut let go of the disks a moment later.
        while Arc::strong_count(&disks) > 1 {
            tokio::time::sleep(POLL).await;
        }
    }

    /// It comes back with empty disks in place of its own.
    pub(crate) async fn replace_disks(&self) {
        self.power_off().await;
        for disk in DISKS {
            std::fs::remove_dir_all(self.dir.path().join(disk)).expect("the disk was there");
        }
        self.power_on();
    }

    /// As a machine whose power is cut: connections end, and none can be made.
    pub(crate) fn cut(&self) {
        self.is_down.store(true, SeqCst);
        self.served.lock().expect("no panic").drain(..).for_each(|task| task.abort());
    }
}

#[derive(Debug)]
struct Way(Arc<Machine>, Arc<AtomicBool>);

impl BlobConnector for Way {
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            if self.0.is_down.load(SeqCst) || self.1.load(SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (near, far) = tokio::io::duplex(PIPE_BYTES);
            let (disks, mute) = (self.0.disks.lock().expect("no panic").clone(), self.0.is_mute.load(SeqCst));
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

pub(crate) fn all(machines: &[&Arc<Machine>]) -> Vec<Arc<dyn BlobNode>> {
    machines.iter().flat_map(|machine| machine.nodes()).collect()
}

pub(crate) async fn open(machines: &[&Arc<Machine>], options: Options) -> DistributedStorage {
    open_on(machines, Arc::new(MemoryMetaStore::default()), options).await
}

pub(crate) async fn open_on(
    machines: &[&Arc<Machine>],
    meta: Arc<dyn MetaStore>,
    options: Options,
) -> DistributedStorage {
    DistributedStorage::open(all(machines), meta, options).await.expect("the storage opens")
}

/// Waits until the status is as asked.
pub(crate) async fn until(
    storage: &DistributedStorage,
    what: &str,
    is_so: impl Fn(&StorageStatus) -> bool,
) -> StorageStatus {
    let begun = Instant::now();
    loop {
        let status = storage.status().await;
        if is_so(&status) {
            return status;
        }
        let (whole, nodes) = (status.shards_whole, &status.nodes);
        assert!(begun.elapsed() < WAIT, "{what}: {whole} shards are whole: {nodes:#?}");
        tokio::time::sleep(POLL).await;
    }
}

pub(crate) fn is_whole(status: &StorageStatus) -> bool {
    status.shards_whole == status.shards_total
}

pub(crate) async fn fill(storage: &DistributedStorage, random: &mut Random, count: usize) -> Vec<(String, Bytes)> {
    let mut objects = Vec::new();
    for i in 0..count {
        let (key, content) = (format!("object-{i}"), random.bytes(60_000));
        storage.put_bytes("data", &key, content.clone()).await.expect("stored");
        objects.push((key, content));
    }
    objects
}

pub(crate) async fn assert_all(storage: &DistributedStorage, objects: &[(String, Bytes)]) {
    for (key, content) in objects {
        assert_eq!(&storage.get_bytes("data", key, u64::MAX).await.expect("read"), content, "{key}");
    }
}

/// Repairs until everything is whole: what a late answer tells of may need another pass.
async fn repair(storage: &DistributedStorage) {
    let begun = Instant::now();
    while !is_whole(&storage.status().await) {
        let report = storage.repair_once(&mut GarbageMemory::default()).await.expect("repaired");
        assert!(begun.elapsed() < WAIT, "{report:?}");
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
    let down: Vec<bool> = status.nodes.iter().map(|node| node.state == NodeState::Unavailable).collect();
    assert_eq!(down, [[false; 3], [true; 3], [false; 3]].concat());

    b.is_down.store(false, SeqCst);
    // The coordinator does not try again at once after a connection failed.
    until(&storage, "it is back", |status| status.nodes.iter().all(|node| node.state == NodeState::Ready)).await;
    assert_eq!(storage.status().await.shards_whole, 0, "nobody has looked at what it missed");
    repair(&storage).await;
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
        assert!(storage.set_nodes(all(step)).await.expect("a placement"), "copies must move");
        assert!(!is_whole(&storage.status().await), "what is to move was not looked at");
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
        assert!(is_whole(&status) && status.nodes.iter().all(|node| node.shards > 0 && node.blobs > 0), "{status:?}");
    }
    b.cut();
    c.cut();
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
    let first = open_on(&[a, b, c], meta.clone(), options()).await;
    let second = open_on(&[a, b, c], meta, options()).await;
    let objects = fill(&first, &mut random, 10).await;
    assert_all(&second, &objects).await;
    assert!(first.set_nodes(all(&[a, b, c, d])).await.expect("a placement"));
    second.follow_nodes(all(&[a, b, c, d])).await.expect("followed");
    assert_eq!(second.status().await.epoch, first.status().await.epoch);
    second.put_bytes("data", "new", "by the second".into()).await.expect("stored");
    assert_eq!(first.get_bytes("data", "new", 100).await.expect("read"), "by the second");
    first.repair_once(&mut GarbageMemory::default()).await.expect("repaired");
    assert_all(&second, &objects).await;
}
