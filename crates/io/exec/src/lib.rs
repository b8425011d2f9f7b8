//! Running containers on one node: the OCI driver (embedded runtime or an external binary, one shim process per
//! container), the process driver, logs, and what this node can enforce. Knows no image, service, placement or network set-up.

#![deny(unsafe_op_in_unsafe_fn)]

mod bundle;
mod cgroup;
mod client;
mod collect;
mod container;
mod driver;
mod drivers;
mod engine;
mod error;
mod facts;
mod fault;
mod launch;
mod logs;
mod procfs;
mod proto;
pub mod runtime_spec;
mod seccomp;
pub mod shim;
mod sys;

pub use cgroup::CgroupMode;
pub use collect::{PipedExec, Sink};
pub use container::{ContainerSpec, Limits, LogLimits, Mount, NOBODY_UID, Network, RootFs, User};
pub use driver::{
    ContainerState, ContainerStatus, Driver, DriverKind, ExecCommand, ExecEnd, ExecIo, ExecOutput, ExecRequest,
    ExecSession, Exit, ExitKind, Usage,
};
pub use drivers::{OciDriver, OciOptions, ProcessDriver, ProcessOptions};
pub use error::{ExecError, SpecProblem};
pub use facts::{NodeFacts, facts};
pub use fault::node_fault;
pub use launch::ShimCommand;
pub use logs::{LogItem, LogReader, LogRecord, LogStream, RECORD_BYTES_MAX};
pub use seccomp::SeccompError;
pub use sys::give_back_memory;
