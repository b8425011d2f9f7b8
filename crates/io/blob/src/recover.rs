//! Opening a directory: reads every segment's records, cuts the torn end of the last one, rebuilds the index.
//! Whatever was acknowledged is found again; what was not may be found too, whole or as a corrupt copy.

use crate::{
    BlobError, BlobId, Options, Result,
    directory::{Directory, sync_directory},
    index::Index,
    record::{Entry, Place},
    segment::{scan, sealed_entries, write_summary},
};
use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom},
    path::Path,
};

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u32,
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Active {
    /// A new, empty segment whose name is durable.
    pub(crate) fn create(directory: &Directory, number: u32) -> Result<Self> {
        let path = directory.segment(number);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(BlobError::io("creating", &path))?;
        sync_directory(&directory.segments())?;
        Ok(Self { number, file, bytes: 0, entries: Vec::new() })
    }
}

/// What was found in a directory.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) directory: Directory,
    pub(crate) index: Index,
    pub(crate) active: Active,
    /// Records that newer ones of the same blob replace, to be cancelled.
    pub(crate) superseded: Vec<(BlobId, Place)>,
}

pub(crate) fn recover(root: &Path, name: &str, options: &Options) -> Result<Recovered> {
    let directory = Directory::open(root, name)?;
    let numbers = directory.segment_numbers()?;
    let mut index = Index::default();
    let mut entries = Vec::new();
    let (last, closed) = numbers.split_last().map_or((None, &[][..]), |(last, closed)| (Some(*last), closed));
    for number in closed {
        let (found, bytes) = sealed_entries(&directory, *number)?;
        index.add_segment(*number, bytes, true);
        entries.extend(found);
    }
    let active = match last {
        Some(last) => open_last(&directory, last, options, &mut index)?,
        None => Active::create(&directory, 1)?,
    };
    if !index.has_segment(active.number) {
        index.add_segment(active.number, active.bytes, false);
    }
    if let Some(last) = last.filter(|last| *last != active.number) {
        entries.extend(sealed_entries(&directory, last)?.0);
    }
    entries.extend_from_slice(&active.entries);
    let superseded = index.replay(&entries);
    Ok(Recovered { directory, index, active, superseded })
}

/// Goes on with the last segment if it is open, undamaged and not full; else closes it and begins another.
fn open_last(directory: &Directory, number: u32, options: &Options, index: &mut Index) -> Result<Active> {
    let path = directory.segment(number);
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let mut file = file.map_err(BlobError::io("opening", &path))?;
    let found = scan(&file, number).map_err(BlobError::io("scanning", &path))?;
    if found.end < found.file_bytes {
        let bytes = found.file_bytes - found.end;
        tracing::info!(segment = %path.display(), bytes, "cutting the torn end of an interrupted write");
        file.set_len(found.end).map_err(BlobError::io("truncating", &path))?;
    }
    // What was written before a crash may be in the page cache only; from here on it counts as durable.
    file.sync_all().map_err(BlobError::io("syncing", &path))?;
    file.seek(SeekFrom::Start(found.end)).map_err(BlobError::io("seeking in", &path))?;
    if found.damaged || found.end >= options.segment_bytes() || directory.summary(number).exists() {
        write_summary(directory, number, found.end, &found.entries)?;
        index.add_segment(number, found.end, true);
        return Active::create(directory, number + 1);
    }
    Ok(Active { number, file, bytes: found.end, entries: found.entries })
}
