//! A runtime binary with runc's command line, driven by this process; the container's processes become its children
//! because it is their reaper.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Redirect};

use heptad_model::NodeFault;

use super::backend::{Backend, Broken, Stdio, kill_until_empty};
use super::group::{self, Group};
use crate::bundle::{Bundle, ShimConfig};
use crate::driver::{ExecCommand, Usage};

const LOG_BYTES_MAX: usize = 4_096;

pub(super) struct External {
    bundle: Bundle,
    config: ShimConfig,
    group: Group,
    program: PathBuf,
}

impl External {
    pub(super) fn new(bundle: &Bundle, config: &ShimConfig, program: &Path) -> Self {
        let group = Group::new(config);
        Self { bundle: bundle.clone(), config: config.clone(), group, program: program.to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--root").arg(self.bundle.path("runtime")).arg("--log").arg(self.bundle.path("runtime.log"));
        command.args(arguments).stdin(Redirect::null()).stdout(Redirect::null()).stderr(Redirect::null());
        command
    }

    fn run(&self, mut command: Command, what: &str) -> Result<(), Broken> {
        let absent = |error| Broken {
            fault: Some(NodeFault::Runtime),
            ..Broken::doing(&format!("run {}", self.program.display()), &error)
        };
        let status = command.status().map_err(absent)?;
        if status.success() {
            return Ok(());
        }
        Err(format!("{} {what} ended with {status}: {}", self.program.display(), self.log()).into())
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.bundle.path("runtime.log")).unwrap_or_default();
        text.trim().chars().rev().take(LOG_BYTES_MAX).collect::<Vec<_>>().into_iter().rev().collect()
    }

    fn with_stdio(mut command: Command, stdio: Stdio) -> Command {
        let [stdin, stdout, stderr] = stdio.map(File::from);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        command
    }

    fn pid_from(&self, path: &Path) -> Result<i32, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("the runtime wrote no pid: {error}"))?;
        text.trim().parse().map_err(|_| format!("the runtime wrote {text:?} as pid"))
    }

    fn try_start(&mut self, stdio: Stdio) -> Result<i32, Broken> {
        if self.config.spec.init {
            let program = self.program.display();
            return Err(format!("`init` needs the built-in runtime, and this node runs {program}; leave it out").into());
        }
        group::prepare(&self.bundle, &self.config, self.config.facts.seccomp)?;
        let pid_file = self.bundle.path("init.pid");
        let mut create = self.command(&["create"]);
        create.arg("--bundle").arg(&self.bundle.dir).arg("--pid-file").arg(&pid_file).arg(&self.config.spec.id);
        self.run(Self::with_stdio(create, stdio), "create")?;
        let pid = self.pid_from(&pid_file)?;
        self.run(self.command(&["start", &self.config.spec.id]), "start")?;
        Ok(pid)
    }
}

impl Backend for External {
    fn start(&mut self, stdio: Stdio) -> Result<i32, Broken> {
        let result = self.try_start(stdio);
        if result.is_err() {
            kill_until_empty(self, std::time::Duration::from_secs(5));
            self.delete();
        }
        result
    }

    fn exec(&mut self, command: &ExecCommand, stdio: Stdio) -> Result<i32, String> {
        let process = group::write_process(&self.bundle, &self.config, &self.config.spec, command)?;
        let pid_file = self.bundle.path("exec.pid");
        let mut exec = self.command(&["exec", "--detach"]);
        exec.arg("--process").arg(&process).arg("--pid-file").arg(&pid_file).arg(&self.config.spec.id);
        let run = self.run(Self::with_stdio(exec, stdio), "exec").map_err(|broken| broken.reason);
        let result = run.and_then(|()| self.pid_from(&pid_file));
        let _ = fs::remove_file(process);
        let _ = fs::remove_file(pid_file);
        result
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
        crate::sys::kill(pid, signal)
    }

    fn oom_killed(&self) -> bool {
        self.group.oom_killed()
    }

    fn usage(&self) -> Usage {
        self.group.usage()
    }

    fn delete(&mut self) {
        let _ = self.run(self.command(&["delete", "--force", &self.config.spec.id]), "delete");
        self.group.remove();
        let _ = fs::remove_dir_all(self.bundle.path("runtime"));
    }
}
