//! A batch of changed rows as the line that clients read. Clients get an object as the store keeps it, so rows go into
//! the line unchanged unless something is left out or derived.

use super::Channel;
use crate::{
    error::{Error, Result},
    objects::{Kept, Objects, mesh_change, row_value},
};
use bytes::Bytes;
use heptad_api::{ErrorCode, Kind, with_kind};
use heptad_model::NodeName;
use heptad_state::{Event, EventKind, KeyValue, Revision, WatchBatch};
use serde::Deserialize;

/// The one field that identifies containers.
#[derive(Deserialize)]
struct Bound {
    node: Option<NodeName>,
}

/// A line without changes.
pub(super) fn empty(revision: Revision) -> Bytes {
    format!("{{\"revision\":{revision},\"events\":[]}}\n").into()
}

pub(super) fn compacted(oldest: Revision) -> Error {
    let detail = format!("the history before revision {oldest} is not kept; list again and watch from there");
    Error::refused(ErrorCode::Compacted, detail)
}

/// The events of one line under construction.
#[derive(Debug, Default)]
pub(super) struct Line(Vec<u8>);

impl Line {
    fn push(&mut self, change: EventKind, object: &[u8]) {
        self.0.extend_from_slice(if self.0.is_empty() { b"" } else { b"," });
        self.0.extend_from_slice(match change {
            EventKind::Put => b"{\"change\":\"put\",\"object\":",
            EventKind::Delete => b"{\"change\":\"delete\",\"object\":",
        });
        self.0.extend_from_slice(object);
        self.0.push(b'}');
    }

    /// The whole line; `None` if it is empty.
    pub(super) fn finish(self, revision: Revision) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut line = format!("{{\"revision\":{revision},\"events\":[").into_bytes();
        line.extend_from_slice(&self.0);
        line.extend_from_slice(b"]}\n");
        Some(line)
    }
}

/// The object before a deletion.
fn deleted(event: &Event, revision: Revision) -> Result<&KeyValue> {
    event.prev_kv.as_ref().ok_or_else(|| compacted(revision))
}

/// Puts one change into the line of a kind.
pub(super) async fn whole(objects: &Objects, kind: Kind, event: &Event, line: &mut Line) -> Result<()> {
    with_kind!(kind, T => whole_of::<T>(objects, event, line).await)
}

async fn whole_of<T: Kept>(objects: &Objects, event: &Event, line: &mut Line) -> Result<()> {
    match event.kind {
        EventKind::Delete => line.push(EventKind::Delete, &deleted(event, event.kv.mod_revision)?.value),
        EventKind::Put if T::ALLOCATED => {
            let mut object: T = row_value(&event.kv)?;
            let (allocation, _) = objects.allocation(&object.name().into()).await?;
            object.derive(&allocation);
            let object = serde_json::to_vec(&object).expect("the model's types have string keys and serialize");
            line.push(EventKind::Put, &object);
        }
        EventKind::Put => line.push(EventKind::Put, &event.kv.value),
    }
    Ok(())
}

/// Puts one change into the mesh's line, if proxies look at what changed.
pub(super) fn mesh(event: &Event, line: &mut Line) -> Result<()> {
    if let Some((change, object)) = mesh_change(event, event.kv.mod_revision)? {
        line.push(change, &object);
    }
    Ok(())
}

/// The node to which a container is or was bound.
pub(super) fn bound(event: &Event) -> Result<Option<NodeName>> {
    let row = match event.kind {
        EventKind::Put => &event.kv,
        EventKind::Delete => deleted(event, event.kv.mod_revision)?,
    };
    bound_row(row)
}

/// The node to which the container of a row is bound; nothing else of the row is read.
pub(crate) fn bound_row(row: &KeyValue) -> Result<Option<NodeName>> {
    Ok(row_value::<Bound>(row)?.node)
}

/// Puts one change of a container of a node into that node's line.
pub(super) fn of_node(event: &Event, line: &mut Line) -> Result<()> {
    match event.kind {
        EventKind::Put => line.push(EventKind::Put, &event.kv.value),
        EventKind::Delete => line.push(EventKind::Delete, &deleted(event, event.kv.mod_revision)?.value),
    }
    Ok(())
}

/// The line of one channel for a batch of its rows.
pub(super) async fn line(objects: &Objects, channel: &Channel, batch: &WatchBatch) -> Result<Option<Vec<u8>>> {
    let mut line = Line::default();
    for event in &batch.events {
        match channel {
            Channel::Whole(kind) => whole(objects, *kind, event, &mut line).await?,
            Channel::Mesh => mesh(event, &mut line)?,
            Channel::Node(node) if bound(event)?.as_ref() == Some(node) => of_node(event, &mut line)?,
            Channel::Node(_) => {}
        }
    }
    Ok(line.finish(batch.revision))
}
