//! The OCI runtime inside this process: libcontainer, with our own last steps before the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use heptad_model::with_causes;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use seccompiler::BpfProgram;

use super::backend::{Backend, Broken, Stdio};
use super::executor::{Above, ExecOutcome, SandboxExecutor};
use super::group::{self, Group};
use super::rootfs::open_in;
use crate::bundle::{Bundle, ShimConfig};
use crate::driver::{ExecCommand, Usage};
use crate::{seccomp, sys};

pub(super) struct Embedded {
    bundle: Bundle,
    config: ShimConfig,
    group: Group,
    filters: Rc<Vec<BpfProgram>>,
    /// The container's first process, once it runs.
    pid: Option<i32>,
}

impl Embedded {
    pub(super) fn new(bundle: &Bundle, config: &ShimConfig) -> Self {
        let group = Group::new(config);
        Self { bundle: bundle.clone(), config: config.clone(), group, filters: Rc::default(), pid: None }
    }

    fn state_dir(&self) -> PathBuf {
        self.bundle.path("runtime")
    }

    fn builder(&self, executor: SandboxExecutor, stdio: Stdio) -> Result<ContainerBuilder, String> {
        let [stdin, stdout, stderr] = stdio;
        let builder = ContainerBuilder::new(self.config.spec.id.clone(), SyscallType::default())
            .with_executor(executor)
            .with_root_path(self.state_dir())
            .map_err(|error| with_causes(&error))?;
        Ok(builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr))
    }

    fn try_start(&mut self, stdio: Stdio) -> Result<i32, Broken> {
        // After clone, the child continues without exec and allocates: a lock held by any other thread would stay
        // locked in it.
        assert_eq!(sys::thread_count().ok(), Some(1), "a shim has one thread");
        if self.config.facts.seccomp {
            let filters = seccomp::compile(&self.config.facts.architecture).map_err(|error| with_causes(&error))?;
            self.filters = Rc::new(filters);
        }
        group::prepare(&self.bundle, &self.config, false)?;
        fs::create_dir_all(self.state_dir()).map_err(|error| Broken::doing("create the runtime's state", &error))?;
        let (executor, outcome) = self.executor(if self.config.spec.init { Above::Init } else { Above::Nothing })?;
        let created =
            self.builder(executor, stdio)?.as_init(&self.bundle.dir).with_systemd(false).with_detach(true).build();
        let mut container = created.map_err(|error| {
            let broken = Broken::of(&error);
            Broken { reason: broken.reason + &self.hidden_cwd(), ..broken }
        })?;
        let pid = container.pid().ok_or("the runtime named no process")?.as_raw();
        container.start().map_err(|error| Broken::of(&error))?;
        outcome.wait()?;
        self.pid = Some(pid);
        Ok(pid)
    }

    /// Addition to the runtime's message, which does not name the directory: one below a mount is not created.
    fn hidden_cwd(&self) -> String {
        let cwd = &self.config.spec.cwd;
        let targets = self.config.spec.mounts.iter().map(|mount| mount.target().as_path());
        let kernel = ["/dev", "/proc", "/sys"].map(Path::new);
        let above = targets.chain(kernel).find(|target| cwd.starts_with(target) && cwd != target);
        above.map_or_else(String::new, |above| {
            format!("; is there a directory {} in what is mounted at {}?", cwd.display(), above.display())
        })
    }

    /// Reports a missing working directory of a command.
    fn missing_cwd(&self, command: &ExecCommand) -> String {
        let cwd = command.cwd.as_ref().unwrap_or(&self.config.spec.cwd);
        let root = self.pid.and_then(|pid| fs::File::open(format!("/proc/{pid}/root")).ok());
        match root.map(|root| open_in(&root, cwd)) {
            Some(Err(error)) => format!("; the working directory {}: {}", cwd.display(), std::io::Error::from(error)),
            _ => String::new(),
        }
    }

    fn executor(&self, above: Above) -> Result<(SandboxExecutor, ExecOutcome), String> {
        SandboxExecutor::new(Rc::clone(&self.filters), above).map_err(|error| format!("cannot make a pipe: {error}"))
    }

    /// The runtime leaves one socket per command.
    fn remove_exec_sockets(&self) {
        let entries = fs::read_dir(self.state_dir().join(&self.config.spec.id));
        for entry in entries.into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("tenant-") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Backend for Embedded {
    fn start(&mut self, stdio: Stdio) -> Result<i32, Broken> {
        let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        let result = self.try_start(stdio);
        // The runtime gave this process the container's OOM score, but the shim must outlive the container.
        let _ = fs::write("/proc/self/oom_score_adj", score.trim());
        if result.is_err() {
            super::backend::kill_until_empty(self, std::time::Duration::from_secs(5));
            self.delete();
        }
        result
    }

    fn exec(&mut self, command: &ExecCommand, stdio: Stdio) -> Result<i32, String> {
        let process = group::write_process(&self.bundle, &self.config, &self.config.spec, command)?;
        let (executor, outcome) = self.executor(Above::Supervisor { ends_all: command.ends_all })?;
        let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        let built = self.builder(executor, stdio)?.as_tenant().with_detach(true).with_process(Some(&process)).build();
        let _ = fs::write("/proc/self/oom_score_adj", score.trim());
        let _ = fs::remove_file(process);
        self.remove_exec_sockets();
        let pid = built.map_err(|error| with_causes(&error) + &self.missing_cwd(command))?;
        outcome.wait()?;
        Ok(pid.as_raw())
    }

    fn supervises_commands(&self) -> bool {
        true
    }

    fn pids(&self) -> Vec<i32> {
        self.group.pids()
    }

    fn thaw(&self) {
        self.group.thaw();
    }

    fn kill_all(&self) {
        self.group.kill_all();
    }

    fn signal(&self, pid: i32, signal: i32) -> nix::Result<()> {
        sys::kill(pid, signal)
    }

    fn oom_killed(&self) -> bool {
        self.group.oom_killed()
    }

    fn usage(&self) -> Usage {
        self.group.usage()
    }

    fn delete(&mut self) {
        self.group.remove();
        let _ = fs::remove_dir_all(self.state_dir());
    }
}
