//! A container that is only a process: no namespaces, no control groups, no root needed. Its descendants are found
//! because this process is their reaper, whatever sessions and groups they make.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};

use super::backend::{Backend, Broken, Stdio};
use super::executor::supervise;
use crate::bundle::{Bundle, MARKER_VARIABLE, ShimConfig};
use crate::container::{Limits, User};
use crate::driver::{ExecCommand, Usage};
use crate::{procfs, sys};

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Limits that have no default.
const OTHER_LIMITS: [(&str, Resource); 11] = [
    ("as", Resource::RLIMIT_AS),
    ("cpu", Resource::RLIMIT_CPU),
    ("data", Resource::RLIMIT_DATA),
    ("fsize", Resource::RLIMIT_FSIZE),
    ("locks", Resource::RLIMIT_LOCKS),
    ("memlock", Resource::RLIMIT_MEMLOCK),
    ("msgqueue", Resource::RLIMIT_MSGQUEUE),
    ("nproc", Resource::RLIMIT_NPROC),
    ("rss", Resource::RLIMIT_RSS),
    ("sigpending", Resource::RLIMIT_SIGPENDING),
    ("stack", Resource::RLIMIT_STACK),
];

pub(super) struct Plain {
    config: ShimConfig,
    marker: String,
}

impl Plain {
    pub(super) fn new(bundle: &Bundle, config: &ShimConfig) -> Self {
        Self { config: config.clone(), marker: bundle.dir.to_string_lossy().into_owned() }
    }

    fn spawn(&self, command: &ExecCommand, stdio: Stdio, supervised: bool) -> Result<i32, Broken> {
        let spec = &self.config.spec;
        let program = command.args.first().ok_or("no program is named")?;
        let mut process = Command::new(program);
        process.args(&command.args[1..]).env_clear().env("PATH", PATH_DEFAULT).envs(&spec.env).envs(&command.env);
        process.env(MARKER_VARIABLE, &self.marker);
        let cwd = command.cwd.as_ref().unwrap_or(&spec.cwd);
        if !cwd.is_dir() {
            return Err(format!("the working directory {} does not exist or is none", cwd.display()).into());
        }
        process.current_dir(cwd);
        let [stdin, stdout, stderr] = stdio.map(File::from);
        process.stdin(stdin).stdout(stdout).stderr(stderr);
        let user = command.user.clone().unwrap_or_else(|| spec.user.clone());
        let (limits, ends_all) = (spec.limits.clone(), command.ends_all);
        let prepare = move || {
            become_container(&user, &limits)?;
            if supervised { supervise(ends_all).map_err(io::Error::other) } else { Ok(()) }
        };
        // SAFETY: this process has one thread, so the closure may allocate after fork.
        unsafe { process.pre_exec(prepare) };
        let child = process.spawn().map_err(|error| Broken::doing(&format!("execute {program}"), &error))?;
        Ok(child.id() as i32)
    }

    fn descendants(&self) -> Vec<procfs::ProcStat> {
        procfs::descendants(std::process::id() as i32)
    }
}

/// In the child, before the program: own session, limits, then the user, from which there is no way back.
fn become_container(user: &User, limits: &Limits) -> io::Result<()> {
    setsid()?;
    sys::reset_signals();
    sys::close_from_on_exec(3)?;
    let _ = fs::write("/proc/self/oom_score_adj", limits.oom_score_adj.to_string());
    if let Some(bytes) = limits.memory_bytes {
        // Private writable memory of each process; the address space may be larger (Go and Java reserve much of it).
        limit(Resource::RLIMIT_DATA, (bytes, bytes))?;
    }
    let named = |name: &str| limits.ulimits.get(name).map(|limit| limit.values());
    limit(Resource::RLIMIT_CORE, named("core").unwrap_or_default())?;
    limit(Resource::RLIMIT_NOFILE, named("nofile").unwrap_or((limits.open_files_max, limits.open_files_max)))?;
    for (name, resource) in OTHER_LIMITS {
        named(name).map_or(Ok(()), |values| limit(resource, values))?;
    }
    if nix::unistd::geteuid().is_root() {
        let groups: Vec<Gid> = user.additional_gids.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        setgid(Gid::from_raw(user.gid))?;
        setuid(Uid::from_raw(user.uid))?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// Never above what this process has itself.
fn limit(resource: Resource, (soft, hard): (u64, u64)) -> io::Result<()> {
    let (_, most) = getrlimit(resource)?;
    Ok(setrlimit(resource, soft.min(most), hard.min(most))?)
}

impl Backend for Plain {
    fn start(&mut self, stdio: Stdio) -> Result<i32, Broken> {
        let args = self.config.spec.args.clone();
        self.spawn(&ExecCommand { args, ..ExecCommand::default() }, stdio, false)
    }

    fn exec(&mut self, command: &ExecCommand, stdio: Stdio) -> Result<i32, String> {
        self.spawn(command, stdio, true).map_err(|broken| broken.reason)
    }

    fn supervises_commands(&self) -> bool {
        true
    }

    fn pids(&self) -> Vec<i32> {
        self.descendants().iter().map(|stat| stat.pid).collect()
    }

    fn kill_all(&self) {
        for stat in self.descendants() {
            let _ = sys::kill(stat.pid, libc::SIGKILL);
        }
    }

    /// To the whole process group, as a terminal would: a shell in front of the program passes nothing on.
    fn signal(&self, pid: i32, signal: i32) -> nix::Result<()> {
        sys::kill(-pid, signal)
    }

    fn lingers(&self, pid: i32) -> bool {
        self.descendants().iter().any(|stat| stat.group == pid)
    }

    fn oom_killed(&self) -> bool {
        false
    }

    fn usage(&self) -> Usage {
        let all = self.descendants();
        let page_bytes = 4_096;
        let ticks_per_second = 100;
        Usage {
            memory_bytes: all.iter().map(|stat| stat.resident_pages * page_bytes).sum(),
            cpu_usec: all.iter().map(|stat| stat.cpu_ticks * 1_000_000 / ticks_per_second).sum(),
            pids: all.len() as u64,
        }
    }

    fn delete(&mut self) {}
}
