//! Whole platforms under test: real processes of the real program, their clients, load on them, images for them, and
//! what they leave on the machine. Knows nothing of the program's insides. Everything panics with a message, as tests do.
#![forbid(unsafe_code)]

mod cluster;
mod etcd;
mod fault;
mod hosts;
mod image;
mod ledger;
mod load;
mod machine;
mod platform;
mod program;
mod random;
mod registry;

pub use cluster::{Cluster, ClusterOptions, Member, time_until};
pub use etcd::Etcd;
pub use fault::Fault;
pub use hosts::{Footprint, Host, HostOptions, Lan, Network, Running, sweep_hosts};
pub use image::{busybox_layout, run_tool};
pub use ledger::Ledger;
pub use load::{Load, Tally, Target};
pub use machine::{Machine, Process, require_root};
pub use platform::{Platform, free_port, wait_until};
pub use program::{Program, Said};
pub use random::Random;
pub use registry::Registry;
