//! gRPC over one HTTP/2 connection: single calls and streams of answers, and whether a call that failed was sent.
//! Knows no etcd message and never repeats anything.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http2::SendRequest,
};
use percent_encoding::percent_decode;
use prost::Message;
use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Longest message that is taken.
const MESSAGE_BYTES_MAX: usize = 512 << 20;
/// Bytes of gRPC's own head of a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

pub(super) type Cause = Arc<dyn StdError + Send + Sync>;
pub(super) type Sender = SendRequest<RequestBody>;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// It did not leave this machine, so nothing happened.
    #[error("it could not be sent")]
    NotSent(#[source] Cause),
    /// It was sent, and no answer came: it may have happened.
    #[error("no answer came")]
    Broken(#[source] Cause),
    /// It was sent, and no answer came in time.
    #[error("no answer came within {0} ms")]
    TimedOut(u64),
    /// The answer is a refusal.
    #[error("{message} (code {code})")]
    Status {
        /// gRPC's number.
        code: u32,
        /// What the server says.
        message: String,
    },
}

/// What is not as gRPC asks.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not gRPC: {0}")]
struct Malformed(String);

fn malformed(what: impl Into<String>) -> CallError {
    CallError::Broken(Arc::new(Malformed(what.into())))
}

/// One message, and then the end, or silence for streams that stay open.
#[derive(Debug)]
pub(super) struct RequestBody {
    message: Option<Bytes>,
    stays_open: bool,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.message.take() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            None if self.stays_open => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && !self.stays_open
    }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("requests are bounded far below 4 GiB"));
    message.encode(&mut out).expect("the buffer grows");
    out.freeze()
}

/// Sends one request. The answer's messages are read from what is returned.
pub(super) async fn send(
    mut sender: Sender,
    at: &Uri,
    path: &'static str,
    token: Option<HeaderValue>,
    message: &impl Message,
    stays_open: bool,
) -> Result<Answer, CallError> {
    let mut uri = at.clone().into_parts();
    uri.path_and_query = Some(http::uri::PathAndQuery::from_static(path));
    let uri = Uri::from_parts(uri).map_err(|error| CallError::NotSent(Arc::new(error)))?;
    let mut request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header("hasleader", "true");
    if let Some(token) = token {
        request = request.header("token", token);
    }
    let body = RequestBody { message: Some(framed(message)), stays_open };
    let request = request.body(body).map_err(|error| CallError::NotSent(Arc::new(error)))?;
    sender.ready().await.map_err(|error| CallError::NotSent(Arc::new(error)))?;
    let response = sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
        Some(_) => CallError::NotSent(Arc::new(error.into_error())),
        None => CallError::Broken(Arc::new(error.into_error())),
    })?;
    let (head, body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        status(&head.headers)?;
    }
    if head.status != http::StatusCode::OK {
        return Err(malformed(format!("HTTP status {}", head.status)));
    }
    Ok(Answer { body, buffer: BytesMut::new() })
}

/// The messages of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    body: Incoming,
    buffer: BytesMut,
}

impl Answer {
    /// The next message; none at the end. Dropping the future loses nothing.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, CallError> {
        loop {
            if let Some(message) = self.buffered()? {
                return M::decode(message).map(Some).map_err(|error| CallError::Broken(Arc::new(error)));
            }
            match self.body.frame().await {
                None => return Err(malformed("it ends without a status")),
                Some(Err(error)) => return Err(CallError::Broken(Arc::new(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return status(&trailers).map(|()| None);
                    }
                },
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(mut head) = self.buffer.get(..HEAD_BYTES) else { return Ok(None) };
        if head.get_u8() != 0 {
            return Err(malformed("a compressed message, which was not asked for"));
        }
        let length = head.get_u32() as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(malformed(format!("a message of {length} bytes; at most {MESSAGE_BYTES_MAX} are taken")));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The only message of a single call.
    pub(super) async fn only<M: Message + Default>(mut self) -> Result<M, CallError> {
        let message = self.next().await?.ok_or_else(|| malformed("it has no message"))?;
        match self.next::<M>().await? {
            None => Ok(message),
            Some(_) => Err(malformed("it has two messages")),
        }
    }
}

fn status(headers: &HeaderMap) -> Result<(), CallError> {
    let code = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let message = headers.get("grpc-message").map(HeaderValue::as_bytes).map(percent_decoded).unwrap_or_default();
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(CallError::Status { code, message }),
        None => Err(malformed("its trailers have no status")),
    }
}

fn percent_decoded(text: &[u8]) -> String {
    percent_decode(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_from_trailers() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value))).collect()
        };
        assert!(status(&headers(&[("grpc-status", "0")])).is_ok());
        assert!(matches!(status(&headers(&[])), Err(CallError::Broken(_))));
        let refused = status(&headers(&[("grpc-status", "11"), ("grpc-message", "gone%3A 5%")]));
        assert!(matches!(refused, Err(CallError::Status { code: 11, message }) if message == "gone: 5%"));
    }

    #[test]
    fn a_message_has_its_length_before_it() {
        let message = super::super::messages::CompactionRequest { revision: 5 };
        assert_eq!(framed(&message)[..], [0, 0, 0, 0, 2, 8, 5]);
    }
}
