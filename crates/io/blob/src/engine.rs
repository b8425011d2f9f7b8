//! The engine's face: put, get, delete, list, scrub. Writes wait for the writer thread; reads block for one disk read.
//! Knows nothing of what blobs mean.

use crate::{
    Blob, BlobError, BlobId, Options, Result,
    compact::{compact, seal},
    recover::recover,
    shared::Shared,
    writer::{Request, Work, Writer},
};
use std::{
    ops::Bound,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
};
use tokio::sync::{Semaphore, mpsc::Sender, oneshot};

/// A blob in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub id: BlobId,
    /// Its length.
    pub bytes: u32,
}

/// The engine's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What it may hold.
    pub capacity_bytes: u64,
    /// What its files hold, deleted blobs that are not reclaimed yet included.
    pub used_bytes: u64,
    /// What new blobs may take.
    pub free_bytes: u64,
    /// Its blobs.
    pub blobs: u64,
    /// Which directory it is: one that is new or was replaced has another number.
    pub identity: u128,
    /// Which opening of the directory it is; another number may mean that blobs are gone.
    pub opening: u128,
}

/// What a scrub of some blobs found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Blobs that were read and verified.
    pub checked: u64,
    /// Their bytes.
    pub checked_bytes: u64,
    /// Those whose bytes or headers on disk are wrong.
    pub corrupt: Vec<BlobId>,
    /// Where to go on; none if the end was reached.
    pub next: Option<BlobId>,
}

/// A blob engine: the blobs of one directory. Only one may be open on a directory.
#[derive(Debug)]
pub struct BlobStore {
    shared: Arc<Shared>,
    writer: Sender<Request>,
    queue: Arc<Semaphore>,
    closed: Arc<AtomicBool>,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    wake_compactor: SyncSender<()>,
    writer: JoinHandle<()>,
    compactor: JoinHandle<()>,
}

impl BlobStore {
    /// Opens (or creates) the directory `root` of the storage node `name`. Blocks while segments are read.
    pub fn open(root: &Path, name: &str, options: Options) -> Result<Self> {
        let found = recover(root, name, &options)?;
        let queue = Arc::new(Semaphore::new(options.queue_bytes_max as usize));
        let (requests, received) = tokio::sync::mpsc::channel(options.queue_requests_max);
        let (wake, woken) = mpsc::sync_channel(1);
        let shared = Arc::new(Shared::new(found.directory, options, found.index));
        let mut writer = Writer::new(shared.clone(), found.active, wake.clone());
        writer.cancel(found.superseded)?;
        let closed = Arc::new(AtomicBool::new(false));
        let writer = spawn("blob-write", root, move || writer.run(received))?;
        let compactor = Compactor { shared: shared.clone(), writer: requests.clone(), closed: closed.clone() };
        let compactor = spawn("blob-compact", root, move || compactor.run(&woken))?;
        let threads = Mutex::new(Some(Threads { wake_compactor: wake, writer, compactor }));
        Ok(Self { shared, writer: requests, queue, closed, threads })
    }

    /// Stores a blob; it is durable when this returns. A blob that is there already and whole is not written again.
    pub async fn put(&self, blob: Blob) -> Result<()> {
        let (bytes, bytes_max) = (blob.bytes().len() as u64, u64::from(self.shared.options.blob_bytes_max));
        if bytes > bytes_max {
            return Err(BlobError::TooLarge { bytes, bytes_max });
        }
        let id = blob.id();
        if self.shared.index().get(&id).is_some() && self.blocking(move |shared, _| shared.verify(id)).await.is_ok() {
            return Ok(());
        }
        match self.append(blob.clone()).await {
            Err(BlobError::InsufficientSpace { asked_bytes, free_bytes, .. })
                if free_bytes + self.shared.index().reclaimable_bytes() >= asked_bytes =>
            {
                self.blocking(move |shared, writer| reclaim(shared, writer, asked_bytes)).await?;
                self.append(blob).await
            }
            result => result,
        }
    }

    async fn append(&self, blob: Blob) -> Result<()> {
        let asked = u32::try_from(blob.bytes().len()).unwrap_or(u32::MAX);
        let asked = asked.min(self.shared.options.queue_bytes_max);
        let room = self.queue.clone().acquire_many_owned(asked).await.map_err(|_| self.closed_error())?;
        self.request(Work::Put { blob, room }).await.map(drop)
    }

    /// Deletes blobs; returns how many were there. Durable when this returns.
    pub async fn delete(&self, ids: Vec<BlobId>) -> Result<u64> {
        self.request(Work::Delete { ids }).await
    }

    /// Reads a blob and verifies it. Blocks for the disk.
    pub fn get(&self, id: BlobId) -> Result<Blob> {
        self.shared.read(id)
    }

    /// Reads a blob and verifies it and its header on disk. Blocks for the disk.
    pub fn verify(&self, id: BlobId) -> Result<Blob> {
        self.shared.verify(id)
    }

    /// Whether the blob is there, by the index alone; one that was found corrupt when it was last read is not.
    pub fn contains(&self, id: &BlobId) -> Result<bool> {
        self.shared.check()?;
        Ok(self.shared.index().is_good(id))
    }

    /// Up to `limit` blobs behind `after`, in the order of their names.
    pub fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobEntry>> {
        self.shared.check()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let index = self.shared.index();
        let blobs = index.blobs().range((from, Bound::Unbounded)).take(limit);
        Ok(blobs.map(|(id, location)| BlobEntry { id: *id, bytes: location.len }).collect())
    }

    /// Verifies blobs behind `after` until about `bytes_max` bytes were read. Blocks for the disk.
    pub fn scrub(&self, after: Option<BlobId>, bytes_max: u64) -> Result<ScrubReport> {
        const PAGE_BLOBS: usize = 256;
        let mut report = ScrubReport { next: after, ..ScrubReport::default() };
        loop {
            let page = self.list(report.next, PAGE_BLOBS)?;
            if page.is_empty() {
                report.next = None;
                return Ok(report);
            }
            for entry in page {
                match self.shared.verify(entry.id) {
                    Err(BlobError::Corrupt { id }) => report.corrupt.push(id),
                    // Deleted since it was listed.
                    Ok(_) | Err(BlobError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
                report.checked += 1;
                report.checked_bytes += u64::from(entry.bytes);
                report.next = Some(entry.id);
                if report.checked_bytes >= bytes_max {
                    return Ok(report);
                }
            }
        }
    }

    /// The engine's room; fails if the directory is lost.
    pub fn usage(&self) -> Result<Usage> {
        self.shared.probe()?;
        let free_bytes = self.shared.free_bytes();
        let index = self.shared.index();
        Ok(Usage {
            capacity_bytes: self.shared.options.capacity_bytes,
            used_bytes: index.used_bytes(),
            free_bytes,
            blobs: index.blobs().len() as u64,
            identity: self.shared.directory.identity,
            opening: self.shared.directory.opening,
        })
    }

    /// Reclaims the space of all deleted blobs now. Blocks; not for async code.
    pub fn compact(&self) -> Result<u64> {
        seal(&self.shared, &self.writer)?;
        compact(&self.shared, &self.writer, 100, || false)
    }

    /// Ends the engine's threads and gives the directory free; what comes later is `Unavailable`. Blocks.
    pub fn close(&self) {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        self.closed.store(true, Ordering::Relaxed);
        drop(threads.wake_compactor);
        let (reply, _) = oneshot::channel();
        let mut stop = Request { work: Work::Stop, reply };
        while let Err(error) = self.writer.try_send(stop) {
            match error {
                tokio::sync::mpsc::error::TrySendError::Full(request) => stop = request,
                tokio::sync::mpsc::error::TrySendError::Closed(_) => break,
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
        // A thread that panicked has said so; closing goes on.
        let _ = (threads.writer.join(), threads.compactor.join());
        self.shared.lose("the engine is closed");
        self.shared.directory.unlock();
    }

    fn closed_error(&self) -> BlobError {
        self.shared.lose("the engine is closed")
    }

    async fn request(&self, work: Work) -> Result<u64> {
        self.shared.check()?;
        let (reply, answer) = oneshot::channel();
        self.writer.send(Request { work, reply }).await.map_err(|_| self.closed_error())?;
        answer.await.unwrap_or_else(|_| Err(self.closed_error()))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &Sender<Request>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (shared, writer) = (self.shared.clone(), self.writer.clone());
        let done = tokio::task::spawn_blocking(move || work(&shared, &writer)).await;
        done.unwrap_or_else(|_| Err(self.closed_error()))
    }
}

impl Drop for BlobStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Makes room for `asked_bytes` from deleted blobs, as far as they go.
fn reclaim(shared: &Shared, writer: &Sender<Request>, asked_bytes: u64) -> Result<()> {
    let enough = || shared.free_bytes() >= asked_bytes;
    compact(shared, writer, 100, enough)?;
    if !enough() {
        seal(shared, writer)?;
        compact(shared, writer, 100, enough)?;
    }
    Ok(())
}

struct Compactor {
    shared: Arc<Shared>,
    writer: Sender<Request>,
    closed: Arc<AtomicBool>,
}

impl Compactor {
    fn run(self, woken: &mpsc::Receiver<()>) {
        let percent_max = u64::from(self.shared.options.compact_live_percent_min);
        while woken.recv().is_ok() && !self.closed.load(Ordering::Relaxed) {
            let closing = || self.closed.load(Ordering::Relaxed);
            if let Err(error) = compact(&self.shared, &self.writer, percent_max, closing) {
                tracing::warn!(%error, "reclaiming space failed; it is tried again after the next deletion");
            }
        }
    }
}

fn spawn(name: &str, root: &Path, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(BlobError::io("starting a thread for", root))
}
