//! Instances through the engine: what was packed, and how well.

pub mod arrival;
pub mod instances;
pub mod online;
mod optimised;
