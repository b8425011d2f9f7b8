//! kill -9 of a process that stores objects (G9): every acknowledged object is read back, whole, also without one node.

use crate::support::{Random, blob_options, open, options};
use bytes::Bytes;
use heptad_store::{BoxFuture, GarbageMemory, MemoryMetaStore, MetaError, MetaRow, MetaStore};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
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
    log: Mutex<File>,
}

impl LoggedMetaStore {
    async fn open(path: &Path) -> Self {
        let rows = MemoryMetaStore::default();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let Ok((key, value)) = serde_json::from_str::<(Vec<u8>, Option<Vec<u8>>)>(line) else { continue };
            let key = Bytes::from(key);
            let version = rows.get(key.clone()).await.unwrap().map_or(0, |row| row.version);
            match value {
                Some(value) => drop(rows.put_if(key, value.into(), version).await.unwrap()),
                None => drop(rows.delete_if(key, version).await.unwrap()),
            }
        }
        let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
        // Whatever half line the last life left ends here.
        log.write_all(b"\n").unwrap();
        Self { rows, log: Mutex::new(log) }
    }

    fn write(&self, key: &Bytes, value: Option<&Bytes>) {
        let line = serde_json::to_string(&(key.as_ref(), value.map(Bytes::as_ref))).unwrap();
        let mut log = self.log.lock().unwrap();
        log.write_all(format!("{line}\n").as_bytes()).unwrap();
        log.sync_data().unwrap();
    }
}

impl MetaStore for LoggedMetaStore {
    fn get(&self, key: Bytes) -> BoxFuture<'_, Result<Option<MetaRow>, MetaError>> {
        self.rows.get(key)
    }

    fn put_if(&self, key: Bytes, value: Bytes, expected: u64) -> BoxFuture<'_, Result<Option<u64>, MetaError>> {
        Box::pin(async move {
            let version = self.rows.put_if(key.clone(), value.clone(), expected).await?;
            if version.is_some() {
                self.write(&key, Some(&value));
            }
            Ok(version)
        })
    }

    fn delete_if(&self, key: Bytes, expected: u64) -> BoxFuture<'_, Result<bool, MetaError>> {
        Box::pin(async move {
            let done = self.rows.delete_if(key.clone(), expected).await?;
            if done {
                self.write(&key, None);
            }
            Ok(done)
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

fn run_and_kill(dir: &Path, first: u64, after: Duration, known: &mut BTreeMap<String, u64>) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_SEED, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let killer = thread::spawn(move || {
        thread::sleep(after);
        child.kill().expect("the child is still writing");
        child.wait().expect("the child ends");
    });
    for line in output.lines() {
        let line = line.expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        if let ["put", key, version] = words[..] {
            known.insert(key.to_owned(), version.parse().expect("a number"));
        }
    }
    killer.join().expect("killer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_minus_9_loses_no_acknowledged_object() {
    let mut random = Random::seeded("crash");
    let dir = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..ROUNDS as u64 {
        let first = round * 1_000_000;
        let after = Duration::from_millis(60 + random.below(300));
        let path = dir.path().to_owned();
        let run = move || {
            run_and_kill(&path, first, after, &mut known);
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
}
