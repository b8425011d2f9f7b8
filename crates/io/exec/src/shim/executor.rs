//! The last steps of a new process before it becomes the container's program: clean signals, the seccomp filters, exec.
//! Runs in the container, as the container's user.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::{AccessFlags, ForkResult, access, execv};
use seccompiler::BpfProgram;

use crate::driver::ExitKind;
use crate::{procfs, sys};

const EXEC_TIMEOUT_MS: u16 = 10_000;
/// What `ps` shows.
const SUPERVISOR_NAME: &CStr = c"heptad-exec";
const INIT_NAME: &CStr = c"heptad-init";

/// Which process of ours, if any, stays above the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Above {
    Nothing,
    /// See [`supervise`].
    Supervisor {
        ends_all: bool,
    },
    /// See [`stand_as_init`].
    Init,
}

/// The write end of a pipe that exec closes; what arrives through it is the reason why exec failed.
#[derive(Clone)]
pub(super) struct SandboxExecutor {
    programs: Rc<Vec<BpfProgram>>,
    above: Above,
    failure: Rc<RefCell<File>>,
}

/// The reading end.
pub(super) struct ExecOutcome {
    failure: OwnedFd,
}

impl SandboxExecutor {
    pub(super) fn new(programs: Rc<Vec<BpfProgram>>, above: Above) -> nix::Result<(Self, ExecOutcome)> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        Ok((Self { programs, above, failure: Rc::new(RefCell::new(write.into())) }, ExecOutcome { failure: read }))
    }

    fn run(&self, process: &Process) -> Result<(), String> {
        let args: Vec<CString> = args_of(process).iter().filter_map(|arg| CString::new(arg.as_bytes()).ok()).collect();
        let path = find_program(process)?;
        let program = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        sys::reset_signals();
        sys::close_from_on_exec(3).map_err(|error| format!("cannot close descriptors: {error}"))?;
        for filter in self.programs.iter() {
            seccompiler::apply_filter(filter).map_err(|error| format!("cannot install seccomp: {error}"))?;
        }
        match self.above {
            Above::Nothing => {}
            Above::Supervisor { ends_all } => supervise(ends_all)?,
            Above::Init => stand_as_init()?,
        }
        // Not `execvp`, which hands a file that is not a program to a shell.
        let Err(error) = execv(&program, &args);
        Err(format!("cannot execute {}: {}", path.display(), error.desc()))
    }
}

impl ExecOutcome {
    /// Waits until the program was executed or could not be. The executor must have been dropped in this process.
    pub(super) fn wait(self) -> Result<(), String> {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.failure), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::from(EXEC_TIMEOUT_MS)) {
                Err(nix::errno::Errno::EINTR) => {}
                Ok(0) => return Err(format!("was not executed within {EXEC_TIMEOUT_MS} ms")),
                _ => break,
            }
        }
        let mut reason = String::new();
        let _ = File::from(self.failure).take(4_096).read_to_string(&mut reason);
        if reason.is_empty() { Ok(()) } else { Err(reason) }
    }
}

impl Executor for SandboxExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        if let Err(reason) = self.run(process) {
            let _ = self.failure.borrow_mut().write_all(reason.as_bytes());
        }
        // Reached only if the program was not executed; nothing of this process may run any further.
        // SAFETY: ends the process without running destructors that belong to its parent.
        unsafe { libc::_exit(127) }
    }

    /// Before the container is reported as created, so that a missing program is a failed start.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        let found = process.ok_or_else(|| "no process is given".to_owned()).and_then(find_program);
        found.map(|_| ()).map_err(ExecutorValidationError::ArgValidationError)
    }
}

/// Returns in a child that becomes the program. This process stays above it, reaps every process that the program
/// leaves behind while it runs, and ends as the program does. Otherwise they would become children of the container's
/// first process, and most programs never wait for children that they did not create. With `ends_all` nothing that the
/// program started outlives it.
pub(super) fn supervise(ends_all: bool) -> Result<(), String> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("cannot take in orphans: {error}"))?;
    // SAFETY: this process was cloned with one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }.map_err(|error| format!("cannot fork: {error}"))? {
        ForkResult::Child => Ok(()),
        ForkResult::Parent { child } => {
            step_back(SUPERVISOR_NAME);
            let how = wait_for(child.as_raw());
            if ends_all {
                kill_below();
            }
            end_as(how)
        }
    }
}

/// Returns in a child that becomes the program. This process, the first of the container, reaps every process that is
/// left to it, passes signals on to the program, and ends when the program does, with its exit code.
fn stand_as_init() -> Result<(), String> {
    let all = SigSet::all();
    all.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    // SAFETY: this process was cloned with one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { nix::unistd::fork() }.map_err(|error| format!("cannot fork: {error}"))? {
        ForkResult::Child => {
            SigSet::empty().thread_set_mask().map_err(|error| format!("cannot unblock signals: {error}"))
        }
        ForkResult::Parent { child } => {
            step_back(INIT_NAME);
            let child = child.as_raw();
            loop {
                match sys::wait_signal(&all) {
                    libc::SIGCHLD => {
                        let ended = std::iter::from_fn(|| sys::reap(false)).find(|(pid, _)| *pid == child);
                        if let Some((_, how)) = ended {
                            // SAFETY: ends the process without running destructors that belong to its parent.
                            unsafe { libc::_exit(how.shell_code()) }
                        }
                    }
                    signal => _ = sys::kill(child, signal),
                }
            }
        }
    }
}

/// Makes this process one that only waits.
fn step_back(name: &CStr) {
    // Including the program's pipes: only the program and its descendants may hold them open.
    sys::close_from(0);
    sys::set_not_dumpable();
    sys::clear_command_line();
    let _ = nix::sys::prctl::set_name(name);
}

fn wait_for(child: i32) -> ExitKind {
    let mut how = ExitKind::Unknown;
    while let Some((pid, ended)) = sys::reap(true) {
        if pid == child {
            how = ended;
            break;
        }
    }
    while sys::reap(false).is_some() {}
    how
}

/// Kills and reaps what is below this process until nothing is.
fn kill_below() {
    loop {
        for stat in procfs::descendants(std::process::id() as i32) {
            let _ = sys::kill(stat.pid, libc::SIGKILL);
        }
        if sys::reap(true).is_none() {
            return;
        }
    }
}

fn end_as(how: ExitKind) -> ! {
    if let ExitKind::Signal(signal) = how {
        let _ = sys::kill(std::process::id() as i32, signal);
    }
    // SAFETY: ends the process without running destructors that belong to its parent.
    unsafe { libc::_exit(how.shell_code()) }
}

/// By its path, or in the directories of the container's own PATH.
fn find_program(process: &Process) -> Result<PathBuf, String> {
    let program = args_of(process).first().ok_or("no program is named")?;
    let usable = |path: &PathBuf| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.contains('/') {
        let path = Some(PathBuf::from(program)).filter(usable);
        return path.ok_or_else(|| format!("{program} is not an executable file in the container"));
    }
    let env = process.env().as_deref().unwrap_or_default();
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let found = path.split(':').map(|dir| Path::new(dir).join(program)).find(usable);
    found.ok_or_else(|| format!("{program} is not found in the container's PATH ({path})"))
}

fn args_of(process: &Process) -> &[String] {
    process.args().as_deref().unwrap_or_default()
}
