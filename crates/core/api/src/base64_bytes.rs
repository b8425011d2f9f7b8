//! Bytes that are text in JSON. Knows no operation.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// Bytes, in JSON as base64 with padding (RFC 4648, section 4).
#[derive(Clone, Default, PartialEq, Eq, JsonSchema)]
pub struct Base64(#[schemars(with = "String", extend("contentEncoding" = "base64", "pattern" = PATTERN))] pub Vec<u8>);

/// Groups of four letters; unused bits of the last one are zero.
const PATTERN: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// Shows only the number of bytes: what a program reads and writes may be secret.
impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes());
        bytes.map(Self).map_err(|error| D::Error::custom(format!("not base64: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_go_through() {
        let bytes = Base64((0..=255).collect());
        let text = serde_json::to_string(&bytes).expect("JSON");
        assert_eq!(serde_json::from_str::<Base64>(&text).expect("bytes"), bytes);
        let error = serde_json::from_str::<Base64>("\"plain text\"").expect_err("no base64");
        assert!(error.to_string().contains("not base64"), "{error}");
    }
}
