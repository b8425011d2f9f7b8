//! The node mesh proxy: connections to services come in and `route` decides; HTTP/1.1 and plain TCP go out to an
//! endpoint of this node, HTTP/2 and opaque flows to the proxies of other nodes, which decide once more. Every request
//! of a kept connection is decided anew, so a new table applies to the next request. Knows no container runtime,
//! nftables, TLS or store: a resolver identifies callers, a connector reaches other nodes, and tables are handed in;
//! [`follow()`] builds them from the API's view.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod assertion;
mod attempt;
mod body;
mod call;
mod client_io;
mod connect;
mod context;
mod core;
mod counters;
mod detect;
mod error;
mod exchange_here;
mod exchange_peer;
mod follow;
mod forward;
mod gate;
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
mod people;
mod phases;
mod pool;
mod proxy;
mod replay;
mod reply;
mod response_body;
mod serve_http;
mod serve_peer;
mod serve_stream;
mod shares;
mod socket;
mod standing;
mod stream;
mod tunnel;
mod watch;

pub use body::{Body, BoxError};
pub use call::{Answer, Taken};
pub use counters::CallCount;
pub use error::{CallError, Denied, ProxyError};
pub use follow::{Callers, Redirection, follow};
pub use options::Options;
pub use origin::CallerResolver;
pub use peer::{BoxFuture, Io, PeerConnector, PeerNode, PeerProtocol, PeerStatus};
pub use pool::InProgress;
pub use proxy::{Parts, Proxy, ProxyStatus};
pub use response_body::ResponseBody;
