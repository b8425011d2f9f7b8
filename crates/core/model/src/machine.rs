//! What a machine has for containers, and how much of its own account is believed.

use crate::{
    devices::DeviceCounts,
    quantity::Bytes,
    resources::{Dimension, ResourceVector},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A resource may exceed what was admitted by one part in this many: another kernel counts slightly differently, and
/// deleted files leave room.
const MORE_PART: u64 = 8;

/// What a machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What containers may be given.
    pub capacity: ResourceVector,
    /// How many devices of each kind.
    #[serde(default)]
    pub devices: DeviceCounts,
    /// The bytes of the disks that it gives to the distributed storage, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<String, u64>,
}

impl Machine {
    /// As much of its account as is believed of a machine that was admitted with `admitted`: less of anything, an
    /// eighth more of a resource or a disk, no further device and no further disk. A machine that was admitted without
    /// disks is believed about the disks that it first reports.
    pub fn within(&self, admitted: &Self) -> Self {
        self.bounded(admitted, |known| known.saturating_add(known / MORE_PART))
    }

    /// As much of its account as is believed of a machine that a person described: less of anything, more of nothing.
    pub fn at_most(&self, set: &Self) -> Self {
        let disks =
            self.disks.iter().filter_map(|(name, bytes)| Some((name.clone(), *set.disks.get(name)?.min(bytes))));
        Self { disks: disks.collect(), ..self.bounded(set, |known| known) }
    }

    fn bounded(&self, admitted: &Self, more: impl Fn(u64) -> u64) -> Self {
        let believed = |d: Dimension| self.capacity.get(d).min(more(admitted.capacity.get(d)));
        let disk = |(name, bytes): (&String, &u64)| Some((name.clone(), more(*admitted.disks.get(name)?).min(*bytes)));
        let device = |(kind, count): (&String, &u32)| {
            let known = admitted.devices.get(kind).copied().unwrap_or(0).min(*count);
            (known > 0).then(|| (kind.clone(), known))
        };
        Self {
            capacity: ResourceVector::from_amounts(Dimension::ALL.map(believed)),
            devices: self.devices.iter().filter_map(device).collect(),
            disks: match admitted.disks.is_empty() {
                true => self.disks.clone(),
                false => self.disks.iter().filter_map(disk).collect(),
            },
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.capacity.fmt(f)?;
        self.devices.iter().try_for_each(|(kind, count)| write!(f, ", {kind} {count}"))?;
        self.disks.iter().try_for_each(|(name, bytes)| write!(f, ", {name} of {}", Bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine() -> impl Strategy<Value = Machine> {
        let devices = prop::collection::btree_map("[ab]", 1_u32..9, 0..3);
        let disks = prop::collection::btree_map("disk[12]", any::<u64>(), 0..3);
        (any::<[u64; 4]>(), devices, disks).prop_map(|(amounts, devices, disks)| Machine {
            capacity: ResourceVector::from_amounts(amounts),
            devices,
            disks,
        })
    }

    proptest! {
        #[test]
        fn what_was_admitted_is_believed_and_no_lie_grows(told in machine(), admitted in machine()) {
            let believed = told.within(&admitted);
            prop_assert!(believed.capacity.fits(&told.capacity));
            prop_assert_eq!(&admitted.within(&admitted), &admitted);
            // Repeated reports do not move the limit.
            prop_assert_eq!(&believed.within(&admitted), &believed);
            for d in Dimension::ALL {
                let (known, now) = (admitted.capacity.get(d), believed.capacity.get(d));
                prop_assert!(now <= known.saturating_add(known / 8));
                prop_assert!(now == told.capacity.get(d) || now >= known);
            }
            for (name, bytes) in believed.disks.iter().filter(|_| !admitted.disks.is_empty()) {
                let known = admitted.disks.get(name).copied().expect("no further disk");
                prop_assert!(*bytes <= known.saturating_add(known / 8) && *bytes <= told.disks[name]);
            }
            let at_most = told.at_most(&admitted);
            prop_assert!(at_most.capacity.fits(&told.capacity) && at_most.capacity.fits(&admitted.capacity));
            prop_assert_eq!(&at_most.devices, &believed.devices);
            for (kind, count) in &believed.devices {
                prop_assert!(admitted.devices.get(kind).is_some_and(|known| count <= known));
            }
        }
    }
}
