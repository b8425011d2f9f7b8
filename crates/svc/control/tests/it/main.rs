//! The control plane over real sockets and real stores, with the real client; nodes are agents inside the test.

mod api;
mod clients;
mod common;
mod deployers;
mod endpoints;
mod extended;
mod images;
mod leaders;
mod life;
mod optimize;
mod parts;
mod placement;
mod racing;
mod removal;
mod settings;
mod sockets;
mod trust;
mod watches;
