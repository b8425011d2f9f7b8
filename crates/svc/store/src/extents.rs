//! The lists of chunks: of small objects in the record, of large ones in rows that are read and removed one after the other.

use crate::{
    Change, ObjectName, StorageError,
    cluster::Cluster,
    record::{ChunkRef, Content, Extent, Upload, decoded},
};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use std::sync::Arc;

/// Rows of extents that are removed together.
const ROWS_PAGE: usize = 16;

impl Content {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Inline { chunks } if chunks.is_empty())
    }
}

impl Cluster {
    /// An extent of an upload; none if it has no such row.
    pub(crate) async fn extent(&self, upload: Upload, index: u32) -> Result<Option<Extent>, StorageError> {
        let row = self.meta.get(upload.extent(index)).await?;
        row.map(|row| decoded(&row.key, &row.value)).transpose()
    }

    /// The chunks of an object in their order; each row is read when it is needed.
    pub(crate) fn chunks(
        self: &Arc<Self>,
        name: &ObjectName,
        upload: Upload,
        content: Content,
    ) -> BoxStream<'static, Result<ChunkRef, StorageError>> {
        let extents = match content {
            Content::Inline { chunks } => return stream::iter(chunks).map(Ok).boxed(),
            Content::Extents { extents } => extents,
        };
        let (cluster, name) = (self.clone(), name.clone());
        let read = move |index| {
            let (cluster, object) = (cluster.clone(), name.clone());
            async move { cluster.extent(upload, index).await?.ok_or(StorageError::DataLost { object }) }
        };
        let extents = stream::iter(0..extents).then(read);
        extents.map_ok(|extent| stream::iter(extent.chunks).map(Ok::<_, StorageError>)).try_flatten().boxed()
    }

    /// Removes what nothing names: the chunks, then the rows that list them. What cannot be removed is garbage for later.
    pub(crate) async fn remove_content(&self, upload: Upload, content: &Content) {
        match content {
            Content::Inline { chunks } => self.delete_chunks(chunks).await,
            Content::Extents { .. } => self.remove_extents(upload).await,
        }
    }

    /// The same of all extents that there are.
    pub(crate) async fn remove_extents(&self, upload: Upload) {
        if let Err(error) = self.try_remove_extents(upload).await {
            tracing::debug!(%error, "removing a list of chunks failed; it is collected later");
        }
    }

    async fn try_remove_extents(&self, upload: Upload) -> Result<(), StorageError> {
        loop {
            let rows = self.meta.list(upload.extents(), None, ROWS_PAGE).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut change = Change::default();
            for row in rows {
                // Chunks of a row that is not readable are found by themselves.
                if let Ok(extent) = decoded::<Extent>(&row.key, &row.value) {
                    self.delete_chunks(&extent.chunks).await;
                }
                change = change.delete(row.key);
            }
            self.meta.change(change).await?;
        }
    }
}
