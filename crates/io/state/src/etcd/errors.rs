//! What etcd's refusals and silence mean here. Pure.

use super::{channel::is_definite, grpc::CallError};
use crate::{Error, Revision};
use std::sync::Arc;

/// What etcd says, in its own words, of which the beginning differs between versions.
const COMPACTED: &str = "required revision has been compacted";
const FUTURE: &str = "required revision is a future revision";
const TOO_MANY_OPS: &str = "too many operations in txn request";
const TOO_LARGE: [&str; 2] = ["request is too large", "received message larger than max"];
const NO_SPACE: &str = "database space exceeded";

fn says(error: &CallError, words: &str) -> bool {
    matches!(error, CallError::Status { message, .. } if message.contains(words))
}

pub(super) fn is_compacted(error: &CallError) -> bool {
    says(error, COMPACTED)
}

pub(super) fn is_future(error: &CallError) -> bool {
    says(error, FUTURE)
}

pub(super) fn is_too_many_ops(error: &CallError) -> bool {
    says(error, TOO_MANY_OPS)
}

/// An error of a read, or of a write that surely was not done.
pub(super) fn refused(endpoints: &str, error: CallError, ops_max: usize) -> Error {
    let remedy = if is_too_many_ops(&error) {
        format!("start every member with --max-txn-ops={ops_max}")
    } else if TOO_LARGE.iter().any(|words| says(&error, words)) {
        "split it, or start every member with a larger --max-request-bytes".to_owned()
    } else if says(&error, NO_SPACE) {
        "compact and defragment etcd, then disarm its alarm".to_owned()
    } else if matches!(&error, CallError::Status { code: 7 | 16, .. }) {
        "check its user, and that the user may read and write every key".to_owned()
    } else {
        "check that a majority of its members runs and can be reached".to_owned()
    };
    Error::Etcd { endpoints: endpoints.to_owned(), remedy, source: Arc::new(error) }
}

/// An error of a write.
pub(super) fn unwritten(endpoints: &str, error: CallError, ops_max: usize) -> Error {
    if is_definite(&error) {
        return refused(endpoints, error, ops_max);
    }
    Error::Ambiguous { endpoints: endpoints.to_owned(), source: Arc::new(error) }
}

pub(super) fn compacted(requested: Revision, compact_revision: Revision) -> Error {
    Error::Compacted { requested, compact_revision }
}
