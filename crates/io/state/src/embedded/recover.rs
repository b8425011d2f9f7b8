//! Writing again after the disk was full: waits for room, closes the engine under its readers and opens it anew, as a
//! restart would. Reads go on while it waits, and pause while the engine is opened.

use super::{
    CLOSE_WAIT, CLOSE_WAITS_MAX, Shared,
    open::{self, Closed, Opened},
    view::View,
    writer::{Request, Writer},
};
use crate::{Error, Result};
use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{self, error::TryRecvError};

/// Between two looks at what is asked meanwhile.
const ASKED_DELAY: Duration = Duration::from_millis(10);
/// Between two looks for room.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// The engine while it is opened anew.
enum Engine {
    Open(Opened),
    Closed(Closed),
    /// Handed on.
    Gone,
}

/// Refuses everything with `error` until there is room, then opens the engine anew. None: nobody can ask any more.
pub(super) fn when_there_is_room(writer: Writer, error: &Error) -> Option<Writer> {
    let Writer { view, shared, opened, mut requests, publish, .. } = writer;
    drop(view);
    let dir = opened.dir.clone();
    let mut engine = Engine::Open(opened);
    let mut found = None;
    let asked = refuse_until(&mut requests, error, || {
        if open::probe(&dir).is_ok() {
            found = reopened(&mut engine, &shared)
                .inspect_err(|error| tracing::error!(%error, "the state store does not open"))
                .ok();
        }
        found.is_some()
    });
    let Some((opened, view)) = found.filter(|_| asked) else {
        shared.set_view(None);
        return None;
    };
    tracing::warn!(dir = %dir.display(), revision = view.revision, "there is room: the state store is written again");
    publish.send_replace(view.revision);
    let writer = Writer::new(opened, view, shared, requests, publish);
    writer.inspect_err(|error| tracing::error!(%error, "the state store does not go on")).ok()
}

/// Refuses what comes until `done`. Returns whether anybody can still ask.
fn refuse_until(requests: &mut mpsc::Receiver<Request>, error: &Error, mut done: impl FnMut() -> bool) -> bool {
    let mut looked = Instant::now();
    loop {
        match requests.try_recv() {
            Ok(request) => request.refuse(error),
            Err(TryRecvError::Disconnected) => return false,
            Err(TryRecvError::Empty) => std::thread::sleep(ASKED_DELAY),
        }
        if looked.elapsed() >= PROBE_INTERVAL {
            if done() {
                return true;
            }
            looked = Instant::now();
        }
    }
}

/// Closes the engine, if it is still open, when nobody reads, and opens it.
fn reopened(engine: &mut Engine, shared: &Shared) -> Result<(Opened, Arc<View>)> {
    // Whoever wants to read waits here.
    let mut shown = shared.view.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(last) = shown.take()
        && let Err(still_read) = closing(last)
    {
        *shown = Some(still_read);
        return Err(Error::Closed);
    }
    let closed = match std::mem::replace(engine, Engine::Gone) {
        Engine::Open(opened) => opened.close(),
        Engine::Closed(closed) => closed,
        Engine::Gone => return Err(Error::Closed),
    };
    let opened = match closed.reopen(&shared.options) {
        Ok(parts) => closed.with(parts),
        Err(error) => {
            let dir = closed.dir.clone();
            *engine = Engine::Closed(closed);
            return Err(Error::Open { dir, source: Arc::new(error) });
        }
    };
    let view = Arc::new(opened.view()?);
    // What had failed may be there now, so that what is remembered has a gap.
    shared.ring.clear();
    *shown = Some(Arc::clone(&view));
    shared.set_read_only(None);
    Ok((opened, view))
}

/// Waits for those who read the last view.
fn closing(last: Arc<View>) -> std::result::Result<(), Arc<View>> {
    for _ in 0..CLOSE_WAITS_MAX {
        if Arc::strong_count(&last) == 1 {
            return Ok(());
        }
        std::thread::sleep(CLOSE_WAIT);
    }
    Err(last)
}
