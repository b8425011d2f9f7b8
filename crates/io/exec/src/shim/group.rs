//! What the two OCI backends share: the container is its control group.

use std::time::Duration;

use heptad_model::with_causes;

use crate::bundle::{Bundle, ShimConfig};
use crate::cgroup::Hierarchies;
use crate::container::{ContainerSpec, RootFs};
use crate::driver::Usage;
use crate::runtime_spec::{self, Surroundings};

use super::backend::Broken;
use super::rootfs;

const CGROUP_REMOVE_TIMEOUT_MS: u64 = 5_000;

pub(super) struct Group {
    hierarchies: Hierarchies,
    path: String,
}

impl Group {
    pub(super) fn new(config: &ShimConfig) -> Self {
        Self { hierarchies: Hierarchies::find(), path: config.cgroup.clone() }
    }

    pub(super) fn pids(&self) -> Vec<i32> {
        self.hierarchies.pids(&self.path)
    }

    pub(super) fn thaw(&self) {
        self.hierarchies.thaw(&self.path);
    }

    pub(super) fn kill_all(&self) {
        self.hierarchies.kill_all(&self.path);
    }

    pub(super) fn oom_killed(&self) -> bool {
        self.hierarchies.oom_kills(&self.path) > 0
    }

    pub(super) fn usage(&self) -> Usage {
        self.hierarchies.usage(&self.path)
    }

    /// What cannot be removed now is removed by the driver, which looks for groups without a container.
    pub(super) fn remove(&self) {
        let _ = self.hierarchies.remove(&self.path, Duration::from_millis(CGROUP_REMOVE_TIMEOUT_MS));
    }
}

/// Mounts the root file system and writes `config.json`.
pub(super) fn prepare(bundle: &Bundle, config: &ShimConfig, with_seccomp: bool) -> Result<(), Broken> {
    let rootfs_dir = rootfs::mount(&config.spec).map_err(|error| Broken::of(&error))?;
    if matches!(config.spec.rootfs, RootFs::Overlay { .. }) {
        rootfs::make_cwd(&config.spec.cwd, &config.spec.user)?;
    }
    let etc_files = rootfs::write_etc_files(bundle, &config.spec).map_err(|error| Broken::of(&error))?;
    let hierarchies = Hierarchies::find();
    let around = Surroundings {
        facts: &config.facts,
        cgroup: &config.cgroup,
        rootfs_dir: &bundle.path(rootfs_dir),
        etc_files: &etc_files,
        cgroup_mounts: hierarchies.mounts(),
        hidden_dirs: &config.hidden_dirs,
        with_seccomp,
    };
    let spec = runtime_spec::build(&config.spec, &around).map_err(|error| with_causes(&error))?;
    crate::bundle::write_json(&bundle.path("config.json"), &spec, false).map_err(|error| Broken::of(&error))
}

/// The process of an exec, in the file form that runtimes read.
pub(super) fn write_process(
    bundle: &Bundle,
    config: &ShimConfig,
    spec: &ContainerSpec,
    command: &crate::driver::ExecCommand,
) -> Result<std::path::PathBuf, String> {
    let process = runtime_spec::process(spec, &config.facts, command);
    let path = bundle.path("exec.json");
    crate::bundle::write_json(&path, &process, false).map_err(|error| with_causes(&error))?;
    Ok(path)
}
