//! Evaluates transactions one after another on top of a view, each seeing the ones before it. Writes nothing:
//! the outcome is a list of changes per revision.

use super::{
    merge::{Item, merge},
    view::{Page, View},
};
use crate::{
    Event, EventKind, KeyRange, KeyValue, Limits, Op, OpResponse, Result, Revision, Txn, TxnResponse, ring::Changes,
};
use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound};

/// What a batch of transactions made of a view so far.
pub(super) struct Pending<'a> {
    view: &'a View,
    limits: &'a Limits,
    pub(super) revision: Revision,
    /// The newest state of each key that the batch changed; none is deleted.
    pub(super) keys: BTreeMap<Bytes, Option<KeyValue>>,
    pub(super) changes: Vec<Changes>,
    pub(super) bytes: usize,
}

/// One transaction's changes, and how to take them back.
#[derive(Default)]
struct Running {
    events: Vec<Event>,
    undo: Vec<(Bytes, Option<Option<KeyValue>>)>,
    deleted_bytes: usize,
}

impl<'a> Pending<'a> {
    pub(super) fn new(view: &'a View, limits: &'a Limits) -> Self {
        Self { view, limits, revision: view.revision, keys: BTreeMap::new(), changes: Vec::new(), bytes: 0 }
    }

    /// Evaluates one transaction. After an error the batch is as it was before.
    pub(super) fn apply(&mut self, txn: &Txn) -> Result<TxnResponse> {
        let mut running = Running::default();
        match self.evaluate(txn, &mut running) {
            Ok((succeeded, responses)) => {
                self.accept(running.events);
                Ok(TxnResponse { succeeded, revision: self.revision, responses })
            }
            Err(error) => {
                self.take_back(running);
                Err(error)
            }
        }
    }

    fn evaluate(&mut self, txn: &Txn, running: &mut Running) -> Result<(bool, Vec<OpResponse>)> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && compare.holds(self.get(&compare.key)?.as_ref());
        }
        let ops = if succeeded { &txn.then } else { &txn.else_ };
        let responses = ops.iter().map(|op| self.operate(op, running)).collect::<Result<_>>()?;
        Ok((succeeded, responses))
    }

    fn accept(&mut self, mut events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        events.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
        self.revision += 1;
        let changes = Changes { revision: self.revision, events };
        self.bytes += changes.bytes();
        self.changes.push(changes);
    }

    fn take_back(&mut self, running: Running) {
        for (key, before) in running.undo.into_iter().rev() {
            match before {
                Some(state) => self.keys.insert(key, state),
                None => self.keys.remove(&key),
            };
        }
    }

    fn operate(&mut self, op: &Op, running: &mut Running) -> Result<OpResponse> {
        match op {
            Op::Put { key, value } => self.put(key, value, running),
            Op::Delete { range } => self.delete(range, running),
            Op::Range { range, limit } => {
                let mut page = Page::new(*limit, false, self.limits);
                page.fill(self.range(range)?)?;
                let changed = !running.events.is_empty();
                Ok(OpResponse::Range(page.response(self.revision + u64::from(changed))))
            }
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, running: &mut Running) -> Result<OpResponse> {
        let mod_revision = self.revision + 1;
        let prev = self.get(key)?;
        let (create_revision, version) =
            prev.as_ref().map_or((mod_revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let kv = KeyValue { key: key.clone(), value: value.clone(), create_revision, mod_revision, version };
        self.set(key.clone(), Some(kv.clone()), running);
        running.events.push(Event { kind: EventKind::Put, kv, prev_kv: prev.clone() });
        self.limits.check_keys(running.events.len())?;
        Ok(OpResponse::Put { prev })
    }

    fn delete(&mut self, range: &KeyRange, running: &mut Running) -> Result<OpResponse> {
        let mut deleted = Vec::new();
        for kv in self.range(range)? {
            let kv = kv?;
            running.deleted_bytes += kv.bytes();
            deleted.push(kv);
            self.limits.check_keys(running.events.len() + deleted.len())?;
            self.limits.check_bytes(running.deleted_bytes)?;
        }
        for prev in &deleted {
            let (key, mod_revision) = (prev.key.clone(), self.revision + 1);
            self.set(key.clone(), None, running);
            let kv = KeyValue { key, value: Bytes::new(), create_revision: 0, mod_revision, version: 0 };
            running.events.push(Event { kind: EventKind::Delete, kv, prev_kv: Some(prev.clone()) });
        }
        Ok(OpResponse::Delete { prev: deleted })
    }

    fn set(&mut self, key: Bytes, state: Option<KeyValue>, running: &mut Running) {
        let before = self.keys.insert(key.clone(), state);
        running.undo.push((key, before));
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        match self.keys.get(key) {
            Some(state) => Ok(state.clone()),
            None => self.view.get(key),
        }
    }

    fn range<'s>(&'s self, range: &KeyRange) -> Result<Box<dyn Iterator<Item = Result<KeyValue>> + 's>> {
        if let KeyRange::Key(key) = range {
            return Ok(Box::new(self.get(key)?.map(Ok).into_iter()));
        }
        Ok(Box::new(merge(self.view.current(range), self.changed(range))))
    }

    /// What the batch made of the keys of a range.
    fn changed<'s>(&'s self, range: &KeyRange) -> impl Iterator<Item = Item> + use<'s, 'a> {
        let start = Bytes::copy_from_slice(range.start());
        let end = range.end().map_or(Bound::Unbounded, Bound::Excluded);
        let empty = matches!(&end, Bound::Excluded(end) if *end <= start);
        let keys = (!empty).then(|| self.keys.range((Bound::Included(start), end)));
        keys.into_iter().flatten().map(|(key, state)| Ok((key.clone(), state.clone())))
    }
}
