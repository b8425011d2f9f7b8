//! The seven-tuple C = (N, S, C, R, L, M, P) as plain values: nodes, services, containers, resources, load balancers,
//! monitoring targets, policies; their validation and the predicates that must hold over them.
//! Knows no clock, no socket, no file and no other Heptad crate.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod causes;
pub mod condition;
pub mod container;
pub mod cron;
pub mod devices;
pub mod event;
mod exit;
mod form;
pub mod guarantee;
pub mod ids;
pub mod invariants;
pub mod job;
pub mod lease;
pub mod machine;
pub mod namespace;
pub mod node;
pub mod node_health;
pub mod placement;
pub mod policy;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod rollout;
pub mod sandbox;
mod schema;
pub mod selector;
pub mod service;
pub mod settings;
pub mod signal;
pub mod snapshot;
pub mod standing;
pub mod strategy;
pub mod taint;
pub mod traffic;
pub mod user;
pub mod utilisation;
pub mod validate;

pub use causes::with_causes;
pub use condition::{Condition, Field, Operator};
pub use container::{Container, ContainerStatus, ContainerTemplate, DesiredState, Reservation};
pub use cron::Cron;
pub use devices::{DEVICE_MILLIS, DEVICES_MAX, DeviceCounts, DeviceIndices, DeviceMillis, ExtendedResources, GPU};
pub use event::{Event, EventKind};
pub use exit::{Exit, ExitKind};
pub use ids::{ContainerId, Namespace, NodeName, ServiceKey};
pub use job::{Concurrency, Job, Mode, Schedule};
pub use lease::{Contact, Permit, Refusals};
pub use machine::Machine;
pub use namespace::DeclaredNamespace;
pub use node::{Disk, Driver, Node, NodeStatus};
pub use node_health::{DiskRoom, NodeCondition, NodeConditionKind, NodeFault, NodeHealth, StartFailure};
pub use placement::{AffinityRule, TopologySpread};
pub use policy::{NetworkPolicy, PolicyPeer};
pub use quantity::{Bytes, CpuMillis, Mbps};
pub use quota::Quota;
pub use resources::{Dimension, MEMORY_BYTES_MIN, ResourceVector, Resources};
pub use rollout::{JobRun, Revision, Rollout, RolloutPhase, RunPhase, TrafficSplit};
pub use sandbox::{Tmpfs, Ulimit};
pub use schema::SocketAddress;
pub use selector::Selector;
pub use service::{Expose, HealthCheck, Placement, Port, Probe, Protocol, Service};
pub use settings::{Config, EnvironmentSource, FileSource, Secret, SettingsRef};
pub use signal::{SIGTERM, SignalError, parse_signal, signal_name};
pub use snapshot::{Endpoint, LoadBalancer, MonitoringTarget, Snapshot};
pub use standing::{Standing, standing};
pub use strategy::{Amount, BlueGreen, Canary, CanaryStep, Rolling, Strategy};
pub use taint::{Taint, TaintEffect, Toleration, TolerationOperator};
pub use traffic::{TrafficRule, WeightedBackend};
pub use user::{Principal, USER_ID_MAX, UserError, UserSpec};
pub use utilisation::{Utilisation, utilisation};
pub use validate::{Problem, Problems, Validate};
