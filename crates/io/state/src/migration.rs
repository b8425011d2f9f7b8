//! Moving everything from one store to another so that exactly one of the two counts at each moment. A mark in each store
//! says whether it does. Knows no backend, and not where stores are.
//!
//! The store that is left: no mark, then `Leaving`, then `Moved`. The new one: `Arriving`, then no mark. The step to `Moved`
//! is the move. Until then whoever opens the old store takes its mark away, and the migration fails; from then on the new
//! store is complete, and only its mark has to go.

use crate::{
    Compare, Error, FencedStore, KeyRange, KeyValue, RangeRequest, Result, Revision, Store, StoreExt,
    backup::{self, Saved, Target},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The row of the mark. It belongs to its store: no backup and no copy has it.
pub const MARK_KEY: &str = "/migration";

/// Why a store does not count, or may soon not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mark {
    /// It is being copied. It counts.
    Leaving {
        /// Which migration.
        id: String,
        /// Where to.
        place: String,
    },
    /// It does not count any more.
    Moved {
        /// By which migration.
        id: String,
        /// Where the state is now.
        place: String,
    },
    /// It does not count yet.
    Arriving {
        /// By which migration or restore.
        id: String,
        /// Where its rows come from.
        place: String,
    },
}

impl Mark {
    /// Why the store is not written.
    fn reason(&self) -> String {
        match self {
            Self::Leaving { place, .. } => {
                format!("it is being copied to {place}; stop this server until that is done")
            }
            Self::Moved { place, .. } => format!("its state was moved; it is in {place} now"),
            Self::Arriving { place, .. } => {
                format!("it is a copy of {place} that was not finished; use that one, or copy it once more")
            }
        }
    }

    fn is_of(&self, own: &str) -> bool {
        match self {
            Self::Leaving { id, .. } | Self::Moved { id, .. } | Self::Arriving { id, .. } => id == own,
        }
    }
}

fn decoded(kv: &KeyValue) -> Result<Mark> {
    let damaged = Error::Corrupt { subject: "the mark of a migration", reason: "it is of another version" };
    serde_json::from_slice(&kv.value).map_err(|_| damaged)
}

/// The refusal of a write, if `kv` is a mark.
pub(crate) fn refusal(kv: Option<&KeyValue>) -> Option<Error> {
    let kv = kv.filter(|kv| kv.key == MARK_KEY)?;
    Some(decoded(kv).map_or_else(|error| error, |mark| Error::Elsewhere { reason: mark.reason() }))
}

/// The mark of a store, and the revision of its last change, 0 if there is none.
async fn mark_of(store: &dyn Store) -> Result<(Option<Mark>, Revision)> {
    let row = store.get(MARK_KEY).await?;
    Ok((row.as_ref().map(decoded).transpose()?, row.map_or(0, |kv| kv.mod_revision)))
}

async fn set(store: &dyn Store, mark: &Mark, expected: Revision) -> Result<Revision> {
    let value = serde_json::to_vec(mark).expect("texts serialize");
    store.put_if(MARK_KEY, value, expected).await?.ok_or(Error::Restore {
        reason: "a server started meanwhile and took the state back; stop all servers, and try it again",
    })
}

/// An error unless the store counts.
pub async fn check(store: &dyn Store) -> Result<()> {
    match mark_of(store).await?.0 {
        None | Some(Mark::Leaving { .. }) => Ok(()),
        Some(mark) => Err(Error::Elsewhere { reason: mark.reason() }),
    }
}

/// An error if the state was moved away from the store: only who says so explicitly makes it count again.
pub(crate) async fn check_not_left(store: &dyn Store) -> Result<()> {
    match mark_of(store).await?.0 {
        Some(mark @ Mark::Moved { .. }) => Err(Error::Elsewhere { reason: mark.reason() }),
        _ => Ok(()),
    }
}

/// What a server does with a store before it uses it: an error unless the store counts. A migration away from it that is
/// under way, or was broken off, ends without a move.
pub async fn take(store: &dyn Store) -> Result<()> {
    check(store).await?;
    take_back(store, |_| true).await?;
    check(store).await
}

async fn take_back(store: &dyn Store, mine: impl Fn(&Mark) -> bool) -> Result<()> {
    if let (Some(mark @ Mark::Leaving { .. }), revision) = mark_of(store).await?
        && mine(&mark)
    {
        store.delete_if(MARK_KEY, revision).await?;
    }
    Ok(())
}

/// A view of a store that others may migrate meanwhile: it writes only while there is no mark.
pub fn guarded(store: Arc<dyn Store>) -> FencedStore {
    FencedStore::new(store, Compare::absent(MARK_KEY))
}

/// Begins to fill a store: from here on it does not count. One that was left, or that was never filled whole, has nothing
/// that anybody needs. Returns how to fill it, and the revision of the mark.
pub(crate) async fn arrive(store: &dyn Store, id: &str, place: &str, target: Target) -> Result<(Target, Revision)> {
    let (mark, expected) = mark_of(store).await?;
    let target = match mark {
        Some(Mark::Leaving { .. }) => {
            return Err(Error::Restore { reason: "the store is being copied elsewhere; wait for the end of that" });
        }
        Some(_) => Target::Replaced,
        None => target,
    };
    let some = store.range(RangeRequest::new(KeyRange::all()).keys_only().limit(1)).await?;
    if target == Target::Empty && !some.kvs.is_empty() {
        return Err(Error::Restore { reason: "the store has rows; only an empty one is written without --force" });
    }
    let mark = Mark::Arriving { id: id.to_owned(), place: place.to_owned() };
    Ok((target, set(store, &mark, expected).await?))
}

/// A move from one store to another, which nobody else fills meanwhile.
#[derive(Debug)]
pub struct Migration<'a> {
    /// Tells it from others.
    pub id: &'a str,
    /// The store that is left, and where it is, for messages.
    pub from: (&'a dyn Store, &'a str),
    /// The new store, and where it is.
    pub into: (&'a Arc<dyn Store>, &'a str),
}

impl Migration<'_> {
    /// Copies, compares and moves. After an error [`settle`] says whether the state was moved.
    pub async fn run(&self, target: Target) -> Result<Saved> {
        let (id, (from, from_place), (into, into_place)) = (self.id.to_owned(), self.from, self.into);
        let (mark, expected) = mark_of(from).await?;
        if let Some(mark @ (Mark::Moved { .. } | Mark::Arriving { .. })) = mark {
            return Err(Error::Elsewhere { reason: mark.reason() });
        }
        let leaving = set(from, &Mark::Leaving { id: id.clone(), place: into_place.to_owned() }, expected).await?;
        let (target, _) = arrive(&**into, &id, from_place, target).await?;
        let saved = backup::copy(from, into, target).await?;
        set(from, &Mark::Moved { id, place: into_place.to_owned() }, leaving).await?;
        finish(&**into, self.id).await?;
        Ok(saved)
    }
}

/// After a migration that was broken off: whether the store was left. One that was not counts as if nothing had been.
pub async fn settle(from: &dyn Store, id: &str) -> Result<bool> {
    take_back(from, |mark| mark.is_of(id)).await?;
    Ok(matches!(mark_of(from).await?.0, Some(Mark::Moved { id: found, .. }) if found == id))
}

/// The store into which a migration moved counts from now on.
pub async fn finish(into: &dyn Store, id: &str) -> Result<()> {
    match mark_of(into).await? {
        (None, _) => Ok(()),
        (Some(mark @ Mark::Arriving { .. }), revision) if mark.is_of(id) => store_counts(into, revision).await,
        (Some(mark), _) => Err(Error::Elsewhere { reason: mark.reason() }),
    }
}

/// Takes the mark of that revision away.
pub(crate) async fn store_counts(store: &dyn Store, revision: Revision) -> Result<()> {
    store.delete_if(MARK_KEY, revision).await.map(|_| ())
}
