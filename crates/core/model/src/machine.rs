//! What a machine has for containers, and how much of what it tells of itself is believed.

use crate::{
    devices::DeviceCounts,
    resources::{Dimension, ResourceVector},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One part of so many may be added to a resource that was admitted: another kernel counts a little differently, and files
/// that were deleted leave room.
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
}

impl Machine {
    /// As much of it as is believed of a machine that was admitted with `admitted`: less of anything, an eighth more of a
    /// resource, no further device.
    pub fn within(&self, admitted: &Self) -> Self {
        let believed = |d: Dimension| {
            let known = admitted.capacity.get(d);
            self.capacity.get(d).min(known.saturating_add(known / MORE_PART))
        };
        let device = |(kind, count): (&String, &u32)| {
            let known = admitted.devices.get(kind).copied().unwrap_or(0).min(*count);
            (known > 0).then(|| (kind.clone(), known))
        };
        Self {
            capacity: ResourceVector::from_amounts(Dimension::ALL.map(believed)),
            devices: self.devices.iter().filter_map(device).collect(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.capacity.fmt(f)?;
        self.devices.iter().try_for_each(|(kind, count)| write!(f, ", {kind} {count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine() -> impl Strategy<Value = Machine> {
        let devices = prop::collection::btree_map("[ab]", 1_u32..9, 0..3);
        (any::<[u64; 4]>(), devices)
            .prop_map(|(amounts, devices)| Machine { capacity: ResourceVector::from_amounts(amounts), devices })
    }

    proptest! {
        #[test]
        fn what_was_admitted_is_believed_and_no_lie_grows(told in machine(), admitted in machine()) {
            let believed = told.within(&admitted);
            prop_assert!(believed.capacity.fits(&told.capacity));
            prop_assert_eq!(&admitted.within(&admitted), &admitted);
            // Told again and again, it stays where it is.
            prop_assert_eq!(&believed.within(&admitted), &believed);
            for d in Dimension::ALL {
                let (known, now) = (admitted.capacity.get(d), believed.capacity.get(d));
                prop_assert!(now <= known.saturating_add(known / 8));
                prop_assert!(now == told.capacity.get(d) || now >= known);
            }
            for (kind, count) in &believed.devices {
                prop_assert!(admitted.devices.get(kind).is_some_and(|known| count <= known));
            }
        }
    }
}
