//! Concurrent histories of objects through the HTTP front of three coordinators (G10), while machines are cut off and lose their
//! disks, answers of the metadata are lost or late, and garbage is collected. Judged by the checker of the state's histories: a
//! list counts as a read of every key.

#[path = "../../../../io/state/tests/it/history/checker.rs"]
mod checker;

use crate::{
    remote::{Machine, all, is_whole},
    support::{Random, options},
};
use axum::{Router, body::Body};
use bytes::Bytes;
use checker::check;
use heptad_store::{
    BoxFuture, Change, DistributedStorage, ListPage, MemoryMetaStore, MetaError, MetaRow, MetaStore, Options,
};
use http::{Method, Request, StatusCode};
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tower::ServiceExt;

const KEYS: u64 = 5;
const WORKERS: u64 = 6;
const OPERATIONS: usize = 150;
/// A machine that came back is not asked for a moment after it could not be reached.
const REACHED: Duration = Duration::from_millis(700);
/// One in so many changes of the metadata gets no answer, and as many are done late.
const UNANSWERED_ONE_IN: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read,
    Write(u64),
    Swap(Option<u64>, u64),
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Read(Option<u64>),
    Done,
    Refused,
    /// No answer came; or it does not say what was there before.
    Unknown,
}

#[derive(Clone, Debug)]
struct Operation {
    key: u64,
    action: Action,
    outcome: Outcome,
    called: u64,
    returned: u64,
}

/// Rows of which some changes are done and not answered, or answered with an error and done later.
#[derive(Debug)]
struct Flaky {
    rows: Arc<MemoryMetaStore>,
    random: Mutex<Random>,
    is_flaky: AtomicBool,
}

impl MetaStore for Flaky {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        self.rows.get(key)
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        let mut random = self.random.lock().unwrap();
        let (which, late) = (random.below(UNANSWERED_ONE_IN), Duration::from_millis(random.below(50)));
        if which > 1 || !self.is_flaky.load(SeqCst) {
            return self.rows.change(change);
        }
        let rows = self.rows.clone();
        Box::pin(async move {
            let done = tokio::spawn(async move {
                if which == 1 {
                    tokio::time::sleep(late).await;
                }
                rows.change(change).await
            });
            if which == 0 {
                let _ = done.await;
            }
            Err(MetaError::new("changing", b"a row", "no answer came"))
        })
    }

    fn list(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<MetaRow>, MetaError>> {
        self.rows.list(prefix, after, limit)
    }
}

/// What happened, from all workers.
#[derive(Debug, Default)]
struct Recorder {
    moment: AtomicU64,
    value: AtomicU64,
    checksums: Mutex<BTreeMap<String, u64>>,
    operations: Mutex<Vec<Operation>>,
    failed_reads: AtomicU64,
}

/// Its number over and over; some are one chunk, some have rows of extents.
fn content(value: u64) -> Bytes {
    value.to_le_bytes().repeat(if value.is_multiple_of(3) { 5_000 } else { 100 }).into()
}

async fn ask(router: &Router, method: Method, path: &str, body: Bytes) -> Option<(StatusCode, String, Bytes)> {
    let request = Request::builder().method(method).uri(path).body(Body::from(body)).expect("a request");
    let answer = router.clone().oneshot(request).await.expect("it always answers");
    let (status, tag) = (answer.status(), answer.headers().get("x-heptad-blake3").cloned());
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.ok()?;
    Some((status, tag.map_or(String::new(), |tag| tag.to_str().expect("text").to_owned()), body))
}

impl Recorder {
    fn moment(&self) -> u64 {
        self.moment.fetch_add(1, SeqCst)
    }

    fn put_down(&self, key: u64, action: Action, outcome: Outcome, called: u64, returned: u64) {
        self.operations.lock().unwrap().push(Operation { key, action, outcome, called, returned });
    }

    fn value_of(&self, checksum: &str) -> u64 {
        *self.checksums.lock().unwrap().get(checksum).expect("something that was never written was read")
    }

    async fn work(self: Arc<Self>, router: Router, mut random: Random) {
        for _ in 0..OPERATIONS {
            tokio::time::sleep(Duration::from_millis(random.below(60))).await;
            let key = random.below(KEYS);
            match random.below(10) {
                0..3 => drop(self.read(&router, key, Method::GET).await),
                3 => drop(self.read(&router, key, Method::HEAD).await),
                4 => self.list(&router).await,
                5..9 => self.write(&router, key).await,
                _ => self.delete(&router, key).await,
            }
        }
    }

    /// Whether an answer came.
    async fn read(&self, router: &Router, key: u64, method: Method) -> bool {
        let called = self.moment();
        let answer = ask(router, method.clone(), &format!("/data/{key}"), Bytes::new()).await;
        let seen = match answer {
            Some((StatusCode::OK, checksum, body)) => {
                let value = self.value_of(&checksum);
                assert!(method == Method::HEAD || body == content(value), "the content is not what the checksum says");
                Some(value)
            }
            Some((StatusCode::NOT_FOUND, ..)) => None,
            // The data was replaced under it, or is on machines that are away.
            _ => {
                self.failed_reads.fetch_add(1, SeqCst);
                return false;
            }
        };
        self.put_down(key, Action::Read, Outcome::Read(seen), called, self.moment());
        true
    }

    async fn list(&self, router: &Router) {
        let called = self.moment();
        let Some((StatusCode::OK, _, body)) = ask(router, Method::GET, "/data", Bytes::new()).await else { return };
        let returned = self.moment();
        let page: ListPage = serde_json::from_slice(&body).expect("a page");
        let sorted = page.objects.windows(2).all(|pair| pair[0].key < pair[1].key);
        assert!(sorted && page.next.is_none(), "{page:?}");
        for key in 0..KEYS {
            let found = page.objects.iter().find(|object| object.key == key.to_string());
            let seen = found.map(|object| self.value_of(&object.checksum));
            self.put_down(key, Action::Read, Outcome::Read(seen), called, returned);
        }
    }

    async fn write(&self, router: &Router, key: u64) {
        let value = self.value.fetch_add(1, SeqCst) + 1;
        let checksum = blake3::hash(&content(value)).to_hex().to_string();
        self.checksums.lock().unwrap().insert(checksum, value);
        let called = self.moment();
        let answer = ask(router, Method::PUT, &format!("/data/{key}"), content(value)).await;
        match answer {
            Some((StatusCode::CREATED, ..)) => {
                self.put_down(key, Action::Write(value), Outcome::Done, called, self.moment());
            }
            _ => self.put_down(key, Action::Write(value), Outcome::Unknown, called, u64::MAX),
        }
    }

    /// The answer does not say whether there was one.
    async fn delete(&self, router: &Router, key: u64) {
        let called = self.moment();
        let answer = ask(router, Method::DELETE, &format!("/data/{key}"), Bytes::new()).await;
        let is_done = matches!(answer, Some((StatusCode::NO_CONTENT, ..)));
        let returned = if is_done { self.moment() } else { u64::MAX };
        self.put_down(key, Action::Delete, Outcome::Unknown, called, returned);
    }
}

/// Machines are cut off and come back one after the other; some come back with empty disks if nothing else is missing.
async fn break_machines(machines: &[Arc<Machine>; 3], storage: &DistributedStorage, mut random: Random) {
    loop {
        let machine = &machines[random.below(3) as usize];
        let pause = Duration::from_millis(20 + random.below(120));
        if random.below(2) == 0 && is_whole(&storage.status().await) {
            machine.replace_disks().await;
        } else {
            machine.cut();
            tokio::time::sleep(pause).await;
            machine.reach();
        }
        tokio::time::sleep(REACHED).await;
    }
}

/// What must happen happens soon.
fn hasty() -> Options {
    Options {
        check_gap_ms_min: 10,
        watch_interval_ms: 10,
        scrub_interval_ms: 100,
        scrub_gap_ms_min: 10,
        scrub_bytes_per_second_max: 1 << 30,
        garbage_grace_ms: 100,
        purge_delay_ms: 50,
        upload_silence_ms_max: 1_000,
        node_timeout_ms: 2_000,
        ..options()
    }
}

/// Everything is well again: every key is read through every server.
async fn read_all(recorder: &Recorder, routers: &[Router]) {
    let began = Instant::now();
    for key in 0..KEYS {
        for router in routers {
            while !recorder.read(router, key, Method::GET).await {
                assert!(began.elapsed() < Duration::from_secs(60), "key {key} cannot be read any more");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A read behind all others that answers what had been overwritten before.
fn stale(operations: &[Operation]) -> Operation {
    let last = operations.last().expect("the last read").clone();
    let is_first = |operation: &&Operation| operation.key == last.key && operation.outcome == Outcome::Done;
    let Some(Action::Write(first)) = operations.iter().find(is_first).map(|operation| operation.action) else {
        panic!("no write of the last key was acknowledged");
    };
    assert!(last.outcome != Outcome::Read(Some(first)), "the first write of the last key was also its last");
    let called = last.returned + 1;
    Operation { outcome: Outcome::Read(Some(first)), called, returned: called + 1, ..last }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_of_objects_are_linearizable() {
    let mut random = Random::seeded("history");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let rows = Arc::new(MemoryMetaStore::default());
    let meta = Arc::new(Flaky { rows, random: Mutex::new(Random(random.next())), is_flaky: AtomicBool::new(false) });
    let mut storages = Vec::new();
    for _ in 0..3 {
        let opened = DistributedStorage::open(all(&[a, b, c]), meta.clone(), hasty()).await;
        storages.push(opened.expect("the storage opens"));
    }
    let _maintenance = storages[0].maintain();
    meta.is_flaky.store(true, SeqCst);
    let recorder = Arc::new(Recorder::default());
    let routers: Vec<Router> = storages.iter().map(DistributedStorage::router).collect();
    let workers = (0..WORKERS).map(|number| {
        let router = routers[number as usize % routers.len()].clone();
        tokio::spawn(recorder.clone().work(router, Random(random.next())))
    });
    let workers = futures_util::future::join_all(workers.collect::<Vec<_>>());
    tokio::select! {
        () = break_machines(&machines, &storages[0], Random(random.next())) => {}
        ended = workers => ended.into_iter().for_each(|worker| worker.expect("a worker failed")),
    }
    machines.iter().for_each(|machine| machine.reach());
    meta.is_flaky.store(false, SeqCst);
    read_all(&recorder, &routers).await;
    let mut operations = recorder.operations.lock().unwrap().clone();
    let count = |is: fn(&Operation) -> bool| operations.iter().filter(|operation| is(operation)).count();
    let unknown = count(|operation| operation.returned == u64::MAX);
    let done = count(|operation| operation.outcome == Outcome::Done);
    let failed_reads = recorder.failed_reads.load(SeqCst);
    let total = operations.len();
    let summary =
        format!("{total} operations, {done} writes acknowledged, {unknown} unknown, {failed_reads} reads failed\n");
    std::io::stdout().write_all(summary.as_bytes()).expect("standard output");
    assert_eq!(check(&operations), Ok(()), "not linearizable: {summary}");
    assert!(done > 50 && unknown > 0 && total > 500, "hardly anything happened: {summary}");
    operations.push(stale(&operations));
    assert_eq!(check(&operations), Err(vec![KEYS - 1]), "a stale read is not noticed");
}
