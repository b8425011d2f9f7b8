//! Between this crate's requests and answers and etcd's messages. Pure.

use super::messages as wire;
use crate::{
    Cmp, Compare, CompareTarget, Event, EventKind, KeyRange, KeyValue, Limits, Op, OpResponse, RangeResponse, Revision,
    Txn, TxnResponse,
};
use bytes::Bytes;

/// The first key that can be; as the end of a range it means "no end".
const ZERO: &[u8] = b"\0";

/// A range that has no key, as etcd takes it: an end before its beginning.
const NOTHING: (&[u8], &[u8]) = (b"\x02", b"\x01");

/// What of etcd's answers cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("etcd's answer to a transaction does not fit its operations")]
pub(super) struct Unfitting;

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn revision(header: Option<wire::Header>) -> Revision {
    header.map_or(0, |header| unsigned(header.revision))
}

/// The first key and the end of a range; an empty end is a single key.
pub(super) fn bounds(range: &KeyRange) -> (Bytes, Bytes) {
    let zero = Bytes::from_static(ZERO);
    let start = if range.start().is_empty() { zero.clone() } else { Bytes::copy_from_slice(range.start()) };
    if let KeyRange::Key(key) = range {
        return (key.clone(), Bytes::new());
    }
    match range.end() {
        None => (start, zero),
        Some(end) if end[..] <= start[..] => (Bytes::from_static(NOTHING.0), Bytes::from_static(NOTHING.1)),
        Some(end) => (start, end),
    }
}

pub(super) fn key_value(kv: wire::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: unsigned(kv.create_revision),
        mod_revision: unsigned(kv.mod_revision),
        version: unsigned(kv.version),
    }
}

fn key_values(kvs: Vec<wire::KeyValue>) -> Vec<KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

/// An event, if it is whole.
pub(super) fn event(event: wire::Event) -> Option<Event> {
    let kind = if event.kind == 0 { EventKind::Put } else { EventKind::Delete };
    Some(Event { kind, kv: key_value(event.kv?), prev_kv: event.prev_kv.map(key_value) })
}

/// etcd takes a limit of 0 for none: one key is asked for then, and left out of the answer.
pub(super) fn asked_limit(limit: usize) -> i64 {
    i64::try_from(limit.max(1)).unwrap_or(i64::MAX)
}

/// Cuts what was asked for only because a limit cannot be 0.
pub(super) fn cut(kvs: &mut Vec<KeyValue>, more: &mut bool, limit: usize) {
    if kvs.len() > limit {
        kvs.truncate(limit);
        *more = true;
    }
}

fn limit_of(limit: Option<usize>, limits: &Limits) -> usize {
    limit.unwrap_or(usize::MAX).min(limits.range_keys_max)
}

fn op(op: &Op, limits: &Limits) -> wire::RequestOp {
    let request = match op {
        Op::Put { key, value } => {
            wire::Request::Put(wire::PutRequest { key: key.clone(), value: value.clone(), prev_kv: true })
        }
        Op::Delete { range } => {
            let (key, range_end) = bounds(range);
            wire::Request::Delete(wire::DeleteRequest { key, range_end, prev_kv: true })
        }
        Op::Range { range, limit } => {
            let (key, range_end) = bounds(range);
            let limit = asked_limit(limit_of(*limit, limits));
            wire::Request::Range(wire::RangeRequest { key, range_end, limit, ..Default::default() })
        }
    };
    wire::RequestOp { request: Some(request) }
}

fn compare(compare: &Compare) -> wire::Compare {
    use wire::{CompareTarget as Target, Given};
    let (cmp, target, given) = match &compare.target {
        CompareTarget::ModRevision(cmp, number) => (cmp, Target::Mod, Given::ModRevision(signed(*number))),
        CompareTarget::CreateRevision(cmp, number) => (cmp, Target::Create, Given::CreateRevision(signed(*number))),
        CompareTarget::Version(cmp, number) => (cmp, Target::Version, Given::Version(signed(*number))),
        CompareTarget::Value(cmp, value) => (cmp, Target::Value, Given::Value(value.clone())),
    };
    let result = match cmp {
        Cmp::Equal => wire::CompareResult::Equal,
        Cmp::NotEqual => wire::CompareResult::NotEqual,
        Cmp::Less => wire::CompareResult::Less,
        Cmp::Greater => wire::CompareResult::Greater,
    };
    wire::Compare { result: result as i32, target: target as i32, key: compare.key.clone(), given: Some(given) }
}

pub(super) fn txn(txn: &Txn, limits: &Limits) -> wire::TxnRequest {
    wire::TxnRequest {
        compare: txn.compares.iter().map(compare).collect(),
        success: txn.then.iter().map(|one| op(one, limits)).collect(),
        failure: txn.else_.iter().map(|one| op(one, limits)).collect(),
    }
}

/// What was done, op by op, as the transaction asked it.
pub(super) fn txn_response(answer: wire::TxnResponse, txn: &Txn, limits: &Limits) -> Result<TxnResponse, Unfitting> {
    let ops = if answer.succeeded { &txn.then } else { &txn.else_ };
    if ops.len() != answer.responses.len() {
        return Err(Unfitting);
    }
    let responses = ops.iter().zip(answer.responses).map(|(op, one)| op_response(op, one.response, limits));
    let responses = responses.collect::<Result<Vec<_>, _>>()?;
    Ok(TxnResponse { succeeded: answer.succeeded, revision: revision(answer.header), responses })
}

fn op_response(op: &Op, response: Option<wire::Response>, limits: &Limits) -> Result<OpResponse, Unfitting> {
    match (op, response) {
        (Op::Put { .. }, Some(wire::Response::Put(put))) => Ok(OpResponse::Put { prev: put.prev_kv.map(key_value) }),
        (Op::Delete { .. }, Some(wire::Response::Delete(delete))) => {
            Ok(OpResponse::Delete { prev: key_values(delete.prev_kvs) })
        }
        (Op::Range { limit, .. }, Some(wire::Response::Range(range))) => {
            let revision = revision(range.header);
            let mut response = RangeResponse { kvs: key_values(range.kvs), more: range.more, revision };
            cut(&mut response.kvs, &mut response.more, limit_of(*limit, limits));
            Ok(OpResponse::Range(response))
        }
        _ => Err(Unfitting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_etcds_own() {
        let both = |range: &KeyRange| {
            let (start, end) = bounds(range);
            (start.to_vec(), end.to_vec())
        };
        assert_eq!(both(&KeyRange::key("a")), (b"a".to_vec(), vec![]));
        assert_eq!(both(&KeyRange::prefix("a")), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(both(&KeyRange::prefix(&b"\xff"[..])), (b"\xff".to_vec(), b"\0".to_vec()));
        assert_eq!(both(&KeyRange::all()), (b"\0".to_vec(), b"\0".to_vec()));
        assert_eq!(both(&KeyRange::span("", "c")), (b"\0".to_vec(), b"c".to_vec()));
        // An end of one zero byte would mean "no end" for etcd; here it means that nothing is before it.
        for empty in [KeyRange::span("", &b"\0"[..]), KeyRange::span("b", "b"), KeyRange::span("c", "b")] {
            let (start, end) = both(&empty);
            assert!(end < start && end.len() == 1 && end != ZERO, "{empty:?}");
        }
    }
}
