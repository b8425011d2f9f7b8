//! Images: from a reference to unpacked, verified layer directories that overlayfs can mount, and the
//! process that an image wants to run. Knows no container, no cgroup and no service.

#![forbid(unsafe_code)]

mod auth_file;
mod config;
mod decode;
mod digest;
mod error;
mod merged;
mod options;
mod process;
mod progress;
mod reference;
mod source;
mod store;
mod unpack;
mod users;

pub use config::ImageConfig;
pub use digest::{Digest, DigestError};
pub use error::{ImageError, Violation};
pub use options::{Credentials, Options, PullPolicy};
pub use process::{ProcessError, ProcessPlan, ProcessRequest};
pub use progress::{LayerProgress, LayerState, PullProgress};
pub use reference::{Reference, ReferenceError};
pub use store::{Image, ImageStore, ImageSummary, Removed};
