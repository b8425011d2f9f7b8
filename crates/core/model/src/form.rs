//! Values that files may write short, as a word or a number, or in full, as a map. The form decides which type parses
//! the value, so that a mistake inside is reported with its own name and place.

use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};
use std::{fmt, marker::PhantomData};

/// Reads a `Short` from text or a number, and a `Full` from a map. `expected` says what may be written.
pub(crate) fn short_or_full<'de, D, Short, Full, T>(
    deserializer: D,
    expected: &'static str,
    short: fn(Short) -> T,
    full: fn(Full) -> T,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    Short: Deserialize<'de>,
    Full: Deserialize<'de>,
{
    deserializer.deserialize_any(ShortOrFull { expected, short, full, lifetime: PhantomData })
}

struct ShortOrFull<'de, Short, Full, T> {
    expected: &'static str,
    short: fn(Short) -> T,
    full: fn(Full) -> T,
    lifetime: PhantomData<&'de ()>,
}

impl<'de, Short: Deserialize<'de>, Full: Deserialize<'de>, T> Visitor<'de> for ShortOrFull<'de, Short, Full, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let text: StrDeserializer<'_, E> = text.into_deserializer();
        Short::deserialize(text).map(self.short)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Short::deserialize(number.into_deserializer()).map(self.short)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Short::deserialize(number.into_deserializer()).map(self.short)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        Full::deserialize(MapAccessDeserializer::new(map)).map(self.full)
    }
}
