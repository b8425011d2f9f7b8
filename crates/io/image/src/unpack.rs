//! Unpacks one layer archive into one directory that overlayfs can mount: entry by entry, within limits. Reads tar;
//! leaves the filesystem to `tree`. Knows no registry and no store.

mod entry;
mod sparse;
#[cfg(test)]
mod tests;
mod tree;

use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tar::EntryType;

use crate::decode::{Budget, LayerReader, Meter, Ratio, Stats};
use crate::digest::Digest;
use crate::error::Violation;
use entry::{EntryPath, Meta};
use sparse::Sparse;
use tree::{Stop, Tree};

const COPY_BUFFER_BYTES: usize = 128 << 10;

/// Bounds of one layer; the budget is shared by the layers of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    pub(crate) budget: &'a Budget,
    pub(crate) depth_max: usize,
    pub(crate) ratio: Ratio,
}

/// What lies below the layer being unpacked.
#[derive(Clone, Debug)]
pub(crate) enum Lowers {
    /// Not known yet: only a layer that needs nothing from below can be unpacked.
    Unknown,
    /// These directories, top first.
    Known(Vec<PathBuf>),
}

/// The outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The layer stands alone: its directory is the same above whatever layers.
    Alone(Stats),
    /// Attributes or contents of lower layers went into it.
    OnLowers(Stats),
    /// The layer cannot be unpacked without knowing the lower ones.
    NeedsLowers,
}

/// A violation and the entry where it was found.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) path: PathBuf,
    pub(crate) violation: Violation,
}

/// Unpacks the archive in `blob` (`blob_bytes` long, compressed or not) into the empty directory `dest`
/// and checks that the unpacked bytes are `diff_id`. After an error, the caller removes `dest`.
pub(crate) fn unpack_layer(
    blob: impl Read,
    blob_bytes: u64,
    dest: &Path,
    diff_id: &Digest,
    lowers: &Lowers,
    limits: Limits<'_>,
) -> Result<Outcome, Refused> {
    let whole = |violation| Refused { path: PathBuf::new(), violation };
    let meter = Meter::new(limits.budget, limits.ratio, blob_bytes);
    let tree = Tree::open(dest, lowers).map_err(|e| whole(Violation::Write(e)))?;
    let reader = LayerReader::new(blob, Rc::clone(&meter), diff_id).map_err(|e| whole(Violation::Malformed(e)))?;
    let hasher = reader.hasher();
    let mut unpacker = Unpacker {
        tree,
        meter: Rc::clone(&meter),
        depth_max: limits.depth_max,
        buffer: vec![0; COPY_BUFFER_BYTES],
        content_bytes: 0,
    };
    match unpacker.archive(reader) {
        Ok(()) => {}
        Err((_, Stop::NeedsLowers)) => {
            limits.budget.refund(meter.stats());
            return Ok(Outcome::NeedsLowers);
        }
        Err((path, Stop::Violation(violation))) => return Err(Refused { path, violation }),
    }
    let actual = hasher.borrow().clone().finish();
    if actual != *diff_id {
        return Err(whole(Violation::DiffId { actual: Box::new(actual) }));
    }
    let used_lowers = unpacker.tree.finish().map_err(whole)?;
    Ok(if used_lowers { Outcome::OnLowers(meter.stats()) } else { Outcome::Alone(meter.stats()) })
}

struct Unpacker<'a> {
    tree: Tree,
    meter: Rc<Meter<'a>>,
    depth_max: usize,
    buffer: Vec<u8>,
    /// How much of the current entry was read.
    content_bytes: u64,
}

impl Unpacker<'_> {
    fn archive(&mut self, reader: LayerReader<'_>) -> Result<(), (PathBuf, Stop)> {
        let mut archive = tar::Archive::new(reader);
        let at = |path: &Path, e| (path.to_owned(), Stop::Violation(self.meter.explain(e)));
        let mut last = PathBuf::new();
        self.meter.expect_headers();
        let entries = archive.entries().map_err(|e| at(&last, e))?;
        for next in entries {
            let mut entry = next.map_err(|e| (last.clone(), Stop::Violation(self.meter.explain(e))))?;
            self.meter.expect_content();
            self.content_bytes = 0;
            last = PathBuf::from(entry::lossy_name(&entry));
            let sparse = Sparse::of(&mut entry).map_err(|violation| (last.clone(), violation.into()))?;
            if let Some(name) = sparse.as_ref().and_then(|sparse| sparse.name.as_ref()) {
                last = PathBuf::from(String::from_utf8_lossy(name).into_owned());
            }
            self.entry(&mut entry, sparse.as_ref()).map_err(|stop| (last.clone(), stop))?;
            self.skip_rest(&mut entry).map_err(|stop| (last.clone(), stop))?;
            self.meter.expect_headers();
        }
        self.meter.expect_content();
        // What follows the archive's end counts for the digest.
        let mut reader = archive.into_inner();
        self.drain(&mut reader).map_err(|stop| (PathBuf::new(), stop))
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, sparse: Option<&Sparse>) -> Result<(), Stop> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        self.meter.charge_entry()?;
        let real_name = sparse.and_then(|sparse| sparse.name.as_deref());
        let path = match real_name {
            Some(name) => EntryPath::parse(name, self.depth_max)?,
            None => EntryPath::parse(&entry.path_bytes(), self.depth_max)?,
        };
        match &path {
            EntryPath::Root => return self.tree.root(&Meta::of(entry)?),
            EntryPath::Whiteout { parent, name } => return self.tree.whiteout(parent, name),
            EntryPath::Opaque { parent } => return self.tree.opaque(parent),
            EntryPath::Ignored => return Ok(()),
            EntryPath::Plain { .. } => {}
        }
        let EntryPath::Plain { parent, name } = path else { return Ok(()) };
        match kind {
            EntryType::Directory => self.tree.directory(&parent, &name, &Meta::of(entry)?),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.tree.symlink(&parent, &name, &target, &Meta::of(entry)?)
            }
            EntryType::Link => self.hard_link(&parent, &name, &entry.link_name_bytes().unwrap_or_default()),
            EntryType::Fifo => self.tree.fifo(&parent, &name, &Meta::of(entry)?),
            // The runtime creates the devices that a container may have; an image contributes none.
            EntryType::Char | EntryType::Block => Ok(()),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                if kind == EntryType::GNUSparse {
                    self.meter.charge_bytes(entry.size())?;
                }
                self.file(&parent, &name, entry, sparse)
            }
            other => Err(Violation::EntryKind { kind: other.as_byte() as char }.into()),
        }
    }

    fn file<R: Read>(
        &mut self,
        parent: &Path,
        name: &std::ffi::OsStr,
        entry: &mut tar::Entry<'_, R>,
        sparse: Option<&Sparse>,
    ) -> Result<(), Stop> {
        let meta = Meta::of(entry)?;
        let mut file = self.tree.create_file(parent, name)?;
        match sparse {
            None => while self.copy(entry, &mut file)? > 0 {},
            Some(sparse) => self.sparse_file(entry, &mut file, sparse)?,
        }
        Ok(meta.apply_to(&file).map_err(Violation::Write)?)
    }

    /// Holes stay holes: they take no disk and nothing of the budget.
    fn sparse_file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        file: &mut std::fs::File,
        sparse: &Sparse,
    ) -> Result<(), Stop> {
        let ends = || Stop::from(Violation::Malformed(io::ErrorKind::UnexpectedEof.into()));
        let pieces = sparse.pieces(|block: &mut [u8; 512]| {
            let mut rest = &mut block[..];
            while !rest.is_empty() {
                let n = self.read(&mut entry.by_ref().take(rest.len() as u64))?;
                rest.get_mut(..n).filter(|_| n > 0).ok_or_else(ends)?.copy_from_slice(&self.buffer[..n]);
                rest = &mut std::mem::take(&mut rest)[n..];
            }
            Ok::<(), Stop>(())
        })?;
        sparse::set_length(file, sparse.bytes)?;
        for piece in pieces {
            file.seek(SeekFrom::Start(piece.offset)).map_err(Violation::Write)?;
            let mut left = piece.bytes;
            while left > 0 {
                left -= self
                    .copy(&mut entry.by_ref().take(left), file)
                    .and_then(|n| if n > 0 { Ok(n) } else { Err(ends()) })?;
            }
        }
        if self.content_bytes == entry.size() {
            return Ok(());
        }
        Err(Violation::Sparse { problem: "the archive has more content than its parts" }.into())
    }

    /// One read, and its write.
    fn copy(&mut self, reader: &mut impl Read, file: &mut std::fs::File) -> Result<u64, Stop> {
        let n = self.read(reader)?;
        file.write_all(&self.buffer[..n]).map_err(Violation::Write)?;
        Ok(n as u64)
    }

    fn hard_link(&mut self, parent: &Path, name: &std::ffi::OsStr, target: &[u8]) -> Result<(), Stop> {
        let shown = || PathBuf::from(String::from_utf8_lossy(target).into_owned());
        match EntryPath::parse(target, self.depth_max) {
            Ok(EntryPath::Plain { parent: from, name: from_name }) => {
                let copied = self.tree.hard_link(parent, name, &from, &from_name)?;
                Ok(self.meter.charge_copied_bytes(copied)?)
            }
            _ => Err(Violation::LinkTargetRefused { target: shown() }.into()),
        }
    }

    /// Reads the rest of the entry; a stream that ends within it is damaged, which tar itself notices too late.
    fn skip_rest<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Stop> {
        self.drain(entry)?;
        if self.content_bytes == entry.size() {
            return Ok(());
        }
        Err(Violation::Malformed(io::ErrorKind::UnexpectedEof.into()).into())
    }

    fn drain(&mut self, reader: &mut impl Read) -> Result<(), Stop> {
        while self.read(reader)? > 0 {}
        Ok(())
    }

    fn read(&mut self, reader: &mut impl Read) -> Result<usize, Stop> {
        let n = read_some(reader, &mut self.buffer).map_err(|e| self.meter.explain(e))?;
        self.content_bytes += n as u64;
        Ok(n)
    }
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
