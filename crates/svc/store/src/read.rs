//! Reading objects: every chunk from the first copy whose checksum holds; copies found bad are replaced on the way.
//! A reader keeps its version's data from being removed for as long as it lives.

use crate::{
    BlobNode, BoxFuture, ObjectInfo, ObjectName, StorageError,
    cluster::Cluster,
    holds::Hold,
    record::{ChunkRef, ObjectRecord, Owner, Upload},
};
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream, FuturesUnordered},
};
use heptad_blob::{Blob, BlobError, BlobId};
use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
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
        let mut chunks = cluster.chunks(&name, record.upload, record.content.clone());
        let first = match chunks.next().await {
            Some(Ok(chunk)) => chunk_content(cluster, &name, record.upload, 0, chunk).await.map(Some),
            Some(Err(error)) => Err(error),
            None => Ok(None),
        };
        match first {
            Ok(first) => return Ok(reader(cluster, name, record, (first, chunks), hold)),
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
    (first, chunks): (Option<Bytes>, BoxStream<'static, Result<ChunkRef, StorageError>>),
    hold: Hold,
) -> ObjectReader {
    let (info, upload) = (record.info(&name), record.upload);
    let ahead = cluster.options.chunks_in_flight_max;
    let context = Arc::new((cluster.clone(), name));
    let rest = chunks.zip(stream::iter(1..)).map(move |(chunk, index)| {
        let context = context.clone();
        async move { chunk_content(&context.0, &context.1, upload, index, chunk?).await }
    });
    let content = stream::iter(first.map(Ok)).chain(rest.buffered(ahead)).boxed();
    ObjectReader { info, content, _hold: hold }
}

async fn chunk_content(
    cluster: &Arc<Cluster>,
    name: &ObjectName,
    upload: Upload,
    index: u32,
    chunk: ChunkRef,
) -> Result<Bytes, StorageError> {
    let owner = Owner { object: name.clone(), upload, index };
    let blob = cluster.read(name, chunk.id).await?;
    // The blob has the name in the record, so this fails only if the record itself is wrong.
    owner.content(blob, chunk.bytes).ok_or_else(|| StorageError::DataLost { object: name.clone() })
}

/// What one node said when a blob was read from it.
type Answer = (Arc<dyn BlobNode>, Result<Blob, BlobError>);

impl Cluster {
    /// Reads a blob from any node with a good copy: first those that should have it, then all others. A node that does
    /// not answer soon is not waited for alone.
    pub(crate) async fn read(self: &Arc<Self>, name: &ObjectName, id: BlobId) -> Result<Blob, StorageError> {
        let layout = self.layout();
        let wanted = layout.replicas(id);
        let is_wanted = |node: &Arc<dyn BlobNode>| wanted.iter().any(|other| other.name() == node.name());
        let others = layout.nodes.values().filter(|node| !is_wanted(node));
        let mut next = wanted.iter().chain(others).cloned();
        let mut asked = FuturesUnordered::new();
        let (mut bad, mut silent) = (Vec::new(), None);
        while let Some((node, answer)) = self.next_answer(id, &mut asked, &mut next).await {
            match answer {
                Ok(blob) if blob.id() == id => {
                    if !bad.is_empty() {
                        self.restore_in_background(blob.clone(), bad);
                    }
                    return Ok(blob);
                }
                Err(error) if !error.wants_repair() => silent = Some(error),
                absent_or_corrupt => {
                    if !matches!(absent_or_corrupt, Err(BlobError::NotFound { .. })) {
                        self.suspect(node.name());
                    }
                    if is_wanted(&node) {
                        bad.push(node);
                    }
                }
            }
        }
        bad.iter().for_each(|node| self.miss(node.name(), id));
        match silent {
            Some(source) => Err(StorageError::Unavailable { object: name.clone(), source: Box::new(source) }),
            None => Err(StorageError::DataLost { object: name.clone() }),
        }
    }

    /// The next answer of those that were asked; one more is asked if nobody is, or if they take too long.
    async fn next_answer(
        self: &Arc<Self>,
        id: BlobId,
        asked: &mut FuturesUnordered<BoxFuture<'static, Answer>>,
        next: &mut (impl Iterator<Item = Arc<dyn BlobNode>> + Send),
    ) -> Option<Answer> {
        loop {
            if asked.is_empty() {
                asked.push(self.clone().ask(id, next.next()?));
            }
            let hedge = Duration::from_millis(self.options.read_hedge_ms);
            match tokio::time::timeout(hedge, asked.next()).await {
                Ok(answer) => return answer,
                Err(_) => match next.next() {
                    Some(node) => asked.push(self.clone().ask(id, node)),
                    None => return asked.next().await,
                },
            }
        }
    }

    fn ask(self: Arc<Self>, id: BlobId, node: Arc<dyn BlobNode>) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            let answer = self.timed(&*node, node.get(id)).await;
            (node, answer)
        })
    }
}
