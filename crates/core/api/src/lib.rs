//! The API as values that others compile against without the server: wire types v1, error codes, the endpoint table and
//! the OpenAPI document generated from it, and who may ask what. Knows no HTTP library and no server.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

// First, since the others use its macros.
#[macro_use]
pub mod kind;

mod base64_bytes;
pub mod endpoints;
pub mod mesh;
pub mod object;
pub mod openapi;
pub mod operations;
pub mod optimization;
pub mod permission;
pub mod problem;
pub mod report;
pub mod servers;
pub mod storage;
pub mod trust;
pub mod work;

pub use base64_bytes::Base64;
pub use kind::{Kind, Manifest, Readers, Resource, Writers, fields_of};
pub use object::{List, Object, WatchBatch, WatchChange, WatchEvent};
pub use problem::{ErrorCode, ProblemDetails};

/// The largest request body of every operation but storage, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// The items of a list page when the client names no limit.
pub const PAGE_ITEMS_DEFAULT: usize = 500;
/// The largest limit of a list page.
pub const PAGE_ITEMS_MAX: usize = 5_000;
/// The largest page of stored objects, unless a server is configured otherwise.
pub const STORED_PAGE_ITEMS_MAX: usize = 1_000;
/// The prefix of all paths.
pub const PREFIX: &str = "/v1";
