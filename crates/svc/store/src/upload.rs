//! Storing an object: its content is cut into chunks as it arrives, several chunks on their way at once, memory bounded; its
//! record is committed when all of them are durable. What fits into one chunk is kept until then, so that it can be written
//! again; anything longer is an upload in progress, with a row of its own.

use crate::{
    ObjectName, PutOptions, StorageError,
    cluster::{Cluster, Missed},
    commit::{Guard, Replaced},
    coordinator::BodyError,
    progress::InProgress,
    record::{ChunkRef, Content, Extent, ObjectRecord, Owner, Upload, encoded},
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use heptad_blob::Blob;
use heptad_shard::ShardId;
use std::{
    collections::{BTreeSet, VecDeque},
    pin::pin,
    sync::{Arc, PoisonError},
};
use tokio::task::JoinHandle;

/// Hashing at least so much is left to a thread that may block.
const HASH_BYTES_INLINE_MAX: usize = 64 << 10;

pub(crate) struct Uploader {
    cluster: Arc<Cluster>,
    name: ObjectName,
    options: PutOptions,
    upload: Upload,
    in_progress: Option<InProgress>,
    hasher: blake3::Hasher,
    /// What has arrived.
    size_bytes: u64,
    chunk_count: u32,
    /// Chunks that no extent lists yet.
    chunks: Vec<ChunkRef>,
    extents: u32,
    writes: VecDeque<JoinHandle<Result<(), StorageError>>>,
    /// The placement's epoch when the upload began, and where its chunks are.
    epoch: u64,
    shards: BTreeSet<ShardId>,
    missed: Missed,
    /// A commit was asked for: checks may see the object from now on.
    is_committing: bool,
    is_committed: bool,
}

impl Uploader {
    pub(crate) fn new(cluster: Arc<Cluster>, name: ObjectName, options: PutOptions) -> Result<Self, StorageError> {
        Ok(Self {
            upload: Upload::draw()?,
            in_progress: None,
            hasher: blake3::Hasher::new(),
            size_bytes: 0,
            chunk_count: 0,
            chunks: Vec::new(),
            extents: 0,
            writes: VecDeque::new(),
            epoch: cluster.layout().placement.epoch,
            shards: BTreeSet::new(),
            missed: Missed::default(),
            is_committing: false,
            is_committed: false,
            cluster,
            name,
            options,
        })
    }

    /// Stores the whole body durably; returns what is committed, and what it replaced.
    pub(crate) async fn run<S, E>(mut self, body: S) -> Result<(ObjectRecord, Replaced), StorageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BodyError>,
    {
        let last = self.receive(body).await?;
        if self.in_progress.is_none() {
            return self.finish_small(last).await;
        }
        if let Some(payload) = last {
            self.write_chunk(payload.freeze()).await?;
        }
        self.finish_large().await
    }

    /// Writes all chunks behind which there is another one. Returns the last, with its head; none if there is no content.
    async fn receive<S, E>(&mut self, body: S) -> Result<Option<BytesMut>, StorageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BodyError>,
    {
        let mut body = pin!(body);
        let mut pending: Option<BytesMut> = None;
        while let Some(part) = body.next().await {
            let broken = |error: E| StorageError::Body { object: self.name.clone(), source: error.into() };
            let mut part = part.map_err(broken)?;
            self.arrived(part.len()).await?;
            while !part.is_empty() {
                let full = self.owner().begin_bytes() + self.chunk_bytes();
                let mut payload = match pending.take() {
                    Some(payload) if payload.len() == full => {
                        self.begin().await?;
                        self.write_chunk(payload.freeze()).await?;
                        continue;
                    }
                    Some(payload) => payload,
                    None => self.owner().begin(part.len().min(self.chunk_bytes())),
                };
                payload.extend_from_slice(&part.split_to(part.len().min(full - payload.len())));
                pending = Some(payload);
            }
        }
        Ok(pending)
    }

    async fn arrived(&mut self, bytes: usize) -> Result<(), StorageError> {
        self.size_bytes += bytes as u64;
        let bytes_max = self.cluster.options.object_bytes_max;
        if self.size_bytes > bytes_max {
            return Err(StorageError::TooLarge { object: self.name.clone(), bytes_max });
        }
        match &mut self.in_progress {
            Some(in_progress) if bytes > 0 => in_progress.arrived(self.size_bytes).await,
            _ => Ok(()),
        }
    }

    /// The upload gets its row, if it has none yet.
    async fn begin(&mut self) -> Result<(), StorageError> {
        if self.in_progress.is_none() {
            let (cluster, name) = (self.cluster.clone(), self.name.clone());
            self.in_progress = Some(InProgress::begin(cluster, name, self.upload, self.epoch).await?);
        }
        Ok(())
    }

    fn owner(&self) -> Owner {
        Owner { object: self.name.clone(), upload: self.upload, index: self.chunk_count }
    }

    fn chunk_bytes(&self) -> usize {
        self.cluster.options.chunk_bytes_at(self.chunk_count as usize)
    }

    async fn write_chunk(&mut self, payload: Bytes) -> Result<(), StorageError> {
        if self.writes.len() >= self.cluster.options.chunks_in_flight_max
            && let Some(oldest) = self.writes.pop_front()
        {
            joined(oldest).await?;
        }
        self.list_full().await?;
        let blob = self.hash(payload).await?;
        self.add(&blob);
        let (cluster, name, missed) = (self.cluster.clone(), self.name.clone(), self.missed.clone());
        self.writes.push_back(tokio::spawn(async move { cluster.write(&name, blob, &missed).await }));
        Ok(())
    }

    /// The blob is the next chunk.
    fn add(&mut self, blob: &Blob) {
        let bytes = (blob.bytes().len() - self.owner().begin_bytes()) as u64;
        self.chunks.push(ChunkRef { id: blob.id(), bytes });
        self.chunk_count += 1;
        self.shards.insert(self.cluster.layout().shard(blob.id()));
    }

    /// Writes down as many chunks as fill a row. If that cannot be now, it is tried again with the next one.
    async fn list_full(&mut self) -> Result<(), StorageError> {
        let full = self.cluster.options.extent_chunks_max;
        if self.chunks.len() < full {
            return Ok(());
        }
        match self.list().await {
            Err(StorageError::Meta(error)) if self.chunks.len() < 2 * full => {
                tracing::warn!(object = %self.name, %error, "the chunks of an upload are not listed yet");
                Ok(())
            }
            listed => listed,
        }
    }

    async fn list(&mut self) -> Result<(), StorageError> {
        let full = self.cluster.options.extent_chunks_max;
        while self.chunks.len() >= full {
            let row = self.extent(&self.chunks[..full])?;
            let in_progress = self.in_progress.as_mut().ok_or_else(no_row)?;
            in_progress.write(self.size_bytes, Some(row)).await?;
            self.extents += 1;
            self.chunks.drain(..full);
        }
        Ok(())
    }

    /// The next row of extents.
    fn extent(&self, chunks: &[ChunkRef]) -> Result<(Bytes, Bytes), StorageError> {
        let row = self.upload.extent(self.extents);
        let value = encoded(&row, &Extent { object: self.name.clone(), chunks: chunks.to_vec() })?;
        Ok((row, value))
    }

    /// Names the payload and adds its content to the object's checksum.
    async fn hash(&mut self, payload: Bytes) -> Result<Blob, StorageError> {
        let (mut hasher, begin) = (std::mem::take(&mut self.hasher), self.owner().begin_bytes());
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

    /// One chunk or none. The commit holds only if nobody has collected garbage since the chunk was written; if somebody has, it
    /// is written again under another upload.
    async fn finish_small(mut self, payload: Option<BytesMut>) -> Result<(ObjectRecord, Replaced), StorageError> {
        let mut blob = match payload {
            Some(payload) => Some(self.hash(payload.freeze()).await?),
            None => None,
        };
        let checksum = self.checked()?;
        for _ in 0..self.cluster.options.commit_attempts_max {
            let guard = match &blob {
                Some(blob) => {
                    let fence = self.cluster.fence().await?;
                    self.add(blob);
                    self.cluster.write(&self.name, blob.clone(), &self.missed).await?;
                    Guard::Fence(fence)
                }
                None => Guard::None,
            };
            let record = self.record(checksum.clone(), Content::Inline { chunks: self.chunks.clone() });
            self.is_committing = true;
            if let Some(replaced) = self.cluster.commit(&self.name, Some(&record), Vec::new(), guard).await? {
                self.is_committed = true;
                return Ok((record, replaced));
            }
            self.cluster.forget_fence();
            blob = blob.map(|blob| self.anew(blob)).transpose()?;
        }
        Err(StorageError::Contended { object: self.name.clone(), attempts: self.cluster.options.commit_attempts_max })
    }

    /// The same content as a chunk of another upload. What was written is garbage.
    fn anew(&mut self, blob: Blob) -> Result<Blob, StorageError> {
        self.upload = Upload::draw()?;
        self.chunk_count = 0;
        self.chunks.clear();
        let content = &blob.bytes()[self.owner().begin_bytes()..];
        let mut payload = self.owner().begin(content.len());
        payload.extend_from_slice(content);
        Ok(Blob::new(payload.freeze()))
    }

    async fn finish_large(mut self) -> Result<(ObjectRecord, Replaced), StorageError> {
        while let Some(write) = self.writes.pop_front() {
            joined(write).await?;
        }
        let checksum = self.checked()?;
        let mut rows = Vec::new();
        let content = if self.extents == 0 && self.chunks.len() <= self.cluster.options.extent_chunks_max {
            Content::Inline { chunks: self.chunks.clone() }
        } else {
            self.list().await?;
            if !self.chunks.is_empty() {
                rows.push(self.extent(&self.chunks)?);
            }
            Content::Extents { extents: self.extents + rows.len() as u32 }
        };
        let record = self.record(checksum, content);
        let in_progress = self.in_progress.as_ref().ok_or_else(no_row)?;
        let guard = Guard::InProgress(in_progress.upload, in_progress.version);
        self.is_committing = true;
        let replaced = self.cluster.commit(&self.name, Some(&record), rows, guard).await?;
        let replaced = replaced.ok_or_else(|| in_progress.ended())?;
        self.is_committed = true;
        Ok((record, replaced))
    }

    /// The checksum of the content, if it is the one that the sender says.
    fn checked(&self) -> Result<String, StorageError> {
        let found = self.hasher.finalize().to_hex().to_string();
        match &self.options.checksum {
            Some(expected) if !expected.eq_ignore_ascii_case(&found) => {
                let (object, expected) = (self.name.clone(), expected.clone());
                Err(StorageError::ChecksumMismatch { object, expected, found })
            }
            _ => Ok(found),
        }
    }

    fn record(&self, checksum: String, content: Content) -> ObjectRecord {
        ObjectRecord {
            upload: self.upload,
            size_bytes: self.size_bytes,
            checksum,
            content_type: self.options.content_type.clone(),
            created_unix_ms: self.cluster.options.clock.unix_ms(),
            lost_unix_ms: None,
            content,
        }
    }

    /// Checks before the commit see no record and so none of its copies: whatever comes of the commit, and if its caller goes
    /// away meanwhile, what the upload missed is noted again.
    fn note_missed(&self) {
        let missed = std::mem::take(&mut *self.missed.lock().unwrap_or_else(PoisonError::into_inner));
        let now = self.cluster.layout();
        let has_moved = now.placement.epoch != self.epoch;
        if missed.is_empty() && !has_moved {
            return;
        }
        self.cluster.note(|notes| {
            notes.add(&missed);
            // Chunks may be where any placement since then wanted them.
            for shard in self.shards.iter().filter(|_| has_moved) {
                now.placement.replicas(*shard).iter().for_each(|node| notes.miss(node, *shard));
            }
        });
        self.cluster.repair_wanted.notify_one();
    }
}

/// Whoever gives up an upload (by a failure, or by hanging up) leaves nothing behind: it is ended, and what was written is
/// removed. If a commit got no answer and may have been done, that is left to whoever collects garbage.
impl Drop for Uploader {
    fn drop(&mut self) {
        if self.is_committing {
            self.note_missed();
        }
        let is_clean = self.is_committed || self.chunk_count == 0 && self.in_progress.is_none();
        let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !is_clean) else { return };
        let (cluster, upload, is_committing) = (self.cluster.clone(), self.upload, self.is_committing);
        let (chunks, writes) = (std::mem::take(&mut self.chunks), std::mem::take(&mut self.writes));
        let (has_row, has_extents) = (self.in_progress.is_some(), self.extents > 0);
        runtime.spawn(async move {
            let has_ended = has_row && cluster.end_upload(upload, None).await.unwrap_or(false);
            let is_over = has_ended || !is_committing;
            for write in writes {
                // Whatever came of it: the copies go.
                let _ = write.await;
            }
            if is_over {
                cluster.delete_chunks(&chunks).await;
            }
            if is_over && has_extents {
                cluster.remove_extents(upload).await;
            }
        });
    }
}

async fn joined(write: JoinHandle<Result<(), StorageError>>) -> Result<(), StorageError> {
    write.await.unwrap_or_else(|error| Err(StorageError::internal("writing a chunk", error)))
}

fn no_row() -> StorageError {
    StorageError::internal("listing the chunks of an upload", "it was not begun")
}
