//! Histories of concurrent operations on single keys: recorded while they run, judged afterwards. What was sent and
//! never answered may have happened at any later time, or never.

mod checker;
mod watching;

pub(crate) use checker::check;
pub(crate) use watching::{agree, ended, watch_all};

use crate::support::Random;
use heptad_state::{Bytes, Compare, Error, Op, Revision, Store, StoreExt, Txn};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Keys that are read and written; few, so that operations meet.
const KEYS: u64 = 6;
/// The prefix of these keys.
pub(crate) const PREFIX: &str = "h/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write(u64),
    /// Writes if the value is this (none: absent).
    Swap(Option<u64>, u64),
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Read(Option<u64>),
    Done,
    /// The condition did not hold.
    Refused,
    /// No answer came.
    Unknown,
}

/// One operation, with the moments of its call and its return in one order over all.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) key: u64,
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    pub(crate) called: u64,
    pub(crate) returned: u64,
}

/// What happened, from all workers.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    moment: AtomicU64,
    value: AtomicU64,
    operations: Mutex<Vec<Operation>>,
    /// What was acknowledged at each revision: key and value (none: deleted).
    acknowledged: Mutex<BTreeMap<Revision, (Bytes, Option<u64>)>>,
    pub(crate) stop: AtomicBool,
}

pub(crate) fn key_of(key: u64) -> Bytes {
    format!("{PREFIX}{key}").into()
}

pub(crate) fn number_of(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

impl Recorder {
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.operations.lock().unwrap().clone()
    }

    pub(crate) fn acknowledged(&self) -> BTreeMap<Revision, (Bytes, Option<u64>)> {
        self.acknowledged.lock().unwrap().clone()
    }

    fn moment(&self) -> u64 {
        self.moment.fetch_add(1, Ordering::SeqCst)
    }

    fn draw(&self, random: &mut Random, seen: Option<u64>) -> Action {
        let value = self.value.fetch_add(1, Ordering::SeqCst) + 1;
        match random.below(10) {
            0..4 => Action::Read,
            4..7 => Action::Write(value),
            7..9 => Action::Swap(seen, value),
            _ => Action::Delete,
        }
    }

    /// Operations of one worker, until it is stopped or has done so many.
    pub(crate) async fn work(self: Arc<Self>, store: Arc<dyn Store>, seed: u64, count: usize) {
        let mut random = Random(seed);
        let mut seen = [None; KEYS as usize];
        for _ in 0..count {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let key = random.below(KEYS);
            let action = self.draw(&mut random, seen[key as usize]);
            let called = self.moment();
            let done = self.act(&*store, key, action).await;
            let returned = self.moment();
            let outcome = match done {
                Ok(outcome) => outcome,
                Err(Error::Ambiguous { .. } | Error::Commit { .. }) => Outcome::Unknown,
                // Nothing was done, and it is said so.
                Err(Error::Etcd { .. }) => continue,
                Err(error) => panic!("{action:?} of {key}: {error:?}"),
            };
            if let Outcome::Read(value) = outcome {
                seen[key as usize] = value;
            }
            let returned = if outcome == Outcome::Unknown { u64::MAX } else { returned };
            self.operations.lock().unwrap().push(Operation { key, action, outcome, called, returned });
        }
    }

    async fn act(&self, store: &dyn Store, key: u64, action: Action) -> Result<Outcome, Error> {
        let name = key_of(key);
        let (when, op, value) = match action {
            Action::Read => {
                let kv = store.get(name).await?;
                return Ok(Outcome::Read(kv.map(|kv| number_of(&kv.value))));
            }
            Action::Write(value) => (None, Op::put(name.clone(), value.to_string()), Some(value)),
            Action::Swap(None, value) => {
                (Some(Compare::absent(name.clone())), Op::put(name.clone(), value.to_string()), Some(value))
            }
            Action::Swap(Some(old), value) => {
                let same = Compare::value(name.clone(), old.to_string());
                (Some(same), Op::put(name.clone(), value.to_string()), Some(value))
            }
            Action::Delete => (Some(Compare::exists(name.clone())), Op::delete(name.clone()), None),
        };
        let done = store.txn(Txn::new().when(when).then([op])).await?;
        if !done.succeeded {
            return Ok(Outcome::Refused);
        }
        let twice = self.acknowledged.lock().unwrap().insert(done.revision, (name, value));
        assert_eq!(twice, None, "two transactions at revision {}", done.revision);
        Ok(Outcome::Done)
    }
}
