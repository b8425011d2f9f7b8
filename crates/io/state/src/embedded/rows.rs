//! The form of rows in the engine. Four regions of one keyspace, told apart by the first byte:
//! `c` key -> its current state; `h` key, revision (newest first) -> a superseded state and when it ended;
//! `l` revision -> the keys it changed; `m` name -> a number about the store.

use crate::{Error, Event, EventKind, KeyRange, KeyValue, Result, Revision};
use bytes::Bytes;

pub(super) const META_FORMAT: &[u8] = b"mformat";
pub(super) const META_COMPACT: &[u8] = b"mcompact";
pub(super) const META_SCRUBBED: &[u8] = b"mscrubbed";
/// The version of this form.
pub(super) const FORMAT: u64 = 1;

const CURRENT: u8 = b'c';
const HISTORY: u8 = b'h';
const LOG: u8 = b'l';

/// The half-open span of engine keys that hold what a range asks for.
pub(super) type Span = (Vec<u8>, Vec<u8>);

pub(super) fn current_key(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1);
    row.push(CURRENT);
    row.extend_from_slice(key);
    row
}

pub(super) fn current_span(range: &KeyRange) -> Span {
    let end = range.end().map_or(vec![CURRENT + 1], |end| current_key(&end));
    (current_key(range.start()), end)
}

pub(super) fn history_key(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut row = history_prefix(key);
    row.extend_from_slice(&[0, 1]);
    row.extend_from_slice(&(!revision).to_be_bytes());
    row
}

pub(super) fn history_span(range: &KeyRange) -> Span {
    let end = range.end().map_or(vec![HISTORY + 1], |end| history_prefix(&end));
    (history_prefix(range.start()), end)
}

/// Keys keep their order and none is another's prefix: 0 becomes 0 255, and 0 1 ends a key.
fn history_prefix(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 16);
    row.push(HISTORY);
    for byte in key {
        row.push(*byte);
        if *byte == 0 {
            row.push(u8::MAX);
        }
    }
    row
}

pub(super) fn log_key(revision: Revision) -> [u8; 9] {
    let mut row = [LOG; 9];
    row[1..].copy_from_slice(&revision.to_be_bytes());
    row
}

/// The current state of a key, for region `c`.
pub(super) fn encode_current(kv: &KeyValue) -> Vec<u8> {
    encode_state(kv.mod_revision, kv)
}

/// A state that `end` superseded, for region `h`.
pub(super) fn encode_history(kv: &KeyValue, end: Revision) -> Vec<u8> {
    encode_state(end, kv)
}

fn encode_state(first: u64, kv: &KeyValue) -> Vec<u8> {
    let mut row = Vec::with_capacity(24 + kv.value.len());
    for number in [first, kv.create_revision, kv.version] {
        row.extend_from_slice(&number.to_be_bytes());
    }
    row.extend_from_slice(&kv.value);
    row
}

pub(super) fn decode_current(row_key: &[u8], row: &[u8]) -> Result<KeyValue> {
    let key = row_key.get(1..).ok_or(DAMAGED_STATE)?;
    let (mod_revision, create_revision, version, value) = decode_state(row)?;
    Ok(KeyValue { key: Bytes::copy_from_slice(key), value, create_revision, mod_revision, version })
}

/// A superseded state and the revision that ended it.
pub(super) fn decode_history(row_key: &[u8], row: &[u8]) -> Result<(KeyValue, Revision)> {
    let (key, mod_revision) = decode_history_key(row_key)?;
    let (end, create_revision, version, value) = decode_state(row)?;
    Ok((KeyValue { key, value, create_revision, mod_revision, version }, end))
}

fn decode_history_key(row_key: &[u8]) -> Result<(Bytes, Revision)> {
    let mut key = Vec::with_capacity(row_key.len());
    let mut rest = row_key.get(1..).ok_or(DAMAGED_STATE)?;
    loop {
        match rest {
            [0, u8::MAX, tail @ ..] => {
                key.push(0);
                rest = tail;
            }
            [0, 1, revision @ ..] => {
                let revision = revision.try_into().map_err(|_| DAMAGED_STATE)?;
                return Ok((key.into(), !u64::from_be_bytes(revision)));
            }
            [byte, tail @ ..] => {
                key.push(*byte);
                rest = tail;
            }
            [] => return Err(DAMAGED_STATE),
        }
    }
}

fn decode_state(row: &[u8]) -> Result<(u64, Revision, u64, Bytes)> {
    let mut rest = row;
    let first = take_u64(&mut rest).ok_or(DAMAGED_STATE)?;
    let create_revision = take_u64(&mut rest).ok_or(DAMAGED_STATE)?;
    let version = take_u64(&mut rest).ok_or(DAMAGED_STATE)?;
    Ok((first, create_revision, version, Bytes::copy_from_slice(rest)))
}

const DAMAGED_STATE: Error = Error::Corrupt { subject: "a key's state", reason: "the row is too short" };
const DAMAGED_LOG: Error = Error::Corrupt { subject: "a revision's log", reason: "the row is too short" };

/// One change, as region `l` holds it: without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) kind: EventKind,
    pub(super) key: Bytes,
    pub(super) create_revision: Revision,
    pub(super) version: u64,
    /// The mod revision of the state before, 0 if there was none.
    pub(super) prev_revision: Revision,
}

pub(super) fn encode_log(events: &[Event]) -> Vec<u8> {
    let mut row = Vec::with_capacity(events.iter().map(|event| event.kv.key.len() + 29).sum());
    for event in events {
        row.push(u8::from(event.kind == EventKind::Delete));
        let key_bytes = u32::try_from(event.kv.key.len()).expect("the limits keep keys far below 4 GiB");
        row.extend_from_slice(&key_bytes.to_be_bytes());
        row.extend_from_slice(&event.kv.key);
        let prev_revision = event.prev_kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for number in [event.kv.create_revision, event.kv.version, prev_revision] {
            row.extend_from_slice(&number.to_be_bytes());
        }
    }
    row
}

pub(super) fn decode_log(row_key: &[u8], row: &[u8]) -> Result<(Revision, Vec<LogEntry>)> {
    let revision = row_key.get(1..).and_then(|number| number.try_into().ok()).ok_or(DAMAGED_LOG)?;
    let mut entries = Vec::new();
    let mut rest = row;
    while !rest.is_empty() {
        entries.push(take_entry(&mut rest).ok_or(DAMAGED_LOG)?);
    }
    Ok((u64::from_be_bytes(revision), entries))
}

fn take_entry(rest: &mut &[u8]) -> Option<LogEntry> {
    let kind = if take(rest, 1)?[0] == 0 { EventKind::Put } else { EventKind::Delete };
    let key_bytes = u32::from_be_bytes(take(rest, 4)?.try_into().ok()?);
    let key = Bytes::copy_from_slice(take(rest, usize::try_from(key_bytes).ok()?)?);
    let (create_revision, version) = (take_u64(rest)?, take_u64(rest)?);
    Some(LogEntry { kind, key, create_revision, version, prev_revision: take_u64(rest)? })
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(bytes)?;
    *rest = tail;
    Some(head)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_be_bytes)
}

pub(super) fn decode_number(row: &[u8]) -> Result<u64> {
    let number = row.try_into();
    let damaged = Error::Corrupt { subject: "a number about the store", reason: "the row has not 8 bytes" };
    number.map(u64::from_be_bytes).map_err(|_| damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static [u8]) -> KeyValue {
        let value = Bytes::from_static(b"value");
        KeyValue { key: Bytes::from_static(key), value, create_revision: 4, mod_revision: 9, version: 3 }
    }

    #[test]
    fn states_survive_the_round_trip() {
        for key in [&b"k"[..], b"a\0b", b"\0", b"\0\xff", b"\xff\xff", b"a\0\x01"] {
            let kv = kv(key);
            assert_eq!(decode_current(&current_key(key), &encode_current(&kv)).unwrap(), kv);
            let decoded = decode_history(&history_key(key, 9), &encode_history(&kv, 12)).unwrap();
            assert_eq!(decoded, (kv, 12));
        }
    }

    #[test]
    fn history_sorts_by_key_then_newest_first() {
        let mut rows: Vec<(&[u8], u64)> =
            vec![(b"a", 5), (b"a\0", 9), (b"a\0\0", 1), (b"a\x01", 3), (b"a", 7), (b"b", 2)];
        rows.sort_by_key(|(key, revision)| history_key(key, *revision));
        let sorted: Vec<(&[u8], u64)> =
            vec![(b"a", 7), (b"a", 5), (b"a\0", 9), (b"a\0\0", 1), (b"a\x01", 3), (b"b", 2)];
        assert_eq!(rows, sorted);
    }

    #[test]
    fn a_history_span_holds_exactly_its_keys() {
        let keys: [&[u8]; 7] = [b"a", b"a\0", b"a\0\xff", b"a\x01", b"ab", b"b", b"\xff"];
        for range in [KeyRange::prefix("a"), KeyRange::span("a\0", "ab"), KeyRange::key("a"), KeyRange::all()] {
            let (start, end) = history_span(&range);
            for key in keys {
                let row = history_key(key, 3);
                assert_eq!(row >= start && row < end, range.contains(key), "{range:?} {key:?}");
            }
        }
    }

    #[test]
    fn a_log_row_survives_the_round_trip_and_no_cut_one_is_read() {
        let event = Event { kind: EventKind::Put, kv: kv(b"key"), prev_kv: Some(kv(b"key")) };
        let row = encode_log(&[event.clone(), Event { kind: EventKind::Delete, prev_kv: None, ..event }]);
        let (revision, entries) = decode_log(&log_key(9), &row).unwrap();
        assert_eq!((revision, entries.len()), (9, 2));
        assert_eq!((entries[0].prev_revision, entries[1].prev_revision), (9, 0));
        for cut in (1..row.len()).filter(|cut| *cut != row.len() / 2) {
            assert!(decode_log(&log_key(9), &row[..cut]).is_err(), "cut at {cut}");
        }
    }
}
