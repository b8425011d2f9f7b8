//! kill -9 of a process that stores objects (G9): every acknowledged object is read back, whole, also without one node; what
//! the dead had begun goes, and nothing else.

use crate::support::{Random, blob_options, collected, open, options};
use bytes::Bytes;
use heptad_store::{BoxFuture, Change, GarbageMemory, MemoryMetaStore, MetaError, MetaRow, MetaStore, Options};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

const ROUNDS: usize = 20;
const CHILD_DIR: &str = "HEPTAD_TEST_CHILD_DIR";
const CHILD_SEED: &str = "HEPTAD_TEST_CHILD_SEED";

/// Rows in memory whose changes are also in a log file, for a second life.
#[derive(Debug)]
struct LoggedMetaStore {
    rows: MemoryMetaStore,
    log: tokio::sync::Mutex<File>,
}

impl LoggedMetaStore {
    async fn open(path: &Path) -> Self {
        let rows = MemoryMetaStore::default();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let Ok((puts, deletes)) = serde_json::from_str::<(Vec<(Vec<u8>, Vec<u8>)>, Vec<Vec<u8>>)>(line) else {
                continue;
            };
            let puts = puts.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            let deletes = deletes.into_iter().map(Bytes::from).collect();
            rows.change(Change { puts, deletes, ..Change::default() }).await.unwrap().expect("nothing is expected");
        }
        let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
        // Whatever half line the last life left ends here.
        log.write_all(b"\n").unwrap();
        Self { rows, log: tokio::sync::Mutex::new(log) }
    }
}

impl MetaStore for LoggedMetaStore {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        self.rows.get(key)
    }

    /// One line for each change: after a kill it is there as a whole or not at all.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        Box::pin(async move {
            let mut log = self.log.lock().await;
            let puts: Vec<_> = change.puts.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
            let deletes: Vec<_> = change.deletes.iter().map(Bytes::as_ref).collect();
            let line = serde_json::to_string(&(puts, deletes)).unwrap();
            let version = self.rows.change(change).await?;
            if version.is_some() {
                log.write_all(format!("{line}\n").as_bytes()).unwrap();
                log.sync_data().unwrap();
            }
            Ok(version)
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

fn content(key: &str, version: u64) -> Bytes {
    let seed = heptad_shard::stable_hash(key.as_bytes()) ^ version;
    Random(seed).bytes(40_000)
}

/// Not a test: the process that is killed. Each writer overwrites its own keys with rising versions for ever.
#[test]
#[ignore = "is started by the kill test"]
fn child() {
    let dir = std::env::var(CHILD_DIR).expect("only to be started by the kill test");
    let first: u64 = std::env::var(CHILD_SEED).expect("a version").parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let meta = Arc::new(LoggedMetaStore::open(&Path::new(&dir).join("rows")).await);
        let storage = open(Path::new(&dir), meta, blob_options(), options()).await;
        let writers = (0..4).map(|writer| {
            let storage = storage.clone();
            tokio::spawn(async move {
                for version in first.. {
                    let key = format!("{writer}-{}", version % 5);
                    storage.put_bytes("data", &key, content(&key, version)).await.expect("put");
                    let line = format!("\nput {key} {version}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("standard output");
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("a writer failed");
        }
    });
}

/// Kills the child a while after it has acknowledged so many objects.
fn run_and_kill(dir: &Path, first: u64, puts: usize, after: Duration, known: &mut BTreeMap<String, u64>) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_SEED, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut kill = || {
        thread::sleep(after);
        child.kill().expect("the child is still writing");
    };
    let mut acknowledged = 0;
    if puts == 0 {
        kill();
    }
    for line in output.lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        if let ["put", key, version] = words[..] {
            known.insert(key.to_owned(), version.parse().expect("a number"));
            acknowledged += 1;
            if acknowledged == puts {
                kill();
            }
        }
    }
    assert!(acknowledged >= puts, "the child ended by itself");
    child.wait().expect("the child ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_9_loses_no_acknowledged_object() {
    let mut random = Random::seeded("crash");
    let dir = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..ROUNDS as u64 {
        let first = round * 1_000_000;
        // Some die while they open, and the last wrote long enough.
        let puts = if round + 1 == ROUNDS as u64 { 100 } else { random.below(60) as usize };
        let after = Duration::from_millis(random.below(60));
        let path = dir.path().to_owned();
        let run = move || {
            run_and_kill(&path, first, puts, after, &mut known);
            known
        };
        known = tokio::task::spawn_blocking(run).await.unwrap();
        // The majority must hold without any one node.
        let lost = dir.path().join(crate::support::NODES[random.below(3) as usize]);
        fs::remove_dir_all(lost).unwrap();
        let meta = Arc::new(LoggedMetaStore::open(&dir.path().join("rows")).await);
        let storage = open(dir.path(), meta, blob_options(), options()).await;
        for (key, acknowledged) in &known {
            let read = storage.get_bytes("data", key, u64::MAX).await;
            let read = read.unwrap_or_else(|error| panic!("round {round}: {key} version {acknowledged}: {error}"));
            // A newer version may have been committed without its acknowledgement having been seen.
            let later = (acknowledged / 1_000_000 + 1..=round).map(|round| round * 1_000_000);
            let mut firsts = std::iter::once(*acknowledged).chain(later);
            let is_known = firsts.any(|first| (first..first + 10).any(|version| content(key, version) == read));
            assert!(is_known, "round {round}: {key} is not version {acknowledged} or the next");
        }
        let report = storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
        assert_eq!(report.blobs_lost, 0, "{report:?}");
    }
    assert!(known.len() == 20, "the child hardly wrote: {known:?}");
    let meta = Arc::new(LoggedMetaStore::open(&dir.path().join("rows")).await);
    let options = Options { upload_silence_ms_max: 100, ..options() };
    let storage = open(dir.path(), meta.clone(), blob_options(), options.clone()).await;
    collected(&storage, &*meta, "data", &options).await;
    for key in known.keys() {
        storage
            .get_bytes("data", key, u64::MAX)
            .await
            .unwrap_or_else(|error| panic!("{key} after collecting: {error}"));
    }
}
