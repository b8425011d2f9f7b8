//! Nodes in the order of their room, in blocks of fixed width that the compiler compares several lanes at a time, with the
//! most that a node of each block has. Knows no classes: what is asked are numbers per lane.

use super::{NodeIndex, Place, node_set::Bits};

/// Nodes of a block at most.
const WIDTH: usize = 64;
/// Nodes of a block at first, so that some can be added.
const WIDTH_FIRST: usize = 48;
/// A block that has fewer is joined with a neighbour if both have at most [`WIDTH_FIRST`].
const WIDTH_LEAST: usize = 12;
/// Blocks whose maxima are compared at a time.
const BLOCKS_AT_A_TIME: usize = 16;
/// What stands where no node is: less than anything that is asked.
const NOTHING: i32 = -1;

/// What is asked of one lane: never nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) lane: usize,
    pub(super) least: i32,
}

/// Nodes by room, then by number.
#[derive(Clone, Debug, Default)]
pub(super) struct RoomIndex {
    lanes: usize,
    keys: Vec<[u64; WIDTH]>,
    nodes: Vec<[u32; WIDTH]>,
    /// By block and lane.
    amounts: Vec<[i32; WIDTH]>,
    lens: Vec<usize>,
    /// The blocks in order.
    order: Vec<u32>,
    /// By place in the order: no node before it is in the block or one after it. The first is the least of all.
    fences: Vec<Place>,
    /// By lane and place in the order.
    most: Vec<Vec<i32>>,
    unused: Vec<u32>,
}

impl RoomIndex {
    /// `places` are in order; `amounts` tells what a node has in a lane.
    pub(super) fn new(lanes: usize, places: &[Place], amounts: impl Fn(NodeIndex, usize) -> i32) -> Self {
        let mut index = Self { lanes, most: vec![Vec::new(); lanes], ..Self::default() };
        for chunk in places.chunks(WIDTH_FIRST) {
            let block = index.new_block();
            for (i, (key, node)) in chunk.iter().enumerate() {
                index.keys[block][i] = *key;
                index.nodes[block][i] = *node;
                for lane in 0..lanes {
                    index.amounts[block * lanes + lane][i] = amounts(*node as usize, lane);
                }
            }
            index.lens[block] = chunk.len();
            index.list(index.order.len(), block, chunk[0]);
        }
        if index.order.is_empty() {
            let block = index.new_block();
            index.list(0, block, Place::default());
        }
        index.fences[0] = Place::default();
        index
    }

    fn new_block(&mut self) -> usize {
        if let Some(block) = self.unused.pop() {
            return block as usize;
        }
        self.keys.push([0; WIDTH]);
        self.nodes.push([0; WIDTH]);
        self.amounts.resize(self.amounts.len() + self.lanes, [NOTHING; WIDTH]);
        self.lens.push(0);
        self.lens.len() - 1
    }

    /// Puts a block into the order.
    fn list(&mut self, at: usize, block: usize, fence: Place) {
        self.order.insert(at, block as u32);
        self.fences.insert(at, fence);
        for lane in 0..self.lanes {
            self.most[lane].insert(at, most(&self.amounts[block * self.lanes + lane]));
        }
    }

    fn unlist(&mut self, at: usize) {
        self.unused.push(self.order.remove(at));
        self.fences.remove(at);
        self.most.iter_mut().for_each(|most| _ = most.remove(at));
        self.fences[0] = Place::default();
    }

    /// The block, by its place in the order, that has the place or would have it.
    #[inline]
    fn locate(&self, place: Place) -> usize {
        self.fences.partition_point(|fence| *fence <= place).saturating_sub(1)
    }

    /// How many of a block's nodes come before the place.
    fn before(&self, block: usize, (key, node): Place) -> usize {
        let keys = &self.keys[block][..self.lens[block]];
        let start = keys.partition_point(|other| *other < key);
        let end = start + keys[start..].partition_point(|other| *other == key);
        start + self.nodes[block][start..end].partition_point(|other| *other < node)
    }

    pub(super) fn insert(&mut self, place: Place, amounts: impl Fn(usize) -> i32) {
        let mut at = self.locate(place);
        if self.lens[self.order[at] as usize] == WIDTH {
            self.split(at);
            at = self.locate(place);
        }
        let block = self.order[at] as usize;
        let (i, len) = (self.before(block, place), self.lens[block]);
        self.keys[block].copy_within(i..len, i + 1);
        self.nodes[block].copy_within(i..len, i + 1);
        (self.keys[block][i], self.nodes[block][i]) = place;
        for lane in 0..self.lanes {
            let (row, amount) = (&mut self.amounts[block * self.lanes + lane], amounts(lane));
            row.copy_within(i..len, i + 1);
            row[i] = amount;
            let most = &mut self.most[lane][at];
            *most = amount.max(*most);
        }
        self.lens[block] = len + 1;
    }

    /// Takes a node out that is there.
    pub(super) fn remove(&mut self, place: Place) {
        let at = self.locate(place);
        let block = self.order[at] as usize;
        let (i, len) = (self.before(block, place), self.lens[block]);
        debug_assert_eq!((self.keys[block].get(i), self.nodes[block].get(i)), (Some(&place.0), Some(&place.1)));
        self.keys[block].copy_within(i + 1..len, i);
        self.nodes[block].copy_within(i + 1..len, i);
        for lane in 0..self.lanes {
            let row = &mut self.amounts[block * self.lanes + lane];
            let gone = row[i];
            row.copy_within(i + 1..len, i);
            row[len - 1] = NOTHING;
            if gone == self.most[lane][at] {
                self.most[lane][at] = most(row);
            }
        }
        self.lens[block] = len - 1;
        if len <= WIDTH_LEAST && self.order.len() > 1 {
            self.join(at.saturating_sub(1));
        }
    }

    /// Halves a full block.
    fn split(&mut self, at: usize) {
        let (from, to, lanes) = (self.order[at] as usize, self.new_block(), self.lanes);
        let half = WIDTH / 2;
        let (keys, nodes) = (self.keys[from], self.nodes[from]);
        self.keys[to][..half].copy_from_slice(&keys[half..]);
        self.nodes[to][..half].copy_from_slice(&nodes[half..]);
        for lane in 0..lanes {
            let row = self.amounts[from * lanes + lane];
            self.amounts[to * lanes + lane] = [NOTHING; WIDTH];
            self.amounts[to * lanes + lane][..half].copy_from_slice(&row[half..]);
            self.amounts[from * lanes + lane][half..].fill(NOTHING);
            self.most[lane][at] = most(&self.amounts[from * lanes + lane]);
        }
        (self.lens[from], self.lens[to]) = (half, half);
        self.list(at + 1, to, (keys[half], nodes[half]));
    }

    /// Puts the block after `at` to that at it if both are small.
    fn join(&mut self, at: usize) {
        let (to, from, lanes) = (self.order[at] as usize, self.order[at + 1] as usize, self.lanes);
        let (have, more) = (self.lens[to], self.lens[from]);
        if have + more > WIDTH_FIRST {
            return;
        }
        let (keys, nodes) = (self.keys[from], self.nodes[from]);
        self.keys[to][have..have + more].copy_from_slice(&keys[..more]);
        self.nodes[to][have..have + more].copy_from_slice(&nodes[..more]);
        for lane in 0..lanes {
            let row = self.amounts[from * lanes + lane];
            self.amounts[to * lanes + lane][have..have + more].copy_from_slice(&row[..more]);
            self.amounts[from * lanes + lane] = [NOTHING; WIDTH];
            self.most[lane][at] = self.most[lane][at].max(self.most[lane][at + 1]);
        }
        (self.lens[to], self.lens[from]) = (have + more, 0);
        self.unlist(at + 1);
    }

    /// The first node at or after `from` and before `end` that has what is asked and is accepted.
    pub(super) fn first(
        &self,
        from: Place,
        end: Place,
        needs: &[Need],
        mut accept: impl FnMut(NodeIndex) -> bool,
    ) -> Option<Place> {
        let mut at = self.locate(from);
        loop {
            at = self.sufficient(at, needs)?;
            if self.fences[at] >= end {
                return None;
            }
            let block = self.order[at] as usize;
            for i in Bits(self.fitting(block, needs)) {
                let place = (self.keys[block][i], self.nodes[block][i]);
                if place >= end {
                    return None;
                }
                if place >= from && accept(place.1 as usize) {
                    return Some(place);
                }
            }
            at += 1;
        }
    }

    /// The most room, at most `until` and at least `from`, of a node that has what is asked and is accepted.
    pub(super) fn last_key(
        &self,
        from: u64,
        until: u64,
        needs: &[Need],
        mut accept: impl FnMut(NodeIndex) -> bool,
    ) -> Option<u64> {
        let mut blocks = self.locate((until, u32::MAX)) + 1;
        while blocks > 0 {
            let at = blocks - 1;
            if needs.iter().all(|need| self.most[need.lane][at] >= need.least) {
                let block = self.order[at] as usize;
                let mut bits = self.fitting(block, needs);
                while bits != 0 {
                    let i = 63 - bits.leading_zeros() as usize;
                    bits &= !(1 << i);
                    let key = self.keys[block][i];
                    if key < from {
                        return None;
                    }
                    if key <= until && accept(self.nodes[block][i] as usize) {
                        return Some(key);
                    }
                }
            }
            if self.fences[at].0 < from {
                return None;
            }
            blocks = at;
        }
        None
    }

    /// The first block at or after a place in the order whose maxima suffice.
    #[inline]
    fn sufficient(&self, mut at: usize, needs: &[Need]) -> Option<usize> {
        let blocks = self.order.len();
        while at + BLOCKS_AT_A_TIME <= blocks {
            let mut missing = [0i32; BLOCKS_AT_A_TIME];
            for need in needs {
                let most: &[i32; BLOCKS_AT_A_TIME] =
                    self.most[need.lane][at..at + BLOCKS_AT_A_TIME].try_into().expect("as long as it is wide");
                subtract(&mut missing, most, need.least);
            }
            if let Some(i) = missing.iter().position(|missing| *missing >= 0) {
                return Some(at + i);
            }
            at += BLOCKS_AT_A_TIME;
        }
        (at..blocks).find(|at| needs.iter().all(|need| self.most[need.lane][*at] >= need.least))
    }

    /// The nodes of a block that have what is asked, as bits.
    #[inline]
    fn fitting(&self, block: usize, needs: &[Need]) -> u64 {
        let mut missing = [0i32; WIDTH];
        for need in needs {
            subtract(&mut missing, &self.amounts[block * self.lanes + need.lane], need.least);
        }
        let within = u64::MAX.checked_shr(64 - self.lens[block] as u32).unwrap_or(0);
        nonnegative(&missing) & within
    }
}

/// Makes those lanes negative that have less than what is asked. Amounts are not negative, so nothing overflows, and a
/// sign bit that is set stays set.
fn subtract<const N: usize>(missing: &mut [i32; N], amounts: &[i32; N], least: i32) {
    for i in 0..N {
        missing[i] |= amounts[i].wrapping_sub(least);
    }
}

/// The lanes that are not negative, as bits.
#[inline]
fn nonnegative(lanes: &[i32; WIDTH]) -> u64 {
    let mut bits = 0;
    for (i, eight) in lanes.as_chunks::<8>().0.iter().enumerate() {
        let mut bytes = [0u8; 8];
        for (byte, lane) in bytes.iter_mut().zip(eight) {
            *byte = u8::from(*lane >= 0);
        }
        // Each byte is 0 or 1; the product gathers them in its highest byte.
        let gathered = u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= gathered << (8 * i);
    }
    bits
}

fn most(row: &[i32; WIDTH]) -> i32 {
    row.iter().fold(NOTHING, |most, amount| most.max(*amount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Model = BTreeMap<Place, [i32; 2]>;

    fn check(index: &RoomIndex, model: &Model, from: Place, end: Place, asked: [i32; 2]) {
        let needs: Vec<Need> = (0..2).filter(|i| asked[*i] > 0).map(|lane| Need { lane, least: asked[lane] }).collect();
        let accept = |node: NodeIndex| node % 3 != 1;
        let takes =
            |(place, has): &(&Place, &[i32; 2])| has[0] >= asked[0] && has[1] >= asked[1] && accept(place.1 as usize);
        let first = model.iter().filter(|(place, _)| **place >= from && **place < end).find(takes).map(|(p, _)| *p);
        assert_eq!(index.first(from, end, &needs, accept), first);
        let keys = from.0..=end.0.max(from.0);
        let last = model.iter().filter(|(place, _)| keys.contains(&place.0)).rfind(takes).map(|(p, _)| p.0);
        assert_eq!(index.last_key(*keys.start(), *keys.end(), &needs, accept), last);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_sorted_map_finds(
            first in prop::collection::btree_map((0u64..40, 0u32..1000), prop::array::uniform2(0i32..30), 0..200),
            changes in prop::collection::vec(((0u64..40, 0u32..1000), prop::array::uniform2(0i32..30), any::<prop::sample::Index>(), 0u8..3), 0..300),
            asked in prop::collection::vec((prop::array::uniform2(0i32..33), (0u64..42, 0u32..1000), (0u64..42, 0u32..1000)), 1..8),
        ) {
            let mut model: Model = first;
            let places: Vec<Place> = model.keys().copied().collect();
            let by_node: BTreeMap<Place, [i32; 2]> = model.clone();
            // Nodes may stand at several places here, so what they have is told by place.
            let mut index = RoomIndex::new(2, &[], |_, _| 0);
            for place in &places {
                index.insert(*place, |lane| by_node[place][lane]);
            }
            for (place, has, pick, what) in changes {
                if what == 0 && !model.contains_key(&place) {
                    model.insert(place, has);
                    index.insert(place, |lane| has[lane]);
                } else if what > 0 && !model.is_empty() {
                    let place = *model.keys().nth(pick.index(model.len())).expect("within");
                    model.remove(&place);
                    index.remove(place);
                }
                let (asked, from, end) = asked[model.len() % asked.len()];
                check(&index, &model, from, end, asked);
            }
            for (asked, from, end) in asked {
                check(&index, &model, from, end, asked);
                check(&index, &model, (0, 0), (u64::MAX, u32::MAX), asked);
            }
        }

        #[test]
        fn signs_become_bits(lanes in prop::collection::vec(any::<i32>(), WIDTH)) {
            let lanes: [i32; WIDTH] = lanes.try_into().expect("as many");
            let bits = nonnegative(&lanes);
            prop_assert!((0..WIDTH).all(|i| (bits >> i & 1 == 1) == (lanes[i] >= 0)));
        }
    }
}
