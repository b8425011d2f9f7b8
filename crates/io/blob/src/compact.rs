//! Reclaiming space: the live records of a mostly dead segment are written again at the end, then its file is removed.
//! Works through the writer, so that a blob that is deleted or replaced meanwhile is never brought back.

use crate::{
    Blob, BlobError, Result,
    record::{Entry, Kind, Location},
    segment::sealed_entries,
    shared::Shared,
    writer::{Request, Work},
};
use std::{collections::BTreeSet, sync::PoisonError};
use tokio::sync::{mpsc::Sender, oneshot};

/// Bytes that are on their way to the writer at once.
const WINDOW_BYTES_MAX: u64 = 4 << 20;
/// Requests that are on their way to the writer at once.
const WINDOW_REQUESTS_MAX: usize = 256;

/// Rewrites segments whose needed share is below `percent_max`, until none is left or `enough` says so.
/// Returns how many were removed.
pub(crate) fn compact(
    shared: &Shared,
    writer: &Sender<Request>,
    percent_max: u64,
    mut enough: impl FnMut() -> bool,
) -> Result<u64> {
    let _one_at_a_time = shared.compacting.lock().unwrap_or_else(PoisonError::into_inner);
    // Segments that begin from here on hold what is rewritten now; they wait for the next time.
    let last = shared.index().segment_last();
    let mut spare = BTreeSet::new();
    let mut removed = 0;
    while !enough() {
        shared.check()?;
        let Some(victim) = shared.index().victim(percent_max, &spare) else { break };
        if victim > last {
            spare.insert(victim);
            continue;
        }
        // A segment that cannot be emptied (for want of room, say) is left alone this time.
        spare.insert(victim);
        match rewrite(shared, writer, victim) {
            Ok(count) => removed += count,
            Err(BlobError::InsufficientSpace { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn rewrite(shared: &Shared, writer: &Sender<Request>, victim: u32) -> Result<u64> {
    let (entries, _) = sealed_entries(&shared.directory, victim)?;
    let mut waiting = Vec::new();
    let mut waiting_bytes = 0;
    for entry in entries {
        let Some(work) = needed(shared, &entry) else { continue };
        waiting_bytes += entry.record_bytes();
        waiting.push(send(shared, writer, work)?);
        if waiting_bytes >= WINDOW_BYTES_MAX || waiting.len() >= WINDOW_REQUESTS_MAX {
            settle(shared, &mut waiting)?;
            waiting_bytes = 0;
        }
    }
    settle(shared, &mut waiting)?;
    settle(shared, &mut vec![send(shared, writer, Work::Retire { segment: victim })?])
}

/// What must happen to a record before its segment goes; nothing if it is dead.
fn needed(shared: &Shared, entry: &Entry) -> Option<Work> {
    match entry.kind {
        Kind::Put { len } => {
            let from = Location { place: entry.place, len };
            if shared.index().get(&entry.id) != Some(from) {
                return None;
            }
            let blob = shared.read_at(entry.id, from).ok().and_then(|(_, bytes)| Blob::verify(entry.id, bytes).ok());
            Some(match blob {
                Some(blob) => Work::Move { blob, from },
                None => {
                    tracing::warn!(id = %entry.id, "a corrupt blob goes with its segment; another copy must replace it");
                    Work::Forget { id: entry.id, from }
                }
            })
        }
        Kind::Tombstone { target } => {
            let is_needed = target.segment != entry.place.segment && shared.index().has_segment(target.segment);
            is_needed.then_some(Work::Cancel { id: entry.id, target })
        }
    }
}

type Answer = oneshot::Receiver<Result<u64>>;

/// Sends work to the writer from a thread that may block.
pub(crate) fn send(shared: &Shared, writer: &Sender<Request>, work: Work) -> Result<Answer> {
    let (reply, answer) = oneshot::channel();
    let sent = writer.blocking_send(Request { work, reply });
    sent.map(|()| answer).map_err(|_| shared.lose("the engine is closed"))
}

/// Waits for all answers; the first failure is the result.
fn settle(shared: &Shared, waiting: &mut Vec<Answer>) -> Result<u64> {
    let mut result = Ok(0);
    for answer in waiting.drain(..) {
        let answer = answer.blocking_recv().unwrap_or_else(|_| Err(shared.lose("the engine is closed")));
        result = result.and_then(|sum| answer.map(|count| sum + count));
    }
    result
}

/// Closes the active segment, so that its dead records can be reclaimed too.
pub(crate) fn seal(shared: &Shared, writer: &Sender<Request>) -> Result<()> {
    settle(shared, &mut vec![send(shared, writer, Work::Seal)?]).map(drop)
}
