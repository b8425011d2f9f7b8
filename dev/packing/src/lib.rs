//! Packs recorded and planted workloads with the engine of the scheduler and compares with bounds, optima and published figures.
//! Knows no server and no store: nodes and requests are values, the engine is the one that the server plans with.
#![forbid(unsafe_code)]

pub mod assignment;
pub mod bound;
pub mod cpu;
pub mod draw;
pub mod instance;
pub mod load;
pub mod picture;
pub mod placer;
pub mod planning;
pub mod replay;
pub mod report;
