//! Planner and judge from outside, by their public APIs alone: the theorems of `spec/` on the real planner, wrong plans and wrong
//! planners before the judge, random operations with crashes, replay.

mod any_fit;
mod claims;
mod common;
mod findings;
mod operations;
mod replay;
#[path = "../../../sched/src/samples.rs"]
mod samples;
mod store;
mod wrong_plans;
mod wrong_schedulers;
