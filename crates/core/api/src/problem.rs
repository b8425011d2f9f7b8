//! Errors in transit: RFC 9457 problem details with a stable code.

use heptad_model::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What went wrong, for programs. It determines the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request cannot be read.
    BadRequest,
    /// The object has problems; `problems` lists them all.
    Invalid,
    /// No token, or a wrong one.
    Unauthorized,
    /// The certificate belongs to a node that was removed or now has another key: the node is no longer a member.
    NodeRemoved,
    /// The request has a forbidden origin, such as another web page.
    Forbidden,
    /// The object does not exist.
    NotFound,
    /// The path does not accept this method.
    MethodNotAllowed,
    /// The object exists already.
    AlreadyExists,
    /// The object was changed since the revision in `If-Match`.
    Conflict,
    /// The revision is no longer kept; list again.
    Compacted,
    /// The body is larger than permitted.
    TooLarge,
    /// Too many requests at once; try again.
    Busy,
    /// A quota of the namespace does not permit it.
    QuotaExceeded,
    /// No replica has room for the data.
    InsufficientSpace,
    /// Something that is needed cannot be reached; try again.
    Unavailable,
    /// This server does not lead and did nothing; ask another one.
    NotLeader,
    /// A defect of the server.
    Internal,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized | Self::NodeRemoved => 401,
            Self::Forbidden | Self::QuotaExceeded => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists => 409,
            Self::Compacted => 410,
            Self::Conflict => 412,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::Unavailable | Self::NotLeader => 503,
            Self::InsufficientSpace => 507,
        }
    }

    /// A few words for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "the request cannot be read",
            Self::Invalid => "the object has problems",
            Self::Unauthorized => "a token is required",
            Self::NodeRemoved => "the node is no longer a member of the cluster",
            Self::Forbidden => "the request is not permitted",
            Self::NotFound => "the object does not exist",
            Self::MethodNotAllowed => "the path does not take this method",
            Self::AlreadyExists => "the object exists already",
            Self::Conflict => "the object was changed meanwhile",
            Self::Compacted => "the revision is no longer kept",
            Self::TooLarge => "the body is too large",
            Self::Busy => "too many requests at once",
            Self::QuotaExceeded => "a quota does not permit it",
            Self::InsufficientSpace => "no room for the data",
            Self::Unavailable => "something that is needed is not reachable",
            Self::NotLeader => "another server leads",
            Self::Internal => "the server failed",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}

/// Problem details (RFC 9457), sent as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDetails {
    /// `urn:heptad:error:CODE`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// A few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The operation, its subject, and the remedy.
    pub detail: String,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// All problems of an invalid object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl ProblemDetails {
    /// The details of `code`.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let word = serde_json::to_value(code).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        Self {
            type_uri: format!("urn:heptad:error:{word}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            problems: Vec::new(),
        }
    }

    /// The details of an object with problems.
    pub fn invalid(detail: impl Into<String>, problems: Vec<Problem>) -> Self {
        Self { problems, ..Self::new(ErrorCode::Invalid, detail) }
    }
}

impl fmt::Display for ProblemDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The title says no more than the code; the detail names the operation, its subject and the remedy.
        f.write_str(&self.detail)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ProblemDetails {}
