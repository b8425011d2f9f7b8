//! Newline-delimited JSON: watches and logs. A line is made when the client has taken the previous one, so a slow
//! client costs one line of memory, and then catches up from the store or learns that the history is compacted.

use super::{App, Shared};
use crate::{
    budget::{Caller, Permit},
    error::{Error, Result},
    fanout::{Channel, Follower},
    objects::{Kept, ObjectWatch},
};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use heptad_api::{ErrorCode, ProblemDetails, WatchBatch};
use heptad_state::Revision;
use http::header;
use serde::Serialize;
use std::{convert::Infallible, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

impl App {
    /// The permit for one more watch or log stream.
    pub(crate) fn stream_permit(&self, caller: &Caller) -> Result<Permit> {
        self.streams.take(caller).map_err(|full| Error::refused(ErrorCode::Busy, full.to_string()))
    }

    /// The permit for one more search for a better placement.
    pub(crate) fn search_permit(&self, caller: &Caller) -> Result<Permit> {
        self.searches.take(caller).map_err(|full| Error::refused(ErrorCode::Busy, full.to_string()))
    }
}

/// A source that can be sent as a stream of batches.
pub(crate) trait Watched: Send + 'static {
    /// What changes.
    type Object: Serialize + Send;
    /// The next changes. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<WatchBatch<Self::Object>>> + Send;
}

impl<T: Kept> Watched for ObjectWatch<T> {
    type Object = T;
    fn next(&mut self) -> impl Future<Output = Result<WatchBatch<T>>> + Send {
        self.next()
    }
}

/// A watch that is sent to one client.
pub(crate) struct Feed<W> {
    watch: W,
    bookmark: Duration,
    revision: Revision,
    ended: bool,
    stop: CancellationToken,
    /// Whether the store is silent: then the watch is silent too, and another server may know more.
    silent: watch::Receiver<bool>,
    _permit: Permit,
}

impl<W: Watched> Feed<W> {
    pub(crate) fn new(app: &Shared, watch: W, permit: Permit, from: Option<Revision>) -> Self {
        let bookmark = Duration::from_millis(app.options.bookmark_interval_ms);
        let revision = from.map_or(0, |from| from.saturating_sub(1));
        let (stop, silent) = (app.stop.clone(), app.leader.store_is_silent());
        Self { watch, bookmark, revision, ended: false, stop, silent, _permit: permit }
    }

    /// The next line; `None` at the end, after an error or when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let next = tokio::select! {
            () = self.stop.cancelled() => return None,
            _ = self.silent.wait_for(|silent| *silent) => Ok(Err(store_is_silent())),
            next = tokio::time::timeout(self.bookmark, self.watch.next()) => next,
        };
        let batch = match next {
            Err(_) => WatchBatch { revision: self.revision, events: Vec::new(), error: None },
            Ok(Ok(batch)) => batch,
            Ok(Err(error)) => {
                self.ended = true;
                WatchBatch::<W::Object> { revision: self.revision, events: Vec::new(), error: Some(error.problem()) }
            }
        };
        self.revision = self.revision.max(batch.revision);
        Some(line(&batch))
    }
}

/// Refused before anything was done: another server may do it.
pub(super) fn store_is_silent() -> Error {
    let detail = "this server does not reach the state of the cluster at present; another one may";
    Error::refused(ErrorCode::NotLeader, detail)
}

/// Lines made once for all clients, sent to one.
struct SharedFeed {
    follower: Follower,
    bookmark: Duration,
    ended: bool,
    stop: CancellationToken,
    /// Whether the store is silent, as for a [`Feed`].
    silent: watch::Receiver<bool>,
    _permit: Permit,
}

impl SharedFeed {
    /// Like [`Feed::next`].
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let next = tokio::select! {
            () = self.stop.cancelled() => return None,
            _ = self.silent.wait_for(|silent| *silent) => Err(store_is_silent()),
            next = self.follower.next(self.bookmark) => next,
        };
        Some(next.map(|(_, lines)| lines).unwrap_or_else(|error| {
            self.ended = true;
            let revision = self.follower.revision();
            line(&WatchBatch::<()> { revision, events: Vec::new(), error: Some(error.problem()) })
        }))
    }
}

/// A channel as a response, from a revision on; `None`: from now on.
pub(crate) async fn shared(
    app: &Shared,
    caller: &Caller,
    channel: Channel,
    from: Option<Revision>,
) -> Result<Response> {
    let permit = app.stream_permit(caller)?;
    let follower = Follower::new(&app.hub, channel, from.map(|from| from.saturating_sub(1))).await?;
    let bookmark = Duration::from_millis(app.options.bookmark_interval_ms);
    let (stop, silent) = (app.stop.clone(), app.leader.store_is_silent());
    let feed = SharedFeed { follower, bookmark, ended: false, stop, silent, _permit: permit };
    let lines = stream::unfold(feed, |mut feed| async {
        let line = feed.next().await?;
        Some((Ok::<_, Infallible>(line), feed))
    });
    Ok(response(Body::from_stream(lines)))
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("the API's types have string keys and serialize");
    line.push(b'\n');
    line.into()
}

fn response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

/// A watch as a response.
pub(crate) fn lines<W: Watched>(feed: Feed<W>) -> Response {
    let lines = stream::unfold(feed, |mut feed| async {
        let line = feed.next().await?;
        Some((Ok::<_, Infallible>(line), feed))
    });
    response(Body::from_stream(lines))
}

/// Lines of a container as a response; it breaks off at an error and ends when the server stops.
pub(crate) fn node_lines<T: Serialize + 'static>(
    lines: impl Stream<Item = std::result::Result<T, ProblemDetails>> + Send + 'static,
    stop: CancellationToken,
    permit: Permit,
) -> Response {
    let lines = lines.take_until(stop.cancelled_owned()).map(move |next| {
        let _held = &permit;
        next.map(|value| line(&value))
    });
    response(Body::from_stream(lines))
}
