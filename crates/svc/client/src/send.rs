//! One request to one of the servers: which server is asked, when another one is, and what may be sent twice. Knows no
//! operation.
//!
//! A request is sent again only if it certainly was not sent before, only reads, or was refused by a server that says
//! that it does not lead.

use crate::{
    body::{Body, WireBody},
    client::{Answer, Asked, Call, Client, Options},
    error::{Error, Result},
};
use heptad_api::ErrorCode;
use http::{Request, StatusCode, header};
use hyper::client::conn::http1::SendRequest;
use std::time::Duration;

/// The outcome of asking one server.
enum Outcome {
    Answer(Box<Answer>),
    /// Another server may be asked.
    Elsewhere(Error),
}

impl Call {
    fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// The request for one server. A streamed body is consumed.
    fn request(&mut self, host: &str, token: Option<String>) -> std::result::Result<Request<WireBody>, http::Error> {
        let mut builder = Request::builder().method(&self.method).uri(&self.path).header(header::HOST, host);
        if let Some(token) = token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = self.body.again().unwrap_or_else(|| std::mem::take(&mut self.body));
        let mut request = builder.body(body.into_wire())?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// Takes back the body of a request that was not sent.
    fn take_back(&mut self, request: Request<WireBody>) {
        if self.streams {
            self.body = Body::Stream(request.into_body());
        }
    }
}

impl Client {
    /// Sends to the server that answered last, or to the next one that can be reached and can work.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Answer> {
        call.streams = matches!(call.body, Body::Stream(_));
        let endpoints = self.pool.endpoints();
        let mut failure = None;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let is_last = index + 1 == endpoints.len();
            match self.ask(&mut call, endpoint, is_last).await {
                Ok(Outcome::Answer(answer)) => {
                    if answer.response.status() != StatusCode::SERVICE_UNAVAILABLE {
                        self.pool.answered(endpoint);
                    }
                    return Ok(*answer);
                }
                Ok(Outcome::Elsewhere(error)) => {
                    self.pool.failed(endpoint);
                    // A server's answer is worth more than the fact that another one was not reached.
                    if !matches!((&error, &failure), (Error::Connect { .. }, Some(Error::Problem(_)))) {
                        failure = Some(error);
                    }
                }
                Err(error) => {
                    self.pool.failed(endpoint);
                    return Err(error);
                }
            }
        }
        Err(match failure {
            Some(Error::Connect { remedy, source, .. }) => {
                Error::Connect { address: endpoints.join(", "), remedy, source }
            }
            Some(error) => error,
            None => Error::NoServer { operation: call.operation() },
        })
    }

    /// Asks one server over an idle connection, or over a new one if there is none or it turns out to be closed.
    async fn ask(&self, call: &mut Call, endpoint: &str, is_last: bool) -> Result<Outcome> {
        // A stream would be lost with a connection that is just closing.
        if !call.streams
            && let Some(sender) = self.pool.idle(endpoint)
        {
            match self.ask_over(call, endpoint, sender, is_last).await? {
                Outcome::Answer(answer) => return self.considered(call, *answer, is_last).await,
                // Over a new connection the server would be just as silent.
                Outcome::Elsewhere(error @ Error::Timeout { .. }) => return Ok(Outcome::Elsewhere(error)),
                Outcome::Elsewhere(_) => {}
            }
        }
        let Options { connect_timeout_ms, connect_silence_ms_max, .. } = *self.options();
        let timeout_ms = if is_last { connect_timeout_ms } else { connect_timeout_ms.min(connect_silence_ms_max) };
        let timeout = Duration::from_millis(timeout_ms);
        // A server that is being replaced closes connections that it can no longer answer; its successor takes the next
        // one.
        let mut may_be_replaced = is_last;
        loop {
            let sender = match self.pool.connect(endpoint, timeout).await {
                Ok(sender) => sender,
                Err(error) => return Ok(Outcome::Elsewhere(error)),
            };
            match self.ask_over(call, endpoint, sender, is_last).await? {
                Outcome::Answer(answer) => return self.considered(call, *answer, is_last).await,
                Outcome::Elsewhere(Error::Broken { .. }) if std::mem::take(&mut may_be_replaced) => {}
                elsewhere => return Ok(elsewhere),
            }
        }
    }

    async fn ask_over(
        &self,
        call: &mut Call,
        endpoint: &str,
        mut sender: SendRequest<WireBody>,
        is_last: bool,
    ) -> Result<Outcome> {
        let asked = Asked { operation: call.operation(), address: endpoint.to_owned() };
        let connector = self.pool.connector();
        let request = call
            .request(&connector.host(endpoint), connector.token())
            .map_err(|error| asked.protocol(format!("the request cannot be written: {error}")))?;
        let sending = sender.try_send_request(request);
        let sent = if call.is_safe() && !is_last {
            let wait = Duration::from_millis(self.options().silence_ms_max);
            match tokio::time::timeout(wait, sending).await {
                Ok(sent) => sent,
                Err(_) => return Ok(Outcome::Elsewhere(asked.timeout(wait))),
            }
        } else {
            sending.await
        };
        let mut failed = match sent {
            Ok(response) => return Ok(Outcome::Answer(Box::new(Answer { asked, response, sender }))),
            Err(failed) => failed,
        };
        let unsent = failed.take_message();
        let repeatable = unsent.is_some() || call.is_safe();
        if let Some(request) = unsent {
            call.take_back(request);
        }
        let error = asked.broken(failed.into_error());
        if repeatable { Ok(Outcome::Elsewhere(error)) } else { Err(error) }
    }

    /// Checks for an answer that says that this server cannot work: whether another may be asked instead.
    async fn considered(&self, call: &mut Call, answer: Answer, is_last: bool) -> Result<Outcome> {
        if is_last || answer.response.status() != StatusCode::SERVICE_UNAVAILABLE {
            return Ok(Outcome::Answer(Box::new(answer)));
        }
        let error = match self.accepted(answer).await {
            Ok(answer) => return Ok(Outcome::Answer(Box::new(answer))),
            Err(error) => error,
        };
        let refused = error.code() == Some(ErrorCode::NotLeader) && !call.streams;
        if refused || call.is_safe() { Ok(Outcome::Elsewhere(error)) } else { Err(error) }
    }
}
