//! Measures puts and gets per second on three directories: `throughput DIR [SECONDS] [CLIENTS]`.
//! Metadata is in memory here: what is measured is the data path with its fsyncs.

use bytes::Bytes;
use heptad_store::{BlobNode, BlobOptions, DistributedStorage, LocalNode, MemoryMetaStore, Options};
use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: throughput DIR [SECONDS] [CLIENTS]")?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let clients: u64 = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let mut nodes: Vec<Arc<dyn BlobNode>> = Vec::new();
    for name in ["disk-1", "disk-2", "disk-3"] {
        nodes.push(Arc::new(LocalNode::open(name, Path::new(&dir).join(name), BlobOptions::default())?));
    }
    let storage = DistributedStorage::open(nodes, Arc::new(MemoryMetaStore::default()), Options::default()).await?;
    let mut out = std::io::stdout();
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        for is_put in [true, false] {
            let count = measure(&storage, bytes, is_put, clients, Duration::from_secs(seconds)).await?;
            let what = if is_put { "put" } else { "get" };
            writeln!(out, "{what} {:>5} KiB x {clients} clients: {:.0}/s", bytes >> 10, count as f64 / seconds as f64)?;
        }
    }
    Ok(())
}

/// Operations done in `time`; gets read what the puts before them stored.
async fn measure(
    storage: &DistributedStorage,
    bytes: usize,
    is_put: bool,
    clients: u64,
    time: Duration,
) -> Result<u64, Failure> {
    let done = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let run = |client: u64| {
        let (storage, done) = (storage.clone(), done.clone());
        tokio::spawn(async move {
            let content = Bytes::from(vec![client as u8; bytes]);
            for i in 0.. {
                // Gets read what every client has surely stored.
                let key = format!("{bytes}/{client}/{}", i % if is_put { 50 } else { 2 });
                if Instant::now() >= end {
                    break;
                }
                if is_put {
                    storage.put_bytes("bench", &key, content.clone()).await?;
                } else {
                    storage.get_bytes("bench", &key, u64::MAX).await?;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, heptad_store::StorageError>(())
        })
    };
    for task in (0..clients).map(run).collect::<Vec<_>>() {
        // Fewer puts than keys leave keys unwritten; a get of one ends its client.
        match task.await? {
            Ok(()) | Err(heptad_store::StorageError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done.load(Ordering::Relaxed))
}
