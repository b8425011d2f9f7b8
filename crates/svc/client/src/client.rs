//! The client itself: one request, its answer, its errors. The other modules give operations their meaning.

use crate::{
    body::{Body, WireBody},
    connection::Pool,
    connector::{BoxFuture, Connector, Io, LoopbackConnector, UnixConnector},
    error::{Error, Result},
    lines::Lines,
};
use bytes::Bytes;
use heptad_api::ProblemDetails;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Times and sizes of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest time to connect.
    pub connect_timeout_ms: u64,
    /// The longest time from a request to its whole answer; for streams, to the head of the answer.
    pub request_timeout_ms: u64,
    /// The longest time to connect while another server could be asked: a server that hangs or is being restarted
    /// accepts connections and says nothing.
    pub connect_silence_ms_max: u64,
    /// The longest silence of a server after a read request, while another server could be asked.
    pub silence_ms_max: u64,
    /// The longest time without a line on a watch; the server reports its progress every few seconds.
    pub watch_idle_ms_max: u64,
    /// The largest answer that is read into memory.
    pub answer_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            request_timeout_ms: 60_000,
            connect_silence_ms_max: 1_000,
            silence_ms_max: 3_000,
            watch_idle_ms_max: 7_000,
            answer_bytes_max: 256 << 20,
        }
    }
}

/// A client of one server, or of several that serve the same state. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) pool: Arc<Pool>,
    options: Arc<Options>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address()).finish_non_exhaustive()
    }
}

/// One request before it is sent.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query, encoded.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) timeout: Option<Duration>,
    /// Whether the body was a stream, even after it was taken.
    pub(crate) streams: bool,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Body::Empty, timeout: None, streams: false }
    }

    pub(crate) fn json(mut self, value: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("the API's types have string keys and serialize");
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.body = Body::Bytes(bytes.into());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Allows the change only at this revision of the object.
    pub(crate) fn if_match(self, revision: Option<u64>) -> Self {
        match revision {
            Some(revision) => self.header(header::IF_MATCH, &format!("\"{revision}\"")),
            None => self,
        }
    }

    pub(crate) fn operation(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The request and the server, for errors.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: String,
    pub(crate) address: String,
}

impl Asked {
    pub(crate) fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Broken { operation: self.operation.clone(), address: self.address.clone(), source: source.into() }
    }

    pub(crate) fn protocol(&self, reason: impl Into<String>) -> Error {
        Error::Protocol { operation: self.operation.clone(), address: self.address.clone(), reason: reason.into() }
    }

    pub(crate) fn timeout(&self, after: Duration) -> Error {
        let timeout_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Error::Timeout { operation: self.operation.clone(), address: self.address.clone(), timeout_ms }
    }
}

/// An answer whose body is still on the wire, with the connection that carries it.
pub(crate) struct Answer {
    pub(crate) asked: Asked,
    pub(crate) response: Response<Incoming>,
    pub(crate) sender: SendRequest<WireBody>,
}

/// One of a connector's servers, and no other.
struct Only {
    connector: Arc<dyn Connector>,
    endpoint: String,
}

impl Connector for Only {
    fn endpoints(&self) -> Vec<String> {
        vec![self.endpoint.clone()]
    }

    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        self.connector.connect(endpoint)
    }

    fn token(&self) -> Option<String> {
        self.connector.token()
    }

    fn host(&self, endpoint: &str) -> String {
        self.connector.host(endpoint)
    }

    fn remedy(&self, error: &io::Error) -> &'static str {
        self.connector.remedy(error)
    }
}

impl Client {
    /// A client of the server that listens on this Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::with_connector(Arc::new(UnixConnector(path.into())), Options::default())
    }

    /// A client of the server at this loopback address, with the token of its token file.
    pub fn tcp(address: SocketAddr, token: impl Into<String>) -> Self {
        let token = token.into();
        Self::with_connector(Arc::new(LoopbackConnector { address, token }), Options::default())
    }

    /// A client of the servers that `connector` reaches. It stays with one of them, and moves to the next when that one
    /// is not reached, is silent or says that it cannot work.
    pub fn with_connector(connector: Arc<dyn Connector>, options: Options) -> Self {
        Self { pool: Arc::new(Pool::new(connector)), options: Arc::new(options) }
    }

    /// All servers that this client knows; the one asked first comes first.
    pub fn endpoints(&self) -> Vec<String> {
        self.pool.endpoints()
    }

    /// A client of one of the servers alone, with connections of its own.
    pub fn only(&self, endpoint: &str) -> Self {
        let connector = Only { connector: self.pool.connector().clone(), endpoint: endpoint.to_owned() };
        Self { pool: Arc::new(Pool::new(Arc::new(connector))), options: self.options.clone() }
    }

    /// The same client with other times and sizes.
    pub fn with_options(self, options: Options) -> Self {
        Self { options: Arc::new(options), ..self }
    }

    /// The address of the server that is asked first, for messages.
    pub fn address(&self) -> String {
        self.pool.current()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    fn asking(&self, call: &Call) -> Asked {
        Asked { operation: call.operation(), address: self.address() }
    }

    /// Sends a request and reads the whole JSON answer.
    pub(crate) async fn json<R: DeserializeOwned>(&self, call: Call) -> Result<R> {
        let asked = self.asking(&call);
        let (_, body) = self.whole(call).await?;
        // An operation whose answer has no type gets an empty body, which reads as `null`.
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(text).map_err(|error| asked.protocol(error.to_string()))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn whole(&self, call: Call) -> Result<(HeaderMap, Bytes)> {
        let timeout = call.timeout.unwrap_or(Duration::from_millis(self.options.request_timeout_ms));
        let asked = self.asking(&call);
        let work = async {
            let answer = self.accepted(self.send(call).await?).await?;
            let headers = answer.response.headers().clone();
            Ok((headers, self.collect(answer).await?))
        };
        self.within(asked, timeout, work).await
    }

    /// Sends a request and returns its answer, with the body still to be read.
    pub(crate) async fn stream(&self, call: Call) -> Result<Answer> {
        let timeout = Duration::from_millis(self.options.request_timeout_ms);
        let asked = self.asking(&call);
        let work = async { self.accepted(self.send(call).await?).await };
        self.within(asked, timeout, work).await
    }

    async fn within<T>(&self, asked: Asked, timeout: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
            self.pool.failed(&asked.address);
            Err(asked.timeout(timeout))
        })
    }

    /// Sends a request whose answer is lines of JSON.
    pub(crate) async fn lines<T: DeserializeOwned>(&self, call: Call, idle: Option<Duration>) -> Result<Lines<T>> {
        let answer = self.stream(call).await?;
        Ok(Lines::new(self.clone(), answer.asked, answer.response.into_body(), idle))
    }

    /// Turns an answer that is a problem into an error.
    pub(crate) async fn accepted(&self, answer: Answer) -> Result<Answer> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let asked = answer.asked.clone();
        let bytes = self.collect(answer).await?;
        Err(match serde_json::from_slice::<ProblemDetails>(&bytes) {
            Ok(problem) => problem.into(),
            Err(_) if bytes.is_empty() && status == StatusCode::NOT_FOUND => {
                ProblemDetails::new(heptad_api::ErrorCode::NotFound, asked.operation).into()
            }
            Err(_) => {
                let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                asked.protocol(format!("status {status}, {text}"))
            }
        })
    }

    /// The whole body; the connection goes back to the pool.
    async fn collect(&self, answer: Answer) -> Result<Bytes> {
        let Answer { asked, response, sender } = answer;
        let limited = Limited::new(response.into_body(), self.options.answer_bytes_max);
        let collected = limited.collect().await.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => asked.protocol(format!("more than {} bytes", self.options.answer_bytes_max)),
            Err(error) => asked.broken(error),
        })?;
        self.pool.keep(asked.address, sender);
        Ok(collected.to_bytes())
    }
}

/// The characters that are escaped.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const RESERVED_IN_PATHS: &AsciiSet = &RESERVED.remove(b'/');

/// `text` as one segment of a path or a value of a query; `/` stays if `slashes`.
pub(crate) fn encoded(text: &str, slashes: bool) -> String {
    utf8_percent_encode(text, if slashes { RESERVED_IN_PATHS } else { RESERVED }).to_string()
}

/// A path with the parameters that have a value.
pub(crate) fn with_query(path: String, parameters: &[(&str, Option<String>)]) -> String {
    let given: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value.as_deref()?, false))))
        .collect();
    if given.is_empty() { path } else { format!("{path}?{}", given.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(encoded("a b/ü", true), "a%20b/%C3%BC");
        assert_eq!(encoded("a/b", false), "a%2Fb");
        let path = with_query("/v1/x".into(), &[("a", Some("1&2".into())), ("b", None)]);
        assert_eq!(path, "/v1/x?a=1%262");
        assert_eq!(with_query("/v1/x".into(), &[("b", None)]), "/v1/x");
    }
}
