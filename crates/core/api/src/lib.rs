//! The API as values that others compile against without the server: wire types v1, error codes, the endpoint table and
//! the OpenAPI document made from it. Knows no HTTP library and no server.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod base64_bytes;
pub mod endpoints;
pub mod mesh;
pub mod object;
pub mod openapi;
pub mod operations;
pub mod optimization;
pub mod problem;
pub mod report;
pub mod servers;
pub mod trust;
pub mod work;

pub use base64_bytes::Base64;
pub use object::{Kind, List, Manifest, Object, Resource, WatchBatch, WatchChange, WatchEvent, fields_of};
pub use problem::{ErrorCode, ProblemDetails};

/// Largest request body of every operation but storage, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Items of a list page when the client names no limit.
pub const PAGE_ITEMS_DEFAULT: usize = 500;
/// Largest limit of a list page.
pub const PAGE_ITEMS_MAX: usize = 5_000;
/// The prefix of all paths.
pub const PREFIX: &str = "/v1";
