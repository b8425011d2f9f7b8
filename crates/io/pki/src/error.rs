//! What can go wrong with keys, certificates and tokens. No message holds a secret.

use std::{error, io, path::PathBuf};
use thiserror::Error;

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

type Cause = Box<dyn error::Error + Send + Sync>;

/// Why an operation failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A trust domain is no name.
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
    /// Something written in PEM, DER or another fixed form cannot be read.
    #[error("read {subject}: {reason}")]
    Malformed {
        /// What it should be.
        subject: &'static str,
        /// What is wrong with it.
        reason: String,
        /// Why, if another part said so.
        #[source]
        source: Option<Cause>,
    },
    /// A key or certificate could not be made.
    #[error("make {subject}")]
    Make {
        /// What.
        subject: &'static str,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A certificate does not fit to the rest.
    #[error("use {subject}: {reason}")]
    Mismatch {
        /// What was to be used.
        subject: &'static str,
        /// What does not fit and what to do.
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
        /// What was done.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
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
