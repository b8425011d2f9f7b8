//! The pin of a CA: the SHA-256 of its public key, short enough to be on a command line.

use crate::{
    error::{Error, Result},
    sha256,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// `sha256:HEX` of a CA certificate's SubjectPublicKeyInfo.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CaPin(String);

impl CaPin {
    pub(crate) fn of_key_info(subject_public_key_info: &[u8]) -> Self {
        Self(hex::encode(sha256(subject_public_key_info)))
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for CaPin {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.strip_prefix("sha256:").map(str::to_ascii_lowercase);
        let good = digits.filter(|hex| hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        good.map(Self).ok_or_else(|| Error::malformed("a CA pin", "it is not sha256: and 64 hexadecimal digits"))
    }
}

impl TryFrom<String> for CaPin {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CaPin> for String {
    fn from(pin: CaPin) -> Self {
        pin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_they_are_written() {
        let pin = CaPin::of_key_info(b"key");
        assert_eq!(pin.to_string().parse::<CaPin>().expect("read"), pin);
        assert_eq!(pin.to_string().to_ascii_uppercase().replace("SHA", "sha").parse::<CaPin>().expect("read"), pin);
        for bad in ["", "sha256:", "sha256:ab", &"a".repeat(64), &format!("sha256:{}", "g".repeat(64))] {
            assert!(bad.parse::<CaPin>().is_err(), "{bad}");
        }
    }
}
