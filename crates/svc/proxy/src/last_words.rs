//! A connection whose other side may say its last words and close before it has read everything: what it said is read
//! before a failed write counts. Knows no protocol.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes that fail because the other side has closed wait until reading has come to its end, and fail then.
#[derive(Debug)]
pub(crate) struct LastWords<S> {
    io: S,
    /// Why nothing can be written any more.
    broken: Option<io::ErrorKind>,
    /// Nothing more is read.
    has_ended: bool,
    waiting: Option<Waker>,
}

impl<S> LastWords<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, broken: None, has_ended: false, waiting: None }
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

    fn broken<T>(&mut self, kind: io::ErrorKind, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.broken = Some(kind);
        if self.has_ended {
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
        io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex},
        net::{TcpListener, TcpStream},
    };

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
        // What is unread makes this a reset.
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
