//! What can go wrong in the control plane, and the problem details that clients see of it.

use heptad_api::{ErrorCode, ProblemDetails};
pub(crate) use heptad_model::with_causes;
use std::{io, path::PathBuf};
use thiserror::Error;

/// The result of an operation of the control plane.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The operation was refused; what the client is told.
    #[error("{0}")]
    Refused(Box<ProblemDetails>),
    /// The state store failed.
    #[error("{operation} {subject}: the state store failed")]
    Store {
        /// The operation.
        operation: &'static str,
        /// Its subject.
        subject: String,
        /// Why.
        #[source]
        source: heptad_state::Error,
    },
    /// A row is not what this version writes.
    #[error("row {key} of the state store cannot be read; restore a backup, or delete the object with this name")]
    Decode {
        /// The row.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something concerning the sockets or the token file failed.
    #[error("{operation} {}: {remedy}", path.display())]
    Listen {
        /// The operation.
        operation: &'static str,
        /// Its socket or file.
        path: PathBuf,
        /// The remedy.
        remedy: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The options cannot be used.
    #[error("option {option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Something with certificates, tokens or the keyring failed.
    #[error("{operation}")]
    Trust {
        /// The operation.
        operation: &'static str,
        /// Why.
        #[source]
        source: heptad_pki::Error,
    },
    /// The system supplied no random bytes.
    #[error("the system gives no random bytes for {subject}")]
    Random {
        /// What they were for.
        subject: &'static str,
        /// Why.
        #[source]
        source: getrandom::Error,
    },
}

impl Error {
    /// A refusal.
    pub fn refused(code: ErrorCode, detail: impl Into<String>) -> Self {
        ProblemDetails::new(code, detail).into()
    }

    /// The object does not exist.
    pub(crate) fn not_found(subject: &str) -> Self {
        Self::refused(ErrorCode::NotFound, format!("{subject} does not exist"))
    }

    /// The code that the client sees.
    pub fn code(&self) -> ErrorCode {
        use heptad_state::Error as State;
        match self {
            Self::Refused(problem) => problem.code,
            Self::Store { source, .. } => match source {
                State::Compacted { .. } => ErrorCode::Compacted,
                State::FutureRevision { .. } => ErrorCode::BadRequest,
                State::KeyTooLong { .. }
                | State::ValueTooLong { .. }
                | State::TxnTooLong { .. }
                | State::TxnTooLarge { .. } => ErrorCode::TooLarge,
                _ => ErrorCode::Unavailable,
            },
            _ => ErrorCode::Internal,
        }
    }

    /// Whether a write was refused because another server leads now.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Store { source: heptad_state::Error::Fenced { .. }, .. })
    }

    /// What the client is told.
    pub fn problem(&self) -> ProblemDetails {
        match self {
            Self::Refused(problem) => (**problem).clone(),
            other => ProblemDetails::new(other.code(), with_causes(other)),
        }
    }
}

impl From<ProblemDetails> for Error {
    fn from(problem: ProblemDetails) -> Self {
        Self::Refused(Box::new(problem))
    }
}

/// Names the operation and the subject of a failure of the store.
pub(crate) trait StoreContext<T> {
    fn during(self, operation: &'static str, subject: impl Into<String>) -> Result<T>;
}

impl<T> StoreContext<T> for heptad_state::Result<T> {
    fn during(self, operation: &'static str, subject: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Store { operation, subject: subject.into(), source })
    }
}
