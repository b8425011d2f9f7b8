//! The bytes of a segment file: records, each a header of 64 bytes and, if it is a blob, the blob's bytes.
//! The header's checksum covers its own place, so a header copied elsewhere (inside a blob, say) is never taken for one.

use crate::BlobId;

/// Length of a record's header.
pub(crate) const HEADER_BYTES: u64 = 64;
/// What every header begins with.
pub(crate) const MAGIC: [u8; 8] = *b"HPTDBLB1";

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// Where a blob's record begins and how long its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) place: Place,
    pub(crate) len: u32,
}

impl Location {
    /// The bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> u64 {
        HEADER_BYTES + u64::from(self.len)
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A blob of this length follows.
    Put { len: u32 },
    /// The record of the same blob at this place counts no more.
    Tombstone { target: Place },
}

/// A record without the blob's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) id: BlobId,
    pub(crate) kind: Kind,
}

impl Entry {
    pub(crate) fn record_bytes(&self) -> u64 {
        match self.kind {
            Kind::Put { len } => HEADER_BYTES + u64::from(len),
            Kind::Tombstone { .. } => HEADER_BYTES,
        }
    }

    /// The header, to be written at `self.place`.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut header = [0; HEADER_BYTES as usize];
        let (kind, len, target) = match self.kind {
            Kind::Put { len } => (1u32, len, Place { segment: 0, offset: 0 }),
            Kind::Tombstone { target } => (2, 0, target),
        };
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&kind.to_le_bytes());
        header[12..16].copy_from_slice(&len.to_le_bytes());
        header[16..48].copy_from_slice(&self.id.0);
        header[48..52].copy_from_slice(&target.segment.to_le_bytes());
        header[52..56].copy_from_slice(&target.offset.to_le_bytes());
        let checksum = checksum(&header, self.place);
        header[60..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// Reads a header found at `place`; none if it is not one that was written there.
    pub(crate) fn decode(header: &[u8; HEADER_BYTES as usize], place: Place) -> Option<Self> {
        if header[..8] != MAGIC || word(header, 60) != checksum(header, place) {
            return None;
        }
        let mut id = [0; 32];
        id.copy_from_slice(&header[16..48]);
        let kind = match word(header, 8) {
            1 => Kind::Put { len: word(header, 12) },
            2 => Kind::Tombstone { target: Place { segment: word(header, 48), offset: word(header, 52) } },
            _ => return None,
        };
        Some(Self { place, id: BlobId(id), kind })
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum(header: &[u8; HEADER_BYTES as usize], place: Place) -> u32 {
    let checksum = crc32c::crc32c(&header[..60]);
    let checksum = crc32c::crc32c_append(checksum, &place.segment.to_le_bytes());
    crc32c::crc32c_append(checksum, &place.offset.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_know_their_place() {
        let place = Place { segment: 3, offset: 640 };
        let target = Place { segment: 1, offset: 64 };
        for kind in [Kind::Put { len: 9 }, Kind::Tombstone { target }] {
            let entry = Entry { place, id: BlobId([7; 32]), kind };
            let header = entry.encode();
            assert_eq!(Entry::decode(&header, place), Some(entry));
            assert_eq!(Entry::decode(&header, target), None);
            for bit in 0..HEADER_BYTES as usize * 8 {
                let mut bad = header;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Entry::decode(&bad, place), None, "bit {bit}");
            }
        }
    }
}
