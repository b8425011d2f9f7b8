//! Bodies of requests and responses, streamed frame by frame, never gathered.
//! A response's body gives its connection back to the pool when its last frame has been read.

use crate::{forward::Held, watch::Busy};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

/// Any error of a body.
pub type BoxError = Box<dyn Error + Send + Sync>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The body of a request that goes through the proxy.
pub struct Body {
    kind: Kind,
    /// Set when it has been read to its end, for those who asked.
    is_read: Option<Arc<AtomicBool>>,
}

enum Kind {
    Own(Full<Bytes>),
    Incoming(Incoming),
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
}

impl Body {
    fn of(kind: Kind) -> Self {
        Self { kind, is_read: None }
    }

    /// A body of no bytes.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// Any body.
    pub fn boxed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self::of(Kind::Boxed(body.map_err(Into::into).boxed_unsync()))
    }

    pub(crate) fn incoming(body: Incoming) -> Self {
        Self::of(Kind::Incoming(body))
    }

    /// Whether it has been read to its end, from now on; none if there is nothing to read.
    pub(crate) fn tracked(&mut self) -> Option<Arc<AtomicBool>> {
        (!self.is_end_stream()).then(|| Arc::clone(self.is_read.get_or_insert_default()))
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self::of(Kind::Own(Full::new(bytes.into())))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("size", &self.size_hint()).finish()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let polled = match &mut self.kind {
            Kind::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        };
        if let Some(is_read) = &self.is_read {
            let is_last = match &polled {
                Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || self.is_end_stream(),
                Poll::Ready(None) => true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => false,
            };
            is_read.fetch_or(is_last, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(body) => body.is_end_stream(),
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(body) => body.size_hint(),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

/// The body of a response that came through the proxy, or that the proxy made itself.
pub struct ResponseBody {
    source: Source,
    /// Keeps the client's connection marked as busy.
    busy: Option<Busy>,
}

enum Source {
    Own(Full<Bytes>),
    Upstream(Incoming, Option<Held>),
}

impl ResponseBody {
    pub(crate) fn own(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Own(Full::new(bytes.into())), busy: None }
    }

    pub(crate) fn upstream(body: Incoming, held: Held) -> Self {
        let mut made = Self { source: Source::Upstream(body, Some(held)), busy: None };
        made.release_at_end(false);
        made
    }

    pub(crate) fn while_busy(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }

    fn release_at_end(&mut self, ended: bool) {
        if let Source::Upstream(body, held) = &mut self.source
            && (ended || body.is_end_stream())
            && let Some(held) = held.take()
        {
            held.release();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.release_at_end(false);
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("size", &self.size_hint()).finish()
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let polled = match &mut self.source {
            Source::Own(body) => return Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Source::Upstream(body, _) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
        };
        if polled.is_ready() {
            self.release_at_end(matches!(polled, Poll::Ready(None)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(body) => body.is_end_stream(),
            Source::Upstream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(body) => body.size_hint(),
            Source::Upstream(body, _) => body.size_hint(),
        }
    }
}
