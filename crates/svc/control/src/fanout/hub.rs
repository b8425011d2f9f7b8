//! Reads each change once for all clients, and makes the lines of every channel that somebody follows. When the store's
//! watch breaks, the channels start anew and the clients catch up by themselves.

use super::{Channel, lines, ring::Ring};
use crate::{
    error::{Result, StoreContext, with_causes},
    keys::{self, Row},
    objects::Objects,
};
use heptad_api::Kind;
use heptad_model::NodeName;
use heptad_state::{Event, Revision, WatchBatch, WatchEvent, WatchRequest, WatchStream};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Bytes of lines that a channel shared by all clients keeps.
const SHARED_BYTES_MAX: usize = 16 << 20;
/// Bytes of lines that the channel of one node keeps.
const NODE_BYTES_MAX: usize = 256 << 10;
/// The wait after the store's watch broke.
const RETRY_MS: u64 = 100;
/// How many revisions lie between two searches for channels without followers.
const SWEEP_REVISIONS: Revision = 4_096;

/// Makes the lines of all channels.
#[derive(Debug)]
pub(crate) struct Hub {
    objects: Objects,
    channels: Mutex<BTreeMap<Channel, Arc<Ring>>>,
    /// How many channels were ever created.
    made: AtomicU64,
    /// Everything up to here is in the channels.
    read: AtomicU64,
}

impl Hub {
    pub(crate) fn new(objects: Objects) -> Arc<Self> {
        Arc::new(Self {
            objects,
            channels: Mutex::default(),
            made: AtomicU64::new(0),
            read: AtomicU64::new(Revision::MAX),
        })
    }

    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Channel, Arc<Ring>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lines of a channel; creates it if nobody follows it yet.
    pub(super) fn ring(&self, channel: &Channel) -> Arc<Ring> {
        let mut channels = self.lock();
        if let Some(ring) = channels.get(channel) {
            return ring.clone();
        }
        let bytes_max = if matches!(channel, Channel::Node(_)) { NODE_BYTES_MAX } else { SHARED_BYTES_MAX };
        // Batches enter the channels under the same lock, and only if all channels were considered.
        self.made.fetch_add(1, Ordering::AcqRel);
        let ring = Arc::new(Ring::new(self.read.load(Ordering::Acquire), bytes_max));
        channels.insert(channel.clone(), ring.clone());
        ring
    }

    /// How far a follower is that took everything up to `taken`.
    pub(super) fn reached(&self, ring: &Ring, taken: Revision) -> Revision {
        // Read before the channel is examined: everything read up to here is in it.
        let read = self.read.load(Ordering::Acquire);
        if read == Revision::MAX { taken } else { ring.reached(taken, read).max(taken) }
    }

    /// Follows the store until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let broken = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                followed = self.follow() => followed,
            };
            // Until the next watch nothing is covered, so every client reads the store itself.
            self.begin(Revision::MAX);
            if let Err(error) = broken {
                tracing::warn!(error = with_causes(&error), "changes for clients are followed anew");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(Duration::from_millis(RETRY_MS)) => {}
            }
        }
    }

    fn begin(&self, revision: Revision) {
        let channels = self.lock();
        self.read.store(revision, Ordering::Release);
        channels.values().for_each(|ring| ring.restart(revision));
    }

    /// Ends when the store's watch does.
    async fn follow(&self) -> Result<()> {
        let revision = self.objects.store().current_revision().await.during("read", "the revision")?;
        let request = WatchRequest::new(keys::cluster()).prev_kv().from(revision + 1);
        let mut watch = self.objects.store().watch(request).await.during("watch", "the cluster")?;
        self.begin(revision);
        let (mut due, mut swept) = (None, revision);
        loop {
            match self.step(&mut watch, due).await? {
                None => {
                    self.lock().values().for_each(|ring| ring.show());
                    due = None;
                }
                Some(WatchEvent::Batch(batch)) => {
                    let shown_at = self.take(&batch).await?;
                    due = [due, shown_at].into_iter().flatten().min();
                    if batch.revision >= swept + SWEEP_REVISIONS {
                        swept = batch.revision;
                        self.lock().retain(|channel, ring| !matches!(channel, Channel::Node(_)) || !ring.is_lonely());
                    }
                }
                Some(WatchEvent::Progress { revision }) => {
                    self.read.fetch_max(revision, Ordering::AcqRel);
                }
                Some(WatchEvent::Compacted { .. }) => return Ok(()),
            }
        }
    }

    /// The next event; `None` if gathered lines are due first.
    async fn step(&self, watch: &mut WatchStream, due: Option<Instant>) -> Result<Option<WatchEvent>> {
        let patience = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = patience => Ok(None),
            event = watch.next() => event.during("watch", "the cluster").map(Some),
        }
    }

    /// Puts a batch into all channels. Returns when gathered lines are to be shown.
    async fn take(&self, batch: &WatchBatch) -> Result<Option<Instant>> {
        loop {
            let made = self.made.load(Ordering::Acquire);
            let lines = self.lines(batch).await?;
            let channels = self.lock();
            if self.made.load(Ordering::Acquire) == made {
                return Ok(self.put(batch.revision, lines, &channels));
            }
        }
    }

    fn put(
        &self,
        revision: Revision,
        lines: BTreeMap<Channel, lines::Line>,
        channels: &BTreeMap<Channel, Arc<Ring>>,
    ) -> Option<Instant> {
        let mut due: Option<Instant> = None;
        for (channel, line) in lines {
            if let (Some(ring), Some(line)) = (channels.get(&channel), line.finish(revision)) {
                due = [due, ring.push(revision, &line)].into_iter().flatten().min();
            }
        }
        self.read.store(revision, Ordering::Release);
        due
    }

    async fn lines(&self, batch: &WatchBatch) -> Result<BTreeMap<Channel, lines::Line>> {
        let mut made: BTreeMap<Channel, lines::Line> = BTreeMap::new();
        for event in &batch.events {
            let Row::Object(kind, _) = keys::row(&event.kv.key) else { continue };
            if let Err(error) = self.add(kind, event, &mut made).await {
                // An unreadable row is left out for all, as it is for the reconciler.
                tracing::error!(error = with_causes(&error), "a change is not told");
            }
        }
        Ok(made)
    }

    async fn add(&self, kind: Kind, event: &Event, made: &mut BTreeMap<Channel, lines::Line>) -> Result<()> {
        let followed = |channel: &Channel| self.lock().contains_key(channel);
        let whole = Channel::Whole(kind);
        if followed(&whole) {
            lines::whole(&self.objects, kind, event, made.entry(whole).or_default()).await?;
        }
        if followed(&Channel::Mesh) {
            lines::mesh(event, made.entry(Channel::Mesh).or_default())?;
        }
        if kind != Kind::Containers {
            return Ok(());
        }
        let node: Option<NodeName> = lines::bound(event)?;
        if let Some(channel) = node.map(Channel::Node).filter(followed) {
            lines::of_node(event, made.entry(channel).or_default())?;
        }
        Ok(())
    }
}
