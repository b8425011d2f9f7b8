//! A connection whose end waits until the other side has read it. A connection closed while unread bytes arrive is
//! reset, and the last message (that requests under way were not accepted) can be lost. Knows no HTTP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long the other side may take to close.
const LINGER_MS_MAX: u64 = 2_000;
const DISCARD_BYTES: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Lingering<S> {
    io: S,
    /// The deadline; set when our side has been shut down.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, until: None }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }

    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.until {
            // Nothing more is written.
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, until } = &mut *self;
        if until.is_none() {
            ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
        }
        let until = until.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(LINGER_MS_MAX))));
        while until.as_mut().poll(cx).is_pending() {
            let mut discarded = [0; DISCARD_BYTES];
            let mut buffer = ReadBuf::new(&mut discarded);
            // An error also shows that nobody is there any more.
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, timeout},
    };

    fn pair() -> (Lingering<DuplexStream>, DuplexStream) {
        let (here, there) = duplex(64);
        (Lingering::new(here), there)
    }

    #[tokio::test]
    async fn it_ends_when_the_other_side_has_closed_and_takes_what_comes_until_then() {
        let (mut here, mut there) = pair();
        let ending = tokio::spawn(async move {
            here.write_all(b"the last word").await.expect("written");
            here.shutdown().await
        });
        // More than fits between the two: it is read and discarded.
        there.write_all(&[7; 1_000]).await.expect("it is taken");
        assert!(!ending.is_finished());
        let mut said = Vec::new();
        there.read_to_end(&mut said).await.expect("the end is seen");
        assert_eq!(said, b"the last word");
        drop(there);
        ending.await.expect("no panic").expect("it ends");
    }

    #[tokio::test]
    async fn who_never_closes_is_not_waited_for_for_ever() {
        let linger = Duration::from_millis(LINGER_MS_MAX);
        let ((mut silent, _there), (mut told, mut teller)) = (pair(), pair());
        let talking = tokio::spawn(async move { while teller.write_all(&[7; 8]).await.is_ok() {} });
        let began = Instant::now();
        let both = async { tokio::join!(silent.shutdown(), told.shutdown()) };
        let (first, second) = timeout(30 * linger, both).await.expect("it ends");
        first.and(second).expect("in order");
        assert!(began.elapsed() >= linger);
        drop(told);
        talking.await.expect("no panic");
    }
}
