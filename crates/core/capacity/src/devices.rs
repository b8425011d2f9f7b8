//! Which devices of a node a container gets, and which it has. The one rule: whole ones are the free ones of lowest index;
//! a share is of the device with the least left that still suffices, the lowest index of equals. Knows no other resource.

use heptad_model::{ContainerId, DEVICE_MILLIS, DEVICES_MAX, DeviceIndices, DeviceMillis, ExtendedResources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Thousandths of each device of one kind, by index.
pub type DeviceUse = [u32; DEVICES_MAX as usize];

/// What a container has of one kind of device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What it has of each of them, in thousandths.
    pub millis: u32,
    /// Their indices, ascending.
    pub indices: Vec<u32>,
}

/// What a node gave of its devices: who has which, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceGrants(pub BTreeMap<String, BTreeMap<ContainerId, Grant>>);

/// What is free of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DevicesFree {
    /// Devices of which nothing is given.
    pub(crate) whole: u32,
    /// The most that is left of one device.
    pub(crate) most: u32,
}

/// The devices that someone who asks `asked` gets where there are `count` and `used` is given.
pub fn choose(used: &DeviceUse, count: u32, asked: DeviceMillis) -> Option<Vec<u32>> {
    let left = |index: &u32| DEVICE_MILLIS.saturating_sub(used[*index as usize]);
    let mut all = 0..count.min(DEVICES_MAX);
    if asked.is_share() {
        let best = all.filter(|index| left(index) >= asked.0).min_by_key(left);
        return best.map(|index| vec![index]);
    }
    let free: Vec<u32> = all.by_ref().filter(|index| used[*index as usize] == 0).take(asked.count() as usize).collect();
    (free.len() == asked.count() as usize).then_some(free)
}

/// What is free where there are `count` and `used` is given.
pub(crate) fn free(used: &DeviceUse, count: u32) -> DevicesFree {
    let there = &used[..count.min(DEVICES_MAX) as usize];
    DevicesFree {
        whole: u32::try_from(there.iter().filter(|used| **used == 0).count()).unwrap_or(DEVICES_MAX),
        most: there.iter().map(|used| DEVICE_MILLIS.saturating_sub(*used)).max().unwrap_or(0),
    }
}

/// Adds `millis` of each of the devices; what is no device of a node is not counted.
pub(crate) fn add(used: &mut DeviceUse, indices: &[u32], millis: u32) {
    for index in indices {
        if let Some(used) = used.get_mut(*index as usize) {
            *used = used.saturating_add(millis);
        }
    }
}

/// Adds what is given of each device.
pub fn add_all(used: &mut DeviceUse, more: &DeviceUse) {
    used.iter_mut().zip(more).for_each(|(used, more)| *used = used.saturating_add(*more));
}

/// What is kept for someone who waits for devices until enough are free: of whole ones those that are free already, of a
/// share what is left of the device with the most left.
pub fn kept(used: &DeviceUse, count: u32, asked: DeviceMillis) -> DeviceUse {
    let mut kept = DeviceUse::default();
    let left = |index: &u32| DEVICE_MILLIS.saturating_sub(used[*index as usize]);
    let all = 0..count.min(DEVICES_MAX);
    if asked.is_share() {
        let best = all.rev().max_by_key(left);
        best.into_iter().for_each(|index| add(&mut kept, &[index], left(&index).min(asked.0)));
    } else {
        let free = all.filter(|index| used[*index as usize] == 0).take(asked.count() as usize);
        free.for_each(|index| add(&mut kept, &[index], DEVICE_MILLIS));
    }
    kept
}

impl DeviceGrants {
    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is given of each device of a kind, by its index.
    pub fn used(&self, kind: &str) -> DeviceUse {
        self.used_without(kind, |_| false)
    }

    /// The same if some containers had nothing.
    pub fn used_without(&self, kind: &str, gone: impl Fn(&ContainerId) -> bool) -> DeviceUse {
        let mut used = DeviceUse::default();
        for (_, grant) in self.0.get(kind).into_iter().flatten().filter(|(container, _)| !gone(container)) {
            add(&mut used, &grant.indices, grant.millis);
        }
        used
    }

    /// What is given of each kind, added up.
    pub fn given(&self) -> ExtendedResources {
        let sum = |kind: &String| self.used(kind).iter().fold(0, |sum: u32, used| sum.saturating_add(*used));
        self.0.keys().map(|kind| (kind.clone(), DeviceMillis(sum(kind)))).collect()
    }

    /// Which devices a container has.
    pub fn of(&self, container: &ContainerId) -> DeviceIndices {
        let of_kind = |(kind, grants): (&String, &BTreeMap<ContainerId, Grant>)| {
            Some((kind.clone(), grants.get(container)?.indices.clone()))
        };
        self.0.iter().filter_map(of_kind).collect()
    }

    /// Gives a container these devices; nothing of a kind that it does not ask.
    pub(crate) fn give(&mut self, container: &ContainerId, asked: &ExtendedResources, indices: &DeviceIndices) {
        for (kind, indices) in indices {
            let Some(asked) = asked.get(kind) else { continue };
            let grant = Grant { millis: asked.of_each(), indices: indices.clone() };
            self.0.entry(kind.clone()).or_default().insert(container.clone(), grant);
        }
    }

    /// Whether a container has exactly what it asks.
    pub(crate) fn are(&self, container: &ContainerId, asked: &ExtendedResources) -> bool {
        let has = |(kind, asked): (&String, &DeviceMillis)| {
            let grant = self.0.get(kind).and_then(|grants| grants.get(container));
            grant.is_some_and(|g| g.millis == asked.of_each() && g.indices.len() == asked.count() as usize)
        };
        let others =
            self.0.iter().filter(|(kind, grants)| !asked.contains_key(*kind) && grants.contains_key(container));
        asked.iter().all(has) && others.count() == 0
    }

    /// Takes back all that a container has.
    pub(crate) fn take_back(&mut self, container: &ContainerId) {
        self.0.retain(|_, grants| {
            grants.remove(container);
            !grants.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(millis: &[u32]) -> DeviceUse {
        std::array::from_fn(|i| millis.get(i).copied().unwrap_or(0))
    }

    #[test]
    fn whole_ones_are_the_free_of_lowest_index_and_a_share_is_of_the_fullest_that_suffices() {
        let whole = |n| DeviceMillis::whole(n);
        assert_eq!(choose(&used(&[0, 300, 0, 1_000]), 5, whole(2)), Some(vec![0, 2]));
        assert_eq!(choose(&used(&[0, 300, 0, 1_000]), 5, whole(3)), Some(vec![0, 2, 4]));
        assert_eq!(choose(&used(&[0, 300, 0, 1_000]), 5, whole(4)), None);
        assert_eq!(choose(&used(&[0, 300, 600, 600, 700]), 5, DeviceMillis(400)), Some(vec![2]));
        assert_eq!(choose(&used(&[0, 300, 600, 600, 700]), 5, DeviceMillis(300)), Some(vec![4]));
        assert_eq!(choose(&used(&[0, 300, 600, 600, 700]), 5, DeviceMillis(701)), Some(vec![0]));
        assert_eq!(choose(&used(&[500, 700]), 2, DeviceMillis(501)), None);
        assert_eq!(choose(&used(&[]), 0, DeviceMillis(1)), None);
        assert_eq!(choose(&used(&[]), 99, whole(DEVICES_MAX)).map(|all| all.len()), Some(DEVICES_MAX as usize));
    }

    #[test]
    fn what_is_free_is_said_of_the_devices_that_are_there() {
        assert_eq!(free(&used(&[0, 300, 1_000]), 3), DevicesFree { whole: 1, most: 1_000 });
        assert_eq!(free(&used(&[400, 300, 0]), 2), DevicesFree { whole: 0, most: 700 });
        assert_eq!(free(&used(&[]), 0), DevicesFree { whole: 0, most: 0 });
    }

    #[test]
    fn who_waits_is_kept_what_is_free_already() {
        assert_eq!(kept(&used(&[0, 300, 0, 0]), 3, DeviceMillis::whole(3)), used(&[1_000, 0, 1_000]));
        assert_eq!(kept(&used(&[0, 300, 0, 0]), 4, DeviceMillis::whole(1)), used(&[1_000]));
        assert_eq!(kept(&used(&[900, 700, 700]), 3, DeviceMillis(500)), used(&[0, 300]));
        assert_eq!(kept(&used(&[]), 0, DeviceMillis(500)), used(&[]));
    }

    #[test]
    fn what_is_given_is_taken_back_whole() {
        let mut grants = DeviceGrants::default();
        let asked: ExtendedResources = [("gpu".to_owned(), DeviceMillis::whole(2))].into();
        grants.give(&"a".into(), &asked, &[("gpu".to_owned(), vec![1, 3])].into());
        assert_eq!(grants.used("gpu")[..4], [0, 1_000, 0, 1_000]);
        assert_eq!(grants.of(&"a".into())["gpu"], [1, 3]);
        assert!(grants.are(&"a".into(), &asked) && !grants.are(&"b".into(), &asked));
        assert!(!grants.are(&"a".into(), &ExtendedResources::new()), "it has more than it asks");
        grants.take_back(&"b".into());
        assert!(!grants.is_empty());
        grants.take_back(&"a".into());
        assert_eq!(grants, DeviceGrants::default());
    }
}
