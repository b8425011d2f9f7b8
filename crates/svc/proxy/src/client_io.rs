//! A client's stream: first the bytes that were read to detect its protocol, then the rest. If it is closed before the
//! client has sent everything, it is read to its end, so that the client gets the answer. Knows no HTTP.

use crate::{lingering::Lingering, watch::Watch};
use bytes::{Buf, Bytes};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A client's socket, shared by several parts of the proxy.
#[derive(Clone, Debug)]
pub(crate) struct Socket(Arc<Mutex<Lingering<TcpStream>>>);

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Lingering::new(stream))))
    }

    fn lock(&self) -> MutexGuard<'_, Lingering<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client has broken off. A client that only stops sending has not.
    pub(crate) fn is_broken(&self) -> bool {
        !matches!(self.lock().get_ref().take_error(), Ok(None))
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct ClientIo {
    pub(crate) read_ahead: Bytes,
    pub(crate) socket: Socket,
    pub(crate) watch: Arc<Watch>,
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let length = self.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.read_ahead[..length]);
            self.read_ahead.advance(length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *self.socket.lock()).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.watch.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket.lock()).poll_write(cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket.lock()).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = self.socket.lock();
        match self.watch.is_mid_request() {
            true => Pin::new(&mut *stream).poll_shutdown(cx),
            false => Pin::new(stream.get_mut()).poll_shutdown(cx),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket.lock()).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.socket.lock().is_write_vectored()
    }
}
