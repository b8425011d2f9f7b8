//! The writer thread: the only one that changes files and index. It takes all requests that wait, appends their records,
//! makes them durable with one fsync, then answers. A failed fsync is final: nothing is known of the file any more.

use crate::{
    Blob, BlobError, BlobId, Result,
    directory::{same_file, sync_directory},
    record::{Entry, HEADER_BYTES, Kind, Location, Place},
    recover::Active,
    segment::write_summary,
    shared::Shared,
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    fs,
    io::{self, IoSlice, Seek, SeekFrom, Write},
    sync::{Arc, mpsc::SyncSender},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc::Receiver, oneshot};

/// The answer: how many records the request changed.
pub(crate) type Reply = oneshot::Sender<Result<u64>>;

/// A segment is closed at this many records, so that its summary stays small.
const SEGMENT_RECORDS_MAX: usize = 1 << 18;

#[derive(Debug)]
pub(crate) enum Work {
    Put {
        blob: Blob,
        room: OwnedSemaphorePermit,
    },
    Delete {
        ids: Vec<BlobId>,
    },
    /// Compaction: the blob's record moves from `from`, if it still is there.
    Move {
        blob: Blob,
        from: Location,
    },
    /// Compaction: the record at `target` counts no more.
    Cancel {
        id: BlobId,
        target: Place,
    },
    /// Compaction: the record at `from` cannot be read and goes with its segment.
    Forget {
        id: BlobId,
        from: Location,
    },
    /// Compaction: remove a segment that is not needed.
    Retire {
        segment: u32,
    },
    /// Compaction: close the active segment.
    Seal,
    /// End the thread.
    Stop,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) work: Work,
    pub(crate) reply: Reply,
}

enum Effect {
    Insert(BlobId, Location),
    Remove(BlobId),
    Tombstone(Place),
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Active,
    wake_compactor: SyncSender<()>,
    staged: Vec<(Entry, Bytes)>,
    staged_bytes: u64,
    staged_ids: BTreeSet<BlobId>,
    effects: Vec<Effect>,
    replies: Vec<(Reply, u64)>,
    rooms: Vec<OwnedSemaphorePermit>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, active: Active, wake_compactor: SyncSender<()>) -> Self {
        Self {
            shared,
            active,
            wake_compactor,
            staged: Vec::new(),
            staged_bytes: 0,
            staged_ids: BTreeSet::new(),
            effects: Vec::new(),
            replies: Vec::new(),
            rooms: Vec::new(),
        }
    }

    /// Cancels records that newer ones replace; part of opening.
    pub(crate) fn cancel(&mut self, superseded: Vec<(BlobId, Place)>) -> Result<()> {
        for (id, target) in superseded {
            self.stage(id, Kind::Tombstone { target }, Bytes::new())?;
        }
        self.flush()
    }

    pub(crate) fn run(mut self, mut requests: Receiver<Request>) {
        let options = self.shared.options.clone();
        while let Some(first) = requests.blocking_recv() {
            let mut next = Some(first);
            while let Some(request) = next.take() {
                if matches!(request.work, Work::Stop) {
                    let done = self.flush().map(|()| 0);
                    let _ = request.reply.send(done);
                    return;
                }
                self.accept(request);
                let full = self.replies.len() >= options.batch_requests_max
                    || self.staged_bytes >= options.batch_bytes_max as u64;
                next = if full { None } else { requests.try_recv().ok() };
            }
            // Each request of the batch has been told of a failure.
            let _ = self.flush();
        }
    }

    fn accept(&mut self, request: Request) {
        let result = self.shared.check().and_then(|()| self.stage_work(request.work));
        match result {
            Ok(count) => self.replies.push((request.reply, count)),
            // The asker may have gone; then nobody needs the answer.
            Err(error) => drop(request.reply.send(Err(error))),
        }
    }

    fn stage_work(&mut self, work: Work) -> Result<u64> {
        match work {
            Work::Put { blob, room } => self.put(blob, room),
            Work::Delete { ids } => self.delete(&ids),
            Work::Move { blob, from } => self.move_blob(blob, from),
            Work::Cancel { id, target } => self.stage(id, Kind::Tombstone { target }, Bytes::new()).map(|()| 1),
            Work::Forget { id, from } => self.forget(id, from),
            Work::Retire { segment } => self.retire(segment),
            Work::Seal => self.flush().and_then(|()| self.roll()).map(|()| 1),
            Work::Stop => Ok(0),
        }
    }

    /// The present place of a blob; what is staged of it is made durable first.
    fn current(&mut self, id: &BlobId) -> Result<Option<Location>> {
        if self.staged_ids.contains(id) {
            self.flush()?;
        }
        Ok(self.shared.index().get(id))
    }

    fn put(&mut self, blob: Blob, room: OwnedSemaphorePermit) -> Result<u64> {
        let older = self.current(&blob.id())?;
        let asked_bytes = 2 * HEADER_BYTES + blob.bytes().len() as u64;
        let free_bytes = self.free_bytes(self.shared.options.reserve_bytes());
        if asked_bytes > free_bytes {
            return Err(self.insufficient(asked_bytes, free_bytes));
        }
        self.rooms.push(room);
        self.stage_blob(blob, older)
    }

    fn free_bytes(&self, reserve_bytes: u64) -> u64 {
        let limit = self.shared.options.capacity_bytes.saturating_sub(reserve_bytes);
        limit.saturating_sub(self.shared.index().used_bytes() + self.staged_bytes)
    }

    fn insufficient(&self, asked_bytes: u64, free_bytes: u64) -> BlobError {
        BlobError::InsufficientSpace { dir: self.shared.directory.root().to_owned(), asked_bytes, free_bytes }
    }

    /// Stages a blob and the cancelling of its older record, so that no later deletion can bring that one back.
    fn stage_blob(&mut self, blob: Blob, older: Option<Location>) -> Result<u64> {
        let id = blob.id();
        let len = u32::try_from(blob.bytes().len()).map_err(|_| BlobError::TooLarge {
            bytes: blob.bytes().len() as u64,
            bytes_max: u64::from(self.shared.options.blob_bytes_max),
        })?;
        self.stage(id, Kind::Put { len }, blob.into_bytes())?;
        if let Some(older) = older {
            self.stage(id, Kind::Tombstone { target: older.place }, Bytes::new())?;
        }
        Ok(1)
    }

    fn delete(&mut self, ids: &[BlobId]) -> Result<u64> {
        let mut count = 0;
        for id in ids {
            if let Some(location) = self.current(id)? {
                self.stage(*id, Kind::Tombstone { target: location.place }, Bytes::new())?;
                self.effects.push(Effect::Remove(*id));
                count += 1;
            }
        }
        Ok(count)
    }

    fn move_blob(&mut self, blob: Blob, from: Location) -> Result<u64> {
        if self.current(&blob.id())? != Some(from) {
            return Ok(0);
        }
        let asked_bytes = HEADER_BYTES + from.record_bytes();
        let free_bytes = self.free_bytes(self.shared.options.deletion_reserve_bytes());
        if asked_bytes > free_bytes {
            return Err(self.insufficient(asked_bytes, free_bytes));
        }
        // The old record is cancelled although its segment will go: the blob may be deleted, or the process killed, before.
        self.stage_blob(blob, Some(from))
    }

    fn forget(&mut self, id: BlobId, from: Location) -> Result<u64> {
        if self.current(&id)? == Some(from) {
            self.shared.index_mut().remove(&id);
        }
        Ok(1)
    }

    fn retire(&mut self, segment: u32) -> Result<u64> {
        self.flush()?;
        if segment == self.active.number || self.shared.index().is_needed(segment) {
            return Ok(0);
        }
        let directory = &self.shared.directory;
        // The summary goes first: a segment without one is scanned, a summary without a segment would be litter.
        for path in [directory.summary(segment), directory.segment(segment)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(BlobError::io("removing", path)(error));
                }
                _ => {}
            }
        }
        sync_directory(&directory.segments())?;
        self.shared.index_mut().retire(segment);
        Ok(1)
    }

    /// Adds a record to the batch, after closing the segment if the record does not fit any more.
    fn stage(&mut self, id: BlobId, kind: Kind, payload: Bytes) -> Result<()> {
        let mut entry = Entry { place: Place { segment: 0, offset: 0 }, id, kind };
        let end = self.active.bytes + self.staged_bytes;
        let records = self.active.entries.len() + self.staged.len();
        let is_full =
            end + entry.record_bytes() > self.shared.options.segment_bytes() || records >= SEGMENT_RECORDS_MAX;
        if is_full && end > 0 {
            self.flush()?;
            self.roll()?;
        }
        let offset = self.active.bytes + self.staged_bytes;
        let offset = u32::try_from(offset).map_err(|_| self.shared.lose("a segment file grew beyond 4 GiB"))?;
        entry.place = Place { segment: self.active.number, offset };
        self.staged_bytes += entry.record_bytes();
        self.staged_ids.insert(id);
        self.effects.push(match kind {
            Kind::Put { len } => Effect::Insert(id, Location { place: entry.place, len }),
            Kind::Tombstone { target } => Effect::Tombstone(target),
        });
        self.staged.push((entry, payload));
        Ok(())
    }

    /// Makes the batch durable, then visible, then answers.
    fn flush(&mut self) -> Result<()> {
        let result = if self.staged.is_empty() { Ok(()) } else { self.write_staged() };
        let effects = std::mem::take(&mut self.effects);
        if result.is_ok() {
            self.apply(effects);
        }
        self.staged.clear();
        self.staged_ids.clear();
        self.staged_bytes = 0;
        for (reply, count) in self.replies.drain(..) {
            // The asker may have gone; then nobody needs the answer.
            let _ = reply.send(result.clone().map(|()| count));
        }
        self.rooms.clear();
        result
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        let number = self.active.number;
        let mut has_garbage = false;
        let mut index = self.shared.index_mut();
        index.grow(number, self.staged_bytes);
        for effect in effects {
            match effect {
                Effect::Insert(id, location) => index.insert(id, location),
                Effect::Remove(id) => drop(index.remove(&id)),
                Effect::Tombstone(target) => {
                    index.add_tombstone(number, target);
                    has_garbage = true;
                }
            }
        }
        self.active.bytes += self.staged_bytes;
        self.active.entries.extend(self.staged.iter().map(|(entry, _)| *entry));
        if has_garbage {
            // A full channel means that the compactor has been woken already.
            let _ = self.wake_compactor.try_send(());
        }
    }

    fn write_staged(&mut self) -> Result<()> {
        if let Err(error) = self.append() {
            return Err(self.roll_back(error));
        }
        if let Err(error) = self.active.file.sync_data() {
            return Err(self.shared.lose(format!("making writes durable failed: {error}")));
        }
        // Files of a removed directory take writes and fsyncs without complaint.
        if !same_file(&self.active.file, &self.shared.directory.segment(self.active.number)) {
            return Err(self.shared.lose("the directory was removed or replaced"));
        }
        Ok(())
    }

    fn append(&mut self) -> io::Result<()> {
        let headers: Vec<_> = self.staged.iter().map(|(entry, _)| entry.encode()).collect();
        let parts = headers.iter().zip(&self.staged);
        let mut slices: Vec<IoSlice<'_>> =
            parts.flat_map(|(header, (_, payload))| [IoSlice::new(header), IoSlice::new(payload)]).collect();
        let mut rest = slices.as_mut_slice();
        // Drops empty parts at the front, so that a write of nothing is never taken for a full disk.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.active.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A write failed: a full disk is an answer, anything else ends the engine.
    fn roll_back(&mut self, error: io::Error) -> BlobError {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let end = self.active.bytes;
        let cut = self.active.file.set_len(end).and_then(|()| self.active.file.seek(SeekFrom::Start(end)));
        match cut {
            Ok(_) if is_full => self.insufficient(self.staged_bytes, 0),
            _ => self.shared.lose(format!("writing failed: {error}")),
        }
    }

    /// Closes the active segment and begins the next.
    fn roll(&mut self) -> Result<()> {
        if self.active.bytes == 0 {
            return Ok(());
        }
        let directory = &self.shared.directory;
        let closed = self.active.number;
        let rolled = write_summary(directory, closed, self.active.bytes, &self.active.entries)
            .and_then(|()| Active::create(directory, closed + 1));
        match rolled {
            Ok(next) => self.active = next,
            // The segment with a summary takes no more records, so there is nowhere to write.
            Err(error) => return Err(self.shared.lose(format!("beginning a new segment failed: {error}"))),
        }
        let mut index = self.shared.index_mut();
        index.seal(closed);
        index.add_segment(self.active.number, 0, false);
        Ok(())
    }
}
