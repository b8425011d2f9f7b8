//! Starts shims: which program, from which mount, with which descriptors. Knows nothing of containers.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::bundle::Bundle;
use crate::proto::Connection;
use crate::sys;

/// How a shim is started: this program with these arguments, then `--bundle DIR`. The program calls
/// [`crate::shim::main`] with what follows its own arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimCommand {
    pub program: PathBuf,
    pub args_prefix: Vec<OsString>,
}

impl ShimCommand {
    /// The running program with the argument `shim`.
    pub fn this_program() -> io::Result<Self> {
        let args_prefix = vec![OsString::from(crate::shim::SUBCOMMAND)];
        Ok(Self { program: std::env::current_exe()?, args_prefix })
    }
}

/// The shim's program, opened such that no container can ever write to it through `/proc/self/exe`.
#[derive(Debug)]
pub(crate) struct Launcher {
    command: ShimCommand,
    /// `None` without root: a process driver's container then has no more rights than this process.
    sealed: Option<File>,
}

impl Launcher {
    pub(crate) fn new(command: ShimCommand) -> io::Result<Self> {
        let sealed = match nix::unistd::geteuid().is_root() {
            true => Some(
                sys::open_on_read_only_mount(&command.program)
                    .or_else(|_| sys::copy_to_sealed_memory(&command.program))?,
            ),
            false => None,
        };
        Ok(Self { command, sealed })
    }

    /// Starts a shim on a bundle; returns the connection on which it answers.
    pub(crate) fn launch(&self, bundle: &Bundle) -> io::Result<Connection> {
        let (ours, theirs) = Connection::pair()?;
        let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(bundle.path("shim.err"))?;
        let program = match &self.sealed {
            Some(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            None => self.command.program.clone(),
        };
        let mut command = Command::new(program);
        command.args(&self.command.args_prefix).arg("--bundle").arg(&bundle.dir).env_clear();
        command.stdin(Stdio::null()).stdout(theirs.into_fd()).stderr(errors);
        let status = command.spawn()?.wait()?;
        if !status.success() {
            return Err(io::Error::other(format!("the shim ended with {status}: {}", bundle.shim_errors())));
        }
        Ok(ours)
    }
}
