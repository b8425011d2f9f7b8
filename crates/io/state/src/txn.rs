//! Transactions: compares that must all hold, and what to do then or else. Knows no backend.

use crate::{KeyRange, KeyValue, RangeResponse, Revision};
use bytes::Bytes;

/// How a compare relates the stored number to the given one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    /// Stored == given.
    Equal,
    /// Stored != given.
    NotEqual,
    /// Stored < given.
    Less,
    /// Stored > given.
    Greater,
}

impl Cmp {
    fn holds<T: Ord + ?Sized>(self, stored: &T, given: &T) -> bool {
        match self {
            Self::Equal => stored == given,
            Self::NotEqual => stored != given,
            Self::Less => stored < given,
            Self::Greater => stored > given,
        }
    }
}

/// What of a key is compared. An absent key has 0 for all its numbers and no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    /// The revision of the last change.
    ModRevision(Cmp, Revision),
    /// The revision that created the key.
    CreateRevision(Cmp, Revision),
    /// The number of changes since creation.
    Version(Cmp, u64),
    /// The value; never holds for an absent key.
    Value(Cmp, Bytes),
}

/// One condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// What must hold for it.
    pub target: CompareTarget,
}

impl Compare {
    /// The key's mod revision is exactly this (0: the key is absent).
    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self { key: key.into(), target: CompareTarget::ModRevision(Cmp::Equal, revision) }
    }

    /// The key was not changed at or after this revision.
    pub fn unchanged_since(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self { key: key.into(), target: CompareTarget::ModRevision(Cmp::Less, revision + 1) }
    }

    /// The key was created at exactly this revision.
    pub fn create_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self { key: key.into(), target: CompareTarget::CreateRevision(Cmp::Equal, revision) }
    }

    /// The key has exactly this version.
    pub fn version(key: impl Into<Bytes>, version: u64) -> Self {
        Self { key: key.into(), target: CompareTarget::Version(Cmp::Equal, version) }
    }

    /// The key exists.
    pub fn exists(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), target: CompareTarget::Version(Cmp::Greater, 0) }
    }

    /// The key does not exist.
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), target: CompareTarget::Version(Cmp::Equal, 0) }
    }

    /// The key exists with exactly this value.
    pub fn value(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), target: CompareTarget::Value(Cmp::Equal, value.into()) }
    }

    /// Whether the condition holds for what is stored under the key.
    pub fn holds(&self, stored: Option<&KeyValue>) -> bool {
        let number = |field: fn(&KeyValue) -> u64| stored.map_or(0, field);
        match &self.target {
            CompareTarget::ModRevision(cmp, given) => cmp.holds(&number(|kv| kv.mod_revision), given),
            CompareTarget::CreateRevision(cmp, given) => cmp.holds(&number(|kv| kv.create_revision), given),
            CompareTarget::Version(cmp, given) => cmp.holds(&number(|kv| kv.version), given),
            CompareTarget::Value(cmp, given) => stored.is_some_and(|kv| cmp.holds(&kv.value, given)),
        }
    }
}

/// One operation of a transaction. Later operations of a branch see the earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Deletes all keys of a range.
    Delete {
        /// Which keys.
        range: KeyRange,
    },
    /// Reads at the transaction's own point in history.
    Range {
        /// Which keys.
        range: KeyRange,
        /// Most keys to return.
        limit: Option<usize>,
    },
}

impl Op {
    /// Sets a key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: key.into(), value: value.into() }
    }

    /// Deletes one key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { range: KeyRange::key(key) }
    }

    /// Deletes all keys that begin with `prefix`.
    pub fn delete_prefix(prefix: impl Into<Bytes>) -> Self {
        Self::Delete { range: KeyRange::prefix(prefix) }
    }

    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self::Range { range: KeyRange::key(key), limit: None }
    }

    /// Reads a range of keys.
    pub fn range(range: KeyRange) -> Self {
        Self::Range { range, limit: None }
    }
}

/// If all compares hold, `then` is done, otherwise `else_`; whole or not at all, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The conditions, all against the state before the transaction.
    pub compares: Vec<Compare>,
    /// Done if all conditions hold.
    pub then: Vec<Op>,
    /// Done otherwise.
    pub else_: Vec<Op>,
}

impl Txn {
    /// A transaction that does nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds conditions.
    pub fn when(mut self, compares: impl IntoIterator<Item = Compare>) -> Self {
        self.compares.extend(compares);
        self
    }

    /// Adds operations for the case that all conditions hold.
    pub fn then(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.then.extend(ops);
        self
    }

    /// Adds operations for the case that a condition does not hold.
    pub fn or_else(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.else_.extend(ops);
        self
    }
}

impl Txn {
    /// About how much memory the transaction holds.
    pub(crate) fn bytes(&self) -> usize {
        let op = |op: &Op| match op {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { range } | Op::Range { range, .. } => range.start().len(),
        };
        let ops: usize = self.then.iter().chain(&self.else_).map(op).sum();
        ops + self.compares.iter().map(|compare| compare.key.len()).sum::<usize>()
    }
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResponse {
    /// A key was set.
    Put {
        /// What was there before.
        prev: Option<KeyValue>,
    },
    /// Keys were deleted.
    Delete {
        /// What was there before, in byte order; empty if nothing was.
        prev: Vec<KeyValue>,
    },
    /// Keys were read.
    Range(RangeResponse),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResponse {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The transaction's own revision if it changed something, else the current one.
    pub revision: Revision,
    /// One response per operation of the branch that was taken.
    pub responses: Vec<OpResponse>,
}

impl TxnResponse {
    /// The keys that the branch's first read returned.
    pub fn first_range(&self) -> Option<&RangeResponse> {
        self.responses.iter().find_map(|response| match response {
            OpResponse::Range(range) => Some(range),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> KeyValue {
        KeyValue { key: "k".into(), value: "v".into(), create_revision: 3, mod_revision: 7, version: 2 }
    }

    #[test]
    fn compares_of_an_existing_key() {
        let kv = stored();
        let holds = |compare: Compare| compare.holds(Some(&kv));
        assert!(holds(Compare::mod_revision("k", 7)) && !holds(Compare::mod_revision("k", 6)));
        assert!(holds(Compare::unchanged_since("k", 7)) && !holds(Compare::unchanged_since("k", 6)));
        assert!(holds(Compare::create_revision("k", 3)) && !holds(Compare::create_revision("k", 7)));
        assert!(holds(Compare::version("k", 2)) && !holds(Compare::version("k", 1)));
        assert!(holds(Compare::exists("k")) && !holds(Compare::absent("k")));
        assert!(holds(Compare::value("k", "v")) && !holds(Compare::value("k", "w")));
    }

    #[test]
    fn an_absent_key_has_zeros_and_no_value() {
        assert!(Compare::absent("k").holds(None) && !Compare::exists("k").holds(None));
        assert!(Compare::mod_revision("k", 0).holds(None));
        assert!(Compare::unchanged_since("k", 5).holds(None));
        let not_equal = Compare { key: "k".into(), target: CompareTarget::Value(Cmp::NotEqual, "v".into()) };
        assert!(!not_equal.holds(None));
    }
}
