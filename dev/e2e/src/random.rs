//! Numbers that look random and come again with the same seed. The seed is printed, and can be set by `HEPTAD_SEED`.

use std::hash::{BuildHasher, RandomState};

/// A generator (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with the seed in `HEPTAD_SEED`, or a fresh one. Says which.
    #[expect(clippy::print_stderr, reason = "a seed is a bug report")]
    pub fn announced(what: &str) -> Self {
        let given = std::env::var("HEPTAD_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
        eprintln!("{what}: seed {seed} (HEPTAD_SEED={seed} repeats it)");
        Self(seed | 1)
    }

    /// A number of `range`.
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        range.start + drawn % (range.end - range.start)
    }
}
