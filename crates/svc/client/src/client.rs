//! The client itself: one request, its answer, its errors. What the operations mean is in the other modules.

use crate::{
    body::{Body, WireBody},
    connection::{Pool, Target},
    connector::Connector,
    error::{Error, Result},
    lines::Lines,
};
use bytes::Bytes;
use heptad_api::ProblemDetails;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Times and sizes of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest time to connect.
    pub connect_timeout_ms: u64,
    /// Longest time from a request to its whole answer; streams: to the head of the answer.
    pub request_timeout_ms: u64,
    /// Longest time without a line on a watch; the server says every few seconds how far it is.
    pub watch_idle_ms_max: u64,
    /// Largest answer that is read into memory.
    pub answer_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            request_timeout_ms: 60_000,
            watch_idle_ms_max: 30_000,
            answer_bytes_max: 256 << 20,
        }
    }
}

/// A client of one server. Clones share the connections.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
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
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), body: Body::Empty, timeout: None }
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

    /// Just this revision of the object may be changed.
    pub(crate) fn if_match(self, revision: Option<u64>) -> Self {
        match revision {
            Some(revision) => self.header(header::IF_MATCH, &format!("\"{revision}\"")),
            None => self,
        }
    }

    fn operation(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn request(&self, target: &Target, body: Body) -> std::result::Result<Request<WireBody>, http::Error> {
        let mut builder = Request::builder().method(&self.method).uri(&self.path).header(header::HOST, target.host());
        if let Some(token) = target.token() {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let mut request = builder.body(body.into_wire())?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }
}

/// An answer whose body is still on the wire, with the connection that carries it.
pub(crate) struct Answer {
    pub(crate) operation: String,
    pub(crate) response: Response<Incoming>,
    sender: SendRequest<WireBody>,
}

impl Client {
    /// A client of the server that listens on this Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::of(Target::Unix(path.into()))
    }

    /// A client of the server at this loopback address, with the token of its token file.
    pub fn tcp(address: SocketAddr, token: impl Into<String>) -> Self {
        Self::of(Target::Tcp { address, token: token.into() })
    }

    /// A client of the servers to which `connector` leads. It stays with one as long as that one can be reached.
    pub fn with_connector(connector: Arc<dyn Connector>, options: Options) -> Self {
        Self::of(Target::Injected { connector, reached: Arc::default() }).with_options(options)
    }

    fn of(target: Target) -> Self {
        Self { pool: Arc::new(Pool::new(target)), options: Arc::default() }
    }

    /// The same client with other times and sizes.
    pub fn with_options(self, options: Options) -> Self {
        Self { options: Arc::new(options), ..self }
    }

    /// Where the server is, for messages.
    pub fn address(&self) -> String {
        self.pool.target.to_string()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn broken(&self, operation: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Broken { operation: operation.to_owned(), address: self.address(), source: source.into() }
    }

    pub(crate) fn protocol(&self, operation: &str, reason: impl Into<String>) -> Error {
        Error::Protocol { operation: operation.to_owned(), address: self.address(), reason: reason.into() }
    }

    pub(crate) fn timeout(&self, operation: &str, after: Duration) -> Error {
        let timeout_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Error::Timeout { operation: operation.to_owned(), address: self.address(), timeout_ms }
    }

    /// Sends a request and reads the whole JSON answer.
    pub(crate) async fn json<R: DeserializeOwned>(&self, call: Call) -> Result<R> {
        let operation = call.operation();
        let (_, body) = self.whole(call).await?;
        // An operation without an answer's type gives an empty body, which reads as `null`.
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        serde_json::from_slice(text).map_err(|error| self.protocol(&operation, error.to_string()))
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn whole(&self, call: Call) -> Result<(HeaderMap, Bytes)> {
        let timeout = call.timeout.unwrap_or(Duration::from_millis(self.options.request_timeout_ms));
        let operation = call.operation();
        let work = async {
            let answer = self.accepted(self.send(call).await?).await?;
            let headers = answer.response.headers().clone();
            Ok((headers, self.collect(answer).await?))
        };
        tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(self.timeout(&operation, timeout)))
    }

    /// Sends a request and returns its answer, the body still to be read.
    pub(crate) async fn stream(&self, call: Call) -> Result<Answer> {
        let timeout = Duration::from_millis(self.options.request_timeout_ms);
        let operation = call.operation();
        let work = async { self.accepted(self.send(call).await?).await };
        tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(self.timeout(&operation, timeout)))
    }

    /// Sends a request whose answer is lines of JSON.
    pub(crate) async fn lines<T: DeserializeOwned>(&self, call: Call, idle: Option<Duration>) -> Result<Lines<T>> {
        let answer = self.stream(call).await?;
        Ok(Lines::new(self.clone(), answer.operation, answer.response.into_body(), idle))
    }

    /// Turns an answer that is a problem into an error.
    async fn accepted(&self, answer: Answer) -> Result<Answer> {
        let status = answer.response.status();
        if status.is_success() {
            return Ok(answer);
        }
        let operation = answer.operation.clone();
        let bytes = self.collect(answer).await?;
        Err(match serde_json::from_slice::<ProblemDetails>(&bytes) {
            Ok(problem) => problem.into(),
            Err(_) if bytes.is_empty() && status == StatusCode::NOT_FOUND => {
                ProblemDetails::new(heptad_api::ErrorCode::NotFound, operation).into()
            }
            Err(_) => {
                let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                self.protocol(&operation, format!("status {status}, {text}"))
            }
        })
    }

    /// The whole body; the connection goes back to the pool.
    async fn collect(&self, answer: Answer) -> Result<Bytes> {
        let Answer { operation, response, sender } = answer;
        let limited = Limited::new(response.into_body(), self.options.answer_bytes_max);
        let collected = limited.collect().await.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => self.protocol(&operation, format!("more than {} bytes", self.options.answer_bytes_max)),
            Err(error) => self.broken(&operation, error),
        })?;
        self.pool.keep(sender);
        Ok(collected.to_bytes())
    }

    /// Sends over an idle connection, or over a new one if there is none or it turns out to be closed.
    async fn send(&self, mut call: Call) -> Result<Answer> {
        if let Some(body) = call.body.again()
            && let Some(mut sender) = self.pool.idle()
        {
            let sent = sender.try_send_request(self.request(&call, body)?).await;
            match sent {
                Ok(response) => return Ok(Answer { operation: call.operation(), response, sender }),
                Err(mut failed) => {
                    // What was not sent, or only reads, is safe to send again.
                    if failed.take_message().is_none() && !call.method.is_safe() {
                        return Err(self.broken(&call.operation(), failed.into_error()));
                    }
                }
            }
        }
        let body = std::mem::take(&mut call.body);
        let request = self.request(&call, body)?;
        let mut sender = self.pool.connect(Duration::from_millis(self.options.connect_timeout_ms)).await?;
        let response = sender.send_request(request).await.map_err(|source| self.broken(&call.operation(), source))?;
        Ok(Answer { operation: call.operation(), response, sender })
    }

    fn request(&self, call: &Call, body: Body) -> Result<Request<WireBody>> {
        call.request(&self.pool.target, body)
            .map_err(|error| self.protocol(&call.operation(), format!("the request cannot be written: {error}")))
    }
}

/// `text` as one segment of a path or a value of a query; `/` stays if `slashes`.
pub(crate) fn encoded(text: &str, slashes: bool) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if plain || (slashes && byte == b'/') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
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
