//! Which disks are lost together, and how the copies of a machine are shared out over its disks. Knows no map.

use crate::{StorageNode, StorageNodeName, quota::quotas};
use std::{cmp::Reverse, collections::BTreeMap};

/// Disks of which no two may hold copies of one shard: all disks of a machine; or part of them, while there are fewer machines
/// than copies.
#[derive(Clone, Debug)]
pub(crate) struct Domain<'a> {
    /// The disks with capacity, in the order of their names.
    pub(crate) disks: Vec<&'a StorageNode>,
}

impl Domain<'_> {
    pub(crate) fn name(&self) -> &StorageNodeName {
        &self.disks[0].name
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.disks.iter().fold(0, |sum, disk| sum.saturating_add(disk.capacity_bytes))
    }
}

/// The domains of `disks` for so many copies, in the order of their names: as few of each machine as there must be.
pub(crate) fn domains<'a>(disks: &[&'a StorageNode], copies: usize) -> Vec<Domain<'a>> {
    let mut machines: BTreeMap<&str, Vec<&StorageNode>> = BTreeMap::new();
    for disk in disks.iter().filter(|disk| disk.capacity_bytes > 0) {
        machines.entry(&disk.machine).or_default().push(disk);
    }
    let most = machines.values().map(Vec::len).max().unwrap_or(0);
    let count = |parts: usize| machines.values().map(|disks| disks.len().min(parts)).sum::<usize>();
    let parts = (1..=most).find(|parts| count(*parts) >= copies).unwrap_or(most);
    let mut domains: Vec<Domain<'_>> = machines.into_values().flat_map(|disks| split(disks, parts)).collect();
    domains.sort_by(|a, b| a.name().cmp(b.name()));
    domains
}

/// The disks of a machine in at most `parts` groups of about the same capacity.
fn split(mut disks: Vec<&StorageNode>, parts: usize) -> Vec<Domain<'_>> {
    disks.sort_by_key(|disk| (Reverse(disk.capacity_bytes), &disk.name));
    let mut groups: Vec<Domain<'_>> = vec![Domain { disks: Vec::new() }; parts.min(disks.len())];
    for disk in disks {
        if let Some(least) = groups.iter_mut().min_by_key(|group| group.capacity_bytes()) {
            least.disks.push(disk);
        }
    }
    groups.iter_mut().for_each(|group| group.disks.sort_by(|a, b| a.name.cmp(&b.name)));
    groups
}

/// Shares `held` shards out over the disks of a domain by their capacities. `at` says which disk has each now, if one has; as
/// few as possible change it.
pub(crate) fn share_out(domain: &Domain<'_>, mut at: BTreeMap<usize, Option<usize>>) -> BTreeMap<usize, usize> {
    let capacities: Vec<u64> = domain.disks.iter().map(|disk| disk.capacity_bytes).collect();
    let mut left = quotas(&capacities, at.len() as u64, at.len() as u64);
    for disk in at.values_mut() {
        match disk.filter(|disk| left[*disk] > 0) {
            Some(kept) => left[kept] -= 1,
            None => *disk = None,
        }
    }
    let mut out = BTreeMap::new();
    for (shard, disk) in at {
        // As many are left as the quotas have room for.
        let chosen = disk.or_else(|| (0..left.len()).max_by_key(|disk| (left[*disk], Reverse(*disk))));
        let Some(chosen) = chosen else { continue };
        if disk.is_none() {
            left[chosen] = left[chosen].saturating_sub(1);
        }
        out.insert(shard, chosen);
    }
    out
}
