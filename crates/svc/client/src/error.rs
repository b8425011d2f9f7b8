//! What can go wrong between a client and the server, each with its remedy. Knows no operation's meaning.

use heptad_api::{ErrorCode, ProblemDetails};
use std::{error::Error as StdError, io};
use thiserror::Error;

/// The result of an operation of the client.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The server refused it and says why.
    #[error("{0}")]
    Problem(Box<ProblemDetails>),
    /// No server answers.
    #[error("cannot connect to {address}; {remedy}")]
    Connect {
        /// The address that was tried.
        address: String,
        /// The remedy.
        remedy: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The connector knows no server.
    #[error("{operation}: no server is known; name one, or join a cluster again")]
    NoServer {
        /// The method and path.
        operation: String,
    },
    /// The connection broke.
    #[error("{operation}: the connection to {address} broke; the outcome is unknown, so check it before trying again")]
    Broken {
        /// The method and path.
        operation: String,
        /// The server.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No answer in time.
    #[error("{operation}: {address} did not answer within {timeout_ms} ms; check whether the server is overloaded")]
    Timeout {
        /// The method and path.
        operation: String,
        /// The server.
        address: String,
        /// How long the client waited.
        timeout_ms: u64,
    },
    /// The client does not understand the answer.
    #[error("{operation}: this client cannot read the answer of {address}: {reason}; are both of the same version?")]
    Protocol {
        /// The method and path.
        operation: String,
        /// The server.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The server's code, if the server answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(ErrorCode::NotFound)
    }

    /// Whether the object was changed since the given revision.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(ErrorCode::Conflict)
    }

    /// Whether the history from which a watch was to resume is gone.
    pub fn is_compacted(&self) -> bool {
        self.code() == Some(ErrorCode::Compacted)
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Problem(problem) => {
                matches!(problem.code, ErrorCode::Busy | ErrorCode::Unavailable | ErrorCode::NotLeader)
            }
            Self::Connect { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Protocol { .. } | Self::NoServer { .. } => false,
        }
    }
}

impl From<ProblemDetails> for Error {
    fn from(problem: ProblemDetails) -> Self {
        Self::Problem(Box::new(problem))
    }
}
