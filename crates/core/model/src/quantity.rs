//! Quantities with their unit in the type: CPU in thousandths of a core, bytes, megabits per second.
//! Text is as in Kubernetes (`250m`, `0.5`, `128Mi`, `1G`); values are exact integers, never floats.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, str::FromStr};
use thiserror::Error;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The text does not have the form of the unit.
    #[error("`{text}` is not a quantity of {what}; write for example {example}")]
    Malformed {
        /// The text that was read.
        text: String,
        /// What was expected.
        what: &'static str,
        /// A valid example.
        example: &'static str,
    },
    /// The value is finer than the unit can express, or larger than 64 bits.
    #[error("`{text}` is outside what a quantity of {what} can say exactly")]
    OutOfRange {
        /// The text that was read.
        text: String,
        /// What was expected.
        what: &'static str,
    },
}

/// `number * multiplier` for a decimal `number`, exact or an error.
fn scaled(number: &str, multiplier: u128) -> Option<Result<u64, ()>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return None;
    }
    let exact = || {
        let value: u128 = format!("{whole}{fraction}").parse().ok()?;
        let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let product = value.checked_mul(multiplier)?;
        (product % divisor == 0).then_some(product / divisor).and_then(|v| u64::try_from(v).ok())
    };
    Some(exact().ok_or(()))
}

pub(crate) fn parse(
    text: &str,
    suffixes: &[(&str, u128)],
    what: &'static str,
    example: &'static str,
) -> Result<u64, QuantityError> {
    let malformed = || QuantityError::Malformed { text: text.to_owned(), what, example };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (_, multiplier) = suffixes.iter().find(|(s, _)| *s == suffix).ok_or_else(malformed)?;
    scaled(number, *multiplier)
        .ok_or_else(malformed)?
        .map_err(|()| QuantityError::OutOfRange { text: text.to_owned(), what })
}

/// The largest bare number: its text has a form that the schema permits.
pub(crate) fn number_max(bare: u64, most: u64) -> u64 {
    10_u64.pow((most / bare).ilog10()) - 1
}

/// The schema of what [`parse`] reads: text with one of the suffixes, or a bare number, in forms that are exact and at
/// most `most`, whatever their digits.
pub(crate) fn schema(what: &str, suffixes: &[(&str, u128)], bare: u64, most: u64) -> Schema {
    let forms = suffixes.iter().map(|(suffix, multiplier)| {
        let digits = (u128::from(most) / multiplier).ilog10();
        let fraction = match multiplier {
            1 => String::new(),
            // Eighths of a power of two are whole numbers.
            _ if multiplier.is_power_of_two() => r"(\.(5|25|75|125|375|625|875))?".to_owned(),
            _ => format!(r"(\.[0-9]{{1,{}}})?", multiplier.ilog10()),
        };
        format!("[0-9]{{1,{digits}}}{fraction}{suffix}")
    });
    let pattern = format!("^({})$", forms.collect::<Vec<_>>().join("|"));
    let number = json_schema!({ "type": "integer", "minimum": 0, "maximum": number_max(bare, most) });
    json_schema!({ "description": what, "anyOf": [{ "type": "string", "pattern": pattern }, number] })
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $what:literal, $example:literal, $bare:expr, $suffixes:expr, $show:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schema($what, $suffixes, $bare, u64::MAX)
            }
        }

        impl FromStr for $name {
            type Err = QuantityError;
            fn from_str(text: &str) -> Result<Self, QuantityError> {
                parse(text, $suffixes, $what, $example).map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let show: fn(u64) -> String = $show;
                f.pad(&show(self.0))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a quantity of ", $what, " such as ", $example))
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        let number = Some(number).filter(|number| *number <= number_max($bare, u64::MAX));
                        let amount = number.and_then(|number| number.checked_mul($bare));
                        amount.map($name).ok_or_else(|| E::custom(concat!("too large for ", $what)))
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        let number = u64::try_from(number).map_err(|_| E::custom(concat!($what, " cannot be negative")))?;
                        self.visit_u64(number)
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

quantity!(
    /// Thousandths of a CPU core. A bare number counts cores.
    CpuMillis,
    "CPU",
    "250m or 0.5",
    1000,
    &[("", 1000), ("m", 1)],
    |millis| if millis % 1000 == 0 { (millis / 1000).to_string() } else { format!("{millis}m") }
);

const BYTE_SUFFIXES: &[(&str, u128)] = &[
    ("", 1),
    ("k", 1000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

fn show_bytes(bytes: u64) -> String {
    for (suffix, shift) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

quantity!(
    /// Bytes of memory or storage.
    Bytes,
    "bytes",
    "128Mi or 1G",
    1,
    BYTE_SUFFIXES,
    show_bytes
);

quantity!(
    /// Megabits per second of network bandwidth. A bare number counts Mbps.
    Mbps,
    "network bandwidth",
    "100M or 1G (bits per second)",
    1,
    &[("", 1), ("M", 1), ("Mbps", 1), ("G", 1000), ("Gbps", 1000)],
    |mbps| format!("{mbps}M")
);

impl Bytes {
    /// `mib` mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_of_the_field_are_read_exactly() {
        assert_eq!("250m".parse(), Ok(CpuMillis(250)));
        assert_eq!("0.5".parse(), Ok(CpuMillis(500)));
        assert_eq!("2".parse(), Ok(CpuMillis(2000)));
        assert_eq!("128Mi".parse(), Ok(Bytes::mib(128)));
        assert_eq!("1.5Gi".parse(), Ok(Bytes::mib(1536)));
        assert_eq!("1G".parse(), Ok(Mbps(1000)));
    }

    #[test]
    fn what_is_not_exact_is_refused() {
        assert!(matches!("0.0001".parse::<CpuMillis>(), Err(QuantityError::OutOfRange { .. })));
        assert!(matches!("99999999999999999999".parse::<Bytes>(), Err(QuantityError::OutOfRange { .. })));
        for bad in ["", "m", "1.", ".5", "-1", "1 Mi x", "1MB", "1e3", " 1", "1 "] {
            assert!(matches!(bad.parse::<Bytes>(), Err(QuantityError::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn bare_numbers_of_files_are_read() {
        assert_eq!(serde_json::from_str::<CpuMillis>("2").ok(), Some(CpuMillis(2000)));
        assert_eq!(serde_json::from_str::<CpuMillis>("0.25").ok(), Some(CpuMillis(250)));
        assert!(serde_json::from_str::<CpuMillis>("-1").is_err());
    }

    /// A text that the schema permits.
    fn permitted<T: JsonSchema>() -> impl Strategy<Value = String> {
        let schema = crate::schema::of::<T>();
        let pattern = schema.pointer("/anyOf/0/pattern").and_then(|pattern| pattern.as_str()).expect("a pattern");
        let inner = pattern.trim_start_matches('^').trim_end_matches('$');
        proptest::string::string_regex(inner).expect("a pattern")
    }

    proptest! {
        #[test]
        fn what_the_schema_permits_is_read(
            cpu in permitted::<CpuMillis>(), bytes in permitted::<Bytes>(), mbps in permitted::<Mbps>()
        ) {
            prop_assert!(cpu.parse::<CpuMillis>().is_ok(), "{}", cpu);
            prop_assert!(bytes.parse::<Bytes>().is_ok(), "{}", bytes);
            prop_assert!(mbps.parse::<Mbps>().is_ok(), "{}", mbps);
        }

        #[test]
        fn text_round_trips(value in 0u64..=u64::MAX / 2) {
            prop_assert_eq!(CpuMillis(value).to_string().parse(), Ok(CpuMillis(value)));
            prop_assert_eq!(Bytes(value).to_string().parse(), Ok(Bytes(value)));
            prop_assert_eq!(Mbps(value).to_string().parse(), Ok(Mbps(value)));
        }
    }
}
