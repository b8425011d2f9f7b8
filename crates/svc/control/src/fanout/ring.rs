//! The newest lines of one channel, shared by all who follow it. Bounded in bytes: slower followers read the store.
//! Knows no meaning of a line.

use super::Lines;
use bytes::Bytes;
use heptad_state::Revision;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// This many followers add one more millisecond between two wake-ups of all of them.
const FOLLOWERS_PER_MS: usize = 10;
/// The longest time that a line waits for others.
const GATHER_MS_MAX: usize = 100;
/// Lines that are handed out together have at most about this size.
const BLOCK_BYTES: usize = 256 << 10;

/// What a follower missed is no longer here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten;

/// Lines that became visible together.
#[derive(Debug)]
struct Block {
    bytes: Bytes,
    /// The revision of each line, and where it begins.
    lines: Vec<(Revision, usize)>,
}

impl Block {
    fn last(&self) -> Revision {
        self.lines.last().map_or(0, |(revision, _)| *revision)
    }
}

#[derive(Debug, Default)]
struct Inner {
    blocks: VecDeque<Block>,
    bytes: usize,
    /// Every line behind this revision is here.
    begin: Revision,
    /// Lines that are not visible yet.
    open: Vec<u8>,
    open_lines: Vec<(Revision, usize)>,
    shown_at: Option<Instant>,
}

/// The lines of one channel.
#[derive(Debug)]
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    changed: watch::Sender<Revision>,
    bytes_max: usize,
}

impl Ring {
    /// Without lines; it has every line after `begin`.
    pub(super) fn new(begin: Revision, bytes_max: usize) -> Self {
        Self { inner: Mutex::new(Inner { begin, ..Inner::default() }), changed: watch::Sender::new(begin), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notifies when there is something new.
    pub(super) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    /// Whether nobody follows.
    pub(super) fn is_lonely(&self) -> bool {
        self.changed.receiver_count() == 0
    }

    /// Whether every line behind this revision is here.
    pub(super) fn covers(&self, revision: Revision) -> bool {
        revision >= self.lock().begin
    }

    /// Forgets everything: lines after `begin` come from now on.
    pub(super) fn restart(&self, begin: Revision) {
        *self.lock() = Inner { begin, ..Inner::default() };
        // Followers that wait find out that they are behind.
        self.changed.send_replace(begin);
    }

    /// Adds a line. Returns when it must be shown, if it is not shown at once.
    pub(super) fn push(&self, revision: Revision, line: &[u8]) -> Option<Instant> {
        let mut inner = self.lock();
        let at = inner.open.len();
        inner.open_lines.push((revision, at));
        inner.open.extend_from_slice(line);
        let gather_ms = (self.changed.receiver_count() / FOLLOWERS_PER_MS).min(GATHER_MS_MAX);
        let due = inner.shown_at.map(|shown| shown + Duration::from_millis(gather_ms as u64));
        let due = due.filter(|due| inner.open.len() < BLOCK_BYTES && *due > Instant::now());
        drop(inner);
        if due.is_none() {
            self.show();
        }
        due
    }

    /// Shows the gathered lines.
    pub(super) fn show(&self) {
        let mut inner = self.lock();
        if inner.open_lines.is_empty() {
            return;
        }
        let block =
            Block { bytes: std::mem::take(&mut inner.open).into(), lines: std::mem::take(&mut inner.open_lines) };
        let last = block.last();
        inner.bytes += block.bytes.len();
        inner.blocks.push_back(block);
        inner.shown_at = Some(Instant::now());
        while inner.bytes > self.bytes_max {
            let Some(oldest) = inner.blocks.pop_front() else { break };
            inner.bytes -= oldest.bytes.len();
            inner.begin = oldest.last();
        }
        drop(inner);
        self.changed.send_replace(last);
    }

    /// The lines after a revision that were shown together.
    pub(super) fn after(&self, revision: Revision) -> Result<Option<Lines>, Forgotten> {
        let inner = self.lock();
        if revision < inner.begin {
            return Err(Forgotten);
        }
        let index = inner.blocks.partition_point(|block| block.last() <= revision);
        let Some(block) = inner.blocks.get(index) else { return Ok(None) };
        let from = block.lines.partition_point(|(line, _)| *line <= revision);
        let offset = block.lines.get(from).map_or(block.bytes.len(), |(_, offset)| *offset);
        Ok(Some((block.last(), block.bytes.slice(offset..))))
    }

    /// How far a follower is that took everything up to `taken`, if the channel's rows were read up to `read`.
    pub(super) fn reached(&self, taken: Revision, read: Revision) -> Revision {
        let inner = self.lock();
        let shown = inner.blocks.back().map_or(inner.begin, Block::last);
        if taken < shown {
            return taken;
        }
        let hidden = inner.open_lines.first().map(|(revision, _)| revision.saturating_sub(1));
        hidden.map_or(read, |hidden| hidden.min(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(revision: Revision) -> Vec<u8> {
        format!("{revision}\n").into_bytes()
    }

    fn after(ring: &Ring, revision: Revision) -> Option<(Revision, String)> {
        let lines = ring.after(revision).expect("it is here");
        lines.map(|(last, bytes)| (last, String::from_utf8_lossy(&bytes).into_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn lines_are_gathered_for_many_and_cut_for_whoever_has_some_of_them() {
        let ring = Ring::new(4, 1_000);
        let followers: Vec<_> = (0..FOLLOWERS_PER_MS * 5).map(|_| ring.subscribe()).collect();
        assert_eq!(ring.push(5, &line(5)), None, "the first one is shown at once");
        let due = ring.push(7, &line(7)).expect("the next ones wait");
        assert_eq!(due.duration_since(Instant::now()), Duration::from_millis(5));
        ring.push(9, &line(9));
        assert_eq!(after(&ring, 4), Some((5, "5\n".to_owned())));
        assert_eq!((after(&ring, 5), ring.reached(5, 20), ring.reached(4, 20)), (None, 6, 4));
        ring.show();
        assert_eq!(after(&ring, 5), Some((9, "7\n9\n".to_owned())));
        assert_eq!(after(&ring, 7), Some((9, "9\n".to_owned())));
        assert_eq!((after(&ring, 9), ring.reached(9, 20)), (None, 20));
        assert!(followers[0].has_changed().expect("the ring is there"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_lines_are_forgotten_and_that_is_said() {
        let ring = Ring::new(0, 8);
        (1..=6).for_each(|revision| {
            ring.push(revision, &line(revision));
        });
        assert!(ring.covers(2) && !ring.covers(1));
        assert_eq!(ring.after(1), Err(Forgotten));
        assert_eq!(after(&ring, 2), Some((3, "3\n".to_owned())));
        ring.restart(10);
        assert_eq!(ring.after(9), Err(Forgotten));
        assert_eq!(after(&ring, 10), None);
    }
}
