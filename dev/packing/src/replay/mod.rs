//! Instances through the engine: what was packed, and how well.

pub mod arrival;
pub mod online;
pub mod instances;
mod optimised;
