//! The node mesh proxy: connections to services come in, `route` decides, HTTP/1.1 and plain TCP go out to an endpoint.
//! Every request of a kept connection is decided anew, so a new table holds for the next request.
//! Knows no container runtime, no nftables and no store: callers are told by a resolver, tables are handed in.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod body;
mod context;
mod core;
mod counters;
mod detect;
mod error;
mod forward;
mod headers;
mod listen;
mod options;
mod origin;
mod pool;
mod proxy;
mod reply;
mod serve_http;
mod serve_stream;
mod socket;
mod tunnel;
mod watch;

pub use body::{Body, BoxError, ResponseBody};
pub use counters::CallCount;
pub use error::{CallError, Denied, ProxyError};
pub use forward::{Answer, Taken};
pub use options::Options;
pub use origin::CallerResolver;
pub use proxy::{Proxy, ProxyStatus};
