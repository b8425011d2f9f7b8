//! Watching objects of one kind: batches of typed changes, one per revision. It is pulled, so it buffers nothing.

use super::{Kept, Objects, row_value};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
};
use heptad_api::{ErrorCode, WatchBatch, WatchChange, WatchEvent};
use heptad_model::Namespace;
use heptad_state::{EventKind, KeyRange, Revision, WatchRequest, WatchStream};
use std::marker::PhantomData;

/// A running watch of objects. Dropping it ends it.
#[derive(Debug)]
pub struct ObjectWatch<T> {
    objects: Objects,
    stream: WatchStream,
    /// A batch that is being typed; kept so that a dropped future does not lose it.
    raw: Option<heptad_state::WatchBatch>,
    kind: PhantomData<fn() -> T>,
}

impl Objects {
    /// Watches a kind, or its objects in one namespace, from a revision on; none: from now on.
    pub async fn watch<T: Kept>(
        &self,
        namespace: Option<&Namespace>,
        from: Option<Revision>,
    ) -> Result<ObjectWatch<T>> {
        let range = KeyRange::prefix(keys::prefix(T::KIND, namespace));
        let mut request = WatchRequest::new(range).prev_kv();
        request.start_revision = from;
        let stream = self.store.watch(request).await.during("watch", T::KIND.plural())?;
        Ok(ObjectWatch { objects: self.clone(), stream, raw: None, kind: PhantomData })
    }
}

impl<T: Kept> ObjectWatch<T> {
    /// The next changes; a batch without events only reports the watch's progress. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<WatchBatch<T>> {
        use heptad_state::WatchEvent as Raw;
        if self.raw.is_none() {
            match self.stream.next().await.during("watch", T::KIND.plural())? {
                Raw::Progress { revision } => return Ok(WatchBatch { revision, events: Vec::new(), error: None }),
                Raw::Compacted { compact_revision } => return Err(compacted(compact_revision)),
                Raw::Batch(batch) => self.raw = Some(batch),
            }
        }
        let mut done = WatchBatch { revision: 0, events: Vec::new(), error: None };
        if let Some(batch) = &self.raw {
            done.revision = batch.revision;
            for event in &batch.events {
                done.events.push(typed(&self.objects, event, batch.revision).await?);
            }
        }
        self.raw = None;
        Ok(done)
    }
}

async fn typed<T: Kept>(objects: &Objects, event: &heptad_state::Event, revision: Revision) -> Result<WatchEvent<T>> {
    let (change, row) = match (event.kind, &event.prev_kv) {
        (EventKind::Put, _) => (WatchChange::Put, &event.kv),
        (EventKind::Delete, Some(previous)) => (WatchChange::Delete, previous),
        // The deleted object is compacted, so nobody can show it any more.
        (EventKind::Delete, None) => return Err(compacted(revision)),
    };
    let mut object: T = row_value(row)?;
    if T::ALLOCATED && change == WatchChange::Put {
        let (allocation, _) = objects.allocation(&object.name().into()).await?;
        object.derive(&allocation);
    }
    Ok(WatchEvent { change, object })
}

pub(super) fn compacted(oldest: Revision) -> Error {
    let detail = format!("the history before revision {oldest} is not kept; list again and watch from there");
    Error::refused(ErrorCode::Compacted, detail)
}
