//! The minimum of HTTP/1.1 that the simulated nodes need: consecutive requests on a kept connection, and an endless
//! answer whose bytes are passed on as they arrive. Knows no meaning of a body.

use anyhow::{Context, Result, ensure};
use std::{io::Write, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bytes that are read at once.
const READ_BYTES: usize = 16 << 10;

/// The server answered, but refused.
#[derive(Debug, thiserror::Error)]
#[error("{request}: {status} {problem}")]
pub(crate) struct Refused {
    request: String,
    status: u16,
    problem: String,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    address: SocketAddr,
    token: String,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, token: token.to_owned(), buffer: Vec::new() })
    }

    async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        let mut head = Vec::with_capacity(256 + body.len());
        write!(
            head,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.token,
            body.len()
        )?;
        head.extend_from_slice(body);
        self.stream.write_all(&head).await.context("cannot send a request")
    }

    /// Reads more. False at the end.
    async fn fill(&mut self) -> Result<bool> {
        self.buffer.reserve(READ_BYTES);
        Ok(self.stream.read_buf(&mut self.buffer).await.context("cannot read an answer")? > 0)
    }

    /// The head of an answer: its status and its length, if it is said.
    async fn head(&mut self) -> Result<(u16, Option<usize>)> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            ensure!(self.fill().await?, "the connection ended before an answer");
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
        self.buffer.drain(..end + 4);
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        Ok((status, length))
    }

    /// A request and its whole answer; statuses from 400 on are errors.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        self.send(method, path, body).await?;
        let (status, length) = self.head().await?;
        let length = if status == 204 { 0 } else { length.context("an answer without its length")? };
        while self.buffer.len() < length {
            ensure!(self.fill().await?, "the connection ended within an answer");
        }
        let rest = self.buffer.split_off(length);
        let answer = std::mem::replace(&mut self.buffer, rest);
        if status >= 400 {
            let problem = String::from_utf8_lossy(&answer).into_owned();
            return Err(Refused { request: format!("{method} {path}"), status, problem }.into());
        }
        Ok(answer)
    }

    /// A request, on another connection if the kept one was closed meanwhile, as a server does after an idle time.
    pub(crate) async fn call_again(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        match self.call(method, path, body).await {
            Err(error) if error.downcast_ref::<Refused>().is_none() => {
                *self = Self::connect(self.address, &self.token).await?;
                self.call(method, path, body).await
            }
            done => done,
        }
    }

    /// Begins an endless answer.
    pub(crate) async fn follow(&mut self, path: &str) -> Result<()> {
        self.send("GET", path, b"").await?;
        let (status, _) = self.head().await?;
        ensure!(status == 200, "GET {path}: {status} {}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }

    /// The next whole lines of an endless answer, which never has a line end within a chunk's frame but at its own ends.
    pub(crate) async fn lines(&mut self, mut each: impl FnMut(&[u8])) -> Result<()> {
        let end = loop {
            if let Some(at) = self.buffer.iter().rposition(|byte| *byte == b'\n') {
                break at;
            }
            ensure!(self.fill().await?, "a watch ended");
        };
        for line in self.buffer[..end].split(|byte| *byte == b'\n') {
            // Frames of chunks are short lines of hexadecimal digits between the lines of JSON.
            if line.first() == Some(&b'{') {
                each(line);
            }
        }
        self.buffer.drain(..=end);
        // An idle connection keeps no memory: there are thousands.
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}
