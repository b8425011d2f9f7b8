//! The bounds of requests, the same for every backend, and the checks of a request against them.

use crate::{Compare, Error, KeyRange, Op, Result, Txn, error::printable};

/// Bounds of what one request may carry or touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest key.
    pub key_bytes_max: usize,
    /// Longest value.
    pub value_bytes_max: usize,
    /// Most compares, and most operations of one branch, in one transaction.
    pub txn_ops_max: usize,
    /// Most bytes of keys and values that one transaction may carry or delete.
    pub txn_bytes_max: usize,
    /// Most keys that one transaction may change (deletes of ranges count each key).
    pub txn_keys_max: usize,
    /// Most keys in one range response; the rest is said by `more`.
    pub range_keys_max: usize,
    /// Bytes of keys and values after which a range response is cut; the rest is said by `more`.
    pub range_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: 4 << 10,
            value_bytes_max: 1 << 20,
            txn_ops_max: 512,
            txn_bytes_max: 16 << 20,
            txn_keys_max: 4_096,
            range_keys_max: 100_000,
            range_bytes_max: 64 << 20,
        }
    }
}

impl Limits {
    /// Checks a whole transaction before it is evaluated.
    pub fn check_txn(&self, txn: &Txn) -> Result<()> {
        self.check_len("compares", txn.compares.len())?;
        self.check_len("operations", txn.then.len())?;
        self.check_len("operations", txn.else_.len())?;
        txn.compares.iter().try_for_each(|compare| self.check_compare(compare))?;
        self.check_branch(&txn.then)?;
        self.check_branch(&txn.else_)
    }

    fn check_len(&self, list: &'static str, ops: usize) -> Result<()> {
        let ops_max = self.txn_ops_max;
        if ops > ops_max { Err(Error::TxnTooLong { list, ops, ops_max }) } else { Ok(()) }
    }

    fn check_compare(&self, compare: &Compare) -> Result<()> {
        self.check_key(&compare.key)
    }

    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        if key.is_empty() {
            return Err(Error::KeyEmpty);
        }
        let (bytes, bytes_max) = (key.len(), self.key_bytes_max);
        if bytes > bytes_max {
            return Err(Error::KeyTooLong { key: printable(key), bytes, bytes_max });
        }
        Ok(())
    }

    fn check_value(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (bytes, bytes_max) = (value.len(), self.value_bytes_max);
        if bytes > bytes_max {
            return Err(Error::ValueTooLong { key: printable(key), bytes, bytes_max });
        }
        Ok(())
    }

    fn check_branch(&self, ops: &[Op]) -> Result<()> {
        let mut put_keys: Vec<&[u8]> = Vec::with_capacity(ops.len());
        let mut amount = 0;
        for op in ops {
            match op {
                Op::Put { key, value } => {
                    self.check_key(key)?;
                    self.check_value(key, value)?;
                    amount += key.len() + value.len();
                    put_keys.push(key);
                }
                Op::Delete { range } => self.check_range(range)?,
                Op::Range { range, .. } => self.check_range(range)?,
            }
        }
        self.check_bytes(amount)?;
        check_distinct(&mut put_keys, ops)
    }

    /// Empty bounds are legal for ranges ("from the beginning"), not for a single key.
    pub(crate) fn check_range(&self, range: &KeyRange) -> Result<()> {
        match range {
            KeyRange::Key(key) => self.check_key(key),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_bytes(&self, amount: usize) -> Result<()> {
        let amount_max = self.txn_bytes_max;
        if amount > amount_max {
            return Err(Error::TxnTooLarge { amount, amount_max, unit: "bytes" });
        }
        Ok(())
    }

    pub(crate) fn check_keys(&self, amount: usize) -> Result<()> {
        let amount_max = self.txn_keys_max;
        if amount > amount_max {
            return Err(Error::TxnTooLarge { amount, amount_max, unit: "keys" });
        }
        Ok(())
    }
}

/// A key changes at most once per revision, so puts must differ and lie outside of deleted ranges.
fn check_distinct(put_keys: &mut [&[u8]], ops: &[Op]) -> Result<()> {
    put_keys.sort_unstable();
    if let Some(pair) = put_keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::DuplicateKey { key: printable(pair[0]) });
    }
    for op in ops {
        let Op::Delete { range } = op else { continue };
        let from = put_keys.partition_point(|key| *key < range.start());
        if let Some(key) = put_keys.get(from).filter(|key| range.contains(key)) {
            return Err(Error::DuplicateKey { key: printable(key) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Limits {
        Limits { key_bytes_max: 4, value_bytes_max: 3, txn_ops_max: 2, txn_bytes_max: 8, ..Limits::default() }
    }

    fn check(ops: Vec<Op>) -> Result<()> {
        small().check_txn(&Txn::new().then(ops))
    }

    #[test]
    fn both_sides_of_each_bound() {
        assert!(check(vec![Op::put("abcd", "123")]).is_ok());
        assert!(matches!(check(vec![Op::put("abcde", "1")]), Err(Error::KeyTooLong { bytes: 5, .. })));
        assert!(matches!(check(vec![Op::put("a", "1234")]), Err(Error::ValueTooLong { bytes: 4, .. })));
        assert!(matches!(check(vec![Op::put("", "1")]), Err(Error::KeyEmpty)));
        assert!(check(vec![Op::put("aa", "12"), Op::put("bb", "12")]).is_ok());
        assert!(matches!(
            check(vec![Op::put("aa", "123"), Op::put("bb", "12")]),
            Err(Error::TxnTooLarge { amount: 9, amount_max: 8, unit: "bytes" })
        ));
        let three = vec![Op::delete("a"), Op::delete("b"), Op::delete("c")];
        assert!(matches!(check(three), Err(Error::TxnTooLong { ops: 3, ops_max: 2, .. })));
    }

    #[test]
    fn a_branch_changes_a_key_once() {
        assert!(matches!(check(vec![Op::put("a", "1"), Op::put("a", "2")]), Err(Error::DuplicateKey { .. })));
        assert!(matches!(check(vec![Op::put("ab", "1"), Op::delete_prefix("a")]), Err(Error::DuplicateKey { .. })));
        assert!(check(vec![Op::put("b", "1"), Op::delete_prefix("a")]).is_ok());
        assert!(check(vec![Op::delete("a"), Op::delete_prefix("a")]).is_ok());
    }
}
