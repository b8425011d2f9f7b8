//! kill -9 of a writing process at random moments: nothing acknowledged is lost, nothing deleted comes back.

use crate::support::{Random, open};
use heptad_blob::{BlobError, BlobId};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

const ROUNDS: usize = 60;
const CHILD_DIR: &str = "HEPTAD_TEST_CHILD_DIR";
const CHILD_SEED: &str = "HEPTAD_TEST_CHILD_SEED";

fn say(word: &str, id: BlobId) {
    // One write per line, so that a kill leaves no half of an earlier one.
    std::io::stdout().write_all(format!("\n{word} {id}\n").as_bytes()).expect("standard output");
}

/// Not a test: the process that is killed. Writes and deletes for ever and says what was acknowledged.
#[test]
#[ignore = "is started by the kill test"]
fn child() {
    let dir = std::env::var(CHILD_DIR).expect("only to be started by the kill test");
    let seed: u64 = std::env::var(CHILD_SEED).expect("a seed").parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("runtime");
    let store = Arc::new(open(Path::new(&dir)));
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let store = store.clone();
            runtime.spawn(async move {
                let mut random = Random(seed + task);
                let mut mine = Vec::new();
                loop {
                    // Never the same as another task's, such as the empty one, which that would put again.
                    let length = 16 + random.below(12_000);
                    let blob = random.blob_of(length);
                    store.put(blob.clone()).await.expect("put");
                    say("put", blob.id());
                    mine.push(blob.id());
                    if random.below(3) > 0 {
                        let at = random.below(mine.len() as u64) as usize;
                        let id = mine.swap_remove(at);
                        say("deleting", id);
                        store.delete(vec![id]).await.expect("delete");
                        say("deleted", id);
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async { futures_forever(tasks).await });
}

async fn futures_forever(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.await.expect("a writer failed");
    }
}

#[derive(Default)]
struct Acknowledged {
    put: BTreeSet<BlobId>,
    deleting: BTreeSet<BlobId>,
    deleted: BTreeSet<BlobId>,
}

/// Kills the child a while after it has acknowledged so much.
fn run_and_kill(dir: &Path, seed: u64, acks: usize, after: Duration, known: &mut Acknowledged) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "crash::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_SEED, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut kill = || {
        thread::sleep(after);
        child.kill().expect("the child is still writing");
    };
    let mut acknowledged = 0;
    if acks == 0 {
        kill();
    }
    for line in output.lines() {
        let line = line.expect("a line");
        let Some((word, id)) = line.split_once(' ') else { continue };
        let Ok(id) = id.parse() else { continue };
        match word {
            "put" => known.put.insert(id),
            "deleting" => known.deleting.insert(id),
            "deleted" => known.deleted.insert(id),
            _ => continue,
        };
        acknowledged += 1;
        if acknowledged == acks {
            kill();
        }
    }
    assert!(acknowledged >= acks, "the child ended by itself");
    child.wait().expect("the child ends");
}

#[test]
fn kill_minus_9_loses_nothing_acknowledged() {
    let mut random = Random::seeded("crash");
    let mut dir = tempfile::tempdir().unwrap();
    let mut known = Acknowledged::default();
    let mut total = 0;
    for round in 0..ROUNDS {
        if round % 15 == 0 {
            dir = tempfile::tempdir().unwrap();
            known = Acknowledged::default();
        }
        let (acks, after) = (random.below(200) as usize, Duration::from_millis(random.below(20)));
        run_and_kill(dir.path(), random.next(), acks, after, &mut known);
        let store = open(dir.path());
        for id in known.put.difference(&known.deleting) {
            assert!(store.get(*id).is_ok(), "round {round}: acknowledged blob {id}: {:?}", store.get(*id).err());
        }
        for id in &known.deleted {
            assert!(matches!(store.get(*id), Err(BlobError::NotFound { .. })), "round {round}: {id} came back");
        }
        total = total.max(known.put.len());
    }
    assert!(total > 50, "the child hardly wrote: {total}");
}
