//! Decides which containers there shall be and on which nodes: placement, its independent check, and the steps that lead
//! a service from what is to what is wanted. Plans are plain data; whoever carries them out is elsewhere.
//! Knows no clock, no randomness, no socket and no store: time and identifiers are arguments.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod allocation;
pub mod check;
pub mod cluster;
mod daemon;
mod ends;
mod jobs;
mod memory;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod request;
mod rollout;
pub mod scheduler;
pub mod view;

pub use allocation::{Allocation, AllocationError};
pub use check::{Finding, check};
pub use cluster::{Candidate, Cluster, NodeIndex};
pub use daemon::nodes_wanted;
pub use plan::{Plan, plan, plan_with};
pub use reconcile::{Action, Note, ServiceView, Steps, StopReason};
pub use report::{Reason, Refusal, Remedy, Report, Shortfall, Unplaced, explain};
pub use request::{HostPort, Request};
pub use scheduler::{BestFitScheduler, ByPlacement, Scheduler, SpreadScheduler};
pub use view::{NodeView, NodesView};

#[cfg(test)]
mod samples;
