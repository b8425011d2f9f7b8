//! Newline-delimited JSON as it arrives: bounded lines, bounded silence. Knows no operation's meaning.

use crate::{
    client::{Asked, Client},
    error::{Error, Result},
};
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::{fmt, marker::PhantomData, time::Duration};

/// Longest line.
const LINE_BYTES_MAX: usize = 64 << 20;

/// The values of a stream of lines. Dropping it closes the connection.
pub struct Lines<T> {
    client: Client,
    asked: Asked,
    body: Incoming,
    buffer: BytesMut,
    /// How far the buffer was searched for the end of the line.
    searched: usize,
    ended: bool,
    idle: Option<Duration>,
    kind: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Lines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(client: Client, asked: Asked, body: Incoming, idle: Option<Duration>) -> Self {
        let buffer = BytesMut::new();
        Self { client, asked, body, buffer, searched: 0, ended: false, idle, kind: PhantomData }
    }

    /// The next value; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(line) = self.take_line() {
                if line.is_empty() {
                    continue;
                }
                let read = serde_json::from_slice(&line);
                return read.map(Some).map_err(|e| self.asked.protocol(e.to_string()));
            }
            if self.ended {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    /// The server went silent or away: a retry asks another server, if there is one.
    fn left(&self, error: Error) -> Error {
        self.client.pool.failed(&self.asked.address);
        error
    }

    async fn fill(&mut self) -> Result<()> {
        let frame = match self.idle {
            None => self.body.frame().await,
            Some(idle) => {
                let waited = tokio::time::timeout(idle, self.body.frame()).await;
                waited.map_err(|_| self.left(self.asked.timeout(idle)))?
            }
        };
        match frame {
            None => {
                self.ended = true;
                // A last line without its end is incomplete: the stream broke there.
                if !self.buffer.is_empty() {
                    return Err(self.left(self.asked.broken("the stream ended within a line")));
                }
            }
            Some(frame) => {
                let frame = frame.map_err(|error| self.left(self.asked.broken(error)))?;
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
                if self.buffer.len() > LINE_BYTES_MAX && !self.buffer.contains(&b'\n') {
                    let reason = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                    return Err(self.asked.protocol(reason));
                }
            }
        }
        Ok(())
    }
}
