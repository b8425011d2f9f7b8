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

impl App {
    /// The whole body.
    pub(crate) async fn body(&self, body: Body) -> Result<Bytes> {
        let timeout_ms = self.options.body_timeout_ms;
        let read = Limited::new(body, BODY_BYTES_MAX).collect();
        let read = tokio::time::timeout(Duration::from_millis(timeout_ms), read).await.map_err(|_| {
            Error::refused(ErrorCode::BadRequest, format!("the body did not come within {timeout_ms} ms"))
        })?;
        let collected = read.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes");
                Error::refused(ErrorCode::TooLarge, detail)
            } else {
                Error::refused(ErrorCode::BadRequest, format!("the body broke off: {error}"))
            }
        })?;
        Ok(collected.to_bytes())
    }
}

/// The revision of `If-Match`; none if it is absent or `*`.
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
