//! Identity over the API: joining, who may do what, removed nodes, revoked tokens, rotation, the audit log.

mod allowed;
mod audit;
mod cluster;
mod joining;
mod limits;
mod people;
mod rotation;
mod shares;

use heptad_api::ErrorCode;
use heptad_client::{Error, Result};

/// The code of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    let error = result.expect_err("it must be refused");
    error.code().unwrap_or_else(|| panic!("it is no answer: {error:?}"))
}

/// What a refusal says.
pub(crate) fn said(error: &Error) -> String {
    error.to_string()
}
