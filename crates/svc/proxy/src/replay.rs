//! A request's body that can be sent again as long as little of it has been read: what was read is remembered up to a
//! bound. Shares bytes instead of copying them. Does not know when sending again is right.

use crate::body::{Body, BoxError};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The handle of a body that is being sent.
pub(crate) struct Replay(Arc<Mutex<State>>);

struct State {
    /// `None` once the body was taken back.
    body: Option<Body>,
    seen: VecDeque<Bytes>,
    seen_bytes: usize,
    bytes_max: usize,
    /// More was read than is remembered.
    is_lost: bool,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Replay").field(&self.lock().seen_bytes).finish()
    }
}

impl Replay {
    /// Splits a body into one to send and a handle that can recover it.
    pub(crate) fn split(body: Body, bytes_max: usize) -> (Body, Self) {
        let state = State { body: Some(body), seen: VecDeque::new(), seen_bytes: 0, bytes_max, is_lost: false };
        let state = Arc::new(Mutex::new(state));
        (Body::boxed(Sent(Arc::clone(&state))), Self(state))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole body again; `None` if too much of it was read. The split-off body then ends with an error.
    pub(crate) fn again(self) -> Option<Body> {
        let mut state = self.lock();
        if state.is_lost {
            return None;
        }
        let rest = state.body.take()?;
        Some(Body::boxed(Again { seen: std::mem::take(&mut state.seen), rest }))
    }
}

/// The body that is sent first.
struct Sent(Arc<Mutex<State>>);

impl Sent {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let mut state = self.lock();
        let Some(body) = &mut state.body else { return Poll::Ready(Some(Err("the body is sent elsewhere".into()))) };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(data) if !state.is_lost && state.seen_bytes + data.len() <= state.bytes_max => {
                    let data = data.clone();
                    state.seen_bytes += data.len();
                    state.seen.push_back(data);
                }
                _ => state.forget(),
            },
            Poll::Ready(Some(Err(_))) => state.forget(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.lock().body.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().body.as_ref().map_or_else(SizeHint::new, HttpBody::size_hint)
    }
}

impl State {
    fn forget(&mut self) {
        self.is_lost = true;
        self.seen.clear();
    }
}

/// The body that is sent again: what was read before, then the rest.
struct Again {
    seen: VecDeque<Bytes>,
    rest: Body,
}

impl HttpBody for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.seen.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.seen.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let seen: u64 = self.seen.iter().map(|data| data.len() as u64).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + seen);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + seen);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_body_of_which_little_was_read_is_had_again_whole() {
        for read in 0..2 {
            let (mut first, replay) = Replay::split(Body::from("0123456789"), 10);
            for _ in 0..read {
                first.frame().await.expect("a frame").expect("it reads");
            }
            let again = replay.again().expect("it is remembered");
            assert_eq!(again.size_hint().exact(), Some(10));
            assert_eq!(again.collect().await.expect("it reads").to_bytes(), "0123456789");
            assert!(first.frame().await.is_some_and(|frame| frame.is_err()), "the first never looks complete");
        }
    }

    #[tokio::test]
    async fn a_body_of_which_much_was_read_is_not_had_again() {
        let (first, replay) = Replay::split(Body::from("0123456789"), 9);
        assert_eq!(first.collect().await.expect("it reads").to_bytes(), "0123456789");
        assert!(replay.again().is_none());
    }
}
