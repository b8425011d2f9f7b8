//! Kill -9 under load: a child process writes, the parent kills it at random moments, opens the directory and
//! compares with what the child said was acknowledged.

use crate::support::Random;
use heptad_state::{
    Compare, EmbeddedStore, KeyRange, Op, OpResponse, Options, Store, StoreExt, Txn, WatchEvent, WatchRequest,
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

const DIR_VARIABLE: &str = "HEPTAD_STATE_KILL_DIR";
const CHILD_TEST: &str = "kill::child_writes_until_killed";
const KILLS: u64 = 200;
/// Kills after which a fresh directory begins, so that opening stays quick in unoptimised builds.
const KILLS_PER_DIR: u64 = 10;
const WRITERS: u64 = 8;
/// Keys that one transaction stamps alike.
const PARTS: u64 = 4;
/// Single keys that each writer goes round.
const SLOTS: u64 = 20;

fn options() -> Options {
    // Small, so that tables are written, merged and compacted between the kills too.
    Options { history_revisions: 300, memtable_bytes: 128 << 10, ..Options::default() }
}

fn stamp_of(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().unwrap())
}

fn value_of(stamp: u64) -> Vec<u8> {
    let mut value = stamp.to_be_bytes().to_vec();
    value.resize(8 + (stamp % 70) as usize, b'.');
    value
}

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started, and killed, by the test below"]
async fn child_writes_until_killed() {
    let dir = std::env::var(DIR_VARIABLE).expect("only the test below starts this");
    let store = Arc::new(EmbeddedStore::open(dir, options()).unwrap());
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write_for_ever(Arc::clone(&store), writer)));
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

async fn write_for_ever(store: Arc<EmbeddedStore>, writer: u64) {
    let newest = store.get(format!("{writer}/part/0")).await.unwrap();
    let mut stamp = newest.map_or(0, |kv| stamp_of(&kv.value));
    loop {
        stamp += 1;
        let parts = (0..PARTS).map(|part| Op::put(format!("{writer}/part/{part}"), value_of(stamp)));
        let slot = Op::put(format!("{writer}/slot/{}", stamp % SLOTS), value_of(stamp));
        let mut txn = Txn::new().then(parts).then([slot]);
        if stamp % 5 == 0 {
            let victim = format!("{writer}/slot/{}", (stamp + 1) % SLOTS);
            txn = txn.when([Compare::exists(format!("{writer}/part/0"))]).then([Op::delete(victim)]);
        }
        let response = store.txn(txn).await.unwrap();
        if !response.succeeded {
            continue;
        }
        assert!(matches!(response.responses[0], OpResponse::Put { .. }));
        let line = format!("ack {writer} {stamp} {}\n", response.revision);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

fn spawn_child(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD_TEST, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR_VARIABLE, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    (child, stdout)
}

/// What was acknowledged over all rounds: per writer the newest stamp, and the newest revision.
#[derive(Default)]
struct Acknowledged {
    stamps: BTreeMap<u64, u64>,
    revision: u64,
    count: u64,
}

impl Acknowledged {
    /// A line that the kill cut off was not received, so it acknowledges nothing.
    fn note(&mut self, line: &str) {
        let Some(line) = line.strip_suffix('\n').and_then(|line| line.split_once("ack ")) else { return };
        let numbers: Vec<u64> = line.1.split(' ').map(|number| number.parse().unwrap()).collect();
        let [writer, stamp, revision] = numbers[..] else { panic!("{line:?}") };
        self.stamps.insert(writer, stamp);
        self.revision = self.revision.max(revision);
        self.count += 1;
    }
}

/// Lets a child write for a while, kills it, and notes what it acknowledged.
fn run_and_kill(dir: &Path, random: &mut Random, acknowledged: &mut Acknowledged) {
    let (mut child, stdout) = spawn_child(dir);
    let (writing, first_ack) = mpsc::channel();
    let reader = std::thread::spawn(move || read_acks(stdout, writing));
    // Mostly under load, sometimes while it opens.
    let micros = if random.below(8) == 0 {
        random.below(30_000)
    } else {
        let _ = first_ack.recv_timeout(Duration::from_secs(30));
        random.below(70_000)
    };
    std::thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    child.wait().unwrap();
    for line in reader.join().unwrap() {
        acknowledged.note(&line);
    }
}

fn read_acks(mut stdout: BufReader<ChildStdout>, writing: mpsc::Sender<()>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        if line.contains("ack ") {
            let _ = writing.send(());
        }
        lines.push(std::mem::take(&mut line));
    }
    lines
}

async fn check(dir: &Path, acknowledged: &mut Acknowledged, whole_history: bool, context: &str) {
    let store = EmbeddedStore::open(dir, options()).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let revision = store.current_revision().await.unwrap();
    assert!(revision >= acknowledged.revision, "{context}: revision {revision} < {}", acknowledged.revision);
    for writer in 0..WRITERS {
        let newest = acknowledged.stamps.entry(writer).or_default();
        // What was in flight may have been kept: from here on it counts.
        *newest = check_writer(&store, writer, *newest, context).await;
    }
    if whole_history {
        check_history(&store, revision, context).await;
    }
}

/// All parts carry one stamp: the last acknowledged one or the one that was in flight; the slots agree with it.
async fn check_writer(store: &EmbeddedStore, writer: u64, acknowledged: u64, context: &str) -> u64 {
    let (parts, _) = store.list(format!("{writer}/part/")).await.unwrap();
    let stamps: Vec<u64> = parts.iter().map(|kv| stamp_of(&kv.value)).collect();
    let stamp = stamps.first().copied().unwrap_or(0);
    assert!(stamps.iter().all(|other| *other == stamp), "{context}: writer {writer} half there: {stamps:?}");
    assert!(parts.is_empty() || parts.len() as u64 == PARTS, "{context}: writer {writer} half there");
    assert!(
        (acknowledged..=acknowledged + 1).contains(&stamp),
        "{context}: writer {writer} acknowledged {acknowledged}, found {stamp}"
    );
    assert!(parts.iter().all(|kv| kv.value == value_of(stamp)), "{context}: writer {writer} has a damaged value");
    for slot in 0..SLOTS.min(stamp) {
        let expected = stamp - slot;
        let deleted = (expected..=stamp).any(|later| later % 5 == 0 && (later + 1) % SLOTS == expected % SLOTS);
        let found = store.get(format!("{writer}/slot/{}", expected % SLOTS)).await.unwrap();
        let found = found.map(|kv| stamp_of(&kv.value));
        assert_eq!(found, (!deleted).then_some(expected), "{context}: writer {writer} slot of stamp {expected}");
    }
    stamp
}

/// The kept history has every revision, each whole.
async fn check_history(store: &EmbeddedStore, revision: u64, context: &str) {
    let mut watch = store.watch(WatchRequest::new(KeyRange::all()).from(1)).await.unwrap();
    let mut expected = 2;
    while expected <= revision {
        match watch.next().await.unwrap() {
            WatchEvent::Compacted { compact_revision } => {
                assert!(compact_revision > expected, "{context}");
                expected = compact_revision;
                watch = store.watch(WatchRequest::new(KeyRange::all()).from(expected)).await.unwrap();
            }
            WatchEvent::Batch(batch) => {
                assert_eq!(batch.revision, expected, "{context}: history");
                assert!(batch.events.len() as u64 > PARTS, "{context}: revision {expected} is half there");
                expected += 1;
            }
            WatchEvent::Progress { .. } => {}
        }
    }
}

/// On the real disk's file system, so that flushes are real.
#[tokio::test]
async fn no_acknowledged_write_is_lost_by_200_kills() {
    let (mut random, seed) = Random::from_env();
    let mut count = 0;
    for chapter in 0..KILLS / KILLS_PER_DIR {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged = Acknowledged::default();
        for kill in 0..KILLS_PER_DIR {
            run_and_kill(dir.path(), &mut random, &mut acknowledged);
            let context = format!("HEPTAD_TEST_SEED={seed}, kill {kill} of directory {chapter}");
            check(dir.path(), &mut acknowledged, kill % 5 == 4, &context).await;
        }
        count += acknowledged.count;
    }
    let summary = format!("seed {seed}: {KILLS} kills, {count} acknowledged transactions, 0 lost\n");
    std::io::stdout().write_all(summary.as_bytes()).unwrap();
    assert!(count > 10 * KILLS, "{summary}");
}
