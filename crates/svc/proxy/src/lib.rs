//! The node mesh proxy: connections to services come in, `route` decides, HTTP/1.1 and plain TCP go out to an endpoint of
//! this node, HTTP/2 and opaque flows to the proxies of other nodes, which decide once more.
//! Every request of a kept connection is decided anew, so a new table holds for the next request.
//! Knows no container runtime, no nftables, no TLS and no store: callers are told by a resolver, ways to other nodes are made
//! by a connector, tables are handed in.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod assertion;
mod body;
mod client_io;
mod context;
mod core;
mod counters;
mod detect;
mod error;
mod forward;
mod forward_peer;
mod guarded;
mod headers;
mod last_words;
mod lingering;
mod listen;
mod options;
mod origin;
mod peer;
mod peer_link;
mod peers;
mod pool;
mod proxy;
mod replay;
mod reply;
mod serve_http;
mod serve_peer;
mod serve_stream;
mod shares;
mod socket;
mod standing;
mod tunnel;
mod watch;

pub use body::{Body, BoxError, ResponseBody};
pub use counters::CallCount;
pub use error::{CallError, Denied, ProxyError};
pub use forward::{Answer, Taken};
pub use options::Options;
pub use origin::CallerResolver;
pub use peer::{BoxFuture, Io, PeerConnector, PeerNode, PeerProtocol};
pub use peers::PeerStatus;
pub use pool::InProgress;
pub use proxy::{Parts, Proxy, ProxyStatus};
