//! R: vectors of resources, compared and added dimension by dimension with checked, exact arithmetic.

use crate::{
    devices::{AskedDevices, DEVICE_KINDS_MAX, DeviceMillis, ExtendedResources, GPU, kinds_schema, show_devices},
    quantity::{Bytes, CpuMillis, Mbps},
    schema::{field, given},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The least memory to which a container can be limited: with less, the kernel kills it before its program begins.
pub const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// One kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Disk space.
    Storage,
    /// Network bandwidth.
    Network,
}

impl Dimension {
    /// All dimensions, in the order in which they are reported.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Storage, Self::Network];

    /// Shows `amount` (in the dimension's own unit) as a quantity.
    pub fn show(self, amount: u64) -> String {
        match self {
            Self::Cpu => CpuMillis(amount).to_string(),
            Self::Memory | Self::Storage => Bytes(amount).to_string(),
            Self::Network => Mbps(amount).to_string(),
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Storage => "storage",
            Self::Network => "network",
        })
    }
}

/// An amount of every resource: CPU millis, bytes of memory, bytes of storage, megabits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceVector {
    /// CPU, in thousandths of a core.
    #[serde(alias = "cpu")]
    pub cpu_millis: CpuMillis,
    /// Memory, in bytes.
    pub memory: Bytes,
    /// Disk space, in bytes.
    pub storage: Bytes,
    /// Network bandwidth, in megabits per second.
    pub network: Mbps,
}

impl ResourceVector {
    /// Zero in every dimension.
    pub const ZERO: Self = Self { cpu_millis: CpuMillis(0), memory: Bytes(0), storage: Bytes(0), network: Mbps(0) };

    /// The amounts in the order of [`Dimension::ALL`], each in its own unit.
    pub fn amounts(&self) -> [u64; 4] {
        [self.cpu_millis.0, self.memory.0, self.storage.0, self.network.0]
    }

    /// The vector of `amounts` in the order of [`Dimension::ALL`].
    pub fn from_amounts([cpu, memory, storage, network]: [u64; 4]) -> Self {
        Self { cpu_millis: CpuMillis(cpu), memory: Bytes(memory), storage: Bytes(storage), network: Mbps(network) }
    }

    /// The amount of one dimension, in its own unit.
    pub fn get(&self, dimension: Dimension) -> u64 {
        self.amounts()[dimension as usize]
    }

    /// The sum, or `None` if a dimension overflows.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::checked_add)
    }

    /// The difference, or `None` if a dimension would be negative.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::checked_sub)
    }

    /// `self * times`, or `None` if a dimension overflows.
    pub fn checked_mul(&self, times: u64) -> Option<Self> {
        self.zip(self, |amount, _| amount.checked_mul(times))
    }

    /// The difference, with zero where it would be negative.
    pub fn saturating_sub(&self, other: &Self) -> Self {
        let (a, b) = (self.amounts(), other.amounts());
        Self::from_amounts(std::array::from_fn(|i| a[i].saturating_sub(b[i])))
    }

    /// Whether every dimension of `self` is at most that of `room`.
    pub fn fits(&self, room: &Self) -> bool {
        let (asked, room) = (self.amounts(), room.amounts());
        asked.iter().zip(room).all(|(asked, room)| *asked <= room)
    }

    /// The first dimension in which `self` is more than `room`.
    pub fn first_excess(&self, room: &Self) -> Option<Dimension> {
        Dimension::ALL.into_iter().find(|d| self.get(*d) > room.get(*d))
    }

    /// The sum of `vectors`, or `None` if a dimension overflows.
    pub fn checked_sum<'a>(vectors: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        vectors.into_iter().try_fold(Self::ZERO, |sum, v| sum.checked_add(v))
    }

    fn zip(&self, other: &Self, op: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        let (a, b) = (self.amounts(), other.amounts());
        let mut out = [0; 4];
        for i in 0..4 {
            out[i] = op(a[i], b[i])?;
        }
        Some(Self::from_amounts(out))
    }
}

impl fmt::Display for ResourceVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = Dimension::ALL
            .into_iter()
            .filter(|d| self.get(*d) > 0)
            .map(|d| format!("{d} {}", d.show(self.get(d))))
            .collect();
        f.pad(&if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") })
    }
}

/// What a container asks of its node, and may not exceed: an amount of every resource, and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "ResourcesForm", into = "ResourcesForm")]
pub struct Resources {
    /// CPU, in thousandths of a core.
    pub cpu_millis: CpuMillis,
    /// Memory, in bytes.
    pub memory: Bytes,
    /// Disk space, in bytes.
    pub storage: Bytes,
    /// Network bandwidth, in megabits per second.
    pub network: Mbps,
    /// Devices by their kind, GPUs among them.
    pub devices: ExtendedResources,
}

/// What a container asks of its node, as it is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("not" = { "allOf": [given("gpu"), field("extended", given(GPU))] }))]
struct ResourcesForm {
    /// CPU, in thousandths of a core.
    #[serde(alias = "cpu")]
    cpu_millis: CpuMillis,
    /// Memory, in bytes.
    memory: Bytes,
    /// Disk space, in bytes.
    storage: Bytes,
    /// Network bandwidth, in megabits per second.
    network: Mbps,
    /// GPUs: whole ones, or a share of one such as `500m`. The same as `gpu` in `extended`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<AskedDevices>")]
    gpu: Option<DeviceMillis>,
    /// Other countable devices by the name of their kind, such as `example.com/fpga`.
    #[serde(skip_serializing_if = "ExtendedResources::is_empty")]
    #[schemars(with = "BTreeMap<String, AskedDevices>")]
    #[schemars(extend("propertyNames" = kinds_schema(), "maxProperties" = DEVICE_KINDS_MAX))]
    extended: ExtendedResources,
}

impl TryFrom<ResourcesForm> for Resources {
    type Error = &'static str;

    fn try_from(form: ResourcesForm) -> Result<Self, Self::Error> {
        let ResourcesForm { cpu_millis, memory, storage, network, gpu, extended: mut devices } = form;
        if let Some(gpu) = gpu
            && devices.insert(GPU.to_owned(), gpu).is_some()
        {
            return Err("`gpu` and `gpu` in `extended` are the same; give one of them");
        }
        Ok(Self { cpu_millis, memory, storage, network, devices })
    }
}

impl From<Resources> for ResourcesForm {
    fn from(resources: Resources) -> Self {
        let Resources { cpu_millis, memory, storage, network, devices: mut extended } = resources;
        Self { cpu_millis, memory, storage, network, gpu: extended.remove(GPU), extended }
    }
}

impl From<ResourceVector> for Resources {
    fn from(vector: ResourceVector) -> Self {
        let ResourceVector { cpu_millis, memory, storage, network } = vector;
        Self { cpu_millis, memory, storage, network, devices: ExtendedResources::new() }
    }
}

impl Resources {
    /// The amounts, without the devices.
    pub fn vector(&self) -> ResourceVector {
        let Self { cpu_millis, memory, storage, network, devices: _ } = *self;
        ResourceVector { cpu_millis, memory, storage, network }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match (self.vector(), self.devices.is_empty()) {
            (vector, true) => vector.to_string(),
            (ResourceVector::ZERO, false) => show_devices(&self.devices),
            (vector, false) => format!("{vector}, {}", show_devices(&self.devices)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector() -> impl Strategy<Value = ResourceVector> {
        proptest::array::uniform4(0u64..1 << 40).prop_map(ResourceVector::from_amounts)
    }

    proptest! {
        #[test]
        fn what_is_added_can_be_taken_away(a in vector(), b in vector()) {
            let sum = a.checked_add(&b).expect("no overflow below 2^41");
            prop_assert_eq!(sum.checked_sub(&b), Some(a));
            prop_assert!(a.fits(&sum));
        }

        #[test]
        fn fits_is_exactly_the_existence_of_the_difference(a in vector(), b in vector()) {
            prop_assert_eq!(a.fits(&b), b.checked_sub(&a).is_some());
        }
    }

    #[test]
    fn devices_stand_beside_the_amounts_and_are_absent_in_what_was_kept_before_them() {
        let read = |text: &str| serde_json::from_str::<Resources>(text);
        let asked = read(r#"{"cpu":4,"memory":"8Gi","gpu":2,"extended":{"example.com/fpga":"500m"}}"#).expect("valid");
        assert_eq!(asked.to_string(), "cpu 4, memory 8Gi, example.com/fpga 500m, gpu 2");
        let text = serde_json::to_string(&asked).expect("plain data");
        assert!(text.contains(r#""gpu":"2""#), "{text}");
        assert_eq!(read(&text).ok(), Some(asked));
        assert_eq!(read(r#"{"extended":{"gpu":1}}"#).ok(), read(r#"{"gpu":1}"#).ok());
        assert!(read(r#"{"gpu":1,"extended":{"gpu":1}}"#).is_err() && read(r#"{"gpus":1}"#).is_err());
        let before = ResourceVector::from_amounts([1, 2, 3, 4]);
        let text = serde_json::to_string(&before).expect("plain data");
        assert_eq!(read(&text).ok(), Some(before.into()));
        assert_eq!(serde_json::to_string(&Resources::from(before)).ok(), Some(text), "and the other way round");
    }

    #[test]
    fn overflow_is_said_not_wrapped() {
        let most = ResourceVector::from_amounts([u64::MAX; 4]);
        assert_eq!(most.checked_add(&ResourceVector::from_amounts([0, 1, 0, 0])), None);
        assert_eq!(ResourceVector::ZERO.checked_sub(&ResourceVector::from_amounts([0, 0, 0, 1])), None);
    }
}
