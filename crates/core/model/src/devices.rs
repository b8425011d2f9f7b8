//! Devices: countable things of nodes, such as GPUs, which are given by their index: whole, or one of them in shares.
//! Knows no node's free devices; other code decides which container gets which.

use crate::{
    quantity::{QuantityError, number_max, parse, schema},
    validate::{Found, Problem},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

/// The whole of one device.
pub const DEVICE_MILLIS: u32 = 1_000;
/// The most devices of one kind on a node.
pub const DEVICES_MAX: u32 = 16;
/// The most kinds of devices of a node, and the most that one container requests.
pub const DEVICE_KINDS_MAX: usize = 8;
/// The kind that `gpu` in a container's resources means.
pub const GPU: &str = "gpu";

/// What a container asks of each kind of device.
pub type ExtendedResources = BTreeMap<String, DeviceMillis>;
/// How many devices of each kind a node has.
pub type DeviceCounts = BTreeMap<String, u32>;
/// Which devices of each kind a container was given, by their indices on the node, ascending.
pub type DeviceIndices = BTreeMap<String, Vec<u32>>;

/// Thousandths of devices of one kind: less than 1000 is a share of one device, else whole devices. A bare number counts
/// devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceMillis(pub u32);

const WHAT: &str = "devices";
const EXAMPLE: &str = "2, or 500m for half of one";
const SUFFIXES: [(&str, u128); 2] = [("", DEVICE_MILLIS as u128), ("m", 1)];

impl JsonSchema for DeviceMillis {
    fn schema_name() -> Cow<'static, str> {
        "DeviceMillis".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(WHAT, &SUFFIXES, DEVICE_MILLIS.into(), u32::MAX.into())
    }
}

/// The schema of a request for one kind: any value without a [`DeviceMillis::problem`].
pub(crate) struct AskedDevices;

impl JsonSchema for AskedDevices {
    fn schema_name() -> Cow<'static, str> {
        "AskedDevices".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let most = DEVICES_MAX;
        let counts: Vec<String> = (1..=most).map(|count| count.to_string()).collect();
        let text = format!("^({}|[1-9][0-9]{{0,2}}m)$", counts.join("|"));
        let number = json_schema!({ "type": "integer", "minimum": 1, "maximum": most });
        json_schema!({ "description": WHAT, "anyOf": [{ "type": "string", "pattern": text }, number] })
    }
}

/// The schema of names of kinds: [`is_device_name`].
pub(crate) fn kinds_schema() -> Schema {
    let part = "[a-z0-9]([-._a-z0-9]*[a-z0-9])?";
    let pattern = format!("^{part}(/{part})?$");
    json_schema!({ "type": "string", "pattern": pattern, "maxLength": NAME_BYTES_MAX, "not": { "enum": DIMENSIONS } })
}

impl DeviceMillis {
    /// That many whole devices.
    pub const fn whole(count: u32) -> Self {
        Self(count.saturating_mul(DEVICE_MILLIS))
    }

    /// Whether it is a share of one device, whose rest others may have.
    pub fn is_share(self) -> bool {
        self.0 < DEVICE_MILLIS
    }

    /// How many devices it involves.
    pub fn count(self) -> u32 {
        if self.is_share() { 1 } else { self.0 / DEVICE_MILLIS }
    }

    /// What it takes of each of its devices.
    pub fn of_each(self) -> u32 {
        self.0.min(DEVICE_MILLIS)
    }

    /// Why nobody can be given this.
    pub fn problem(self) -> Option<String> {
        let Self(millis) = self;
        if millis == 0 {
            return Some("0 asks nothing; leave it out".to_owned());
        }
        if millis > DEVICE_MILLIS && millis % DEVICE_MILLIS != 0 {
            let (below, above) = (Self::whole(millis / DEVICE_MILLIS), Self::whole(millis / DEVICE_MILLIS + 1));
            return Some(format!(
                "{self} is more than one device and not whole; shares are of one device, so ask {below} or {above}"
            ));
        }
        let many = format!("{self} are more than the {DEVICES_MAX} that a node can have of a kind");
        (millis > Self::whole(DEVICES_MAX).0).then_some(many)
    }
}

impl FromStr for DeviceMillis {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let millis = parse(text, &SUFFIXES, WHAT, EXAMPLE)?;
        let out_of_range = |_| QuantityError::OutOfRange { text: text.to_owned(), what: WHAT };
        u32::try_from(millis).map(Self).map_err(out_of_range)
    }
}

impl fmt::Display for DeviceMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % DEVICE_MILLIS {
            0 => f.pad(&(self.0 / DEVICE_MILLIS).to_string()),
            _ => f.pad(&format!("{}m", self.0)),
        }
    }
}

impl Serialize for DeviceMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = DeviceMillis;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a quantity of {WHAT} such as {EXAMPLE}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DeviceMillis, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<DeviceMillis, E> {
                if number > number_max(DEVICE_MILLIS.into(), u32::MAX.into()) {
                    return Err(E::custom(format!("{number} is too large for {WHAT}")));
                }
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<DeviceMillis, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<DeviceMillis, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Names of resources that are not devices.
const DIMENSIONS: [&str; 6] = ["cpu", "cpu_millis", "memory", "storage", "network", "extended"];
/// The longest name of a kind of device.
const NAME_BYTES_MAX: usize = 253;

/// Whether it can be the name of a kind of device, such as `gpu` or `example.com/fpga`.
pub fn is_device_name(name: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    let is_end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = |part: &str| {
        let bytes = part.as_bytes();
        bytes.iter().all(|b| is_inner(*b)) && bytes.first().is_some_and(is_end) && bytes.last().is_some_and(is_end)
    };
    let parts_max = 2;
    name.len() <= NAME_BYTES_MAX
        && !DIMENSIONS.contains(&name)
        && name.split('/').count() <= parts_max
        && name.split('/').all(good)
}

/// The variable that tells a container its devices of a kind.
pub fn device_variable(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("HEPTAD_DEVICES_{}", name.chars().map(upper).collect::<String>())
}

/// The problems of names of kinds; `path` is where they stand.
fn names<'a>(found: &mut Found, path: &str, names: impl Iterator<Item = &'a String>) {
    let mut variables: BTreeMap<String, &String> = BTreeMap::new();
    for (i, name) in names.enumerate() {
        let path = if name == GPU && path == EXTENDED { "resources.gpu".to_owned() } else { format!("{path}.{name}") };
        let message = format!(
            "`{name}` is no name of a kind of device; use lower-case letters, digits, `-`, `.`, and one `/`, as in \
             `example.com/fpga`"
        );
        found.unless(is_device_name(name), &path, message);
        found.unless(i < DEVICE_KINDS_MAX, &path, format!("at most {DEVICE_KINDS_MAX} kinds of devices are possible"));
        if let Some(other) = variables.insert(device_variable(name), name) {
            let message = format!("it and `{other}` would be told in the same variable {}", device_variable(name));
            found.unless(false, &path, message);
        }
    }
}

const EXTENDED: &str = "resources.extended";

/// The problems of a service's request.
pub(crate) fn validate(found: &mut Found, asked: &ExtendedResources) {
    names(found, EXTENDED, asked.keys());
    for (name, millis) in asked {
        let path = if name == GPU { "resources.gpu".to_owned() } else { format!("{EXTENDED}.{name}") };
        if let Some(message) = millis.problem() {
            found.unless(false, path, message);
        }
    }
}

/// The problems of a node's devices.
pub fn device_problems(devices: &DeviceCounts) -> Vec<Problem> {
    let mut found = Found::default();
    names(&mut found, "devices", devices.keys());
    for (name, count) in devices {
        found.between(&format!("devices.{name}"), (*count).into(), 1, DEVICES_MAX.into());
    }
    found.0
}

/// As people write it: `2 gpu, 500m example.com/fpga`.
pub fn show_devices(asked: &ExtendedResources) -> String {
    asked.iter().map(|(name, millis)| format!("{name} {millis}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_whole_or_a_share_of_one() {
        let read = |text: &str| text.parse::<DeviceMillis>();
        assert_eq!(read("2"), Ok(DeviceMillis::whole(2)));
        assert_eq!((read("0.5"), read("500m")), (Ok(DeviceMillis(500)), Ok(DeviceMillis(500))));
        assert_eq!(serde_json::from_str::<DeviceMillis>("2").ok(), Some(DeviceMillis(2_000)));
        assert_eq!(serde_json::from_str::<DeviceMillis>("0.25").ok(), Some(DeviceMillis(250)));
        assert!(serde_json::from_str::<DeviceMillis>("-1").is_err() && read("5000000").is_err() && read("1k").is_err());
        for (good, count, of_each) in [("1", 1, 1_000), ("16", 16, 1_000), ("1m", 1, 1), ("999m", 1, 999)] {
            let millis = read(good).expect("a quantity");
            assert_eq!((millis.problem(), millis.count(), millis.of_each()), (None, count, of_each), "{good}");
            assert_eq!(read(&millis.to_string()), Ok(millis));
        }
        let said = |text: &str| read(text).expect("a quantity").problem().expect("it is refused");
        assert_eq!(said("0"), "0 asks nothing; leave it out");
        assert!(said("1500m").ends_with("so ask 1 or 2"), "{}", said("1500m"));
        assert_eq!(said("17"), "17 are more than the 16 that a node can have of a kind");
    }

    #[test]
    fn what_the_schema_permits_has_no_problem() {
        let schema = crate::schema::of::<AskedDevices>();
        let pattern = schema.pointer("/anyOf/0/pattern").and_then(|pattern| pattern.as_str()).expect("a pattern");
        let pattern = regex::Regex::new(pattern).expect("a pattern");
        for millis in (0..20_000).map(DeviceMillis) {
            assert_eq!(pattern.is_match(&millis.to_string()), millis.problem().is_none(), "{millis}");
        }
    }

    #[test]
    fn kinds_have_names_that_make_variables() {
        let schema = kinds_schema();
        let pattern = schema.get("pattern").and_then(|pattern| pattern.as_str()).expect("a pattern");
        let pattern = regex::Regex::new(pattern).expect("a pattern");
        for good in ["gpu", "example.com/fpga", "nic-25g", "a_b"] {
            assert!(is_device_name(good) && pattern.is_match(good), "{good}");
        }
        for bad in ["", "GPU", "cpu", "memory", "a/b/c", "/a", "a/", "-a", "a b", &"a".repeat(254)] {
            assert!(!is_device_name(bad), "{bad}");
        }
        assert_eq!(device_variable("example.com/fpga"), "HEPTAD_DEVICES_EXAMPLE_COM_FPGA");
    }

    #[test]
    fn problems_name_the_field() {
        let paths = |asked: &[(&str, u32)]| {
            let mut found = Found::default();
            validate(&mut found, &asked.iter().map(|(name, n)| ((*name).to_owned(), DeviceMillis(*n))).collect());
            found.0.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(&[("gpu", 2_000), ("example.com/fpga", 1)]), Vec::<String>::new());
        assert_eq!(paths(&[("gpu", 1_500)]), ["resources.gpu"]);
        assert_eq!(paths(&[("Fpga", 1_000)]), ["resources.extended.Fpga"]);
        assert_eq!(paths(&[("a-b", 1_000), ("a.b", 1_000)]), ["resources.extended.a.b"], "one variable for two");
        let counts = |n| device_problems(&[("gpu".to_owned(), n)].into()).len();
        assert_eq!((counts(0), counts(1), counts(DEVICES_MAX), counts(DEVICES_MAX + 1)), (1, 0, 0, 1));
    }
}
