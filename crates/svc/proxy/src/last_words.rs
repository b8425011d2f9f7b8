//! A connection whose other side may send a last message and close before it has read everything: that message is read
//! before a failed write counts. Knows no protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// How long a failed write waits while nothing is read, for example because nobody takes the message.
const SILENCE_MS_MAX: u64 = 120_000;

/// Writes that fail because the other side has closed wait until reading reaches its end, and fail then. They also fail
/// when nothing has been read for too long.
#[derive(Debug)]
pub(crate) struct LastWords<S> {
    io: S,
    /// Why nothing can be written any more.
    broken: Option<io::ErrorKind>,
    /// Nothing more is read.
    has_ended: bool,
    waiting: Option<Waker>,
    silence_ms_max: u64,
    /// The deadline for reading something; set when a write has failed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> LastWords<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, broken: None, has_ended: false, waiting: None, silence_ms_max: SILENCE_MS_MAX, until: None }
    }

    pub(crate) fn into_inner(self) -> S {
        self.io
    }

    fn ended(&mut self) {
        self.has_ended = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms_max)
    }

    fn broken<T>(&mut self, kind: io::ErrorKind, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.broken = Some(kind);
        let silence = self.silence();
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(silence)));
        if self.has_ended || until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(kind.into()));
        }
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn written<T>(&mut self, result: io::Result<T>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
        match result {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected) => {
                self.broken(error.kind(), cx)
            }
            result => Poll::Ready(result),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWords<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer));
        if read.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0) {
            self.ended();
        }
        let silence = self.silence();
        if let Some(until) = &mut self.until {
            until.as_mut().reset(Instant::now() + silence);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.broken {
            return self.broken(kind, cx);
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes));
        self.written(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.broken {
            return self.broken(kind, cx);
        }
        let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.broken {
            return self.broken(kind, cx);
        }
        let shut = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        self.written(shut, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.broken {
            return self.broken(kind, cx);
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices));
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex},
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    /// The other side takes nothing, but may still say something.
    struct Deaf(DuplexStream);

    impl AsyncRead for Deaf {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn who_says_nothing_more_is_not_waited_for_for_ever() {
        let (near, mut far) = duplex(64);
        let silence = Duration::from_millis(300);
        let mut here = LastWords { silence_ms_max: 300, ..LastWords::new(Deaf(near)) };
        timeout(silence / 10, here.write_all(b"x")).await.expect_err("something may come");
        let until = here.until.as_ref().expect("it waits").deadline();
        // After progress, the wait starts again.
        sleep(silence / 10).await;
        far.write_all(b"word").await.expect("there is room");
        here.read_exact(&mut [0; 4]).await.expect("it was said");
        let later = here.until.as_ref().expect("it waits").deadline();
        assert!(later >= until + silence / 10);
        let ended = timeout(100 * silence, here.write_all(b"x")).await.expect("it ends");
        assert_eq!(ended.expect_err("nothing is written").kind(), io::ErrorKind::BrokenPipe);
        assert!(Instant::now() >= later);
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_read_though_writing_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let connecting = TcpStream::connect(listener.local_addr().expect("it is bound"));
        let (here, accepted) = tokio::join!(connecting, listener.accept());
        let (mut there, _) = accepted.expect("a connection");
        let mut here = LastWords::new(here.expect("a connection"));
        here.write_all(b"more than is read").await.expect("it is open");
        there.write_all(b"401").await.expect("it is open");
        there.readable().await.expect("it is open");
        // Unread bytes turn this into a reset.
        drop(there);
        let (mut client, mut proxied) = duplex(64);
        let copying = tokio::spawn(async move { copy_bidirectional(&mut proxied, &mut here).await });
        for _ in 0..8 {
            if client.write_all(b"and more").await.is_err() {
                break;
            }
        }
        let mut said = [0; 3];
        client.read_exact(&mut said).await.expect("it comes through");
        assert_eq!(&said, b"401");
        copying.await.expect("no panic").expect_err("it was no regular end");
    }
}
