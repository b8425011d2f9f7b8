//! Decides what happens next: to a service, which containers come and go until it is as wanted; to a container on its
//! node, whether it is ready, and what an end or a failed start means. Control plane, agent and simulation call the
//! same functions. Knows no clock, randomness, socket or store: time and identifiers are arguments. Places nothing: it
//! only asks placement whether a node has room.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod actions;
mod backoff;
mod container;
mod daemon;
mod evenness;
mod evict;
mod forecast;
mod health;
mod how_it_ended;
mod jobs;
mod lost;
mod progress;
mod removal;
mod rollout;
mod service;
mod steps;
mod strategy;

pub use backoff::RestartDelays;
pub use container::{ContainerLife, Next, Report};
pub use daemon::nodes_wanted;
pub use evict::{Eviction, evictions};
pub use forecast::{FORECAST_STEPS_MAX, Forecast, Known, ServiceForecast};
pub use removal::may_go;
pub use service::{is_at_rest, next_steps};
pub use steps::{Action, Note, ServiceView, Steps, StillReady, StopReason};

#[cfg(test)]
mod samples;
