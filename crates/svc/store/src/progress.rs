//! Uploads in progress: a row for each from before its first chunk until its commit. Whoever removes the row ends the upload,
//! and may remove what it has written.

use crate::{
    Change, DistributedStorage, ObjectName, RepairReport, StorageError,
    cluster::Cluster,
    record::{UPLOADS, Upload, UploadRow, decoded, encoded},
};
use bytes::Bytes;
use heptad_shard::Progress;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Rows of uploads that are read together.
const ROWS_PAGE: usize = 256;
/// An upload writes down its progress so many times within the time for which it may stand still.
const NOTES_PER_SILENCE: u64 = 4;

/// The row of an upload as whoever writes it knows it.
#[derive(Debug)]
pub(crate) struct InProgress {
    cluster: Arc<Cluster>,
    pub(crate) upload: Upload,
    row: UploadRow,
    /// The version of the row.
    pub(crate) version: u64,
    written: Instant,
}

impl InProgress {
    /// Begins an upload.
    pub(crate) async fn begin(
        cluster: Arc<Cluster>,
        object: ObjectName,
        upload: Upload,
        epoch: u64,
    ) -> Result<Self, StorageError> {
        let now = cluster.options.clock.unix_ms();
        let (begun_unix_ms, progressed_unix_ms) = (now, now);
        let coordinator = cluster.id.clone();
        let row = UploadRow { object, coordinator, epoch, begun_unix_ms, progressed_unix_ms, size_bytes: 0 };
        let value = encoded(&upload.row(), &row)?;
        let written = cluster.meta.put_if(upload.row(), value, 0).await?;
        let version =
            written.ok_or_else(|| StorageError::internal("beginning an upload", "its number was drawn before"))?;
        Ok(Self { cluster, upload, row, version, written: Instant::now() })
    }

    /// Writes down from time to time that the upload goes on.
    pub(crate) async fn arrived(&mut self, size_bytes: u64) -> Result<(), StorageError> {
        let pause = Duration::from_millis(self.cluster.options.upload_silence_ms_max / NOTES_PER_SILENCE);
        if self.written.elapsed() < pause {
            return Ok(());
        }
        match self.write(size_bytes, None).await {
            Err(StorageError::Meta(error)) => {
                tracing::warn!(object = %self.row.object, %error, "an upload's progress is not written down yet");
                Ok(())
            }
            written => written,
        }
    }

    /// Writes down how far the upload is, and a row of extents with it. May be done again with the same row.
    pub(crate) async fn write(&mut self, size_bytes: u64, extent: Option<(Bytes, Bytes)>) -> Result<(), StorageError> {
        let cluster = self.cluster.clone();
        self.row.size_bytes = size_bytes;
        self.row.progressed_unix_ms = cluster.options.clock.unix_ms();
        let key = self.upload.row();
        let value = encoded(&key, &self.row)?;
        for _ in 0..cluster.options.commit_attempts_max {
            let mut change = Change::default().expect(key.clone(), self.version).put(key.clone(), value.clone());
            change.puts.extend(extent.clone());
            if let Some(version) = cluster.meta.change(change).await? {
                (self.version, self.written) = (version, Instant::now());
                return Ok(());
            }
            // A change before this one may have been made although no answer came.
            let row = cluster.meta.get(key.clone()).await?.ok_or_else(|| self.ended())?;
            self.version = row.version;
        }
        Err(StorageError::internal("writing down the progress of an upload", "its row changes all the time"))
    }

    /// Says that somebody has ended the upload.
    pub(crate) fn ended(&self) -> StorageError {
        let silent_ms_max = self.cluster.options.upload_silence_ms_max;
        StorageError::UploadEnded { object: self.row.object.clone(), silent_ms_max }
    }
}

impl Cluster {
    /// Ends an upload that stands at `version`, or at whatever it does. Returns whether it was in progress until now: then
    /// nothing will ever name what it has written.
    pub(crate) async fn end_upload(&self, upload: Upload, version: Option<u64>) -> Result<bool, StorageError> {
        let row = upload.row();
        if let Some(version) = version {
            return Ok(self.meta.delete_if(row, version).await?);
        }
        for _ in 0..self.options.commit_attempts_max {
            let Some(found) = self.meta.get(row.clone()).await? else { return Ok(false) };
            if self.meta.delete_if(row.clone(), found.version).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl DistributedStorage {
    /// Ends the uploads that have stood still for too long.
    pub(crate) async fn end_abandoned(
        &self,
        progress: &mut Progress<Upload>,
        now_ms: u64,
        report: &mut RepairReport,
    ) -> Result<(), StorageError> {
        let cluster = &self.cluster;
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = cluster.meta.list(Bytes::from_static(UPLOADS), after, ROWS_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            rows.extend(page);
        }
        let versions = rows.iter().filter_map(|row| Some((Upload::of_row(&row.key)?, row.version)));
        let over = progress.note(versions, now_ms, cluster.options.upload_silence_ms_max);
        for (upload, version) in over {
            if cluster.end_upload(upload, Some(version)).await? {
                let row = rows.iter().find(|row| row.key == upload.row());
                let said = row.and_then(|row| decoded::<UploadRow>(&row.key, &row.value).ok());
                tracing::warn!(upload = ?said, "an upload stood still for too long and was ended");
                report.uploads_ended += 1;
                cluster.remove_extents(upload).await;
            }
        }
        Ok(())
    }
}
