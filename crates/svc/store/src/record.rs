//! Rows and payloads: how objects are written down. An object's record lists its chunks, or says in how many rows of extents
//! they are listed; every chunk's blob begins with the name of the object and upload that it belongs to, so that data can be
//! told from garbage by one look-up.

use crate::{ObjectInfo, ObjectName, StorageError};
use bytes::{BufMut, Bytes, BytesMut};
use heptad_blob::{Blob, BlobId};
use heptad_model::ids::is_label;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest key of an object.
pub(crate) const KEY_BYTES_MAX: usize = 1_024;
/// The row of the placement map.
pub(crate) const PLACEMENT_ROW: &[u8] = b"placement";

/// One upload: drawn at random, so that equal contents of different uploads are different blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Upload(#[serde(with = "hexadecimal")] pub(crate) u128);

impl Upload {
    pub(crate) fn draw() -> Result<Self, StorageError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| StorageError::internal("drawing an upload's number", error))?;
        Ok(Self(u128::from_le_bytes(bytes)))
    }

    /// The row that names the upload while it is in progress.
    pub(crate) fn row(self) -> Bytes {
        Bytes::from(format!("uploads/{:032x}", self.0))
    }

    /// What its rows of extents begin with.
    pub(crate) fn extents(self) -> Bytes {
        Bytes::from(format!("extents/{:032x}/", self.0))
    }

    /// The row of its extent number `index`; in their order.
    pub(crate) fn extent(self, index: u32) -> Bytes {
        Bytes::from(format!("extents/{:032x}/{index:08x}", self.0))
    }

    /// The upload of its own row, or of one of its extents.
    pub(crate) fn of_row(row: &[u8]) -> Option<Self> {
        let number = row.strip_prefix(UPLOADS).or(row.strip_prefix(EXTENTS))?.get(..32)?;
        u128::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok().map(Self)
    }
}

/// The rows of uploads in progress.
pub(crate) const UPLOADS: &[u8] = b"uploads/";
/// The rows of extents.
pub(crate) const EXTENTS: &[u8] = b"extents/";

pub(crate) mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

/// One chunk of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkRef {
    pub(crate) id: BlobId,
    /// Length of the content, without what precedes it in the blob.
    pub(crate) bytes: u64,
}

/// Where an object's chunks are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    /// In the record itself.
    Inline { chunks: Vec<ChunkRef> },
    /// In so many rows of their own, in the order of the chunks.
    Extents { extents: u32 },
}

/// Part of the list of an object's chunks. Its row never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Whose it is: what names it can be asked.
    pub(crate) object: ObjectName,
    pub(crate) chunks: Vec<ChunkRef>,
}

/// An upload in progress. Any change of its row is progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRow {
    pub(crate) object: ObjectName,
    /// The coordinator that writes it.
    pub(crate) coordinator: String,
    /// The placement's epoch when it began.
    pub(crate) epoch: u64,
    pub(crate) begun_unix_ms: u64,
    pub(crate) progressed_unix_ms: u64,
    /// What has arrived.
    pub(crate) size_bytes: u64,
}

/// The value of a row.
pub(crate) fn encoded(row: &Bytes, value: &impl Serialize) -> Result<Bytes, StorageError> {
    let unwritable = |source| StorageError::Row { row: row.escape_ascii().to_string(), source };
    serde_json::to_vec(value).map(Bytes::from).map_err(unwritable)
}

/// What the value of a row says.
pub(crate) fn decoded<T: DeserializeOwned>(row: &[u8], value: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(value).map_err(|source| StorageError::Row { row: row.escape_ascii().to_string(), source })
}

/// What is committed for an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    pub(crate) upload: Upload,
    pub(crate) size_bytes: u64,
    pub(crate) checksum: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<String>,
    pub(crate) created_unix_ms: u64,
    /// Since when a chunk has no copy any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost_unix_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) content: Content,
}

impl ObjectRecord {
    pub(crate) fn info(&self, name: &ObjectName) -> ObjectInfo {
        ObjectInfo {
            bucket: name.bucket.clone(),
            key: name.key.clone(),
            size_bytes: self.size_bytes,
            checksum: self.checksum.clone(),
            content_type: self.content_type.clone(),
            created_unix_ms: self.created_unix_ms,
            lost_unix_ms: self.lost_unix_ms,
        }
    }
}

impl ObjectName {
    /// Checks a bucket's and an object's name.
    pub(crate) fn new(bucket: &str, key: &str) -> Result<Self, StorageError> {
        check_bucket(bucket)?;
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(invalid("key", key, "1 to 1024 bytes of UTF-8"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// The row of the object's record.
    pub(crate) fn row(&self) -> Bytes {
        Bytes::from([rows_of(&self.bucket).as_ref(), self.key.as_bytes()].concat())
    }

    /// The object of a row.
    pub(crate) fn of_row(row: &[u8]) -> Option<Self> {
        let (bucket, key) = std::str::from_utf8(row.strip_prefix(OBJECTS)?).ok()?.split_once('/')?;
        Some(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

pub(crate) const OBJECTS: &[u8] = b"objects/";

/// What the rows of a bucket's objects begin with.
pub(crate) fn rows_of(bucket: &str) -> Bytes {
    Bytes::from([OBJECTS, bucket.as_bytes(), b"/"].concat())
}

pub(crate) fn check_bucket(bucket: &str) -> Result<(), StorageError> {
    let expected = "1 to 63 lower-case letters, digits and `-`, no `-` at either end";
    if is_label(bucket) { Ok(()) } else { Err(invalid("bucket", bucket, expected)) }
}

pub(crate) fn invalid(what: &'static str, given: &str, expected: &'static str) -> StorageError {
    StorageError::InvalidName { what, given: given.chars().take(80).collect(), expected }
}

const PAYLOAD_VERSION: u8 = 1;
/// Enough of a payload to know its owner.
pub(crate) const OWNER_BYTES_MAX: usize = 1 + 16 + 4 + 1 + 63 + 2 + KEY_BYTES_MAX;

/// To whom a chunk belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) object: ObjectName,
    pub(crate) upload: Upload,
    pub(crate) index: u32,
}

impl Owner {
    /// What precedes the content in a blob, with room for `content_bytes` behind it.
    pub(crate) fn begin(&self, content_bytes: usize) -> BytesMut {
        let mut payload = BytesMut::with_capacity(self.begin_bytes() + content_bytes);
        payload.put_u8(PAYLOAD_VERSION);
        payload.put_u128_le(self.upload.0);
        payload.put_u32_le(self.index);
        payload.put_u8(self.object.bucket.len() as u8);
        payload.put_slice(self.object.bucket.as_bytes());
        payload.put_u16_le(self.object.key.len() as u16);
        payload.put_slice(self.object.key.as_bytes());
        payload
    }

    pub(crate) fn begin_bytes(&self) -> usize {
        1 + 16 + 4 + 1 + self.object.bucket.len() + 2 + self.object.key.len()
    }

    /// Reads the owner from the first bytes of a blob; none if it is not a chunk of this version.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (version, rest) = payload.split_first()?;
        let (upload, rest) = rest.split_first_chunk::<16>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (bucket_bytes, rest) = rest.split_first()?;
        let (bucket, rest) = rest.split_at_checked(usize::from(*bucket_bytes))?;
        let (key_bytes, rest) = rest.split_first_chunk::<2>()?;
        let (key, _) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_bytes)))?;
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let object = ObjectName { bucket: text(bucket)?, key: text(key)? };
        let (upload, index) = (Upload(u128::from_le_bytes(*upload)), u32::from_le_bytes(*index));
        (*version == PAYLOAD_VERSION).then_some(Self { object, upload, index })
    }

    /// The content of a blob, if it is this chunk and has the length that its record says.
    pub(crate) fn content(&self, blob: Blob, bytes: u64) -> Option<Bytes> {
        let payload = blob.into_bytes();
        let is_ours = Self::read(&payload).as_ref() == Some(self);
        let content = is_ours.then(|| payload.slice(self.begin_bytes()..))?;
        (content.len() as u64 == bytes).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (bucket, key) in [("photos", "a/../b"), ("a", "../../etc/passwd"), ("b-1", "ключ 鍵 %00")] {
            let name = ObjectName::new(bucket, key).unwrap();
            assert_eq!(ObjectName::of_row(&name.row()), Some(name));
        }
        for (bucket, key) in [("", "k"), ("A", "k"), ("a/b", "k"), ("a", ""), ("a", &"k".repeat(1025))] {
            assert!(matches!(ObjectName::new(bucket, key), Err(StorageError::InvalidName { .. })));
        }
    }

    #[test]
    fn records_of_before_are_read_and_those_of_now_are_not_mistaken() {
        let before = r#"{"upload":"0000000000000000000000000000002a","size_bytes":0,"checksum":"c","created_unix_ms":7,"chunks":[]}"#;
        let mut record: ObjectRecord = decoded(b"r", before.as_bytes()).unwrap();
        assert_eq!((record.upload, &record.content), (Upload(42), &Content::Inline { chunks: Vec::new() }));
        let row = Bytes::from_static(b"r");
        assert_eq!(encoded(&row, &record).unwrap(), before, "what has no extents is written as before");
        record.content = Content::Extents { extents: 3 };
        let now = encoded(&row, &record).unwrap();
        assert_eq!(decoded::<ObjectRecord>(b"r", &now).unwrap(), record);
        // A version that knows no extents must not read it as an empty object.
        assert!(!now.windows(8).any(|part| part == b"\"chunks\""), "{now:?}");
    }

    #[test]
    fn rows_know_their_upload_and_extents_are_in_order() {
        let upload = Upload(0xabc);
        for row in [upload.row(), upload.extent(0), upload.extent(u32::MAX)] {
            assert_eq!(Upload::of_row(&row), Some(upload));
        }
        assert!(upload.extent(9) < upload.extent(10) && upload.extent(10).starts_with(&upload.extents()));
        assert_eq!(Upload::of_row(b"objects/00000000000000000000000000000abc"), None);
    }

    #[test]
    fn payloads_know_their_owner() {
        let object = ObjectName::new("photos", "a/b").unwrap();
        let owner = Owner { object, upload: Upload(7), index: 3 };
        let mut payload = owner.begin(4);
        payload.extend_from_slice(b"data");
        let payload = payload.freeze();
        assert!(payload.len() - 4 == owner.begin_bytes() && owner.begin_bytes() <= OWNER_BYTES_MAX);
        assert_eq!(Owner::read(&payload), Some(owner.clone()));
        assert_eq!(owner.content(Blob::new(payload.clone()), 4).unwrap(), "data");
        assert_eq!(owner.content(Blob::new(payload.clone()), 5), None);
        let other = Owner { index: 4, ..owner };
        assert_eq!(other.content(Blob::new(payload.clone()), 4), None);
        (0..payload.len() - 4).for_each(|cut| assert_eq!(Owner::read(&payload[..cut]), None));
    }
}
