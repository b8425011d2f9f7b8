//! Writing an object's content: cut into chunks as it arrives, several chunks on their way at once, memory bounded.
//! Commits nothing.

use crate::{
    ObjectName, PutOptions, StorageError,
    cluster::{Cluster, Missed},
    coordinator::BodyError,
    record::{ChunkRef, ObjectRecord, Owner, Upload},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use heptad_blob::{Blob, BlobId};
use std::{collections::VecDeque, pin::pin, sync::Arc};
use tokio::task::JoinHandle;

/// Hashing at least so much is left to a thread that may block.
const HASH_BYTES_INLINE_MAX: usize = 64 << 10;

pub(crate) struct Uploader {
    cluster: Arc<Cluster>,
    name: ObjectName,
    upload: Upload,
    hasher: blake3::Hasher,
    size_bytes: u64,
    chunks: Vec<ChunkRef>,
    writes: VecDeque<JoinHandle<Result<(), StorageError>>>,
    missed: Missed,
}

impl Uploader {
    pub(crate) fn new(cluster: Arc<Cluster>, name: ObjectName, upload: Upload) -> Self {
        let (hasher, chunks, writes) = (blake3::Hasher::new(), Vec::new(), VecDeque::new());
        Self { cluster, name, upload, hasher, size_bytes: 0, chunks, writes, missed: Missed::default() }
    }

    /// Writes the whole body durably; returns the record to commit, and the copies that were missed.
    pub(crate) async fn run<S, E>(
        mut self,
        body: S,
        options: PutOptions,
    ) -> Result<(ObjectRecord, Missed), StorageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BodyError>,
    {
        let mut body = pin!(body);
        let mut pending: Option<BytesMut> = None;
        while let Some(part) = body.next().await {
            let broken = |error: E| StorageError::Body { object: self.name.clone(), source: error.into() };
            let mut part = part.map_err(broken)?;
            while !part.is_empty() {
                let (begin, chunk_bytes) = (self.owner().begin_bytes(), self.chunk_bytes()?);
                let mut payload = pending.take().unwrap_or_else(|| self.owner().begin(part.len().min(chunk_bytes)));
                let room = begin + chunk_bytes - payload.len();
                payload.extend_from_slice(&part.split_to(room.min(part.len())));
                if payload.len() == begin + chunk_bytes {
                    self.write_chunk(payload.freeze()).await?;
                } else {
                    pending = Some(payload);
                }
            }
        }
        if let Some(payload) = pending {
            self.write_chunk(payload.freeze()).await?;
        }
        while let Some(write) = self.writes.pop_front() {
            joined(write).await?;
        }
        Ok((self.finish(options)?, self.missed.clone()))
    }

    fn owner(&self) -> Owner {
        Owner { object: self.name.clone(), upload: self.upload, index: self.chunks.len() as u32 }
    }

    fn chunk_bytes(&self) -> Result<usize, StorageError> {
        let options = &self.cluster.options;
        if self.chunks.len() < options.object_chunks_max {
            return Ok(options.chunk_bytes_at(self.chunks.len()));
        }
        Err(StorageError::TooLarge { object: self.name.clone(), bytes_max: options.object_bytes_max() })
    }

    async fn write_chunk(&mut self, payload: Bytes) -> Result<(), StorageError> {
        if self.writes.len() >= self.cluster.options.chunks_in_flight_max
            && let Some(oldest) = self.writes.pop_front()
        {
            joined(oldest).await?;
        }
        let begin = self.owner().begin_bytes();
        let bytes = (payload.len() - begin) as u64;
        let blob = self.hash(payload, begin).await?;
        self.chunks.push(ChunkRef { id: blob.id(), bytes });
        self.size_bytes += bytes;
        let (cluster, name, missed) = (self.cluster.clone(), self.name.clone(), self.missed.clone());
        self.writes.push_back(tokio::spawn(async move { cluster.write(&name, blob, &missed).await }));
        Ok(())
    }

    /// Names the payload and adds its content to the object's checksum.
    async fn hash(&mut self, payload: Bytes, begin: usize) -> Result<Blob, StorageError> {
        let mut hasher = std::mem::take(&mut self.hasher);
        let is_small = payload.len() <= HASH_BYTES_INLINE_MAX;
        let work = move || {
            hasher.update(&payload[begin..]);
            (hasher, Blob::new(payload))
        };
        let (hasher, blob) = if is_small {
            work()
        } else {
            let hashed = tokio::task::spawn_blocking(work).await;
            hashed.map_err(|error| StorageError::internal("hashing a chunk", error))?
        };
        self.hasher = hasher;
        Ok(blob)
    }

    fn finish(&mut self, options: PutOptions) -> Result<ObjectRecord, StorageError> {
        let checksum = self.hasher.finalize().to_hex().to_string();
        if let Some(expected) = options.checksum.filter(|expected| !expected.eq_ignore_ascii_case(&checksum)) {
            return Err(StorageError::ChecksumMismatch { object: self.name.clone(), expected, found: checksum });
        }
        Ok(ObjectRecord {
            upload: self.upload,
            size_bytes: self.size_bytes,
            checksum,
            content_type: options.content_type,
            created_unix_ms: self.cluster.options.clock.unix_ms(),
            lost_unix_ms: None,
            chunks: std::mem::take(&mut self.chunks),
        })
    }
}

/// Whoever gives up an upload (by a failure, or by hanging up) leaves nothing behind: what was written is removed.
impl Drop for Uploader {
    fn drop(&mut self) {
        let ids: Vec<BlobId> = self.chunks.iter().map(|chunk| chunk.id).collect();
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !ids.is_empty()) else { return };
        let (cluster, writes) = (self.cluster.clone(), std::mem::take(&mut self.writes));
        runtime.spawn(async move {
            for write in writes {
                // Whatever came of it: the copies go.
                let _ = write.await;
            }
            cluster.delete_blobs(&ids).await;
        });
    }
}

async fn joined(write: JoinHandle<Result<(), StorageError>>) -> Result<(), StorageError> {
    write.await.unwrap_or_else(|error| Err(StorageError::internal("writing a chunk", error)))
}
