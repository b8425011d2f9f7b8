//! Compaction: giving up old history at once in meaning, and deleting its rows in small steps between flushes.

use super::{rows, writer::Writer};
use crate::{Error, Result, Revision};
use std::sync::Arc;

/// Rows deleted at a time while nobody waits.
pub(super) const IDLE_ROWS_MAX: usize = 512;
/// Rows deleted after each flush at least while there is load.
pub(super) const BUSY_ROWS_MIN: usize = 32;

/// The revision to compact to so that about `keep` revisions stay, in steps of a tenth of that.
pub(super) fn due(revision: Revision, compact_revision: Revision, keep: Revision) -> Revision {
    let slack = keep / 10 + 1;
    if keep == 0 || revision.saturating_sub(compact_revision) < keep + slack {
        return compact_revision;
    }
    revision - keep
}

/// Whether history may be compacted to `requested`.
pub(super) fn check(requested: Revision, current: Revision, compact_revision: Revision) -> Result<()> {
    if requested > current {
        return Err(Error::FutureRevision { requested, current });
    }
    if requested < compact_revision {
        return Err(Error::Compacted { requested, compact_revision });
    }
    Ok(())
}

impl Writer {
    /// Deletes some rows that compaction gave up: the states that ended at or before the compacted revision,
    /// and the logs before it (its own stays: a watch may begin there). Not flushed: after a crash the same rows are deleted again.
    pub(super) fn scrub_rows(&mut self, rows_max: usize) -> Result<()> {
        let compact_revision = self.view.compact_revision;
        let mut reached = compact_revision;
        let mut write = self.opened.database.batch();
        for log in self.view.logs(self.scrubbed) {
            let (revision, entries) = log?;
            if revision > compact_revision {
                break;
            }
            if write.len() >= rows_max {
                reached = revision;
                break;
            }
            for entry in entries.iter().filter(|entry| entry.prev_revision > 0) {
                write.remove(&self.opened.rows, rows::history_key(&entry.key, entry.prev_revision));
            }
            if revision < compact_revision {
                write.remove(&self.opened.rows, rows::log_key(revision));
            }
        }
        write.insert(&self.opened.rows, rows::META_SCRUBBED, reached.to_be_bytes());
        let dir = &self.opened.dir;
        write.commit().map_err(|error| Error::Commit { dir: dir.clone(), source: Arc::new(error) })?;
        self.scrubbed = reached;
        self.show(self.view.revision, compact_revision);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_given_up_in_steps() {
        assert_eq!(due(110, 0, 100), 0);
        assert_eq!(due(111, 0, 100), 11);
        assert_eq!(due(121, 11, 100), 11);
        assert_eq!(due(122, 11, 100), 22);
        assert_eq!(due(1_000_000, 5, 0), 5);
    }

    #[test]
    fn only_existing_history_can_be_compacted() {
        assert!(check(5, 5, 5).is_ok());
        assert!(matches!(check(6, 5, 0), Err(Error::FutureRevision { requested: 6, current: 5 })));
        assert!(matches!(check(2, 5, 3), Err(Error::Compacted { requested: 2, compact_revision: 3 })));
    }
}
