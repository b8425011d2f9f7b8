//! The client against servers that die, hang or cannot work, without sockets: each server is a piece of memory.
#![allow(missing_docs)]

mod failover;
mod support;
mod watching;
