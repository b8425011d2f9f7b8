//! The durable store of one machine, on the log-structured engine fjall. One thread writes: it takes what is
//! queued, evaluates it in order, flushes once and answers all. Reads and watches use immutable views.
//! Knows no second machine.

mod apply;
mod compact;
mod merge;
mod open;
mod options;
mod recover;
mod rows;
mod view;
mod watcher;
mod writer;

pub use options::Options;

use crate::{
    BoxFuture, Error, KeyRange, Limits, RangeRequest, RangeResponse, Result, Revision, Store, Txn, TxnResponse,
    WatchRequest, WatchStream, ring::Ring,
};
use std::{
    fmt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use view::View;
use writer::{Change, Request};

const CLOSE_WAITS_MAX: usize = 2_000;
const CLOSE_WAIT: Duration = Duration::from_millis(1);

/// A durable store in one directory. Dropping it waits for what is queued and releases the directory.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Request>>,
    queue_kib: Semaphore,
    current: watch::Receiver<Revision>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and watchers share with the writer.
struct Shared {
    options: Options,
    /// The newest durable state; none once the store is closed.
    view: RwLock<Option<Arc<View>>>,
    ring: Ring,
    reads: Arc<Semaphore>,
    /// Why nothing is written now.
    read_only: RwLock<Option<Error>>,
}

impl EmbeddedStore {
    /// Opens or creates the store in `dir`. Blocks for some milliseconds; fails if another process has it open.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let opened = open::open(dir.as_ref(), &options)?;
        let view = Arc::new(opened.view()?);
        let shared = Arc::new(Shared {
            view: RwLock::new(Some(Arc::clone(&view))),
            ring: Ring::new(options.recent_bytes_max),
            reads: Arc::new(Semaphore::new(options.concurrent_reads_max)),
            read_only: RwLock::default(),
            options,
        });
        let (publish, current) = watch::channel(view.revision);
        let (queue, requests) = mpsc::channel(shared.options.queued_txns_max);
        let writer = writer::spawn(opened, view, Arc::clone(&shared), requests, publish)?;
        let queue_kib = Semaphore::new(shared.options.queued_bytes_max.div_ceil(1024));
        Ok(Self { shared, queue: Some(queue), queue_kib, current, writer: Some(writer) })
    }

    /// Queues a change and waits until it is durable. The queue is bounded in number and in bytes.
    async fn submit<T>(&self, bytes: usize, change: impl FnOnce(oneshot::Sender<Result<T>>) -> Change) -> Result<T> {
        let kib_max = self.shared.options.queued_bytes_max.div_ceil(1024);
        let kib = u32::try_from((bytes / 1024 + 1).min(kib_max)).unwrap_or(u32::MAX);
        let _room = self.queue_kib.acquire_many(kib).await.map_err(|_| Error::Closed)?;
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(Request { change: change(reply) }).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn read_range(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.shared.options.limits.check_range(&request.range)?;
        if matches!(request.range, KeyRange::Key(_)) && request.revision.is_none() {
            return self.shared.view()?.range(&request, &self.shared.options.limits);
        }
        let limits = self.shared.options.limits.clone();
        self.shared.read(move |view| view.range(&request, &limits)).await
    }
}

impl Shared {
    fn view(&self) -> Result<Arc<View>> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.clone().ok_or(Error::Closed)
    }

    fn set_view(&self, view: Option<Arc<View>>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn set_read_only(&self, why: Option<Error>) {
        *self.read_only.write().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Reads that have begun keep the engine open; they are short.
    fn wait_for_reads(&self) {
        for _ in 0..CLOSE_WAITS_MAX {
            if self.reads.available_permits() >= self.options.concurrent_reads_max {
                return;
            }
            std::thread::sleep(CLOSE_WAIT);
        }
        tracing::warn!("a read still holds the state store open");
    }

    /// Reads that may touch the disk leave the async threads, a bounded number at a time.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&View) -> Result<T> + Send + 'static) -> Result<T> {
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| Error::Closed)?;
        let view = self.view()?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // Dropped before the permit: who has all permits knows that nothing holds the engine open.
            let view = view;
            read(&view)
        });
        task.await.map_err(|source| Error::Read { subject: "a range", source: Arc::new(source) })?
    }
}

impl Store for EmbeddedStore {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Box::pin(self.read_range(request))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(async move {
            self.shared.options.limits.check_txn(&txn)?;
            self.submit(txn.bytes(), |reply| Change::Txn { txn, reply }).await
        })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>> {
        Box::pin(async move {
            self.shared.options.limits.check_range(&request.range)?;
            let current = self.shared.view()?.revision;
            let watcher = watcher::Watcher::new(&self.shared, request, self.current.clone(), current);
            Ok(WatchStream::new(watcher))
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.submit(0, move |reply| Change::Compact { revision, reply }))
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move { Ok(self.shared.view()?.revision) })
    }

    fn limits(&self) -> &Limits {
        &self.shared.options.limits
    }

    fn read_only(&self) -> Option<Error> {
        self.shared.read_only.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the state store's writer thread panicked");
        }
        self.shared.set_view(None);
        self.shared.wait_for_reads();
    }
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").field("revision", &*self.current.borrow()).finish_non_exhaustive()
    }
}
