//! What can go wrong with keys, certificates and tokens. No message holds a secret.

use std::{error, io, path::PathBuf};
use thiserror::Error;

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

type Cause = Box<dyn error::Error + Send + Sync>;

/// Why an operation failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A trust domain is not a valid name.
    #[error("trust domain `{name}`: use lower-case labels joined by dots, such as cluster.local")]
    TrustDomain {
        /// What was given.
        name: String,
    },
    /// A SPIFFE id cannot be read.
    #[error("SPIFFE id `{uri}`: {reason}")]
    SpiffeId {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Text in PEM, DER or another fixed format cannot be read.
    #[error("read {subject}: {reason}")]
    Malformed {
        /// What it should be.
        subject: &'static str,
        /// What is wrong with it.
        reason: String,
        /// Why, if another part reported it.
        #[source]
        source: Option<Cause>,
    },
    /// A key or certificate could not be created.
    #[error("make {subject}")]
    Make {
        /// What.
        subject: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A certificate does not match the rest.
    #[error("use {subject}: {reason}")]
    Mismatch {
        /// What was to be used.
        subject: &'static str,
        /// What does not match, and the remedy.
        reason: String,
    },
    /// Sealed bytes cannot be opened.
    #[error("open sealed {subject}: {reason}")]
    Unsealable {
        /// What it is.
        subject: String,
        /// Why not.
        reason: &'static str,
    },
    /// A file could not be used.
    #[error("{operation} {}: {remedy}", path.display())]
    File {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The remedy.
        remedy: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system supplied no random bytes.
    #[error("the system gives no random bytes for {subject}")]
    Random {
        /// What they were for.
        subject: &'static str,
    },
}

impl Error {
    pub(crate) fn malformed(subject: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { subject, reason: reason.into(), source: None }
    }

    pub(crate) fn unreadable(subject: &'static str, source: impl Into<Cause>) -> Self {
        Self::Malformed { subject, reason: "it cannot be parsed".to_owned(), source: Some(source.into()) }
    }

    pub(crate) fn make(subject: &'static str, source: impl Into<Cause>) -> Self {
        Self::Make { subject, source: source.into() }
    }

    pub(crate) fn mismatch(subject: &'static str, reason: impl Into<String>) -> Self {
        Self::Mismatch { subject, reason: reason.into() }
    }
}
