//! Bounds a client's slowness without a timer per request: the connection records its phase, and one timer per
//! connection checks the record from time to time. Knows no socket.

use crate::options::Options;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;
const PHASES: u64 = 4;

/// What a client's connection is doing, and since when: waiting for a request, reading its head, or answering.
#[derive(Debug)]
pub(crate) struct Watch {
    started: Instant,
    /// Milliseconds since `started`, times `PHASES`, plus the phase.
    note: AtomicU64,
    /// Set while the connection answers nothing.
    idle: Arc<AtomicBool>,
    /// Whether the body of the last request was read to its end, if it has one.
    body_read: Mutex<Option<Arc<AtomicBool>>>,
}

/// What the check of the record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The head of a request takes too long: close.
    HeadTooSlow,
    /// No request for too long: close in order.
    IdleTooLong,
    /// Check again after that time.
    After(Duration),
}

/// Marks a connection as answering until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Option<Arc<Watch>>);

impl Busy {
    /// The connection answers in another protocol for as long as it lives.
    pub(crate) fn for_good(mut self) {
        self.0 = None;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(watch) = &self.0 {
            watch.note(IDLE);
        }
    }
}

impl Watch {
    /// A connection whose first bytes may already be there.
    pub(crate) fn new(has_bytes: bool, idle: Arc<AtomicBool>) -> Self {
        idle.store(true, Relaxed);
        let note = AtomicU64::new(if has_bytes { HEAD } else { IDLE });
        Self { started: Instant::now(), note, idle, body_read: Mutex::default() }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn note(&self, phase: u64) {
        self.note.store(self.now_ms() * PHASES + phase, Relaxed);
        self.idle.store(phase != BUSY, Relaxed);
    }

    /// Bytes arrived from the client.
    pub(crate) fn received(&self) {
        if self.note.load(Relaxed) % PHASES == IDLE {
            self.note(HEAD);
        }
    }

    /// A whole head has arrived; `body_read` tells when its body has been read to the end.
    pub(crate) fn busy(self: &Arc<Self>, body_read: Option<Arc<AtomicBool>>) -> Busy {
        self.note(BUSY);
        *self.body_read.lock().unwrap_or_else(PoisonError::into_inner) = body_read;
        Busy(Some(Arc::clone(self)))
    }

    /// Whether a request is in progress.
    pub(crate) fn is_busy(&self) -> bool {
        self.note.load(Relaxed) % PHASES == BUSY
    }

    /// Whether the client may still be sending a request whose outcome was clear before its end.
    pub(crate) fn is_mid_request(&self) -> bool {
        let body_read = self.body_read.lock().unwrap_or_else(PoisonError::into_inner);
        let is_body_left = body_read.as_ref().is_some_and(|read| !read.load(Relaxed));
        is_body_left || self.note.load(Relaxed) % PHASES == HEAD
    }

    pub(crate) fn look(&self, options: &Options) -> Look {
        let note = self.note.load(Relaxed);
        let since_ms = self.now_ms().saturating_sub(note / PHASES);
        let (limit_ms, verdict) = match note % PHASES {
            HEAD => (options.header_wait_ms_max, Look::HeadTooSlow),
            IDLE => (options.client_idle_ms_max, Look::IdleTooLong),
            _ => (u64::MAX, Look::IdleTooLong),
        };
        if since_ms >= limit_ms {
            return verdict;
        }
        // The phase may change meanwhile, so never sleep for longer than the shorter bound.
        let left_ms = (limit_ms - since_ms).min(options.header_wait_ms_max).max(1);
        Look::After(Duration::from_millis(left_ms))
    }
}
