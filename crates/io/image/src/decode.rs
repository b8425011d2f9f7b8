//! The byte stream of a layer: decompressed, hashed and metered while it is read. Knows no tar and no file.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::digest::{Digest, Hasher};
use crate::error::Violation;

/// Headers and extensions between two contents.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Window of a zstd stream (2^27 = 128 MiB), which bounds the decoder's memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Padding and end marker of an archive that some builders leave out.
const MISSING_END_BYTES_MAX: u64 = 511 + 1024;
const READ_BUFFER_BYTES: usize = 128 << 10;

/// The budget that the layers of one image share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: u64,
    entries_max: u64,
    bytes: AtomicU64,
    entries: AtomicU64,
    stopped: AtomicBool,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64, entries_max: u64) -> Self {
        let (bytes, entries, stopped) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { bytes_max, entries_max, bytes, entries, stopped }
    }

    pub(crate) fn charge_bytes(&self, n: u64) -> Result<(), Violation> {
        let before = self.bytes.fetch_add(n, Ordering::Relaxed);
        if before.saturating_add(n) > self.bytes_max {
            return Err(Violation::TooManyBytes { max: self.bytes_max });
        }
        Ok(())
    }

    pub(crate) fn charge_entries(&self, n: u64) -> Result<(), Violation> {
        let before = self.entries.fetch_add(n, Ordering::Relaxed);
        if before.saturating_add(n) > self.entries_max {
            return Err(Violation::TooManyEntries { max: self.entries_max });
        }
        Ok(())
    }

    /// Returns what an abandoned attempt used.
    pub(crate) fn refund(&self, stats: Stats) {
        self.bytes.fetch_sub(stats.bytes, Ordering::Relaxed);
        self.entries.fetch_sub(stats.entries, Ordering::Relaxed);
    }

    /// Makes every reader of this budget fail soon.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// How much larger than its compressed form a layer may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) max: u64,
    /// Expansion up to this size never counts as a bomb.
    pub(crate) free_bytes: u64,
}

/// How much of the budget a layer used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// The account of one layer that is being read. Shared by the reader below tar and the code above it.
pub(crate) struct Meter<'a> {
    budget: &'a Budget,
    ratio: Ratio,
    compressed_bytes: u64,
    bytes: Cell<u64>,
    copied_bytes: Cell<u64>,
    entries: Cell<u64>,
    header_bytes: Cell<Option<u64>>,
    violation: RefCell<Option<Violation>>,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(budget: &'a Budget, ratio: Ratio, compressed_bytes: u64) -> Rc<Self> {
        Rc::new(Self {
            budget,
            ratio,
            compressed_bytes,
            bytes: Cell::new(0),
            copied_bytes: Cell::new(0),
            entries: Cell::new(0),
            header_bytes: Cell::new(None),
            violation: RefCell::new(None),
        })
    }

    pub(crate) fn charge_bytes(&self, n: u64) -> Result<(), Violation> {
        let bytes = self.bytes.get().saturating_add(n);
        self.bytes.set(bytes);
        self.budget.charge_bytes(n)?;
        let Ratio { max: ratio_max, free_bytes } = self.ratio;
        let compressed_bytes = self.compressed_bytes;
        if bytes > compressed_bytes.saturating_mul(ratio_max).max(free_bytes) {
            return Err(Violation::CompressionRatio { free_bytes, ratio_max, compressed_bytes });
        }
        Ok(())
    }

    /// Bytes that came from a lower layer: they count for the image, not for this layer's expansion.
    pub(crate) fn charge_copied_bytes(&self, n: u64) -> Result<(), Violation> {
        self.copied_bytes.set(self.copied_bytes.get().saturating_add(n));
        self.budget.charge_bytes(n)
    }

    pub(crate) fn charge_entry(&self) -> Result<(), Violation> {
        self.entries.set(self.entries.get() + 1);
        self.budget.charge_entries(1)
    }

    /// From here on only headers are expected, and they are bounded.
    pub(crate) fn expect_headers(&self) {
        self.header_bytes.set(Some(0));
    }

    /// From here on content is read.
    pub(crate) fn expect_content(&self) {
        self.header_bytes.set(None);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats { bytes: self.bytes.get().saturating_add(self.copied_bytes.get()), entries: self.entries.get() }
    }

    /// The typed reason of a failed read, or the archive's damage.
    pub(crate) fn explain(&self, error: io::Error) -> Violation {
        self.violation.take().unwrap_or(Violation::Malformed(error))
    }

    fn on_read(&self, n: u64) -> Result<(), Violation> {
        if let Some(headers) = self.header_bytes.get() {
            self.header_bytes.set(Some(headers + n));
            if headers + n > HEADER_BYTES_MAX {
                return Err(Violation::HeaderTooLarge { max: HEADER_BYTES_MAX });
            }
        }
        self.charge_bytes(n)
    }
}

/// Decompressed bytes of a layer, hashed and charged to a meter.
pub(crate) struct LayerReader<'a> {
    inner: Box<dyn Read + 'a>,
    hasher: Rc<RefCell<Hasher>>,
    meter: Rc<Meter<'a>>,
    missing_end_bytes: u64,
}

impl<'a> LayerReader<'a> {
    /// `expected` only chooses the algorithm.
    pub(crate) fn new(blob: impl Read + 'a, meter: Rc<Meter<'a>>, expected: &Digest) -> io::Result<Self> {
        let inner = decompress(BufReader::with_capacity(READ_BUFFER_BYTES, blob))?;
        let hasher = Rc::new(RefCell::new(expected.hasher()));
        Ok(Self { inner, hasher, meter, missing_end_bytes: MISSING_END_BYTES_MAX })
    }

    /// Between contents, the end of the stream reads as the zeros that end an archive: they carry nothing, and the
    /// digest covers all bytes that came. Within content it stays an error.
    fn supply_end(&mut self, buf: &mut [u8]) -> usize {
        let n = buf.len().min(usize::try_from(self.missing_end_bytes).unwrap_or(0));
        buf[..n].fill(0);
        self.missing_end_bytes -= n as u64;
        n
    }

    /// A handle for reading the digest after the stream was given away.
    pub(crate) fn hasher(&self) -> Rc<RefCell<Hasher>> {
        Rc::clone(&self.hasher)
    }
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.meter.budget.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("the pull was stopped"));
        }
        let n = self.inner.read(buf)?;
        if n == 0 && self.meter.header_bytes.get().is_some() {
            return Ok(self.supply_end(buf));
        }
        self.hasher.borrow_mut().update(&buf[..n]);
        self.meter.on_read(n as u64).map_err(|violation| {
            let error = io::Error::other(violation.to_string());
            self.meter.violation.replace(Some(violation));
            error
        })?;
        Ok(n)
    }
}

/// Undoes gzip or zstd, recognised by their first bytes; passes anything else on.
pub(crate) fn decompress<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let head = input.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(head) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(input))
    }
}

/// zstd streams may begin with a frame that carries no data (0x184D2A50 to 0x184D2A5F, little endian).
fn is_skippable_frame(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Whether a file begins like a compressed one.
pub(crate) fn is_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_frame(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const FREE_BYTES: u64 = 1 << 20;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).expect("memory");
        encoder.finish().expect("memory")
    }

    fn read(blob: &[u8], budget: &Budget, ratio_max: u64) -> Result<(Vec<u8>, Digest), Violation> {
        let ratio = Ratio { max: ratio_max, free_bytes: FREE_BYTES };
        let meter = Meter::new(budget, ratio, blob.len() as u64);
        let mut reader = LayerReader::new(blob, Rc::clone(&meter), &Digest::sha256(b"")).expect("header");
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map_err(|e| meter.explain(e))?;
        let digest = reader.hasher().borrow().clone().finish();
        Ok((out, digest))
    }

    #[test]
    fn plain_gzip_and_zstd_give_the_same_bytes_and_digest() {
        let data = b"the same bytes ".repeat(1000);
        let budget = Budget::new(1 << 20, 10);
        for blob in [data.clone(), gzip(&data), zstd::encode_all(&data[..], 3).expect("zstd")] {
            let (out, digest) = read(&blob, &budget, 100).expect("reads");
            assert!(out == data && digest == Digest::sha256(&data));
        }
        let two_members = [gzip(&data[..100]), gzip(&data[100..])].concat();
        assert_eq!(read(&two_members, &budget, 100).expect("reads").0, data);
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = vec![0_u8; (FREE_BYTES + (1 << 20)) as usize];
        let budget = Budget::new(1 << 40, 10);
        for blob in [gzip(&zeros), zstd::encode_all(&zeros[..], 3).expect("zstd")] {
            assert!(matches!(read(&blob, &budget, 50), Err(Violation::CompressionRatio { ratio_max: 50, .. })));
        }
        let small = Budget::new(1000, 10);
        assert!(matches!(read(&[7; 2000], &small, 50), Err(Violation::TooManyBytes { max: 1000 })));
    }

    #[test]
    fn damage_and_stops_are_errors() {
        let mut blob = gzip(&b"x".repeat(10_000));
        let middle = blob.len() / 2;
        blob[middle] ^= 0xff;
        let budget = Budget::new(1 << 20, 10);
        assert!(matches!(read(&blob, &budget, 1000), Err(Violation::Malformed(_))));
        budget.stop();
        assert!(matches!(read(b"plain", &budget, 1000), Err(Violation::Malformed(_))));
    }
}
