//! Directories, blobs and seeded numbers for the tests.

use bytes::Bytes;
use heptad_blob::{Blob, BlobStore, Options};
use std::path::Path;

/// SplitMix64: enough for tests, and the seed says all.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A generator with a fresh seed, or that of `HEPTAD_TEST_SEED`; the seed is printed.
    pub(crate) fn seeded(test: &str) -> Self {
        let given = std::env::var("HEPTAD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| std::process::id().into());
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let seed = if given.is_some() { seed } else { seed ^ time.as_nanos() as u64 };
        use std::io::Write;
        writeln!(std::io::stderr(), "{test}: HEPTAD_TEST_SEED={seed}").expect("standard error");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn blob(&mut self, bytes_max: u64) -> Blob {
        let length = self.below(bytes_max + 1);
        self.blob_of(length)
    }

    pub(crate) fn blob_of(&mut self, length: u64) -> Blob {
        let length = length as usize;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        Blob::new(Bytes::from(bytes))
    }
}

/// Small segments, so that closing and reclaiming them happens often.
pub(crate) fn options() -> Options {
    Options { capacity_bytes: 64 << 20, segment_bytes_max: 64 << 10, blob_bytes_max: 1 << 20, ..Options::default() }
}

pub(crate) fn open(dir: &Path) -> BlobStore {
    BlobStore::open(dir, "disk-1", options()).expect("the engine opens")
}

/// All segment files of an engine's directory, by name.
pub(crate) fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let items = std::fs::read_dir(dir.join("segments")).expect("segments");
    let mut paths: Vec<_> = items.map(|item| item.expect("item").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

/// A directory in memory where there is one: for tests of logic with thousands of fsyncs.
pub(crate) fn memory_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}
