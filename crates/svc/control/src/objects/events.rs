//! Events: created with an identifier that orders them, and bounded: the oldest are removed in batches.

use super::{Kept, Objects, Pending};
use crate::{
    clock::now_ms,
    error::{Error, Result, StoreContext, with_causes},
    keys, random,
};
use heptad_api::{ErrorCode, Kind, Object, ProblemDetails};
use heptad_model::{Event, EventKind};
use heptad_state::{KeyRange, Op, RangeRequest, Txn};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

/// How many events are created between two checks of their number.
const TRIM_EVERY: u64 = 64;

impl Objects {
    /// An event of now. The identifier orders by time, then by the order in which this server made them.
    pub(crate) fn event(
        &self,
        kind: EventKind,
        reason: &str,
        subject: &str,
        message: impl Into<String>,
    ) -> Result<Event> {
        let at_ms = now_ms();
        let count = self.events_made.fetch_add(1, Ordering::Relaxed) % 1_000_000;
        let id = format!("{at_ms:013}-{count:06}-{}", random::word(4, "an event")?);
        let (reason, subject) = (reason.to_owned(), subject.to_owned());
        Ok(Event { id, at_ms, kind, reason, subject, message: message.into() })
    }

    /// Records what a client reports; the server assigns the identifier and the time. `source` is the reporter, which
    /// may fill only a part of what is kept; `None`: this server.
    pub async fn create_event(&self, event: Event, source: Option<&str>) -> Result<Object<Event>> {
        let problems = event.problems(&super::Given::default());
        if !problems.is_empty() {
            return Err(ProblemDetails::invalid("the event was not recorded", problems).into());
        }
        let mut event = self.event(event.kind, &event.reason, &event.subject, event.message)?;
        if let Some(source) = source {
            event.id += &tag(source);
        }
        let mut pending = Pending::default();
        pending.event(&event);
        let revision = pending.commit(&*self.store).await?;
        let revision = revision.ok_or_else(|| Error::refused(ErrorCode::Busy, "the event was not recorded"))?;
        self.trim_events_sometimes().await;
        Ok(Object { revision, object: event })
    }

    /// Deletes the oldest events from time to time. A failure costs only space until the next time.
    pub(crate) async fn trim_events_sometimes(&self) {
        let made = self.events_made.load(Ordering::Relaxed);
        let looked = self.events_looked_at.load(Ordering::Relaxed);
        let mine = made.saturating_sub(looked) >= TRIM_EVERY
            && self.events_looked_at.compare_exchange(looked, made, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine && let Err(error) = self.trim_events().await {
            tracing::warn!(error = with_causes(&error), "old events were not deleted");
        }
    }

    /// Keeps only the newest events, and of one source no more than its part.
    pub async fn trim_events(&self) -> Result<()> {
        let prefix = keys::prefix(Kind::Events, None);
        // Never far more than are kept, so that one page suffices.
        let request = RangeRequest::new(KeyRange::prefix(prefix.clone())).keys_only();
        let events = self.store.range(request).await.during("list", "events")?.kvs;
        let limits = self.store.limits();
        let surplus = events.len().saturating_sub(self.events_max).min(limits.txn_ops_max).min(limits.txn_keys_max);
        let keys: Vec<&[u8]> = events.iter().map(|event| &event.key[..]).collect();
        let old = oldest(&keys, surplus, self.events_max / SOURCE_PART);
        let delete = |at: &usize| Op::Delete { range: KeyRange::key(events[*at].key.clone()) };
        if old.is_empty() {
            return Ok(());
        }
        let txn = Txn::new().then(old.iter().map(delete));
        self.store.txn(txn).await.during("delete", "old events").map(|_| ())
    }
}

/// One source may fill one in this many of the kept events before its own are the first to go.
const SOURCE_PART: usize = 4;
/// The suffix of the identifiers of events that this server did not make itself.
const TAG_CHARS: usize = 8;
const TAG_MARK: u8 = b'~';

/// The same for the same source.
pub(super) fn tag(source: &str) -> String {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    format!("~{:08x}", source.bytes().fold(0xcbf2_9ce4_8422_2325, mix) >> 32)
}

fn tag_of(key: &[u8]) -> Option<&[u8]> {
    let (rest, tag) = key.split_at_checked(key.len().checked_sub(TAG_CHARS)?)?;
    (rest.last() == Some(&TAG_MARK)).then_some(tag)
}

/// Which `surplus` of the events go, by their keys in the order of time: first the oldest of sources that have more
/// than `each_max`, then the oldest of all.
fn oldest(keys: &[&[u8]], surplus: usize, each_max: usize) -> BTreeSet<usize> {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    keys.iter().filter_map(|key| tag_of(key)).for_each(|tag| *counts.entry(tag).or_default() += 1);
    let mut gone = BTreeSet::new();
    for (at, key) in keys.iter().enumerate() {
        let count = tag_of(key).and_then(|tag| counts.get_mut(tag)).filter(|count| **count > each_max);
        if let Some(count) = count.filter(|_| gone.len() < surplus) {
            *count -= 1;
            gone.insert(at);
        }
    }
    let others: Vec<usize> = (0..keys.len()).filter(|at| !gone.contains(at)).take(surplus - gone.len()).collect();
    gone.extend(others);
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_pushes_out_its_own_events_first() {
        let key = |number: usize, source: Option<&str>| {
            format!("/events/{number:013}-000000-abcd{}", source.map(tag).unwrap_or_default()).into_bytes()
        };
        let mut keys: Vec<Vec<u8>> = (0..5).map(|number| key(number, None)).collect();
        keys.extend((5..8).map(|number| key(number, Some("node/quiet"))));
        keys.extend((8..100).map(|number| key(number, Some("node/loud"))));
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        assert_eq!(oldest(&keys, 50, 25), (8..58).collect());
        // When no source exceeds its part, the oldest of all go.
        assert_eq!(oldest(&keys, 70, 25), (0..3).chain(8..75).collect());
        assert_eq!(oldest(&keys, 0, 25), BTreeSet::new());
    }
}
