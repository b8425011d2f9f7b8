//! Servers in memory, each with a mood that a test sets, and a connector to all of them.

use bytes::Bytes;
use heptad_api::{ErrorCode, ProblemDetails};
use heptad_client::{BoxFuture, Client, Connector, Io, Options};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Refuses connections.
    Down,
    /// Takes connections and says nothing, not even for the handshake.
    Mute,
    /// Accepts, reads and never answers.
    Hangs,
    /// Closes each connection as soon as it has read a request.
    Dies,
    /// Closes one connection like that, and is well from then on.
    IsReplaced,
    /// Answers each request with this problem.
    Refuses(ErrorCode),
    /// Begins a watch and then falls silent.
    FallsSilent,
}

/// All servers of a cluster.
#[derive(Default)]
pub(crate) struct Servers {
    moods: Mutex<BTreeMap<String, Mood>>,
    /// `SERVER METHOD PATH` of all requests that arrived.
    heard: Mutex<Vec<String>>,
}

/// A cluster of three servers with these moods, and its client.
pub(crate) fn cluster(moods: [Mood; 3]) -> (Arc<Servers>, Client) {
    let servers = Arc::new(Servers::default());
    for (name, mood) in ["a", "b", "c"].into_iter().zip(moods) {
        servers.set(name, mood);
    }
    let options =
        Options { connect_timeout_ms: 400, silence_ms_max: 200, watch_idle_ms_max: 300, ..Options::default() };
    let client = Client::with_connector(Arc::new(Way(servers.clone())), options);
    (servers, client)
}

struct Way(Arc<Servers>);

impl Connector for Way {
    fn endpoints(&self) -> Vec<String> {
        self.0.moods.lock().expect("no panic").keys().cloned().collect()
    }

    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        let endpoint = endpoint.to_owned();
        Box::pin(async move {
            match self.0.mood(&endpoint) {
                Mood::Down => return Err(io::ErrorKind::ConnectionRefused.into()),
                Mood::Mute => return std::future::pending().await,
                _ => {}
            }
            let (near, far) = tokio::io::duplex(64 << 10);
            let servers = self.0.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| servers.answer(&endpoint, request));
                // A server that dies ends the connection with an error.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(far), service).await;
            });
            Ok(Box::new(near) as Box<dyn Io>)
        })
    }
}

type Body = BoxBody<Bytes, Infallible>;

impl Servers {
    pub(crate) fn set(&self, name: &str, mood: Mood) {
        self.moods.lock().expect("no panic").insert(name.to_owned(), mood);
    }

    fn mood(&self, name: &str) -> Mood {
        self.moods.lock().expect("no panic").get(name).copied().unwrap_or(Mood::Down)
    }

    /// The requests that arrived since the last call.
    pub(crate) fn heard(&self) -> Vec<String> {
        std::mem::take(&mut *self.heard.lock().expect("no panic"))
    }

    async fn answer(&self, name: &str, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        self.heard.lock().expect("no panic").push(format!("{name} {} {path}", request.method()));
        let is_get = request.method() == Method::GET;
        let body = request.into_body().collect().await;
        let body = body.map(|all| all.to_bytes()).unwrap_or_default();
        match self.mood(name) {
            Mood::Hangs => std::future::pending().await,
            Mood::Dies | Mood::Down => Err(io::Error::other("dies")),
            Mood::IsReplaced => {
                self.set(name, Mood::Well);
                Err(io::Error::other("the next one answers"))
            }
            Mood::Refuses(code) => Ok(problem(code)),
            _ if path.contains("watch=true") => Ok(self.watch(name)),
            _ if path.starts_with("/v1/storage/") => Ok(json(format!("{{\"bytes\":{}}}", body.len()))),
            _ if is_get => Ok(json(if path.starts_with("/v1/version") {
                format!(r#"{{"version":"{name}","api":"v1","revision":1}}"#)
            } else {
                r#"{"revision":7,"items":[]}"#.to_owned()
            })),
            _ => Ok(json(String::new())),
        }
    }

    /// A watch that reports its progress every 50 ms as long as the server is well.
    fn watch(&self, name: &str) -> Response<Body> {
        let silent = self.mood(name) == Mood::FallsSilent;
        let revision = if name == "a" { 7 } else { 9 };
        let line = Bytes::from(format!("{{\"revision\":{revision},\"events\":[]}}\n"));
        let lines = futures_util::stream::unfold((line, false), move |(line, told)| async move {
            if told {
                tokio::time::sleep(Duration::from_millis(if silent { 1_000_000 } else { 50 })).await;
            }
            Some((Ok(Frame::data(line.clone())), (line, true)))
        });
        Response::new(BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(Box::pin(lines))))))
    }
}

type Lines = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// A stream that may be shared, as boxed bodies must be; only one task ever reads it.
struct SyncStream(Mutex<Lines>);

impl futures_util::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().expect("no panic").as_mut().poll_next(context)
    }
}

fn json(text: String) -> Response<Body> {
    Response::new(Full::new(Bytes::from(text)).boxed())
}

fn problem(code: ErrorCode) -> Response<Body> {
    let text = serde_json::to_vec(&ProblemDetails::new(code, "refused by the test")).expect("it is JSON");
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = StatusCode::from_u16(code.status()).expect("a status");
    response
}
