//! Bodies of requests, bounded in size and time; the revision that a client names.

use super::App;
use crate::error::{Error, Result};
use axum::body::Body;
use bytes::Bytes;
use heptad_api::{BODY_BYTES_MAX, ErrorCode};
use heptad_state::Revision;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;

/// The most bytes of a body from an unidentified caller: enough for a request to join.
const STRANGER_BODY_BYTES_MAX: usize = 64 << 10;

impl App {
    /// The whole body.
    pub(crate) async fn body(&self, body: Body) -> Result<Bytes> {
        self.body_up_to(body, BODY_BYTES_MAX).await
    }

    /// The whole body, if it has at most `bytes_max` bytes.
    pub(crate) async fn body_up_to(&self, body: Body, bytes_max: usize) -> Result<Bytes> {
        read(body, bytes_max, self.options.body_timeout_ms).await
    }
}

/// The whole body of a request from an unidentified caller.
pub(super) async fn of_stranger(body: Body, timeout_ms: u64) -> Result<Bytes> {
    read(body, STRANGER_BODY_BYTES_MAX, timeout_ms).await
}

async fn read(body: Body, bytes_max: usize, timeout_ms: u64) -> Result<Bytes> {
    let read = Limited::new(body, bytes_max).collect();
    let read = tokio::time::timeout(Duration::from_millis(timeout_ms), read)
        .await
        .map_err(|_| Error::refused(ErrorCode::BadRequest, format!("the body did not come within {timeout_ms} ms")))?;
    let collected = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Error::refused(ErrorCode::TooLarge, format!("the body is larger than {bytes_max} bytes"))
        } else {
            Error::refused(ErrorCode::BadRequest, format!("the body broke off: {error}"))
        }
    })?;
    Ok(collected.to_bytes())
}

/// The revision of `If-Match`; `None` if it is absent or `*`.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<Revision>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let revision = number.parse().map_err(|_| {
        Error::refused(ErrorCode::BadRequest, format!("If-Match `{text}` is not a revision such as \"42\""))
    })?;
    Ok(Some(revision))
}
