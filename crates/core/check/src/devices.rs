//! The judge's own count of devices: who has which after the plan, by index, without the planner's arithmetic.

use super::Finding;
use heptad_capacity::{Allocation, NodeView, Request};
use heptad_model::{ContainerId, DEVICE_MILLIS};
use std::collections::{BTreeMap, BTreeSet};

/// What a node will have given of its devices.
pub(super) struct Devices<'a> {
    node: &'a NodeView,
    /// By kind and index.
    given: BTreeMap<(&'a str, u32), u64>,
    /// Devices of which the plan gives something.
    touched: BTreeSet<(&'a str, u32)>,
    /// Containers whose new devices are not what they ask.
    wrong: Vec<&'a ContainerId>,
}

impl<'a> Devices<'a> {
    pub(super) fn before(node: &'a NodeView) -> Self {
        let mut given: BTreeMap<(&str, u32), u64> = BTreeMap::new();
        for (kind, grants) in &node.allocation.devices.0 {
            for grant in grants.values() {
                for index in &grant.indices {
                    *given.entry((kind.as_str(), *index)).or_default() += u64::from(grant.millis);
                }
            }
        }
        Self { node, given, touched: BTreeSet::new(), wrong: Vec::new() }
    }

    /// What the node's new row says that the container is given.
    pub(super) fn give(&mut self, request: &'a Request, row: Option<&Allocation>) {
        let Some(row) = row else { return };
        for (kind, asked) in &request.devices {
            let grant = row.devices.0.get(kind).and_then(|grants| grants.get(&request.container));
            let (millis, many) =
                if asked.0 < DEVICE_MILLIS { (asked.0, 1) } else { (DEVICE_MILLIS, asked.0 / DEVICE_MILLIS) };
            let indices: BTreeSet<u32> = grant.iter().flat_map(|grant| &grant.indices).copied().collect();
            let is_right = grant.is_some_and(|grant| {
                grant.millis == millis && grant.indices.len() == many as usize && indices.len() == many as usize
            });
            if !is_right {
                self.wrong.push(&request.container);
            }
            for index in indices {
                *self.given.entry((kind, index)).or_default() += u64::from(millis);
                self.touched.insert((kind, index));
            }
        }
    }

    /// A device that was given beyond its whole before is not the plan's fault if the plan gives nothing of it.
    pub(super) fn within_capacity(&self, found: &mut Vec<Finding>) {
        for (kind, index) in &self.touched {
            let given = self.given.get(&(*kind, *index)).copied().unwrap_or(0);
            let is_there = self.node.devices.get(*kind).is_some_and(|count| index < count);
            if !is_there || given > u64::from(DEVICE_MILLIS) {
                let (node, device) = (self.node.name.clone(), (*kind).to_owned());
                found.push(Finding::DeviceExceeded { node, device, index: *index, given, is_there });
            }
        }
    }

    /// Whether the new row has the old devices of the old containers, and for the new ones what they ask.
    pub(super) fn row_is_right<'b>(&self, row: &Allocation, bound: impl Iterator<Item = &'b Request> + Clone) -> bool {
        let old = &self.node.allocation.devices.0;
        let is_new = |container: &ContainerId, kind: &String| {
            bound.clone().any(|request| request.container == *container && request.devices.contains_key(kind))
        };
        let kept = old.iter().all(|(kind, grants)| {
            grants
                .iter()
                .all(|(container, grant)| row.devices.0.get(kind).and_then(|new| new.get(container)) == Some(grant))
        });
        let explained = row.devices.0.iter().all(|(kind, grants)| {
            let was_there = |container| old.get(kind).is_some_and(|grants| grants.contains_key(container));
            grants.keys().all(|container| was_there(container) || is_new(container, kind))
        });
        kept && explained && self.wrong.is_empty()
    }

    /// How often what the request asks is there still. Of kinds that are held, some for others, what is left is not looked at.
    pub(super) fn room(&self, request: &Request, held: &BTreeSet<&str>) -> u64 {
        let of_kind = |(kind, asked): (&String, &heptad_model::DeviceMillis)| {
            if held.contains(kind.as_str()) {
                return 0;
            }
            let count = self.node.devices.get(kind).copied().unwrap_or(0);
            let given = |index| self.given.get(&(kind.as_str(), index)).copied().unwrap_or(0);
            let asked = u64::from(asked.0).max(1);
            let whole = u64::from(DEVICE_MILLIS);
            match asked < whole {
                true => (0..count).map(|index| whole.saturating_sub(given(index)) / asked).sum(),
                false => (0..count).filter(|index| given(*index) == 0).count() as u64 / (asked / whole),
            }
        };
        request.devices.iter().map(of_kind).min().unwrap_or(u64::MAX)
    }
}
