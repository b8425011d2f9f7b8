//! The serving side of the blob protocol: the disks of this machine for coordinators elsewhere, over one HTTP/2 connection.
//! Knows no TLS and does not ask who calls: whoever accepted the connection has done so.

use crate::{
    BlobNode, NodeResult, ScrubbedBlob,
    wire::{BODY_BYTES_MAX, Failure, Found, Ids, Recovered, Room, ScrubRequest, Scrubbed},
};
use bytes::Bytes;
use heptad_blob::{Blob, BlobId};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};

/// Requests of one connection that are worked on at once; each may hold a blob.
const REQUESTS_MAX: u32 = 64;
const ALIVE_INTERVAL_MS: u64 = 10_000;
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Most verified copies of one answer.
const SCRUB_LIMIT_MAX: usize = 1_024;
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The disks of a machine by their names.
pub type Disks = BTreeMap<String, Arc<dyn BlobNode>>;

/// Serves `disks` on one connection until it ends.
pub async fn serve_blobs(
    disks: Arc<Disks>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    let service = service_fn(move |request| {
        let disks = disks.clone();
        async move { Ok::<_, Infallible>(answer(&disks, request).await) }
    });
    Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_millis(ALIVE_INTERVAL_MS)))
        .max_concurrent_streams(REQUESTS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(disks: &Disks, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Some((disk, what)) = head.uri.path().trim_start_matches('/').split_once('/') else {
        return failed(Failure::Unavailable { reason: "the path names no disk".to_owned() });
    };
    let Some(disk) = disks.get(disk) else {
        return failed(Failure::Unavailable { reason: format!("there is no disk `{disk}` here") });
    };
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return failed(Failure::TooLarge { bytes: BODY_BYTES_MAX as u64 + 1, bytes_max: BODY_BYTES_MAX as u64 });
    };
    match work(&**disk, &head.method, what, body.to_bytes()).await {
        Ok(body) => Response::new(Full::new(body)),
        Err(failure) => failed(failure),
    }
}

async fn work(disk: &dyn BlobNode, method: &Method, what: &str, body: Bytes) -> Result<Bytes, Failure> {
    match (method.as_str(), what) {
        ("POST", "contains") => {
            let found = disk.contains(parsed::<Ids>(&body)?.ids).await?;
            Ok(json(&Found { found }))
        }
        ("POST", "delete") => {
            disk.delete(parsed::<Ids>(&body)?.ids).await?;
            Ok(Bytes::new())
        }
        ("POST", "scrub") => {
            let ScrubRequest { after, limit, head_bytes } = parsed(&body)?;
            let page = disk.scrub(after, limit.min(SCRUB_LIMIT_MAX), head_bytes.min(HEAD_BYTES_MAX)).await?;
            Ok(json(&page.into_iter().map(told).collect::<Vec<_>>()))
        }
        ("POST", "usage") => Ok(json(&Room::from(disk.usage().await?))),
        ("POST", "recover") => Ok(json(&Recovered { recovered: disk.recover().await? })),
        (method, what) => match (method, what.strip_prefix("blobs/")) {
            ("PUT", Some(id)) => put(disk, named(id)?, body).await.map(|()| Bytes::new()).map_err(Failure::from),
            ("GET", Some(id)) => Ok(disk.get(named(id)?).await?.into_bytes()),
            _ => Err(Failure::Unavailable { reason: format!("{method} {what} is nothing that a disk does") }),
        },
    }
}

/// Stored only if the bytes have the name that the sender gave.
async fn put(disk: &dyn BlobNode, id: BlobId, body: Bytes) -> NodeResult<()> {
    let hashed = tokio::task::spawn_blocking(move || Blob::verify(id, body)).await;
    let broken = |error: tokio::task::JoinError| heptad_blob::BlobError::Unavailable {
        dir: disk.name().as_str().into(),
        reason: error.to_string(),
    };
    disk.put(hashed.map_err(broken)??).await
}

fn named(id: &str) -> Result<BlobId, Failure> {
    id.parse().map_err(|reason| Failure::Unavailable { reason })
}

fn told(blob: ScrubbedBlob) -> Scrubbed {
    Scrubbed { id: blob.id, head: blob.head.as_deref().map(hex::encode), bytes: blob.bytes }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Unavailable { reason: format!("the request: {error}") })
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("numbers, names and lists serialize").into()
}

fn failed(failure: Failure) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(json(&failure)));
    *response.status_mut() = failure.status();
    response
}
