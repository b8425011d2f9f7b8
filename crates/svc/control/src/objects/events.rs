//! Events: made with an identifier that orders them, and bounded: the oldest go in batches.

use super::{Kept, Objects, Pending};
use crate::{
    clock::now_ms,
    error::{Error, Result, StoreContext, with_causes},
    keys, random,
};
use heptad_api::{ErrorCode, Kind, Object, ProblemDetails};
use heptad_model::{Event, EventKind};
use heptad_state::{KeyRange, Op, RangeRequest, Txn};
use std::sync::atomic::Ordering;

/// So many events are made between two looks at how many there are.
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

    /// Records what a client says; the server gives the identifier and the time.
    pub async fn create_event(&self, event: Event) -> Result<Object<Event>> {
        let problems = event.problems(&super::Given::default());
        if !problems.is_empty() {
            return Err(ProblemDetails::invalid("the event was not recorded", problems).into());
        }
        let event = self.event(event.kind, &event.reason, &event.subject, event.message)?;
        let mut pending = Pending::default();
        pending.event(&event);
        let revision = pending.commit(&*self.store).await?;
        let revision = revision.ok_or_else(|| Error::refused(ErrorCode::Busy, "the event was not recorded"))?;
        self.trim_events_sometimes().await;
        Ok(Object { revision, object: event })
    }

    /// Deletes the oldest events now and then. A failure costs nothing but space until the next time.
    pub(crate) async fn trim_events_sometimes(&self) {
        let made = self.events_made.load(Ordering::Relaxed);
        let looked = self.events_looked_at.load(Ordering::Relaxed);
        let mine = made.saturating_sub(looked) >= TRIM_EVERY
            && self.events_looked_at.compare_exchange(looked, made, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if mine && let Err(error) = self.trim_events().await {
            tracing::warn!(error = with_causes(&error), "old events were not deleted");
        }
    }

    /// Keeps the newest events only.
    pub async fn trim_events(&self) -> Result<()> {
        let prefix = keys::prefix(Kind::Events, None);
        // Never far more than are kept, so that one page suffices.
        let request = RangeRequest::new(KeyRange::prefix(prefix.clone())).keys_only();
        let events = self.store.range(request).await.during("list", "events")?.kvs;
        let surplus = events.len().saturating_sub(self.events_max);
        let most = self.store.limits().txn_keys_max;
        let Some(first_kept) = events.get(surplus.min(most)).filter(|_| surplus > 0) else { return Ok(()) };
        let old = KeyRange::span(prefix, first_kept.key.clone());
        let txn = Txn::new().then([Op::Delete { range: old }]);
        self.store.txn(txn).await.during("delete", "old events").map(|_| ())
    }
}
