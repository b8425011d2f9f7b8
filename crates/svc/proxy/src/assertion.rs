//! What two proxies exchange besides traffic: who calls which container (an assertion), and why it was not served (a
//! refusal). Travels as header fields of a request or response, or as one frame at the head of an opaque flow.

use crate::body::Body;
use heptad_model::{ContainerId, Namespace, ServiceKey};
use heptad_route::{Caller, Outcome};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CALLER: HeaderName = HeaderName::from_static("heptad-caller");
const ENDPOINT: HeaderName = HeaderName::from_static("heptad-endpoint");
const REVISION: HeaderName = HeaderName::from_static("heptad-revision");
const REFUSED: HeaderName = HeaderName::from_static("heptad-refused");

/// The most bytes of a frame of an opaque flow.
const FRAME_BYTES_MAX: usize = 4_096;

/// Who calls which container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Assertion {
    /// The caller's SPIFFE id, or a word for callers that have none.
    caller: String,
    pub(crate) container: ContainerId,
    pub(crate) port: u16,
    /// The revision of the table by which the sender decided.
    #[serde(default)]
    pub(crate) revision: u64,
}

const EXTERNAL: &str = "external";
const OPERATOR: &str = "operator";

impl Assertion {
    pub(crate) fn new(caller: &Caller, trust_domain: &str, container: ContainerId, port: u16, revision: u64) -> Self {
        let caller = match caller {
            Caller::External => EXTERNAL.to_owned(),
            Caller::Operator => OPERATOR.to_owned(),
            Caller::Service(key) => format!("spiffe://{trust_domain}/ns/{}/svc/{}", key.namespace, key.name),
        };
        Self { caller, container, port, revision }
    }

    /// The caller, if it is one of that trust domain.
    pub(crate) fn caller(&self, trust_domain: &str) -> Option<Caller> {
        match self.caller.as_str() {
            EXTERNAL => Some(Caller::External),
            OPERATOR => Some(Caller::Operator),
            id => {
                let path = id.strip_prefix("spiffe://")?.strip_prefix(trust_domain)?.strip_prefix("/ns/")?;
                let (namespace, name) = path.split_once("/svc/")?;
                let is_name = |text: &str| !text.is_empty() && !text.contains('/');
                let key = ServiceKey { namespace: Namespace(namespace.to_owned()), name: name.to_owned() };
                (is_name(namespace) && is_name(name)).then_some(Caller::Service(key))
            }
        }
    }

    /// Adds the assertion to a request; fails if a name in it cannot be in a header.
    pub(crate) fn insert(&self, headers: &mut HeaderMap) -> io::Result<()> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(io::Error::other);
        headers.insert(CALLER, value(&self.caller)?);
        headers.insert(ENDPOINT, value(&format!("{}:{}", self.container, self.port))?);
        headers.insert(REVISION, HeaderValue::from(self.revision));
        Ok(())
    }

    /// Takes the assertion out of a request; `None` if it is incomplete.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Self> {
        let text = |value: Option<HeaderValue>| value?.to_str().ok().map(str::to_owned);
        let caller = text(headers.remove(CALLER));
        let endpoint = text(headers.remove(ENDPOINT));
        let revision = text(headers.remove(REVISION));
        headers.remove(REFUSED);
        let endpoint = endpoint?;
        let (container, port) = endpoint.rsplit_once(':')?;
        let revision = revision?.parse().ok()?;
        Some(Self { caller: caller?, container: container.into(), port: port.parse().ok()?, revision })
    }
}

/// A request that asks whether the other proxy is alive.
pub(crate) fn ping() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::OPTIONS;
    *request.uri_mut() = Uri::from_static("*");
    request
}

/// Whether a request is such a probe; requests of clients carry an assertion.
pub(crate) fn is_ping<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.uri().path() == "*" && !request.headers().contains_key(CALLER)
}

/// Removes the fields that only proxies may send each other.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in [CALLER, ENDPOINT, REVISION, REFUSED] {
        headers.remove(name);
    }
}

/// Why the other proxy did not serve the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reason {
    /// The assertion could not be read.
    Malformed,
    /// The sender may not speak for that caller.
    Impostor,
    /// The container is not there, or not ready.
    Gone,
    /// Policies deny it.
    Denied,
    /// The container accepts no connection.
    Unreachable,
    /// The container broke off before its response.
    Interrupted,
    /// The container sent no response in time.
    TimedOut,
    /// The proxy stops.
    Stopping,
}

/// What the other proxy says when it did not serve the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) text: String,
    /// For a denial: whether the caller's policies deny it, rather than the target's.
    #[serde(default)]
    pub(crate) egress: bool,
    /// For a denial: the policies.
    #[serde(default)]
    pub(crate) policies: Vec<String>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), egress: false, policies: Vec::new() }
    }

    /// The outcome of the refused attempt.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.reason {
            // Nothing reached the container.
            Reason::Impostor | Reason::Gone | Reason::Unreachable | Reason::Stopping => Outcome::Unreached,
            Reason::TimedOut => Outcome::Late,
            Reason::Malformed | Reason::Denied | Reason::Interrupted => Outcome::Judged,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.reason {
            Reason::Malformed => StatusCode::BAD_REQUEST,
            Reason::Denied => StatusCode::FORBIDDEN,
            Reason::Interrupted => StatusCode::BAD_GATEWAY,
            Reason::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Reason::Impostor | Reason::Gone | Reason::Unreachable | Reason::Stopping => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    pub(crate) fn insert(&self, headers: &mut HeaderMap) {
        let json = serde_json::to_string(self).expect("a struct of texts serializes");
        let value = HeaderValue::try_from(json).unwrap_or_else(|_| {
            let bare = Self::new(self.reason, "");
            let json = serde_json::to_string(&bare).expect("a struct of texts serializes");
            HeaderValue::try_from(json).expect("words in JSON are visible ASCII")
        });
        headers.insert(REFUSED, value);
    }

    /// Takes the refusal out of a response; `None` if the response is the container's.
    pub(crate) fn take(headers: &mut HeaderMap) -> Option<Self> {
        let value = headers.remove(REFUSED)?;
        let parsed = serde_json::from_slice(value.as_bytes());
        Some(parsed.unwrap_or_else(|_| Self::new(Reason::Interrupted, "the other proxy refused for an unknown reason")))
    }
}

/// Why an attempt failed: the connection broke, or the other proxy refused.
#[derive(Debug)]
pub(crate) enum Cause {
    Io(io::Error),
    Refused(Refusal),
}

impl Cause {
    /// The outcome of an attempt that failed before anything was sent to the container.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Io(_) => Outcome::Unreached,
            Self::Refused(refusal) => refusal.outcome(),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Io(error) => error,
            Cause::Refused(refusal) => Self::new(io::ErrorKind::ConnectionRefused, refusal.text),
        }
    }
}

/// The answer to the assertion at the head of an opaque flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// `None` if the flow is connected.
    #[serde(default)]
    pub(crate) refused: Option<Refusal>,
}

/// Writes a frame: its length in two bytes, then JSON.
pub(crate) async fn write_frame(io: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(value)?;
    let length = u16::try_from(json.len()).ok().filter(|length| usize::from(*length) <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a frame is too long"))?;
    io.write_all(&[&length.to_be_bytes()[..], &json].concat()).await?;
    io.flush().await
}

/// Reads a frame, and nothing behind it.
pub(crate) async fn read_frame<T: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let length = usize::from(io.read_u16().await?);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut json = vec![0; length];
    io.read_exact(&mut json).await?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_travels_in_headers_and_names_the_trust_domain() {
        for caller in [Caller::External, Caller::Operator, Caller::Service(ServiceKey::new("shop", "web"))] {
            let sent = Assertion::new(&caller, "a.example", "web-1".into(), 80, 7);
            let mut headers = HeaderMap::new();
            sent.insert(&mut headers).expect("names are labels");
            let got = Assertion::take(&mut headers).expect("it is whole");
            assert_eq!((got.caller("a.example"), &got, headers.len()), (Some(caller.clone()), &sent, 0));
            let elsewhere = got.caller("b.example");
            assert_eq!(elsewhere.is_none(), matches!(caller, Caller::Service(_)));
        }
        assert!(Assertion::take(&mut HeaderMap::new()).is_none());
        for id in ["spiffe://a/ns/x/svc/", "spiffe://a/ns//svc/y", "spiffe://a/ns/x/svc/y/z", "spiffe://a/node/n1", "x"]
        {
            let text = format!(r#"{{"caller":"{id}","container":"c","port":1}}"#);
            let asserted: Assertion = serde_json::from_str(&text).expect("JSON");
            assert_eq!(asserted.caller("a"), None, "{id}");
        }
    }

    #[test]
    fn a_refusal_travels_whatever_is_in_its_text() {
        for text in ["a\nb", "ü", "\u{7f}"] {
            let mut headers = HeaderMap::new();
            Refusal::new(Reason::Gone, text).insert(&mut headers);
            let got = Refusal::take(&mut headers).expect("it is there");
            assert_eq!(got.reason, Reason::Gone);
            assert!(got.text == text || got.text.is_empty());
        }
        let mut headers = HeaderMap::from_iter([(REFUSED, HeaderValue::from_static("x"))]);
        assert_eq!(Refusal::take(&mut headers).map(|refusal| refusal.reason), Some(Reason::Interrupted));
    }
}
