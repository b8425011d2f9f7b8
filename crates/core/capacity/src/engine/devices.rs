//! Countable devices of a node (GPUs): whole ones and shares of one, and the one rule by which they are given.
//! Knows no nodes and no names.

use std::collections::BTreeMap;

pub use heptad_model::DEVICE_MILLIS;

/// Devices of one kind that a node has at most; those beyond are never given.
pub const DEVICES_MAX: usize = heptad_model::DEVICES_MAX as usize;

/// Kinds of devices in a cluster that the engine searches by; a need of another kind is left to who asks it.
pub const DEVICE_KINDS_MAX: usize = 8;

/// A kind of devices; the caller keeps the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceKind(pub u16);

/// What is asked of one kind: below [`DEVICE_MILLIS`] a share of one device, else a multiple of it, whole devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNeed {
    /// The kind.
    pub kind: DeviceKind,
    /// How much.
    pub millis: u32,
}

impl DeviceNeed {
    /// Whether whole devices are asked.
    pub fn is_whole(&self) -> bool {
        self.millis >= DEVICE_MILLIS
    }

    /// Whether some node may have it.
    #[inline]
    pub(super) fn is_possible(&self) -> bool {
        let is_whole = self.millis.is_multiple_of(DEVICE_MILLIS) && self.millis <= DEVICE_MILLIS * DEVICES_MAX as u32;
        self.millis > 0 && (is_whole || self.millis < DEVICE_MILLIS)
    }

    /// Whether devices given as bits are as many as are asked.
    pub(super) fn gives(&self, mask: u16) -> bool {
        let devices = if self.is_whole() { self.millis / DEVICE_MILLIS } else { 1 };
        self.is_possible() && mask.count_ones() == devices
    }

    /// What a device that is given gives.
    pub(super) fn of_each(&self) -> u16 {
        self.millis.min(DEVICE_MILLIS) as u16
    }
}

/// The devices of a node: what each has, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DevicePools(pub BTreeMap<DeviceKind, Vec<u32>>);

impl DevicePools {
    /// No devices.
    pub fn none() -> Self {
        Self::default()
    }

    /// What the devices of the first kind have, of the second, and so on.
    pub fn by_kind(pools: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let kinds = (0..).map(DeviceKind);
        Self(kinds.zip(pools).filter(|(_, devices)| !devices.is_empty()).collect())
    }

    /// So many whole devices of one kind.
    pub fn of(kind: DeviceKind, count: usize) -> Self {
        Self([(kind, vec![DEVICE_MILLIS; count])].into())
    }
}

/// Devices of one kind of one node: what each has free. There is no device where nothing is free for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pool(pub(super) [u16; DEVICES_MAX]);

impl Pool {
    pub(super) fn of(free: &[u32]) -> Self {
        let mut pool = Self::default();
        for (slot, free) in pool.0.iter_mut().zip(free) {
            *slot = (*free).min(DEVICE_MILLIS) as u16;
        }
        pool
    }

    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|free| u64::from(*free)).sum()
    }

    /// What devices with less free than `limit` have together.
    pub(super) fn below(&self, limit: u16) -> u32 {
        self.0.iter().map(|free| if *free < limit { u32::from(*free) } else { 0 }).sum()
    }

    /// What the devices have free together.
    pub(super) fn rest(&self, mask: u16) -> u32 {
        bits(mask).map(|i| u32::from(self.0[i])).sum()
    }

    #[inline]
    fn whole(&self) -> u32 {
        self.0.iter().map(|free| u32::from(u32::from(*free) == DEVICE_MILLIS)).sum()
    }

    /// One number that says what fits: a need fits exactly if it is at most this. With a whole device free every share
    /// fits; without one only the largest rest counts.
    #[inline]
    pub(super) fn offers(&self) -> u32 {
        match self.whole() {
            0 => self.0.iter().copied().max().unwrap_or(0).into(),
            whole => whole * DEVICE_MILLIS,
        }
    }

    /// The one rule: whole devices of lowest index; for a share the device with the least free that has enough, of equal
    /// ones that of lowest index. The devices as bits; `None` if it does not fit.
    pub(super) fn pick(&self, need: DeviceNeed) -> Option<u16> {
        if need.is_whole() {
            let free = (0..DEVICES_MAX).filter(|i| u32::from(self.0[*i]) == DEVICE_MILLIS);
            let wanted = (need.millis / DEVICE_MILLIS) as usize;
            let mask: u16 = free.take(wanted).map(|i| 1u16 << i).sum();
            return (need.is_possible() && mask.count_ones() as usize == wanted).then_some(mask);
        }
        let fitting = (0..DEVICES_MAX).filter(|i| u32::from(self.0[*i]) >= need.millis);
        fitting.min_by_key(|i| (self.0[*i], *i)).map(|i| 1 << i)
    }

    /// All devices that differ for a need, one of lowest index for each amount that is free: what there is to choose from.
    pub(super) fn picks(&self, need: DeviceNeed) -> impl Iterator<Item = u16> + '_ {
        let by_rule = self.pick(need).filter(|_| need.is_whole());
        let is_first = |i: &usize| !self.0[..*i].contains(&self.0[*i]);
        let share = (0..DEVICES_MAX).filter(move |i| !need.is_whole() && u32::from(self.0[*i]) >= need.millis);
        by_rule.into_iter().chain(share.filter(is_first).map(|i| 1 << i))
    }

    pub(super) fn has(&self, need: DeviceNeed, mask: u16) -> bool {
        let each = need.of_each();
        bits(mask).all(|i| self.0[i] >= each)
    }

    pub(super) fn take(&mut self, need: DeviceNeed, mask: u16) {
        bits(mask).for_each(|i| self.0[i] = self.0[i].saturating_sub(need.of_each()));
    }

    pub(super) fn give_back(&mut self, need: DeviceNeed, mask: u16) {
        bits(mask).for_each(|i| self.0[i] = (self.0[i] + need.of_each()).min(DEVICE_MILLIS as u16));
    }
}

fn bits(mask: u16) -> impl Iterator<Item = usize> {
    super::node_set::Bits(mask.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn need(millis: u32) -> DeviceNeed {
        DeviceNeed { kind: DeviceKind(0), millis }
    }

    #[test]
    fn whole_devices_are_the_lowest_and_shares_the_tightest() {
        let pool = Pool::of(&[400, 1000, 300, 1000, 300]);
        assert_eq!(pool.pick(need(1000)), Some(0b10));
        assert_eq!(pool.pick(need(2000)), Some(0b1010));
        assert_eq!(pool.pick(need(3000)), None);
        assert_eq!(pool.pick(need(300)), Some(0b100));
        assert_eq!(pool.pick(need(301)), Some(0b1));
        assert_eq!(pool.pick(need(401)), Some(0b10));
        assert_eq!(pool.pick(need(1500)), None);
        assert_eq!(pool.picks(need(300)).collect::<Vec<_>>(), [0b1, 0b10, 0b100]);
    }

    proptest! {
        #[test]
        fn what_is_offered_is_exactly_what_fits(
            free in prop::collection::vec(prop_oneof![Just(1000u32), 0u32..=1000], 0..DEVICES_MAX),
            asked in prop_oneof![1u32..1000, (1u32..17).prop_map(|n| n * 1000)],
        ) {
            let pool = Pool::of(&free);
            let mask = pool.pick(need(asked));
            prop_assert_eq!(mask.is_some(), asked <= pool.offers());
            if let Some(mask) = mask {
                let mut after = pool;
                prop_assert!(after.has(need(asked), mask));
                after.take(need(asked), mask);
                prop_assert_eq!(after.total() + u64::from(asked), pool.total());
                after.give_back(need(asked), mask);
                prop_assert_eq!(after, pool);
            }
        }
    }
}
