//! What the engine's users, its writer and its compactor share: the directory, the index, and whether all is lost.
//! Reads go past the writer: an index look-up, one read of the file, a checksum.

use crate::{
    Blob, BlobError, BlobId, Options, Result,
    directory::Directory,
    index::Index,
    record::{Entry, HEADER_BYTES, Kind, Location},
};
use bytes::Bytes;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Times that a read looks again because compaction moved the blob meanwhile.
const READ_ATTEMPTS_MAX: usize = 5;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) directory: Directory,
    pub(crate) options: Options,
    /// Held while space is reclaimed: one at a time.
    pub(crate) compacting: Mutex<()>,
    index: RwLock<Index>,
    lost: OnceLock<String>,
}

impl Shared {
    pub(crate) fn new(directory: Directory, options: Options, index: Index) -> Self {
        let index = RwLock::new(index);
        Self { directory, options, compacting: Mutex::new(()), index, lost: OnceLock::new() }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the writer, and for what reads find.
    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the directory up: what it holds is not known any more.
    pub(crate) fn lose(&self, reason: impl Into<String>) -> BlobError {
        let reason = self.lost.get_or_init(|| reason.into()).clone();
        BlobError::Unavailable { dir: self.directory.root().to_owned(), reason }
    }

    /// Fails if the directory was given up.
    pub(crate) fn check(&self) -> Result<()> {
        match self.lost.get() {
            Some(reason) => Err(self.lose(reason.clone())),
            None => Ok(()),
        }
    }

    /// Looks whether the directory still is there; gives it up if not.
    pub(crate) fn probe(&self) -> Result<()> {
        self.check()?;
        if self.directory.is_there() { Ok(()) } else { Err(self.lose("the directory was removed or replaced")) }
    }

    /// What puts may still write, by the capacity and by the file system.
    pub(crate) fn free_bytes(&self) -> u64 {
        let limit = self.options.capacity_bytes.saturating_sub(self.options.reserve_bytes());
        let free = limit.saturating_sub(self.index().used_bytes());
        match nix::sys::statvfs::statvfs(self.directory.root()) {
            Ok(system) => free.min(system.blocks_available().saturating_mul(system.fragment_size())),
            Err(_) => free,
        }
    }

    pub(crate) fn read(&self, id: BlobId) -> Result<Blob> {
        self.read_noting(id).map(|(_, blob)| blob)
    }

    /// Reads a blob and checks its header too, on which the next open depends.
    pub(crate) fn verify(&self, id: BlobId) -> Result<Blob> {
        match self.read_noting(id)? {
            (true, blob) => Ok(blob),
            (false, _) => Err(BlobError::Corrupt { id }),
        }
    }

    /// Reads a blob, and whether its header is good; the index hears whether both are.
    fn read_noting(&self, id: BlobId) -> Result<(bool, Blob)> {
        let (location, found) = self.read_record(id)?;
        let found = found.map_or(Err(BlobError::Corrupt { id }), |(is_header_good, bytes)| {
            Blob::verify(id, bytes).map(|blob| (is_header_good, blob))
        });
        let is_good = matches!(found, Ok((true, _)));
        if self.index().is_good(&id) != is_good {
            self.index_mut().found(id, location, is_good);
        }
        found
    }

    /// Where a blob is, and what is there; none if the disk cannot read it.
    fn read_record(&self, id: BlobId) -> Result<(Location, Option<(bool, Bytes)>)> {
        self.check()?;
        let mut before = None;
        for _ in 0..READ_ATTEMPTS_MAX {
            let location = self.index().get(&id).ok_or(BlobError::NotFound { id })?;
            if before == Some(location) {
                // The engine never removes a segment that is needed. What else it held must be known as missing too.
                return Err(self.lose("a segment file was removed"));
            }
            before = Some(location);
            match self.read_at(id, location) {
                Ok(found) => return Ok((location, Some(found))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.probe()?,
                Err(error) => {
                    tracing::warn!(%id, %error, "reading a blob failed; the copy counts as corrupt");
                    return Ok((location, None));
                }
            }
        }
        Err(BlobError::Corrupt { id })
    }

    pub(crate) fn read_at(&self, id: BlobId, location: Location) -> io::Result<(bool, Bytes)> {
        let file = File::open(self.directory.segment(location.place.segment))?;
        let mut record = vec![0; location.record_bytes() as usize];
        file.read_exact_at(&mut record, u64::from(location.place.offset))?;
        let written = Entry { place: location.place, id, kind: Kind::Put { len: location.len } };
        let is_header_good = record[..HEADER_BYTES as usize] == written.encode();
        Ok((is_header_good, Bytes::from(record).slice(HEADER_BYTES as usize..)))
    }
}
