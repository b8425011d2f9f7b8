//! Decides on which nodes containers run: placement, who has to leave for it, and why something has no node. Plans are plain
//! data; whoever carries them out is elsewhere, as are who judges them (`heptad-check`, where the tests of planner and judge
//! together are too) and who says which containers there shall be.
//! Knows no clock, no randomness, no socket and no store: time and identifiers are arguments.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod choose;
pub mod cluster;
pub mod consolidate;
pub mod decision;
mod feasible;
mod gang;
mod gate;
pub mod plan;
pub mod preempt;
pub mod report;
pub mod scheduler;
pub mod world;

pub use choose::Run;
pub use cluster::Cluster;
pub use decision::{Decision, decision};
pub use feasible::Candidate;
pub use plan::{plan, plan_with};
pub use preempt::{Preemption, preempt};
pub use report::{GangShort, Remedy, Report, Shortfall, Unplaced, advise, explain};
pub use scheduler::{BestFitScheduler, ByPlacement, Scheduler, SpreadScheduler};
pub use world::World;

#[cfg(test)]
mod constraint_tests;
#[cfg(test)]
mod extended_tests;
#[cfg(test)]
mod samples;
