//! Commits of records: by compare-and-swap, and only while what the record names is sure to be there. Knows no data.

use crate::{
    Change, MetaRow, ObjectName, StorageError,
    cluster::{COMMIT_TURNS, Cluster},
    record::{ObjectRecord, Upload, decoded, encoded},
};
use bytes::Bytes;
use heptad_shard::stable_hash;
use std::sync::PoisonError;

/// The row that every collection of garbage changes before it looks for the last time.
const FENCE_ROW: &[u8] = b"fence";

/// On what a commit depends, besides the record that it replaces.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guard {
    /// It names no data.
    None,
    /// The fence is still the one under which the data was written: nobody has collected anything since.
    Fence(u64),
    /// The upload is still in progress. It ends with the commit.
    InProgress(Upload, u64),
}

impl Guard {
    fn row(self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Fence(_) => Some(Bytes::from_static(FENCE_ROW)),
            Self::InProgress(upload, _) => Some(upload.row()),
        }
    }

    fn of(self, change: Change) -> Change {
        let Some(row) = self.row() else { return change };
        match self {
            Self::InProgress(_, version) => change.expect(row.clone(), version).delete(row),
            Self::Fence(version) => change.expect(row, version),
            Self::None => change,
        }
    }

    /// The guard for another attempt, after the row was read; none if nothing may be committed any more.
    fn again(self, now: u64) -> Option<Self> {
        match self {
            Self::None => Some(self),
            Self::Fence(then) => (then == now).then_some(self),
            // Only the upload itself changes its row, and it may not have heard that it did.
            Self::InProgress(upload, _) => (now != 0).then_some(Self::InProgress(upload, now)),
        }
    }
}

/// What was under an object's name before a commit.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) existed: bool,
    /// The record, as far as it is readable.
    pub(crate) record: Option<ObjectRecord>,
}

impl Cluster {
    /// Sets (or removes) an object's record, and sets `extents` with it. None if what it depends on is not so any more: then
    /// nothing is changed.
    pub(crate) async fn commit(
        &self,
        name: &ObjectName,
        record: Option<&ObjectRecord>,
        extents: Vec<(Bytes, Bytes)>,
        mut guard: Guard,
    ) -> Result<Option<Replaced>, StorageError> {
        let row = name.row();
        let value = record.map(|record| encoded(&row, record)).transpose()?;
        let _turn = self.commit_turns[stable_hash(&row) as usize % COMMIT_TURNS].lock().await;
        for _ in 0..self.options.commit_attempts_max {
            let before = self.meta.get(row.clone()).await?;
            let version = before.as_ref().map_or(0, |before| before.version);
            let change = Change { puts: extents.clone(), ..Change::default() }.expect(row.clone(), version);
            let done = match &value {
                Some(value) => self.meta.change(guard.of(change.put(row.clone(), value.clone()))).await?.is_some(),
                None if version == 0 => true,
                None => self.meta.change(change.delete(row.clone())).await?.is_some(),
            };
            if done {
                let readable = |before: MetaRow| decoded(&row, &before.value).ok();
                return Ok(Some(Replaced { existed: before.is_some(), record: before.and_then(readable) }));
            }
            if let Some(guarding) = guard.row() {
                let now = self.meta.get(guarding).await?.map_or(0, |row| row.version);
                let Some(again) = guard.again(now) else { return Ok(None) };
                guard = again;
            }
        }
        Err(StorageError::Contended { object: name.clone(), attempts: self.options.commit_attempts_max })
    }

    /// The fence for data that is written from now on. An old one is no danger: its commit fails.
    pub(crate) async fn fence(&self) -> Result<u64, StorageError> {
        if let Some(known) = *self.known_fence() {
            return Ok(known);
        }
        let version = self.meta.get(Bytes::from_static(FENCE_ROW)).await?.map_or(0, |row| row.version);
        *self.known_fence() = Some(version);
        Ok(version)
    }

    /// The fence was raised: it is read anew.
    pub(crate) fn forget_fence(&self) {
        *self.known_fence() = None;
    }

    fn known_fence(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no upload is committed that began before and has no row.
    pub(crate) async fn raise_fence(&self) -> Result<(), StorageError> {
        let row = Bytes::from_static(FENCE_ROW);
        let version = self.meta.get(row.clone()).await?.map_or(0, |row| row.version);
        let value = encoded(&row, &self.options.clock.unix_ms())?;
        // If another coordinator changed it meanwhile, that has raised it as well.
        self.meta.put_if(row, value, version).await?;
        self.forget_fence();
        Ok(())
    }
}
