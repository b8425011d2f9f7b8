//! Reading objects: every chunk from the first copy whose checksum holds; copies found bad are replaced on the way.
//! A reader keeps its version's data from being removed for as long as it lives.

use crate::{
    ObjectInfo, ObjectName, StorageError,
    cluster::Cluster,
    holds::Hold,
    record::{ChunkRef, ObjectRecord, Owner},
};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Times that reading begins again because the object was replaced meanwhile.
const RESTARTS_MAX: usize = 16;

/// An object's content as a stream of verified chunks.
pub struct ObjectReader {
    info: ObjectInfo,
    content: BoxStream<'static, Result<Bytes, StorageError>>,
    _hold: Hold,
}

impl ObjectReader {
    /// What is known of the object.
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Stream for ObjectReader {
    type Item = Result<Bytes, StorageError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.content.poll_next_unpin(context)
    }
}

/// Begins to read; the first chunk is there when this returns, so most failures are known before any byte is sent.
pub(crate) async fn open(cluster: &Arc<Cluster>, name: ObjectName) -> Result<ObjectReader, StorageError> {
    let mut seen = None;
    for _ in 0..RESTARTS_MAX {
        let Some(record) = cluster.record(&name).await? else { return Err(StorageError::NotFound(name)) };
        let hold = cluster.readers.hold(record.upload);
        let first = match record.chunks.first() {
            Some(chunk) => chunk_content(cluster, &name, &record, 0, *chunk).await.map(Some),
            None => Ok(None),
        };
        match first {
            Ok(first) => return Ok(reader(cluster, name, record, first, hold)),
            // The data of a version that was replaced between the two reads is rightly gone.
            Err(_) if seen != Some(record.upload) => seen = Some(record.upload),
            Err(error) => return Err(error),
        }
    }
    Err(StorageError::Contended { object: name, attempts: RESTARTS_MAX })
}

fn reader(
    cluster: &Arc<Cluster>,
    name: ObjectName,
    record: ObjectRecord,
    first: Option<Bytes>,
    hold: Hold,
) -> ObjectReader {
    let info = record.info(&name);
    let ahead = cluster.options.chunks_in_flight_max;
    let context = Arc::new((cluster.clone(), name, record));
    let rest = stream::iter(1..context.2.chunks.len()).map(move |index| {
        let context = context.clone();
        async move {
            let (cluster, name, record) = &*context;
            chunk_content(cluster, name, record, index, record.chunks[index]).await
        }
    });
    let content = stream::iter(first.map(Ok)).chain(rest.buffered(ahead)).boxed();
    ObjectReader { info, content, _hold: hold }
}

async fn chunk_content(
    cluster: &Arc<Cluster>,
    name: &ObjectName,
    record: &ObjectRecord,
    index: usize,
    chunk: ChunkRef,
) -> Result<Bytes, StorageError> {
    let owner = Owner { object: name.clone(), upload: record.upload, index: index as u32 };
    let blob = cluster.read(name, chunk.id).await?;
    // The blob has the name in the record, so this fails only if the record itself is wrong.
    owner.content(blob, chunk.bytes).ok_or_else(|| StorageError::DataLost { object: name.clone() })
}

impl Cluster {
    /// Reads a blob from any node with a good copy: first those that should have it, then all others.
    pub(crate) async fn read(
        self: &Arc<Self>,
        name: &ObjectName,
        id: heptad_blob::BlobId,
    ) -> Result<heptad_blob::Blob, StorageError> {
        let wanted = self.replicas(id);
        let others = self.nodes.values().filter(|node| wanted.iter().all(|other| other.name() != node.name()));
        let (mut bad, mut silent) = (Vec::new(), None);
        for (node, is_wanted) in wanted.iter().map(|node| (node, true)).chain(others.map(|node| (node, false))) {
            match self.timed(&**node, node.get(id)).await {
                Ok(blob) if blob.id() == id => {
                    if !bad.is_empty() {
                        self.restore_in_background(blob.clone(), bad);
                    }
                    return Ok(blob);
                }
                Err(error) if !error.wants_repair() => silent = Some(error),
                Ok(_) | Err(_) if is_wanted => bad.push(node.clone()),
                Ok(_) | Err(_) => {}
            }
        }
        match silent {
            Some(source) => Err(StorageError::Unavailable { object: name.clone(), source: Box::new(source) }),
            None => Err(StorageError::DataLost { object: name.clone() }),
        }
    }
}
