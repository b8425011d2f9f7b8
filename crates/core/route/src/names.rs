//! Exact names in constant time: two levels of hashing over a fixed set of names (Fredman, Komlós, Szemerédi 1984), so
//! that a lookup reads two places and compares one name, even in the worst case. The hash keys are searched when the
//! table is built. Knows neither what the names denote nor where they are kept.

use crate::facts::mix;

/// How many keys of the first level are tried. If all fail, which is practically impossible by chance, names are found
/// by binary search.
const KEYS_MAX: u64 = 16;
/// How many keys of one bucket are tried.
const BUCKET_KEYS_MAX: u32 = 64;
/// Places of the second level per name.
const PLACES_PER_NAME_MAX: usize = 8;

/// A name in two parts, such as namespace and name; both count.
pub(crate) type Parts<'a> = [&'a str; 2];

/// The position of each name of a set.
#[derive(Debug)]
pub(crate) enum Names {
    /// Two reads and one comparison.
    Levels(Levels),
    /// The positions in the order of their names: as many comparisons as halvings.
    Ordered(Vec<u32>),
}

#[derive(Debug)]
pub(crate) struct Levels {
    key: u64,
    /// By the first bits of a name's hash.
    buckets: Vec<Bucket>,
    /// Positions plus one; 0: empty.
    places: Vec<u32>,
}

/// The places `first..first + 2^bits` of the second level, and the key by which they are chosen.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    first: u32,
    key: u32,
    bits: u32,
}

impl Bucket {
    fn place(self, hash: u64) -> usize {
        self.first as usize + first_bits(mix(hash ^ u64::from(self.key)), self.bits)
    }
}

/// The number that the first bits form; 0 if none are taken.
fn first_bits(hash: u64, bits: u32) -> usize {
    hash.checked_shr(u64::BITS - bits).unwrap_or(0) as usize
}

fn hash(key: u64, name: Parts<'_>) -> u64 {
    let mut state = mix(key);
    for part in name {
        for chunk in part.as_bytes().chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            state = mix(state ^ u64::from_le_bytes(bytes));
        }
        // With the length, no two lists of parts have the same chunks.
        state = mix(state ^ part.len() as u64);
    }
    state
}

impl Default for Names {
    fn default() -> Self {
        Self::Ordered(Vec::new())
    }
}

impl Names {
    /// The table of these names, which must all be different.
    pub(crate) fn new(names: &[Parts<'_>]) -> Self {
        match (0..KEYS_MAX).find_map(|key| Levels::new(key, names)) {
            Some(levels) => Self::Levels(levels),
            None => Self::ordered(names),
        }
    }

    fn ordered(names: &[Parts<'_>]) -> Self {
        let mut positions: Vec<u32> = (0..names.len() as u32).collect();
        positions.sort_by_key(|position| names[*position as usize]);
        Self::Ordered(positions)
    }

    /// The position of the name, if it is one of them; `name_at` returns the name at a position.
    pub(crate) fn find<'a>(&self, name: Parts<'_>, name_at: impl Fn(usize) -> Parts<'a>) -> Option<usize> {
        match self {
            Self::Levels(levels) => levels.candidate(name).filter(|position| name_at(*position) == name),
            Self::Ordered(positions) => {
                let at = positions.binary_search_by(|position| name_at(*position as usize)[..].cmp(&name[..])).ok()?;
                Some(positions[at] as usize)
            }
        }
    }
}

impl Levels {
    fn new(key: u64, names: &[Parts<'_>]) -> Option<Self> {
        let hashes: Vec<u64> = names.iter().map(|name| hash(key, *name)).collect();
        let count = u32::try_from(names.len()).ok()?.max(1).checked_next_power_of_two()?;
        let bits = count.trailing_zeros();
        let mut of_bucket: Vec<Vec<u32>> = vec![Vec::new(); count as usize];
        for (position, hash) in (0..).zip(&hashes) {
            of_bucket[first_bits(*hash, bits)].push(position);
        }
        // As many places as the square of the names: then at least half of all keys separate them.
        let bits_of = |names: &Vec<u32>| (names.len() * names.len()).max(1).next_power_of_two().trailing_zeros();
        let sizes: usize = of_bucket.iter().map(|names| 1 << bits_of(names)).sum();
        if sizes > PLACES_PER_NAME_MAX * count as usize {
            return None;
        }
        let mut levels = Self { key, buckets: Vec::with_capacity(count as usize), places: Vec::with_capacity(sizes) };
        for positions in &of_bucket {
            let bucket = Bucket { first: levels.places.len() as u32, key: 0, bits: bits_of(positions) };
            levels.add(bucket, positions, &hashes)?;
        }
        Some(levels)
    }

    /// Adds a bucket with a key that puts its names at different places.
    fn add(&mut self, bucket: Bucket, positions: &[u32], hashes: &[u64]) -> Option<()> {
        let first = self.places.len();
        let apart = (0..BUCKET_KEYS_MAX).map(|key| Bucket { key, ..bucket }).find(|bucket| {
            self.places.truncate(first);
            self.places.resize(first + (1 << bucket.bits), 0);
            positions.iter().all(|&position| {
                let place = &mut self.places[bucket.place(hashes[position as usize])];
                std::mem::replace(place, position + 1) == 0
            })
        })?;
        self.buckets.push(apart);
        Some(())
    }

    /// The only position at which the name can be.
    fn candidate(&self, name: Parts<'_>) -> Option<usize> {
        let hash = hash(self.key, name);
        let bucket = self.buckets[first_bits(hash, self.buckets.len().trailing_zeros())];
        (self.places[bucket.place(hash)] as usize).checked_sub(1)
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
