//! A blob and its name: the BLAKE3 checksum of its bytes. A `Blob` is always whole: it cannot be made with a wrong name.
//! Knows nothing of what the bytes mean.

use crate::BlobError;
use bytes::Bytes;
use std::{fmt, str::FromStr};

/// A blob's name: the BLAKE3 checksum (256 bit) of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hash = blake3::Hash::from_hex(text).map_err(|error| format!("`{text}` is not a blob's name: {error}"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl serde::Serialize for BlobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BlobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Bytes and the name that they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    id: BlobId,
    bytes: Bytes,
}

impl Blob {
    /// Names `bytes` by their checksum.
    pub fn new(bytes: Bytes) -> Self {
        Self { id: BlobId(*blake3::hash(&bytes).as_bytes()), bytes }
    }

    /// `bytes` as the blob `id`, if they are.
    pub fn verify(id: BlobId, bytes: Bytes) -> Result<Self, BlobError> {
        let blob = Self::new(bytes);
        if blob.id == id { Ok(blob) } else { Err(BlobError::Corrupt { id }) }
    }

    /// The name.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, the blob being used up.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checksums() {
        let blob = Blob::new(Bytes::from_static(b""));
        let name = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(blob.id().to_string(), name);
        assert_eq!(name.parse(), Ok(blob.id()));
        assert!(Blob::verify(blob.id(), Bytes::from_static(b"x")).is_err());
        assert!("af13".parse::<BlobId>().is_err());
    }
}
