//! Bodies of responses, streamed frame by frame, never gathered. A body holds its connection until its last frame has
//! been read; then the connection serves again. Does not know where a response goes.

use crate::{
    body::BoxError,
    peer_link::PeerLease,
    pool::{Active, Lease},
    watch::Busy,
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// What an exchange holds until its response has been read.
#[derive(Debug)]
pub(crate) enum Held {
    /// A connection to an endpoint, which serves again.
    Kept(Lease),
    /// A slot on a connection to another node's proxy.
    Peer { _active: Active, _lease: PeerLease },
}

impl Held {
    /// The response has been read to its end.
    fn release(self) {
        if let Self::Kept(lease) = self {
            lease.give_back();
        }
    }

    /// The connection now belongs to another protocol; it still counts.
    pub(crate) fn into_flow(self) -> Active {
        let active = match self {
            Self::Kept(lease) => lease.into_active(),
            Self::Peer { _active: active, .. } => active,
        };
        active.becomes_flow();
        active
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
