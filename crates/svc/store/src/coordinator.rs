//! The coordinator: put, get, head, delete and list of objects over storage nodes and metadata.
//! Data first, record second: a record never names data that is not on a durable majority.

use crate::{
    BlobNode, ListPage, MetaStore, ObjectInfo, ObjectName, ObjectReader, Options, StorageError,
    cluster::Cluster,
    commit::Guard,
    layout, maintain, read,
    record::{ObjectRecord, check_bucket, decoded, invalid, rows_of},
    upload::Uploader,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use std::sync::Arc;

/// A boxed error of a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What may be said of an object that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// The media type, given back on reading.
    pub content_type: Option<String>,
    /// The BLAKE3 checksum (hexadecimal) that the content must have.
    pub checksum: Option<String>,
}

/// The distributed storage. Clones are the same storage.
#[derive(Clone, Debug)]
pub struct DistributedStorage {
    pub(crate) cluster: Arc<Cluster>,
}

impl DistributedStorage {
    /// Opens the storage on `nodes`: reads the placement map, or makes one, or adapts it if the nodes changed.
    pub async fn open(
        nodes: Vec<Arc<dyn BlobNode>>,
        meta: Arc<dyn MetaStore>,
        options: Options,
    ) -> Result<Self, StorageError> {
        let given_up = maintain::given_up(&*meta).await?;
        let layout = layout::decide(nodes, &given_up, &*meta, &options).await?;
        Ok(Self { cluster: Cluster::new(layout, given_up, meta, options)? })
    }

    /// Opens the storage as another coordinator has laid it out; none if none has yet.
    pub async fn join(
        nodes: Vec<Arc<dyn BlobNode>>,
        meta: Arc<dyn MetaStore>,
        options: Options,
    ) -> Result<Option<Self>, StorageError> {
        let (layout, given_up) = (layout::found(nodes, &*meta).await?, maintain::given_up(&*meta).await?);
        let cluster = layout.map(|layout| Cluster::new(layout, given_up, meta, options)).transpose()?;
        Ok(cluster.map(|cluster| Self { cluster }))
    }

    /// Stores an object; what was under its name is replaced as a whole. When this returns, the data is on a durable
    /// majority of storage nodes. If it fails, nothing of the object is visible.
    pub async fn put<S, E>(
        &self,
        bucket: &str,
        key: &str,
        body: S,
        options: PutOptions,
    ) -> Result<ObjectInfo, StorageError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<BodyError>,
    {
        let name = ObjectName::new(bucket, key)?;
        let uploader = Uploader::new(self.cluster.clone(), name.clone(), options)?;
        let (record, replaced) = uploader.run(body).await?;
        self.cluster.purge(replaced.record);
        Ok(record.info(&name))
    }

    /// Stores bytes; see `put`.
    pub async fn put_bytes(&self, bucket: &str, key: &str, content: Bytes) -> Result<ObjectInfo, StorageError> {
        let body = stream::iter([Ok::<_, BodyError>(content)]);
        self.put(bucket, key, body, PutOptions::default()).await
    }

    /// Reads an object: every chunk from a copy whose checksum holds. The reader stays with the version that it began
    /// with, also if the object is replaced or deleted meanwhile.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<ObjectReader, StorageError> {
        read::open(&self.cluster, ObjectName::new(bucket, key)?).await
    }

    /// Reads an object of at most `bytes_max` bytes into memory.
    pub async fn get_bytes(&self, bucket: &str, key: &str, bytes_max: u64) -> Result<Bytes, StorageError> {
        let mut reader = self.get(bucket, key).await?;
        if reader.info().size_bytes > bytes_max {
            return Err(StorageError::TooLarge { object: ObjectName::new(bucket, key)?, bytes_max });
        }
        let mut content = Vec::with_capacity(reader.info().size_bytes as usize);
        while let Some(part) = reader.next().await {
            content.extend_from_slice(&part?);
        }
        Ok(content.into())
    }

    /// What is known of an object.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        let name = ObjectName::new(bucket, key)?;
        let record = self.cluster.record(&name).await?;
        record.map(|record| record.info(&name)).ok_or(StorageError::NotFound(name))
    }

    /// Deletes an object. Returns whether there was one.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<bool, StorageError> {
        let name = ObjectName::new(bucket, key)?;
        let deleted = self.cluster.commit(&name, None, Vec::new(), Guard::None).await?;
        let existed = deleted.as_ref().is_some_and(|deleted| deleted.existed);
        self.cluster.purge(deleted.and_then(|deleted| deleted.record));
        Ok(existed)
    }

    /// A page of the objects of a bucket whose keys begin with `prefix` and are greater than `after`.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, StorageError> {
        check_bucket(bucket)?;
        let limit_max = self.cluster.options.list_items_max;
        if limit == 0 || limit > limit_max {
            return Err(invalid("limit", &limit.to_string(), "1 up to the largest page, 1000 by default"));
        }
        let rows_prefix = Bytes::from([rows_of(bucket).as_ref(), prefix.as_bytes()].concat());
        let mut cursor = after.map(|after| Bytes::from([rows_of(bucket).as_ref(), after.as_bytes()].concat()));
        let mut page = ListPage { objects: Vec::new(), next: None };
        loop {
            let missing = limit + 1 - page.objects.len();
            let rows = self.cluster.meta.list(rows_prefix.clone(), cursor, missing).await?;
            if rows.is_empty() {
                return Ok(page);
            }
            cursor = rows.last().map(|row| row.key.clone());
            for row in rows {
                if page.objects.len() == limit {
                    page.next = page.objects.last().map(|object| object.key.clone());
                    return Ok(page);
                }
                if let Some(name) = ObjectName::of_row(&row.key) {
                    page.objects.push(decoded::<ObjectRecord>(&row.key, &row.value)?.info(&name));
                }
            }
        }
    }
}
