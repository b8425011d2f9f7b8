//! Storage nodes of other machines: the blob protocol over one HTTP/2 connection per machine, which is made when needed.
//! Knows no TLS and no address: whoever makes the connector does.

use crate::{
    BlobNode, BoxFuture, NodeResult, ScrubbedBlob,
    wire::{BODY_BYTES_MAX, Failure, Found, Ids, Recovered, Room, ScrubRequest, Scrubbed},
};
use bytes::Bytes;
use heptad_blob::{Blob, BlobError, BlobId, Usage};
use heptad_shard::StorageNodeName;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};

/// Longest time to connect.
const CONNECT_MS_MAX: u64 = 2_000;
/// After a connection that could not be made, none is tried for this time.
const RETRY_GAP_MS: u64 = 500;
/// How often a connection is asked whether it lives, and how long it may take to answer.
const ALIVE_INTERVAL_MS: u64 = 2_000;
const ALIVE_TIMEOUT_MS: u64 = 2_000;
/// What may be on its way unread: several of the largest chunks at once.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// A stream of bytes to another machine.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Makes connections to the storage of one machine.
pub trait BlobConnector: Send + Sync + fmt::Debug {
    /// A new connection.
    fn connect(&self) -> BoxFuture<'_, io::Result<Box<dyn Io>>>;
}

#[derive(Debug, Default)]
struct Connection {
    sender: Option<SendRequest<Full<Bytes>>>,
    failed_at: Option<Instant>,
}

/// A machine with storage nodes.
#[derive(Debug)]
pub struct RemoteHost {
    connector: Arc<dyn BlobConnector>,
    connection: Mutex<Connection>,
}

impl RemoteHost {
    /// The machine that `connector` reaches. Connects when it is first asked.
    pub fn new(connector: Arc<dyn BlobConnector>) -> Arc<Self> {
        Arc::new(Self { connector, connection: Mutex::default() })
    }

    async fn sender(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let gap = Duration::from_millis(RETRY_GAP_MS);
        if connection.failed_at.is_some_and(|at| at.elapsed() < gap) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the last try to connect failed a moment ago"));
        }
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        let connected = tokio::time::timeout(limit, self.connect()).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(sender) => {
                *connection = Connection { sender: Some(sender.clone()), failed_at: None };
                Ok(sender)
            }
            Err(error) => {
                *connection = Connection { sender: None, failed_at: Some(Instant::now()) };
                Err(error)
            }
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = self.connector.connect().await?;
        let (sender, driver) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_millis(ALIVE_INTERVAL_MS))
            .keep_alive_timeout(Duration::from_millis(ALIVE_TIMEOUT_MS))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // The task ends with the connection, which ends when all its senders are dropped.
        tokio::spawn(driver);
        Ok(sender)
    }

    async fn send(&self, method: Method, path: String, body: Bytes) -> io::Result<(StatusCode, Bytes)> {
        let mut sender = self.sender().await?;
        sender.ready().await.map_err(io::Error::other)?;
        let request = Request::builder().method(method).uri(path).body(Full::new(body)).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(io::Error::other)?;
        Ok((head.status, body.to_bytes()))
    }
}

/// A storage node of another machine.
#[derive(Debug)]
pub struct RemoteNode {
    name: StorageNodeName,
    machine: String,
    disk: String,
    capacity_bytes: u64,
    host: Arc<RemoteHost>,
}

impl RemoteNode {
    /// The disk `disk` of the machine `machine`, which `host` reaches; it may hold `capacity_bytes`.
    pub fn new(machine: &str, disk: &str, capacity_bytes: u64, host: Arc<RemoteHost>) -> Self {
        let name = StorageNodeName(format!("{machine}/{disk}"));
        Self { name, machine: machine.to_owned(), disk: disk.to_owned(), capacity_bytes, host }
    }

    async fn ask(&self, method: Method, what: &str, body: Bytes) -> NodeResult<Bytes> {
        let path = format!("/{}/{what}", self.disk);
        match self.host.send(method, path, body).await {
            Ok((status, body)) if status.is_success() => Ok(body),
            Ok((status, body)) => {
                let told = serde_json::from_slice(&body);
                let failure = told.unwrap_or_else(|_| Failure::Unavailable { reason: format!("it answered {status}") });
                Err(failure.of_node(self.name.as_str()))
            }
            Err(error) => Err(self.unavailable(&error)),
        }
    }

    async fn ask_json<T: DeserializeOwned>(&self, what: &str, body: &impl Serialize) -> NodeResult<T> {
        let body = serde_json::to_vec(body).map_err(|error| self.unavailable(&error))?;
        let answer = self.ask(Method::POST, what, body.into()).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unavailable(&error))
    }

    fn unavailable(&self, reason: &dyn std::error::Error) -> BlobError {
        BlobError::Unavailable { dir: self.name.as_str().into(), reason: heptad_model::with_causes(reason) }
    }

    fn scrubbed(&self, blob: Scrubbed) -> NodeResult<ScrubbedBlob> {
        let broken = || BlobError::Unavailable {
            dir: self.name.as_str().into(),
            reason: "it answered with a head that is not hexadecimal".to_owned(),
        };
        let head = blob.head.map(|head| hex::decode(&head).map(Bytes::from).map_err(|_| broken())).transpose()?;
        Ok(ScrubbedBlob { id: blob.id, head, bytes: blob.bytes })
    }
}

impl BlobNode for RemoteNode {
    fn name(&self) -> &StorageNodeName {
        &self.name
    }

    fn machine(&self) -> &str {
        &self.machine
    }

    fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn put(&self, blob: Blob) -> BoxFuture<'_, NodeResult<()>> {
        Box::pin(async move {
            let what = format!("blobs/{}", blob.id());
            self.ask(Method::PUT, &what, blob.into_bytes()).await.map(drop)
        })
    }

    /// Verified here too: what came over the network is not trusted.
    fn get(&self, id: BlobId) -> BoxFuture<'_, NodeResult<Blob>> {
        Box::pin(async move {
            let bytes = self.ask(Method::GET, &format!("blobs/{id}"), Bytes::new()).await?;
            Blob::verify(id, bytes)
        })
    }

    fn contains(&self, ids: Vec<BlobId>) -> BoxFuture<'_, NodeResult<Vec<bool>>> {
        Box::pin(async move { Ok(self.ask_json::<Found>("contains", &Ids { ids }).await?.found) })
    }

    fn delete(&self, ids: Vec<BlobId>) -> BoxFuture<'_, NodeResult<()>> {
        Box::pin(async move {
            let body = serde_json::to_vec(&Ids { ids }).map_err(|error| self.unavailable(&error))?;
            self.ask(Method::POST, "delete", body.into()).await.map(drop)
        })
    }

    fn scrub(
        &self,
        after: Option<BlobId>,
        limit: usize,
        head_bytes: usize,
    ) -> BoxFuture<'_, NodeResult<Vec<ScrubbedBlob>>> {
        Box::pin(async move {
            let page: Vec<Scrubbed> = self.ask_json("scrub", &ScrubRequest { after, limit, head_bytes }).await?;
            page.into_iter().map(|blob| self.scrubbed(blob)).collect()
        })
    }

    fn usage(&self) -> BoxFuture<'_, NodeResult<Usage>> {
        Box::pin(async move { Ok(self.ask_json::<Room>("usage", &()).await?.into()) })
    }

    fn recover(&self) -> BoxFuture<'_, NodeResult<bool>> {
        Box::pin(async move { Ok(self.ask_json::<Recovered>("recover", &()).await?.recovered) })
    }
}
