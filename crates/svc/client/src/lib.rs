//! The typed client of the API: objects, watches that resume, and every other operation, over a Unix socket, loopback
//! TCP with a token, or whatever a [`Connector`] reaches. With several servers, it moves to the next when one fails.
//! The agent, the command line and the tests use it. Knows no TLS, no server and no store.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod body;
mod client;
mod connection;
mod connector;
mod error;
mod lines;
pub mod local;
mod mesh;
mod objects;
mod operations;
mod part;
mod ready;
mod send;
mod state;
mod storage;
mod trust;
mod watch;
mod work;

pub use body::Body;
pub use client::{Client, Options};
pub use connector::{BoxFuture, Connector, Io};
pub use error::{Error, Result};
pub use lines::Lines;
pub use mesh::{Mesh, MeshChange, MeshView};
pub use part::Part;
pub use ready::{NotReady, wait_ready};
pub use state::{State, View, watch_part, watch_state};
pub use storage::{ObjectListing, StoredObject};
pub use watch::Watch;
