//! The two drivers as their users see them: options, and the common engine behind them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::driver::{Driver, DriverKind};
use crate::engine::{Engine, EngineOptions};
use crate::error::ExecError;
use crate::facts::facts;
use crate::launch::ShimCommand;

/// Isolated containers; needs root.
#[derive(Clone, Debug)]
pub struct OciOptions {
    /// This driver's own directory: bundles, logs.
    pub dir: PathBuf,
    pub shim: ShimCommand,
    /// Names this platform's control groups (`/heptad-INSTANCE`), so that two on one machine do not collide.
    pub instance: String,
    /// Drive this runc-like program instead of the embedded runtime.
    pub oci_runtime: Option<PathBuf>,
    /// Hidden from containers that see the host's files, besides `dir`: the rest of the platform's data.
    pub hidden_dirs: Vec<PathBuf>,
}

/// The driver of isolated containers.
#[derive(Debug)]
pub struct OciDriver;

impl OciDriver {
    /// Opens the directory, adopts what runs, cleans up what is broken.
    pub fn open(options: OciOptions) -> Result<Arc<dyn Driver>, ExecError> {
        let found = facts();
        if !found.runs_containers {
            return Err(ExecError::NotEnforceable { resource: "isolation", why: found.missing.join("; ") });
        }
        let mut hidden_dirs = options.hidden_dirs;
        hidden_dirs.push(options.dir.clone());
        let engine = Engine::open(EngineOptions {
            kind: DriverKind::Oci,
            dir: options.dir,
            shim: options.shim,
            oci_runtime: options.oci_runtime,
            cgroup_parent: format!("/heptad-{}", options.instance),
            hidden_dirs,
        })?;
        Ok(Arc::new(engine))
    }
}

/// Containers that are only processes; needs no privilege.
#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// This driver's own directory: bundles, logs.
    pub dir: PathBuf,
    pub shim: ShimCommand,
}

/// The driver of plain processes: same life cycle and logs. Memory is bounded per process (RLIMIT_DATA); CPU and the
/// number of processes are not bounded.
#[derive(Debug)]
pub struct ProcessDriver;

impl ProcessDriver {
    /// Opens the directory, adopts what runs, cleans up what is broken.
    pub fn open(options: ProcessOptions) -> Result<Arc<dyn Driver>, ExecError> {
        let engine = Engine::open(EngineOptions {
            kind: DriverKind::Process,
            dir: options.dir,
            shim: options.shim,
            oci_runtime: None,
            cgroup_parent: String::new(),
            hidden_dirs: Vec::new(),
        })?;
        Ok(Arc::new(engine))
    }
}
