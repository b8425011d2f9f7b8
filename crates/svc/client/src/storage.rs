//! Objects of the distributed storage: put, get, head, list, delete, status; contents are streams, never held whole.

use crate::{
    body::Body,
    client::{Asked, Call, Client, encoded, with_query},
    error::Result,
};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::fmt;

/// What to list of a bucket.
#[derive(Clone, Debug, Default)]
pub struct ObjectListing {
    /// Only keys with this prefix.
    pub prefix: Option<String>,
    /// Only keys after this one.
    pub after: Option<String>,
    /// How many items per page.
    pub limit: Option<usize>,
}

/// An object that is being read.
pub struct StoredObject {
    /// Its metadata.
    pub headers: HeaderMap,
    asked: Asked,
    body: Incoming,
}

impl fmt::Debug for StoredObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredObject").field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl StoredObject {
    /// Its size in bytes, if the server said it.
    pub fn bytes_total(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The next piece of its content; `None` at its end. Ends with an error if the content broke off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.asked.broken(error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole content, at most `bytes_max` bytes.
    pub async fn bytes(mut self, bytes_max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > bytes_max {
                return Err(self.asked.protocol(format!("more than {bytes_max} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

fn object_path(bucket: &str, key: &str) -> String {
    format!("/v1/storage/{}/{}", encoded(bucket, false), encoded(key, true))
}

impl Client {
    /// Stores an object; returns when a majority of copies is durable. `bytes_total` announces the size of a stream if
    /// it is known.
    pub async fn storage_put<R: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Body>,
        bytes_total: Option<u64>,
    ) -> Result<R> {
        let mut call = Call::new(Method::PUT, object_path(bucket, key));
        call.body = body.into();
        if let (Body::Stream(_), Some(total)) = (&call.body, bytes_total) {
            call = call.header(header::CONTENT_LENGTH, &total.to_string());
        }
        // The time for a large object depends on the disks; the server bounds each step itself.
        call.timeout = Some(std::time::Duration::from_secs(24 * 3600));
        self.json(call).await
    }

    /// Reads an object.
    pub async fn storage_get(&self, bucket: &str, key: &str) -> Result<StoredObject> {
        let answer = self.stream(Call::new(Method::GET, object_path(bucket, key))).await?;
        let (parts, body) = answer.response.into_parts();
        Ok(StoredObject { headers: parts.headers, asked: answer.asked, body })
    }

    /// A backup of the whole state. Its end says whether it is complete.
    pub async fn backup(&self) -> Result<StoredObject> {
        let answer = self.stream(Call::new(Method::GET, "/v1/backup")).await?;
        let (parts, body) = answer.response.into_parts();
        Ok(StoredObject { headers: parts.headers, asked: answer.asked, body })
    }

    /// An object's metadata.
    pub async fn storage_head(&self, bucket: &str, key: &str) -> Result<HeaderMap> {
        self.whole(Call::new(Method::HEAD, object_path(bucket, key))).await.map(|(headers, _)| headers)
    }

    /// One page of a bucket's objects.
    pub async fn storage_list<R: DeserializeOwned>(&self, bucket: &str, listing: &ObjectListing) -> Result<R> {
        let query = [
            ("prefix", listing.prefix.clone()),
            ("after", listing.after.clone()),
            ("limit", listing.limit.map(|n| n.to_string())),
        ];
        self.json(Call::new(Method::GET, with_query(format!("/v1/storage/{}", encoded(bucket, false)), &query))).await
    }

    /// Deletes an object.
    pub async fn storage_delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.whole(Call::new(Method::DELETE, object_path(bucket, key))).await.map(|_| ())
    }

    /// Storage nodes, their room, and the health of shards.
    pub async fn storage_status<R: DeserializeOwned>(&self) -> Result<R> {
        self.json(Call::new(Method::GET, "/v1/storage")).await
    }
}
