//! The scheduler from outside, by its public API alone: the theorems of `spec/` on the real planner, wrong planners, random
//! operations with crashes, replay.

mod any_fit;
mod claims;
mod common;
mod operations;
mod replay;
mod store;
mod wrong_plans;
mod wrong_schedulers;
