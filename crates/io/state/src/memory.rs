//! The model of a store: everything in memory, each operation as plain as its definition. Forgets all at exit.

use crate::{
    BoxFuture, Error, Event, EventKind, FIRST_REVISION, KeyRange, KeyValue, Limits, Op, OpResponse, RangeRequest,
    RangeResponse, Result, Revision, Store, Txn, TxnResponse, WatchBatch, WatchEvent, WatchRequest, WatchSource,
    WatchStream,
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::watch;

/// Each key's states: the revision of a change and what the key was from then on (none: deleted).
type History = BTreeMap<Bytes, Vec<(Revision, Option<KeyValue>)>>;

#[derive(Debug)]
struct State {
    revision: Revision,
    compact_revision: Revision,
    history: History,
    batches: BTreeMap<Revision, Vec<Event>>,
}

/// A store that lives in memory only: the oracle of tests, and a store for tests of what is built on it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    current: Arc<watch::Sender<Revision>>,
    limits: Limits,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// An empty store with other bounds.
    pub fn with_limits(limits: Limits) -> Self {
        let state =
            State { revision: FIRST_REVISION, compact_revision: 0, history: BTreeMap::new(), batches: BTreeMap::new() };
        let (current, _) = watch::channel(FIRST_REVISION);
        Self { state: Arc::new(Mutex::new(state)), current: Arc::new(current), limits }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation on the state panics while it holds the lock")
    }

    fn range_now(&self, request: &RangeRequest) -> Result<RangeResponse> {
        self.limits.check_range(&request.range)?;
        let state = self.lock();
        let at = state.check_revision(request.revision)?;
        let mut response = state.range(&request.range, at, request.limit, &self.limits);
        if request.keys_only {
            response.kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(response)
    }

    fn txn_now(&self, txn: &Txn) -> Result<TxnResponse> {
        self.limits.check_txn(txn)?;
        let mut state = self.lock();
        let response = state.txn(txn, &self.limits)?;
        self.current.send_replace(state.revision);
        Ok(response)
    }

    fn compact_now(&self, revision: Revision) -> Result<()> {
        let mut state = self.lock();
        state.check_revision(Some(revision))?;
        state.compact(revision);
        Ok(())
    }
}

impl State {
    fn check_revision(&self, requested: Option<Revision>) -> Result<Revision> {
        let requested = requested.unwrap_or(self.revision);
        if requested > self.revision {
            return Err(Error::FutureRevision { requested, current: self.revision });
        }
        if requested < self.compact_revision {
            return Err(Error::Compacted { requested, compact_revision: self.compact_revision });
        }
        Ok(requested)
    }

    fn get(&self, key: &[u8], at: Revision) -> Option<&KeyValue> {
        let states = self.history.get(key)?;
        states.iter().rev().find(|(revision, _)| *revision <= at)?.1.as_ref()
    }

    fn range(&self, range: &KeyRange, at: Revision, limit: Option<usize>, limits: &Limits) -> RangeResponse {
        let keys_max = limit.unwrap_or(usize::MAX).min(limits.range_keys_max);
        let mut response = RangeResponse { revision: self.revision, ..RangeResponse::default() };
        let mut bytes = 0;
        for key in self.history.keys().filter(|key| range.contains(key)) {
            let Some(kv) = self.get(key, at) else { continue };
            if response.kvs.len() >= keys_max || bytes >= limits.range_bytes_max {
                response.more = true;
                break;
            }
            bytes += kv.bytes();
            response.kvs.push(kv.clone());
        }
        response
    }

    fn txn(&mut self, txn: &Txn, limits: &Limits) -> Result<TxnResponse> {
        let succeeded = txn.compares.iter().all(|compare| compare.holds(self.get(&compare.key, self.revision)));
        let ops = if succeeded { &txn.then } else { &txn.else_ };
        let own_revision = self.revision + 1;
        self.check_deletes(ops, limits)?;
        let mut events = Vec::new();
        let mut responses = Vec::new();
        for op in ops {
            let response = match op {
                Op::Put { key, value } => self.put(key, value, own_revision, &mut events),
                Op::Delete { range } => self.delete(range, own_revision, &mut events),
                Op::Range { range, limit } => {
                    let mut response = self.range(range, own_revision, *limit, limits);
                    response.revision = if events.is_empty() { self.revision } else { own_revision };
                    OpResponse::Range(response)
                }
            };
            responses.push(response);
        }
        if !events.is_empty() {
            self.revision = own_revision;
            events.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
            self.batches.insert(own_revision, events);
        }
        Ok(TxnResponse { succeeded, revision: self.revision, responses })
    }

    /// Deletes of ranges can touch any number of keys; puts never overlap them.
    fn check_deletes(&self, ops: &[Op], limits: &Limits) -> Result<()> {
        let puts = ops.iter().filter(|op| matches!(op, Op::Put { .. })).count();
        let ranges: Vec<&KeyRange> = ops
            .iter()
            .filter_map(|op| match op {
                Op::Delete { range } => Some(range),
                _ => None,
            })
            .collect();
        let deleted = |key: &&Bytes| ranges.iter().any(|range| range.contains(key));
        let deleted = self.history.keys().filter(deleted).filter_map(|key| self.get(key, self.revision));
        let bytes: Vec<usize> = deleted.map(KeyValue::bytes).collect();
        limits.check_keys(puts + bytes.len())?;
        limits.check_bytes(bytes.iter().sum())
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, revision: Revision, events: &mut Vec<Event>) -> OpResponse {
        let prev = self.get(key, revision).cloned();
        let (create_revision, version) = prev.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let kv = KeyValue { key: key.clone(), value: value.clone(), create_revision, mod_revision: revision, version };
        self.history.entry(key.clone()).or_default().push((revision, Some(kv.clone())));
        events.push(Event { kind: EventKind::Put, kv, prev_kv: prev.clone() });
        OpResponse::Put { prev }
    }

    fn delete(&mut self, range: &KeyRange, revision: Revision, events: &mut Vec<Event>) -> OpResponse {
        let keys: Vec<Bytes> = self.history.keys().filter(|key| range.contains(key)).cloned().collect();
        let mut deleted = Vec::new();
        for key in keys {
            let Some(prev) = self.get(&key, revision).cloned() else { continue };
            self.history.entry(key.clone()).or_default().push((revision, None));
            let kv = KeyValue { key, value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0 };
            events.push(Event { kind: EventKind::Delete, kv, prev_kv: Some(prev.clone()) });
            deleted.push(prev);
        }
        OpResponse::Delete { prev: deleted }
    }

    /// Of each key the newest state at or before `revision` stays, unless the key is deleted in it.
    fn compact(&mut self, revision: Revision) {
        self.compact_revision = revision;
        self.batches = self.batches.split_off(&revision);
        for states in self.history.values_mut() {
            let old = states.iter().filter(|(at, _)| *at <= revision).count();
            states.drain(..old.saturating_sub(1));
            if old > 0 && states[0].1.is_none() {
                states.remove(0);
            }
        }
        self.history.retain(|_, states| !states.is_empty());
    }

    fn next_event(&self, request: &WatchRequest, from: Revision) -> Option<WatchEvent> {
        if from < self.compact_revision {
            return Some(WatchEvent::Compacted { compact_revision: self.compact_revision });
        }
        self.batches.range(from..).find_map(|(revision, events)| {
            let events: Vec<Event> = events
                .iter()
                .filter(|event| request.range.contains(&event.kv.key))
                .map(|event| self.visible(event, request.prev_kv))
                .collect();
            (!events.is_empty()).then_some(WatchEvent::Batch(WatchBatch { revision: *revision, events }))
        })
    }

    /// What was there before the oldest readable revision is compacted, for watchers too.
    fn visible(&self, event: &Event, prev_kv: bool) -> Event {
        let mut event = event.clone();
        if !prev_kv || event.kv.mod_revision <= self.compact_revision {
            event.prev_kv = None;
        }
        event
    }
}

impl Store for MemoryStore {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Box::pin(async move { self.range_now(&request) })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(async move { self.txn_now(&txn) })
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>> {
        Box::pin(async move {
            self.limits.check_range(&request.range)?;
            let current = self.lock().revision;
            let next = request.start_revision.unwrap_or(current + 1);
            let changed = self.current.subscribe();
            Ok(WatchStream::new(Watcher { store: self.clone(), request, next, changed, synced: false }))
        })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.compact_now(revision) })
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move { Ok(self.lock().revision) })
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

struct Watcher {
    store: MemoryStore,
    request: WatchRequest,
    next: Revision,
    changed: watch::Receiver<Revision>,
    synced: bool,
}

impl Watcher {
    /// Looks once; none means that there is nothing to say yet.
    fn look(&mut self) -> Option<WatchEvent> {
        let state = self.store.lock();
        let event = state.next_event(&self.request, self.next);
        match &event {
            Some(WatchEvent::Batch(batch)) => self.next = batch.revision + 1,
            Some(_) => {}
            None => {
                self.next = self.next.max(state.revision + 1);
                if !std::mem::replace(&mut self.synced, true) {
                    return Some(WatchEvent::Progress { revision: state.revision });
                }
            }
        }
        event
    }
}

impl WatchSource for Watcher {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent>> {
        Box::pin(async move {
            loop {
                self.changed.borrow_and_update();
                if let Some(event) = self.look() {
                    return Ok(event);
                }
                self.changed.changed().await.map_err(|_| Error::Closed)?;
            }
        })
    }
}
