//! Draws of one actor: a small generator (SplitMix64) whose stream follows from the seed and the actor's name alone, so
//! that one actor's draws do not move another's.

use std::time::Duration;

/// A stream of draws.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    /// The stream of the actor of that name.
    pub(crate) fn of(seed: u64, actor: &str) -> Self {
        // FNV-1a of the name, so that neighbouring seeds and names give unlike streams.
        let name = actor.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut draw = Self(seed ^ name);
        draw.next();
        draw
    }

    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `least` to `most`.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// Whether something happens whose probability is this many thousandths.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    /// A time from `least` to `most` milliseconds.
    pub(crate) fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.within(least, most))
    }

    /// One of some.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let index = usize::try_from(self.next() % of.len() as u64).expect("it is below a length");
        &of[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_follow_from_seed_and_name() {
        let three = |mut draw: Draw| [draw.next(), draw.next(), draw.next()];
        assert_eq!(three(Draw::of(1, "a")), three(Draw::of(1, "a")));
        assert_ne!(three(Draw::of(1, "a")), three(Draw::of(1, "b")));
        assert_ne!(three(Draw::of(1, "a")), three(Draw::of(2, "a")));
        let mut draw = Draw::of(7, "bounds");
        assert!((0..1000).all(|_| (3..=5).contains(&draw.within(3, 5))));
    }
}
