//! Everything that happened, in order: hashed as a whole, the last lines kept, all printed if asked. Knows no meaning.

use crate::interpose;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Lines that are shown of a run that failed.
const LINES_KEPT_MAX: usize = 60;

#[derive(Default)]
struct Inner {
    hasher: blake3::Hasher,
    count: u64,
    last: VecDeque<String>,
    print: bool,
    failure: Option<String>,
}

/// The log of one run. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Inner>>);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// A log that also prints its lines, or not.
    pub(crate) fn new(print: bool) -> Self {
        let log = Self::default();
        log.lock().print = print;
        log
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what happened to whom.
    pub(crate) fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let line = format!("{:9.3} {who}: {what}", interpose::elapsed().as_secs_f64());
        let mut inner = self.lock();
        inner.hasher.update(line.as_bytes());
        inner.hasher.update(b"\n");
        inner.count += 1;
        if inner.print {
            println!("{line}");
        }
        if inner.last.len() == LINES_KEPT_MAX {
            inner.last.pop_front();
        }
        inner.last.push_back(line);
    }

    /// Bytes that count for the hash but are not meant for readers.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        self.lock().hasher.update(bytes);
    }

    /// A promise was broken. The first one counts.
    pub(crate) fn fail(&self, why: String) {
        self.note("FAILED", format_args!("{why}"));
        self.lock().failure.get_or_insert(why);
    }

    /// The promise that was broken, if one was.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// The hash of everything so far, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        self.lock().hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }

    /// How many lines there were.
    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }
}
