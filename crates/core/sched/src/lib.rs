//! Decides on which nodes containers run: placement, its independent check, and why something has no node. Plans are plain
//! data; whoever carries them out is elsewhere, as is who says which containers there shall be.
//! Knows no clock, no randomness, no socket and no store: time and identifiers are arguments.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod allocation;
mod among;
pub mod check;
mod choose;
pub mod cluster;
pub mod consolidate;
pub mod decision;
pub mod devices;
mod domain_counts;
pub mod engine;
mod feasible;
mod gang;
mod gate;
mod node;
pub mod plan;
pub mod preempt;
pub mod quota;
pub mod reason;
pub mod report;
pub mod request;
mod rules;
pub mod scheduler;
pub mod view;
pub mod world;

pub use allocation::{Allocation, AllocationError, Capacity};
pub use check::{Finding, check, check_with, check_with_exchanges};
pub use choose::Run;
pub use cluster::Cluster;
pub use decision::{Decision, decision};
pub use devices::{DeviceGrants, DeviceUse, Grant};
pub use engine::NodeIndex;
pub use feasible::Candidate;
pub use node::NodeView;
pub use plan::{Plan, plan, plan_with};
pub use preempt::{Preemption, preempt};
pub use quota::{QuotaItem, QuotaShort};
pub use reason::{Reason, Refusal};
pub use report::{GangShort, Remedy, Report, Shortfall, Unplaced, advise, explain};
pub use request::{Gang, HostPort, Request};
pub use scheduler::{BestFitScheduler, ByPlacement, Scheduler, SpreadScheduler};
pub use view::NodesView;
pub use world::World;

#[cfg(test)]
mod constraint_tests;
#[cfg(test)]
mod extended_tests;
#[cfg(test)]
mod samples;
