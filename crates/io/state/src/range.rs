//! Keys, ranges of keys, and reading them. Knows no backend.

use crate::Revision;
use bytes::Bytes;

/// A set of neighbouring keys, in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// All keys that begin so; the empty prefix is all keys.
    Prefix(Bytes),
    /// From `start` (inclusive) to `end` (exclusive).
    Span {
        /// The first key.
        start: Bytes,
        /// The first key behind the range.
        end: Bytes,
    },
    /// From this key (inclusive) to the last one.
    From(Bytes),
}

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::Key(key.into())
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::Prefix(prefix.into())
    }

    /// Keys from `start` (inclusive) to `end` (exclusive).
    pub fn span(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self::Span { start: start.into(), end: end.into() }
    }

    /// Every key.
    pub fn all() -> Self {
        Self::Prefix(Bytes::new())
    }

    /// The first key that can be in the range.
    pub fn start(&self) -> &[u8] {
        match self {
            Self::Key(key) | Self::Prefix(key) | Self::From(key) => key,
            Self::Span { start, .. } => start,
        }
    }

    /// The first key behind the range; none if the range has no end.
    pub fn end(&self) -> Option<Bytes> {
        match self {
            Self::Key(key) => Some(successor(key)),
            Self::Prefix(prefix) => prefix_end(prefix),
            Self::Span { end, .. } => Some(end.clone()),
            Self::From(_) => None,
        }
    }

    /// Whether the key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => key == own,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Span { start, end } => key >= &start[..] && key < &end[..],
            Self::From(start) => key >= &start[..],
        }
    }

    /// The part of the range behind `key`: how to ask for the next page.
    pub fn after(&self, key: &[u8]) -> Self {
        let start = successor(key);
        match self.end() {
            Some(end) => Self::Span { start, end },
            None => Self::From(start),
        }
    }
}

/// The next key in byte order.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The first key behind all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// A key with its value and its history's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in a delete event or if only keys were asked for.
    pub value: Bytes,
    /// The revision that created the key (0 in a delete event).
    pub create_revision: Revision,
    /// The revision that last changed the key.
    pub mod_revision: Revision,
    /// Number of changes since its creation, from 1 (0 in a delete event).
    pub version: u64,
}

impl KeyValue {
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At which revision; none is the current one.
    pub revision: Option<Revision>,
    /// Most keys to return.
    pub limit: Option<usize>,
    /// Leave the values out.
    pub keys_only: bool,
}

impl RangeRequest {
    /// Reads these keys at the current revision, up to the store's own limits.
    pub fn new(range: KeyRange) -> Self {
        Self { range, revision: None, limit: None, keys_only: false }
    }

    /// Reads at an older revision.
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// Returns at most so many keys.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }
}

/// Keys that were read, in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResponse {
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether a limit cut the answer: ask again for `range.after(last key)` at `revision`.
    pub more: bool,
    /// The store's current revision when it was read (not the one asked for).
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_without_it() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn contains_agrees_with_start_and_end() {
        let ranges = [
            KeyRange::key("b"),
            KeyRange::prefix("b"),
            KeyRange::prefix("\u{7f}"),
            KeyRange::span("b", "c"),
            KeyRange::From("b".into()),
            KeyRange::all(),
        ];
        for range in ranges {
            for key in [&b"a"[..], b"b", b"b\0", b"ba", b"c", b"\x7f\xff", b"\xff\xff"] {
                let within = key >= range.start() && range.end().is_none_or(|end| key < &end[..]);
                assert_eq!(range.contains(key), within, "{range:?} {key:?}");
            }
        }
    }

    #[test]
    fn the_next_page_begins_behind_the_last_key() {
        let rest = KeyRange::prefix("a").after(b"ab");
        assert!(!rest.contains(b"ab") && rest.contains(b"ab\0") && rest.contains(b"ac") && !rest.contains(b"b"));
        assert_eq!(KeyRange::all().after(b"x"), KeyRange::From(Bytes::from_static(b"x\0")));
    }
}
