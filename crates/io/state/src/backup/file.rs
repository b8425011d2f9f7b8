//! The format of a backup: a head with version and revision, rows in the order of their keys, and an end with their
//! number and the checksum of all before. Knows no store.
//!
//! Head: `HEPTADBK`, version (u32), revision (u64). Row: 1, length of the key (u32), key, length of the value (u32),
//! value. End: 0, number of rows (u64), BLAKE3 of everything before (32 bytes). Numbers are little-endian.

use super::Saved;
use crate::{Error, Result, Revision};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: &[u8; 8] = b"HEPTADBK";
const VERSION: u32 = 1;
/// Longest key or value that is read: far above what any store takes.
const FIELD_BYTES_MAX: u32 = 64 << 20;
const ROW: u8 = 1;
const END: u8 = 0;

fn failed(operation: &'static str, file: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::BackupFile { operation, file: file.to_owned(), source: Arc::new(source) }
}

/// The bytes of a backup.
pub(super) struct Encoder {
    hash: blake3::Hasher,
    saved: Saved,
}

impl Encoder {
    /// Begins with the head.
    pub(super) fn begin(revision: Revision, out: &mut Vec<u8>) -> Self {
        let mut encoder = Self { hash: blake3::Hasher::new(), saved: Saved { revision, rows: 0, bytes: 0 } };
        for part in [&MAGIC[..], &VERSION.to_le_bytes(), &revision.to_le_bytes()] {
            encoder.put(part, out);
        }
        encoder
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.hash.update(bytes);
        out.extend_from_slice(bytes);
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.put(&[ROW], out);
        for field in [key, value] {
            let length = u32::try_from(field.len()).ok().filter(|length| *length <= FIELD_BYTES_MAX);
            let length = length.ok_or(Error::Restore { reason: "a row is too long for a backup" })?;
            self.put(&length.to_le_bytes(), out);
            self.put(field, out);
        }
        self.saved.rows += 1;
        self.saved.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// Writes the end.
    pub(super) fn end(mut self, out: &mut Vec<u8>) {
        self.put(&[END], out);
        self.put(&self.saved.rows.to_le_bytes(), out);
        out.extend_from_slice(self.hash.finalize().as_bytes());
    }
}

/// Writes the bytes of a backup beside its place, and moves them there when they are whole and durable.
pub struct Receiver {
    file: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
}

impl Receiver {
    /// Begins a backup that shall be `file`.
    pub fn create(file: &Path) -> Result<Self> {
        let mut partial = file.as_os_str().to_owned();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = PathBuf::from(partial);
        // It holds secrets, if sealed ones.
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial);
        let out = BufWriter::new(opened.map_err(failed("write", &partial))?);
        Ok(Self { file: file.to_owned(), partial, out })
    }

    /// Writes its next bytes.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(failed("write", &self.partial))
    }

    /// Looks whether it is whole, and moves it to its place.
    pub fn finish(mut self) -> Result<Saved> {
        let written = failed("write", &self.partial);
        self.out.flush().map_err(&written)?;
        self.out.get_ref().sync_all().map_err(&written)?;
        let saved = super::verify(&self.partial)?;
        fs::rename(&self.partial, &self.file).map_err(failed("rename", &self.file))?;
        let dir = self.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("flush the directory of", &self.file))?;
        Ok(saved)
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Reads a backup row by row; the last call checks the whole.
pub(super) struct Reader {
    file: PathBuf,
    from: BufReader<File>,
    hash: blake3::Hasher,
    saved: Saved,
    last_key: Option<Bytes>,
    ended: bool,
}

impl Reader {
    pub(super) fn open(file: &Path) -> Result<Self> {
        let opened = File::open(file).map_err(failed("read", file))?;
        let saved = Saved { revision: 0, rows: 0, bytes: 0 };
        let (hash, from) = (blake3::Hasher::new(), BufReader::new(opened));
        let mut reader = Self { file: file.to_owned(), from, hash, saved, last_key: None, ended: false };
        if reader.take(MAGIC.len())? != MAGIC[..] {
            return Err(reader.damaged("it does not begin as a backup does"));
        }
        let version = u32::from_le_bytes(reader.array()?);
        if version != VERSION {
            return Err(reader.damaged("it is of another version of this program"));
        }
        reader.saved.revision = u64::from_le_bytes(reader.array()?);
        Ok(reader)
    }

    /// What was read so far.
    pub(super) fn saved(&self) -> Saved {
        self.saved
    }

    fn damaged(&self, reason: &'static str) -> Error {
        Error::BackupDamaged { file: self.file.clone(), reason }
    }

    fn raw(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(length as u64).read_to_end(&mut bytes).map_err(failed("read", &self.file))?;
        if read == length { Ok(bytes) } else { Err(self.damaged("it ends too early")) }
    }

    fn take(&mut self, length: usize) -> Result<Bytes> {
        let bytes = self.raw(length)?;
        self.hash.update(&bytes);
        Ok(bytes.into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        Ok(bytes[..].try_into().expect("so many bytes were taken"))
    }

    fn field(&mut self) -> Result<Bytes> {
        let length = u32::from_le_bytes(self.array()?);
        if length > FIELD_BYTES_MAX {
            return Err(self.damaged("a row is longer than rows can be"));
        }
        self.take(length as usize)
    }

    /// The next row; none at the end, when everything was found to be right.
    pub(super) fn row(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        if self.ended {
            return Ok(None);
        }
        match self.array::<1>()?[0] {
            ROW => {}
            END => return self.end().map(|()| None),
            _ => return Err(self.damaged("a row does not begin as rows do")),
        }
        let (key, value) = (self.field()?, self.field()?);
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Err(self.damaged("its rows are not in order"));
        }
        self.last_key = Some(key.clone());
        self.saved.rows += 1;
        self.saved.bytes += (key.len() + value.len()) as u64;
        Ok(Some((key, value)))
    }

    fn end(&mut self) -> Result<()> {
        let rows = u64::from_le_bytes(self.array()?);
        let computed = self.hash.finalize();
        let stored = self.raw(blake3::OUT_LEN)?;
        let mut behind = [0];
        let more = self.from.read(&mut behind).map_err(failed("read", &self.file))?;
        if rows != self.saved.rows || stored != computed.as_bytes() || more > 0 {
            return Err(self.damaged("its checksum is wrong"));
        }
        self.ended = true;
        Ok(())
    }
}
