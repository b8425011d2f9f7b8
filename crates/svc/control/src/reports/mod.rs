//! Answers for people: why a service is not in its wanted state, what an apply would do, whether the guarantees hold.

pub(crate) mod diff;
mod explain;
mod plan;
mod verify;
mod why;

pub(crate) use plan::plan;
pub(crate) use verify::verify;
pub(crate) use why::{container_why, why};
