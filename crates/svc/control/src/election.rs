//! Who leads, decided from the rows that were read and a clock: follow, take over, renew, or step down. Pure: reads and
//! writes no row, and trusts no other machine's clock. Two leaders at once are harmless: the older one is fenced.

use heptad_state::Revision;
use serde::{Deserialize, Serialize};

/// Who holds the leadership now, renewed again and again. Row `/leader/lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) holder: String,
    pub(crate) generation: u64,
    /// Counts the renewals, so that each one changes the row.
    pub(crate) renewal: u64,
}

/// The fence: changed only at a takeover. Row `/leader/generation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) holder: String,
    /// Which run of that server: another one after each start.
    pub(crate) incarnation: String,
}

/// Both rows as read at one revision, each with the revision of its last change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) lease: Option<(Revision, Lease)>,
    pub(crate) generation: Option<(Revision, Generation)>,
}

impl Seen {
    pub(crate) fn lease_revision(&self) -> Revision {
        self.lease.as_ref().map_or(0, |(revision, _)| *revision)
    }

    pub(crate) fn generation_revision(&self) -> Revision {
        self.generation.as_ref().map_or(0, |(revision, _)| *revision)
    }

    fn next_generation(&self) -> u64 {
        self.generation.as_ref().map_or(1, |(_, generation)| generation.number + 1)
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing now; check again after this time.
    Wait(u64),
    /// Write both rows, if they are still as they were read.
    TakeOver(Generation),
    /// Write the lease, if it is still as it was read.
    Renew(Lease),
    /// Another server took over: stop leading, then check again.
    Resign,
}

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) lease_ms: u64,
    pub(crate) renew_interval_ms: u64,
}

/// What this server knows about its own leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Own {
    generation_revision: Revision,
    /// When the last successful renewal began; `None`: no answer came yet.
    renewed_ms: Option<u64>,
}

/// One server's part in the election.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    name: String,
    incarnation: String,
    terms: Terms,
    own: Option<Own>,
    /// The lease as it is watched, and since when it has not changed, by this server's own clock.
    watched: Option<(Revision, u64)>,
    looked: bool,
}

impl Election {
    pub(crate) fn new(name: &str, incarnation: &str, terms: Terms) -> Self {
        let (name, incarnation) = (name.to_owned(), incarnation.to_owned());
        Self { name, incarnation, terms, own: None, watched: None, looked: false }
    }

    /// Decides from the present rows.
    pub(crate) fn look(&mut self, seen: &Seen, now_ms: u64) -> Step {
        let first_look = !std::mem::replace(&mut self.looked, true);
        match self.own {
            Some(own) if seen.generation_revision() != own.generation_revision => {
                self.own = None;
                self.watched = None;
                Step::Resign
            }
            Some(own) => self.renew(own, seen, now_ms),
            None => match self.unheard(seen) {
                Some(own) => {
                    self.own = Some(own);
                    self.renew(own, seen, now_ms)
                }
                None => self.follow(seen, first_look, now_ms),
            },
        }
    }

    /// A takeover of its own that got no answer. It counts once it is renewed.
    fn unheard(&self, seen: &Seen) -> Option<Own> {
        let (revision, generation) = seen.generation.as_ref()?;
        let own = Own { generation_revision: *revision, renewed_ms: None };
        (generation.incarnation == self.incarnation).then_some(own)
    }

    fn renew(&self, own: Own, seen: &Seen, now_ms: u64) -> Step {
        let due_ms = own.renewed_ms.map_or(0, |renewed_ms| renewed_ms + self.terms.renew_interval_ms);
        if now_ms < due_ms {
            return Step::Wait(due_ms - now_ms);
        }
        let renewal = seen.lease.as_ref().map_or(1, |(_, lease)| lease.renewal + 1);
        let generation = seen.generation.as_ref().map_or(0, |(_, generation)| generation.number);
        Step::Renew(Lease { holder: self.name.clone(), generation, renewal })
    }

    /// A lease counts as expired when it has not changed for its whole duration, by this server's own clock.
    fn follow(&mut self, seen: &Seen, first_look: bool, now_ms: u64) -> Step {
        let since_ms = match self.watched {
            Some((revision, since_ms)) if revision == seen.lease_revision() => since_ms,
            _ => now_ms,
        };
        self.watched = Some((seen.lease_revision(), since_ms));
        let free = match &seen.lease {
            None => true,
            // A server that was restarted need not wait for itself.
            Some((_, lease)) => (first_look && lease.holder == self.name) || now_ms - since_ms >= self.terms.lease_ms,
        };
        if free {
            return Step::TakeOver(self.next_generation(seen));
        }
        let left_ms = self.terms.lease_ms.saturating_sub(now_ms - since_ms);
        Step::Wait(left_ms.clamp(1, self.terms.renew_interval_ms))
    }

    fn next_generation(&self, seen: &Seen) -> Generation {
        let (holder, incarnation) = (self.name.clone(), self.incarnation.clone());
        Generation { number: seen.next_generation(), holder, incarnation }
    }

    /// The takeover that was begun at `began_ms` is committed.
    pub(crate) fn took_over(&mut self, generation_revision: Revision, began_ms: u64) {
        self.own = Some(Own { generation_revision, renewed_ms: Some(began_ms) });
    }

    /// The renewal that was begun at `began_ms` is committed.
    pub(crate) fn renewed(&mut self, began_ms: u64) {
        if let Some(own) = &mut self.own {
            own.renewed_ms = Some(began_ms);
        }
    }

    /// The fence's revision, if this server may still lead at `now_ms`: nobody can have taken over yet.
    pub(crate) fn leads(&self, now_ms: u64) -> Option<Revision> {
        self.lease_left_ms(now_ms).and(self.own.map(|own| own.generation_revision))
    }

    /// How long this server may still lead without a renewal.
    pub(crate) fn lease_left_ms(&self, now_ms: u64) -> Option<u64> {
        let end_ms = self.own?.renewed_ms? + self.terms.lease_ms;
        (now_ms < end_ms).then(|| end_ms - now_ms)
    }
}

/// The lease that goes with a takeover.
pub(crate) fn first_lease(generation: &Generation) -> Lease {
    Lease { holder: generation.holder.clone(), generation: generation.number, renewal: 0 }
}

#[cfg(test)]
mod tests;
