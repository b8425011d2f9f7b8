//! Two ordered streams of keys as one, the second one winning. Knows no engine.

use crate::{KeyValue, Result};
use bytes::Bytes;
use std::{cmp::Ordering, iter::Peekable};

/// A key and its state; none hides the first stream's key.
pub(super) type Item = Result<(Bytes, Option<KeyValue>)>;

/// The existing keys of both streams in byte order. Where both have a key, `over` decides.
pub(super) fn merge(
    under: impl Iterator<Item = Item>,
    over: impl Iterator<Item = Item>,
) -> impl Iterator<Item = Result<KeyValue>> {
    let (mut under, mut over) = (under.peekable(), over.peekable());
    std::iter::from_fn(move || {
        loop {
            match next(&mut under, &mut over)? {
                Ok((_, Some(kv))) => return Some(Ok(kv)),
                Ok((_, None)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

fn next(
    under: &mut Peekable<impl Iterator<Item = Item>>,
    over: &mut Peekable<impl Iterator<Item = Item>>,
) -> Option<Item> {
    let order = match (under.peek(), over.peek()) {
        (Some(Ok((a, _))), Some(Ok((b, _)))) => a.cmp(b),
        (Some(_), _) => Ordering::Less,
        (None, _) => Ordering::Greater,
    };
    if order == Ordering::Equal {
        under.next();
    }
    if order == Ordering::Less { under.next() } else { over.next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(keys: &[(&'static str, u64)]) -> Vec<Item> {
        keys.iter()
            .map(|(key, version)| {
                let key = Bytes::from_static(key.as_bytes());
                let kv = KeyValue {
                    key: key.clone(),
                    value: Bytes::new(),
                    create_revision: 1,
                    mod_revision: 1,
                    version: *version,
                };
                Ok((key, (*version > 0).then_some(kv)))
            })
            .collect()
    }

    #[test]
    fn the_second_stream_adds_replaces_and_hides() {
        let under = stream(&[("a", 1), ("b", 1), ("c", 1), ("e", 1)]);
        let over = stream(&[("b", 2), ("c", 0), ("d", 2)]);
        let merged: Vec<(Bytes, u64)> =
            merge(under.into_iter(), over.into_iter()).map(|kv| kv.map(|kv| (kv.key, kv.version)).unwrap()).collect();
        let expected: Vec<(Bytes, u64)> = vec![("a".into(), 1), ("b".into(), 2), ("d".into(), 2), ("e".into(), 1)];
        assert_eq!(merged, expected);
    }
}
