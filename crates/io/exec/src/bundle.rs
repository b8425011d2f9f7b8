//! The directory of one container on the node's disk: the names of its files, and reading and durable writing of them.
//! From it a new agent learns about containers that an older one started.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::container::ContainerSpec;
use crate::driver::{DriverKind, Exit};
use crate::error::{ExecError, IoContext};
use crate::facts::NodeFacts;

pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// In the environment of plain processes: the bundle to which they belong, for when their shim is gone.
pub(crate) const MARKER_VARIABLE: &str = "HEPTAD_BUNDLE";

/// The shim's instructions; the driver writes them before the shim starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub(crate) kind: DriverKind,
    pub(crate) spec: ContainerSpec,
    pub(crate) facts: NodeFacts,
    /// The container's own group, as an absolute path in every hierarchy.
    pub(crate) cgroup: String,
    /// Drive this program instead of the embedded runtime.
    pub(crate) oci_runtime: Option<PathBuf>,
    /// Hidden from containers that see the host's files.
    pub(crate) hidden_dirs: Vec<PathBuf>,
}

/// What the shim did; it writes this as soon as the container's first process exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) shim_pid: i32,
    pub(crate) pid: i32,
    /// In clock ticks since boot: together with the pid it identifies one process for ever.
    pub(crate) start_time: u64,
    pub(crate) started_at_ms: u64,
}

/// Paths of one container.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
}

impl Bundle {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn create(dir: PathBuf) -> Result<Self, ExecError> {
        DirBuilder::new().mode(0o700).create(&dir).at("create", &dir)?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn read_config(&self) -> Result<ShimConfig, ExecError> {
        read_json(&self.path("shim-config.json"))
    }

    pub(crate) fn write_config(&self, config: &ShimConfig) -> Result<(), ExecError> {
        write_json(&self.path("shim-config.json"), config, false)
    }

    pub(crate) fn read_started(&self) -> Result<Started, ExecError> {
        read_json(&self.path("started.json"))
    }

    pub(crate) fn write_started(&self, started: &Started) -> Result<(), ExecError> {
        write_json(&self.path("started.json"), started, false)
    }

    pub(crate) fn read_exit(&self) -> Option<Exit> {
        read_json(&self.path("exit.json")).ok()
    }

    /// Durable before it returns: whoever is told of the end can still read it after a power cut.
    pub(crate) fn write_exit(&self, exit: &Exit) -> Result<(), ExecError> {
        write_json(&self.path("exit.json"), exit, true)
    }

    /// The last message of a shim that failed.
    pub(crate) fn shim_errors(&self) -> String {
        let bytes = fs::read(self.path("shim.err")).unwrap_or_default();
        let start = bytes.len().saturating_sub(2_048);
        String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
    }

    pub(crate) fn remove(&self) -> Result<(), ExecError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &self.dir),
            _ => Ok(()),
        }
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ExecError> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).map_err(|source| ExecError::Corrupt { path: path.to_owned(), source })
}

/// By a temporary file and a rename, so that a reader sees the old or the new content, never a part.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T, durable: bool) -> Result<(), ExecError> {
    let bytes = serde_json::to_vec(value).map_err(|source| ExecError::Corrupt { path: path.to_owned(), source })?;
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) if durable => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().at("write", path)
}
