//! The way to etcd's members: one connection at a time, another member when it fails or hangs, and the token.
//! Reads may be asked again elsewhere; what was perhaps done is never repeated. Knows no meaning of messages.

use super::{
    grpc::{self, Answer, CallError, Cause, Sender},
    messages::{AuthenticateRequest, AuthenticateResponse},
    options::EtcdOptions,
    tls,
};
use crate::{Error, Result};
use http::{HeaderValue, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use rustls::pki_types::ServerName;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// An idle connection is asked so often whether it still is one; etcd allows no more than every 5 s.
const KEEP_ALIVE_MS: u64 = 6_000;
/// Longest wait for the answer to that.
const KEEP_ALIVE_TIMEOUT_MS: u64 = 2_000;
/// Bytes that may be under way on a connection.
const WINDOW_BYTES: u32 = 8 << 20;
/// First wait between two rounds over the members; doubles up to `RETRY_DELAY_MS_MAX`.
const RETRY_DELAY_MS_MIN: u64 = 20;
const RETRY_DELAY_MS_MAX: u64 = 500;
/// A call that its caller gave up after this time makes the connection suspicious.
const SUSPICIOUS_MS: u64 = 500;

/// gRPC's numbers of refusals.
const UNAUTHENTICATED: u32 = 16;
/// Refusals that say that nothing was done: invalid, denied, exhausted, precondition, out of range, unimplemented.
const DEFINITE: [u32; 6] = [3, 7, 8, 9, 11, 12];

#[derive(Debug, Default)]
struct Slot {
    /// Which member is asked, counted on for ever.
    turn: usize,
    sender: Option<Sender>,
}

/// Where a call was sent, to be given up if it fails.
#[derive(Debug)]
pub(super) struct Line {
    sender: Sender,
    turn: usize,
    at: Uri,
}

#[derive(Debug)]
pub(super) struct Channel {
    endpoints: Vec<Uri>,
    pub(super) options: EtcdOptions,
    slot: Mutex<Slot>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
    token: Mutex<Option<HeaderValue>>,
}

fn endpoint(text: &str) -> Result<Uri> {
    let wrong = |reason: String| Error::EtcdOption { option: "endpoints", reason: format!("`{text}` {reason}") };
    let uri: Uri = text.parse().map_err(|error| wrong(format!("is no URL: {error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.port_u16().is_none() {
        return Err(wrong("should be http://HOST:PORT or https://HOST:PORT".to_owned()));
    }
    Ok(uri)
}

fn io_cause(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Cause {
    Arc::new(io::Error::other(error))
}

/// Gives a connection up if the call on it is dropped after a while: whoever waited lost patience.
struct Patience<'a> {
    channel: &'a Channel,
    turn: usize,
    since: Instant,
    done: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.done && self.since.elapsed() >= Duration::from_millis(SUSPICIOUS_MS) {
            self.channel.give_up(self.turn);
        }
    }
}

impl Channel {
    pub(super) fn new(options: EtcdOptions) -> Result<Self> {
        let endpoints = options.endpoints.iter().map(|text| endpoint(text)).collect::<Result<Vec<_>>>()?;
        if endpoints.is_empty() {
            return Err(Error::EtcdOption { option: "endpoints", reason: "at least one is needed".to_owned() });
        }
        if endpoints.iter().any(|uri| uri.scheme_str() == Some("https")) {
            // Said now, not by the first connection.
            tls::config(&options)?;
        }
        let (slot, connecting, token) = Default::default();
        Ok(Self { endpoints, options, slot, connecting, token })
    }

    pub(super) fn endpoints(&self) -> &[Uri] {
        &self.endpoints
    }

    /// All members, for messages.
    pub(super) fn names(&self) -> String {
        self.options.endpoints.join(",")
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of that turn is not used any more; the next call goes to the next member.
    pub(super) fn give_up(&self, turn: usize) {
        let mut slot = self.slot();
        if slot.turn == turn {
            *slot = Slot { turn: turn + 1, sender: None };
        }
    }

    fn present(&self) -> std::result::Result<Line, usize> {
        let slot = self.slot();
        match slot.sender.as_ref().filter(|sender| !sender.is_closed()) {
            Some(sender) => Ok(Line { sender: sender.clone(), turn: slot.turn, at: self.at(slot.turn) }),
            None => Err(slot.turn),
        }
    }

    fn at(&self, turn: usize) -> Uri {
        self.endpoints[turn % self.endpoints.len()].clone()
    }

    /// The present connection, or a new one to the first member that takes one.
    pub(super) async fn line(&self) -> std::result::Result<Line, CallError> {
        if let Ok(line) = self.present() {
            return Ok(line);
        }
        let _connecting = self.connecting.lock().await;
        let mut turn = match self.present() {
            Ok(line) => return Ok(line),
            Err(turn) => turn,
        };
        let mut failed = None;
        for _ in 0..self.endpoints.len() {
            let at = self.at(turn);
            match self.connect(&at).await {
                Ok(sender) => {
                    *self.slot() = Slot { turn, sender: Some(sender.clone()) };
                    return Ok(Line { sender, turn, at });
                }
                Err(error) => {
                    tracing::debug!(endpoint = %at, %error, "an etcd member takes no connection");
                    failed = Some(error);
                    turn += 1;
                }
            }
        }
        self.slot().turn = turn;
        Err(CallError::NotSent(failed.unwrap_or_else(|| io_cause("no member"))))
    }

    pub(super) async fn connect(&self, at: &Uri) -> std::result::Result<Sender, Cause> {
        let bound = self.options.connect_timeout_ms;
        match timeout(Duration::from_millis(bound), self.connect_now(at)).await {
            Ok(connected) => connected,
            Err(_) => Err(io_cause(format!("no connection to {at} within {bound} ms"))),
        }
    }

    async fn connect_now(&self, at: &Uri) -> std::result::Result<Sender, Cause> {
        let host = at.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, at.port_u16().unwrap_or_default())).await.map_err(io_cause)?;
        stream.set_nodelay(true).map_err(io_cause)?;
        if at.scheme_str() != Some("https") {
            return handshake(stream).await;
        }
        let config = tls::config(&self.options).map_err(|error| Arc::new(error) as Cause)?;
        let name = ServerName::try_from(host.to_owned()).map_err(io_cause)?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(io_cause)?;
        handshake(stream).await
    }

    fn token(&self) -> Option<HeaderValue> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a stream of answers.
    pub(super) async fn stream(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> std::result::Result<(Answer, usize), CallError> {
        let line = self.line().await?;
        let sent = grpc::send(line.sender, &line.at, path, self.token(), message, true);
        match self.bounded(line.turn, self.options.read_timeout_ms, sent).await {
            Ok(answer) => Ok((answer, line.turn)),
            Err(error) => {
                self.renew_token_after(&error).await;
                Err(error)
            }
        }
    }

    async fn bounded<T>(
        &self,
        turn: usize,
        timeout_ms: u64,
        call: impl Future<Output = std::result::Result<T, CallError>>,
    ) -> std::result::Result<T, CallError> {
        let mut patience = Patience { channel: self, turn, since: Instant::now(), done: false };
        let done = timeout(Duration::from_millis(timeout_ms), call).await;
        patience.done = true;
        let done = done.unwrap_or(Err(CallError::TimedOut(timeout_ms)));
        match &done {
            Ok(_) => {}
            // Another member may be better off than one that answers that it is not available.
            Err(CallError::Status { code, .. }) if DEFINITE.contains(code) || *code == UNAUTHENTICATED => {}
            Err(_) => self.give_up(turn),
        }
        done
    }

    /// One call, sent at most once.
    async fn once<R: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
        timeout_ms: u64,
    ) -> std::result::Result<R, CallError> {
        let line = self.line().await?;
        let token = self.token();
        let call = async { grpc::send(line.sender, &line.at, path, token, message, false).await?.only().await };
        self.bounded(line.turn, timeout_ms, call).await
    }

    /// A call that changes nothing: asked again, elsewhere, until it is answered or the time is over.
    pub(super) async fn read<R: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> std::result::Result<R, CallError> {
        let timeout_ms = self.options.read_timeout_ms;
        self.repeated(path, message, timeout_ms, |error| match error {
            CallError::Status { code, .. } => !DEFINITE.contains(code),
            _ => true,
        })
        .await
    }

    /// A call that changes something: sent again only if it surely was not done.
    pub(super) async fn write<R: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
    ) -> std::result::Result<R, CallError> {
        let timeout_ms = self.options.write_timeout_ms;
        self.repeated(path, message, timeout_ms, |error| matches!(error, CallError::NotSent(_))).await
    }

    async fn repeated<R: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
        timeout_ms: u64,
        may_repeat: impl Fn(&CallError) -> bool,
    ) -> std::result::Result<R, CallError> {
        let deadline = Instant::now() + Duration::from_millis(self.options.retry_ms_max);
        let mut delay_ms = RETRY_DELAY_MS_MIN;
        let mut renewed = false;
        loop {
            let error = match self.once(path, message, timeout_ms).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !renewed && self.renew_token_after(&error).await {
                renewed = true;
                continue;
            }
            if !may_repeat(&error) || Instant::now() + Duration::from_millis(delay_ms) >= deadline {
                return Err(error);
            }
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(RETRY_DELAY_MS_MAX);
        }
    }

    /// Logs in again if the refusal is about the token, which says that nothing was done. Returns whether it helped.
    async fn renew_token_after(&self, error: &CallError) -> bool {
        let stale = match error {
            CallError::Status { code: UNAUTHENTICATED, .. } => true,
            CallError::Status { message, .. } => message.contains("revision in header is old"),
            _ => false,
        };
        stale && self.options.user.is_some() && self.log_in().await.is_ok()
    }

    /// Gets a token, if there is a user.
    pub(super) async fn log_in(&self) -> std::result::Result<(), CallError> {
        let Some(user) = &self.options.user else { return Ok(()) };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let request = AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: AuthenticateResponse = self.once(path, &request, self.options.read_timeout_ms).await?;
        let token = HeaderValue::from_str(&answer.token).map_err(|error| CallError::Broken(Arc::new(error)))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// One call to one member.
    pub(super) async fn ask<R: Message + Default>(
        &self,
        at: &Uri,
        path: &'static str,
        message: &impl Message,
    ) -> std::result::Result<R, CallError> {
        let sender = self.connect(at).await.map_err(CallError::NotSent)?;
        let bound = self.options.read_timeout_ms;
        let token = self.token();
        let call = async { grpc::send(sender, at, path, token, message, false).await?.only().await };
        timeout(Duration::from_millis(bound), call).await.unwrap_or(Err(CallError::TimedOut(bound)))
    }
}

async fn handshake<S>(stream: S) -> std::result::Result<Sender, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(Duration::from_millis(KEEP_ALIVE_MS))
        .keep_alive_timeout(Duration::from_millis(KEEP_ALIVE_TIMEOUT_MS))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io_cause)?;
    // It ends when the last sender is dropped, or with the connection.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to etcd ended");
        }
    });
    Ok(sender)
}

/// Whether a refusal says that nothing was done.
pub(super) fn is_definite(error: &CallError) -> bool {
    match error {
        CallError::NotSent(_) => true,
        CallError::Status { code, .. } => DEFINITE.contains(code) || *code == UNAUTHENTICATED,
        CallError::Broken(_) | CallError::TimedOut(_) => false,
    }
}
