//! Watches of many clients at once: each change is read from the store and encoded once, and all who follow the same
//! channel share its bytes. Clients that are behind read the store until they have caught up. Knows no HTTP.

mod channel;
mod hub;
mod lines;
mod ring;

pub(crate) use channel::Channel;
pub(crate) use hub::Hub;
pub(crate) use lines::bound_row;

use crate::error::{Error, Result, StoreContext};
use bytes::Bytes;
use heptad_api::ErrorCode;
use heptad_state::{Revision, WatchBatch, WatchEvent, WatchRequest, WatchStream};
use ring::Ring;
use std::{sync::Arc, time::Duration};

/// One client's place in a channel.
#[derive(Debug)]
pub(crate) struct Follower {
    hub: Arc<Hub>,
    channel: Channel,
    ring: Arc<Ring>,
    changed: tokio::sync::watch::Receiver<Revision>,
    /// Everything up to here was handed out.
    revision: Revision,
    /// The store's own watch, while this client is behind what the channel still has.
    behind: Option<WatchStream>,
    /// A batch of that watch whose line is being made; kept so that a dropped future does not lose it.
    raw: Option<WatchBatch>,
}

/// Whole lines, and the revision up to which they go.
pub(crate) type Lines = (Revision, Bytes);

impl Follower {
    /// Follows a channel from after `revision` on; `None`: from now on.
    pub(crate) async fn new(hub: &Arc<Hub>, channel: Channel, revision: Option<Revision>) -> Result<Self> {
        let ring = hub.ring(&channel);
        let revision = match revision {
            Some(revision) => revision,
            None => hub.objects().store().current_revision().await.during("read", "the revision")?,
        };
        let changed = ring.subscribe();
        let mut follower = Self { hub: hub.clone(), channel, ring, changed, revision, behind: None, raw: None };
        if !follower.ring.covers(revision) {
            follower.fall_behind().await?;
        }
        Ok(follower)
    }

    /// Opens the store's own watch from after this client's revision.
    async fn fall_behind(&mut self) -> Result<()> {
        let request = WatchRequest::new(self.channel.range()).prev_kv().from(self.revision + 1);
        let store = self.hub.objects().store();
        self.behind = Some(store.watch(request).await.during("watch", self.channel.name())?);
        Ok(())
    }

    /// The next lines; after `patience` without any, one without changes that reports the progress. Dropping the future
    /// loses nothing.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Lines> {
        let lines = match tokio::time::timeout(patience, self.lines()).await {
            Ok(lines) => lines?,
            Err(_) => {
                if self.behind.is_none() {
                    self.revision = self.hub.reached(&self.ring, self.revision);
                }
                (self.revision, lines::empty(self.revision))
            }
        };
        self.revision = self.revision.max(lines.0);
        Ok(lines)
    }

    /// Everything up to here was handed out.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    async fn lines(&mut self) -> Result<Lines> {
        loop {
            if self.behind.is_some() {
                match self.catch_up().await? {
                    Some(lines) => return Ok(lines),
                    None => continue,
                }
            }
            self.changed.borrow_and_update();
            match self.ring.after(self.revision) {
                Ok(Some(lines)) => return Ok(lines),
                Ok(None) => {}
                // It was too slow for the channel's memory; the store still has what it missed, or says that it no
                // longer does.
                Err(ring::Forgotten) => {
                    self.fall_behind().await?;
                    continue;
                }
            }
            self.changed.changed().await.map_err(|_| Error::refused(ErrorCode::Unavailable, "the server stops"))?;
        }
    }

    /// Continues in the store; `None` once the channel has everything that is missing, or nothing is for this client.
    async fn catch_up(&mut self) -> Result<Option<Lines>> {
        if self.raw.is_none() && self.ring.covers(self.revision) {
            self.behind = None;
            return Ok(None);
        }
        if let Some(batch) = &self.raw {
            let line = lines::line(self.hub.objects(), &self.channel, batch).await?;
            self.revision = batch.revision;
            self.raw = None;
            return Ok(line.map(|line| (self.revision, line.into())));
        }
        let Some(stream) = self.behind.as_mut() else { return Ok(None) };
        match stream.next().await.during("watch", self.channel.name())? {
            WatchEvent::Batch(batch) => {
                self.raw = Some(batch);
                Ok(None)
            }
            WatchEvent::Progress { revision } => {
                self.revision = self.revision.max(revision);
                Ok(None)
            }
            WatchEvent::Compacted { compact_revision } => Err(lines::compacted(compact_revision)),
        }
    }
}
