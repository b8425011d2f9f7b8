//! The client against servers that die, hang or cannot work, without sockets: each server lives in memory.
#![allow(missing_docs)]

mod failover;
mod support;
mod watching;
