//! Reading segment files: the scan of a file's records, and the summary that spares the scan of closed ones.
//! A damaged header is skipped, not taken for the end: what was acknowledged behind it stays readable.

use crate::{
    BlobError, BlobId, Result,
    directory::{Directory, replace_file},
    record::{Entry, HEADER_BYTES, Kind, MAGIC, Place},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) entries: Vec<Entry>,
    /// Where the last whole record ends; what follows is the torn end of an interrupted write.
    pub(crate) end: u64,
    /// Length of the file.
    pub(crate) file_bytes: u64,
    /// Whether damaged bytes lie between records.
    pub(crate) damaged: bool,
}

/// Reads the headers of all records of a segment.
pub(crate) fn scan(file: &File, number: u32) -> io::Result<Scan> {
    let file_bytes = file.metadata()?.len();
    let mut found = Scan { entries: Vec::new(), end: 0, file_bytes, damaged: false };
    let mut at = 0;
    while at < file_bytes {
        match read_entry(file, number, at, file_bytes)? {
            Some(entry) => {
                at += entry.record_bytes();
                found.end = at;
                found.entries.push(entry);
            }
            None => match next_record(file, number, at + 1, file_bytes)? {
                Some(next) => {
                    found.damaged = true;
                    at = next;
                }
                None => break,
            },
        }
    }
    Ok(found)
}

/// The record at `at`; none if there is no whole one.
fn read_entry(file: &File, number: u32, at: u64, file_bytes: u64) -> io::Result<Option<Entry>> {
    let Ok(offset) = u32::try_from(at) else { return Ok(None) };
    if at + HEADER_BYTES > file_bytes {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, at)?;
    let entry = Entry::decode(&header, Place { segment: number, offset });
    Ok(entry.filter(|entry| at + entry.record_bytes() <= file_bytes))
}

/// The first whole record at or behind `from`.
fn next_record(file: &File, number: u32, from: u64, file_bytes: u64) -> io::Result<Option<u64>> {
    const WINDOW_BYTES: usize = 1 << 20;
    let mut window = vec![0; WINDOW_BYTES];
    let mut at = from;
    while at + HEADER_BYTES <= file_bytes {
        let length = WINDOW_BYTES.min((file_bytes - at) as usize);
        file.read_exact_at(&mut window[..length], at)?;
        let starts = (0..=length.saturating_sub(MAGIC.len())).filter(|i| window[*i..].starts_with(&MAGIC));
        for start in starts {
            if read_entry(file, number, at + start as u64, file_bytes)?.is_some() {
                return Ok(Some(at + start as u64));
            }
        }
        at += (length - MAGIC.len() + 1) as u64;
    }
    Ok(None)
}

const SUMMARY_ENTRY_BYTES: usize = 52;

/// Writes the summary of a closed segment.
pub(crate) fn write_summary(directory: &Directory, number: u32, file_bytes: u64, entries: &[Entry]) -> Result<()> {
    let mut content = Vec::with_capacity(entries.len() * SUMMARY_ENTRY_BYTES + 16);
    content.extend_from_slice(&number.to_le_bytes());
    content.extend_from_slice(&file_bytes.to_le_bytes());
    for entry in entries {
        let (kind, len, target) = match entry.kind {
            Kind::Put { len } => (1u32, len, Place { segment: 0, offset: 0 }),
            Kind::Tombstone { target } => (2, 0, target),
        };
        content.extend_from_slice(&entry.id.0);
        for word in [entry.place.offset, kind, len, target.segment, target.offset] {
            content.extend_from_slice(&word.to_le_bytes());
        }
    }
    content.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    replace_file(&directory.summary(number), &content)
}

/// The records of a closed segment by its summary; none if there is no summary that fits the file.
pub(crate) fn read_summary(directory: &Directory, number: u32, file_bytes: u64) -> Option<Vec<Entry>> {
    let content = fs::read(directory.summary(number)).ok()?;
    let (body, checksum) = content.split_last_chunk::<4>()?;
    let (head, items) = body.split_first_chunk::<12>()?;
    let fits = crc32c::crc32c(body) == u32::from_le_bytes(*checksum)
        && head[..4] == number.to_le_bytes()
        && head[4..] == file_bytes.to_le_bytes()
        && items.len() % SUMMARY_ENTRY_BYTES == 0;
    fits.then(|| items.chunks_exact(SUMMARY_ENTRY_BYTES).map(|item| summary_entry(number, item)).collect())
}

fn summary_entry(segment: u32, item: &[u8]) -> Entry {
    let word = |i: usize| u32::from_le_bytes([item[i], item[i + 1], item[i + 2], item[i + 3]]);
    let mut id = [0; 32];
    id.copy_from_slice(&item[..32]);
    let kind = match word(36) {
        1 => Kind::Put { len: word(40) },
        _ => Kind::Tombstone { target: Place { segment: word(44), offset: word(48) } },
    };
    Entry { place: Place { segment, offset: word(32) }, id: BlobId(id), kind }
}

/// The records of a closed segment, by its summary or, if that is missing or damaged, by a scan.
pub(crate) fn sealed_entries(directory: &Directory, number: u32) -> Result<(Vec<Entry>, u64)> {
    let path = directory.segment(number);
    let file = File::open(&path).map_err(BlobError::io("opening", &path))?;
    let file_bytes = file.metadata().map_err(BlobError::io("reading", &path))?.len();
    if let Some(entries) = read_summary(directory, number, file_bytes) {
        return Ok((entries, file_bytes));
    }
    let found = scan(&file, number).map_err(BlobError::io("scanning", &path))?;
    if found.damaged || found.end < found.file_bytes {
        tracing::warn!(segment = %path.display(), "closed segment has damaged bytes; its whole records are kept");
    }
    file.sync_all().map_err(BlobError::io("syncing", &path))?;
    write_summary(directory, number, file_bytes, &found.entries)?;
    Ok((found.entries, file_bytes))
}
