//! Decides which containers there shall be and on which nodes: placement, its independent check, and the steps that lead
//! a service from what is to what is wanted. Plans are plain data; whoever carries them out is elsewhere.
//! Knows no clock, no randomness, no socket and no store: time and identifiers are arguments.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod allocation;
mod among;
pub mod check;
pub mod cluster;
pub mod consolidate;
mod daemon;
pub mod decision;
pub mod devices;
mod domain_counts;
mod ends;
pub mod engine;
mod evenness;
pub mod evict;
mod gang;
mod gate;
mod jobs;
mod memory;
pub mod plan;
pub mod preempt;
pub mod quota;
pub mod reason;
pub mod reconcile;
pub mod removal;
pub mod report;
pub mod request;
mod rollout;
mod rules;
pub mod scheduler;
pub mod view;
pub mod world;

pub use allocation::{Allocation, AllocationError, Capacity};
pub use check::{Finding, check, check_with};
pub use cluster::{Candidate, Cluster, NodeIndex, Run};
pub use daemon::nodes_wanted;
pub use decision::{Decision, decision};
pub use devices::{DeviceGrants, DeviceUse, Grant};
pub use evict::{Eviction, evictions};
pub use plan::{Plan, plan, plan_with};
pub use preempt::{Preemption, preempt};
pub use quota::{QuotaItem, QuotaShort};
pub use reason::Reason;
pub use reconcile::{Action, Note, ServiceView, Steps, StopReason};
pub use report::{GangShort, Refusal, Remedy, Report, Shortfall, Unplaced, advise, explain};
pub use request::{Gang, HostPort, Request};
pub use scheduler::{BestFitScheduler, ByPlacement, Scheduler, SpreadScheduler};
pub use view::{NodeView, NodesView};
pub use world::World;

#[cfg(test)]
mod constraint_tests;
#[cfg(test)]
mod extended_tests;
#[cfg(test)]
mod samples;
