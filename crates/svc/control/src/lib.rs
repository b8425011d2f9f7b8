//! The control plane: the API server over the state store, the reconcilers that bring the cluster to its wanted state,
//! and the scheduler loop. `heptad-sched` makes plans; this crate commits them. Knows no container and no network.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod access;
mod audit;
mod authorize;
mod budget;
mod clock;
mod condition;
mod control;
mod election;
mod error;
mod fanout;
mod heartbeat;
mod http;
mod keys;
mod leader;
mod objects;
mod optimize;
mod options;
mod random;
mod reconcile;
mod reports;
mod rows;
mod servers;
mod token;
mod trust;

pub use access::{BoxFuture, ExecStream, LogStream, MeshAccess, NodeAccess, ServerParts};
pub use control::{Control, ControlHandle};
pub use error::{Error, Result};
pub use http::Peer;
pub use objects::{Given, Kept, ObjectWatch, Objects};
pub use options::{Leadership, OptimizeMode, Options, ServerTls};
pub use reconcile::Reconciler;
pub use servers::{ServerRow, Servers};
pub use trust::{ClusterInit, ClusterRow, Initialized, Trust, TrustOptions};
