//! The process between the agent and one container: the same binary, executed again with one thread. It creates the
//! container, owns its output, waits for its end and survives the agent. It knows one container and no other.

mod backend;
mod embedded;
mod executor;
mod external;
mod group;
mod plain;
mod rootfs;
mod server;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::ForkResult;

use crate::bundle::{Bundle, CONTROL_SOCKET, ShimConfig};
use crate::container::User;
use crate::driver::DriverKind;
use crate::proto::{Connection, Reply};
use crate::sys;
use backend::{Backend, Broken};

/// The first argument of the shim's command line, before `--bundle DIR`.
pub const SUBCOMMAND: &str = "shim";

/// Runs one shim; called first in `main`, before any thread exists. `args` are those after [`SUBCOMMAND`]. Descriptor 1
/// is the socket on which the driver waits for the answer.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let (Some(flag), Some(dir)) = (args.next(), args.next()) else { return ExitCode::from(2) };
    if flag != "--bundle" {
        return ExitCode::from(2);
    }
    match detach() {
        Ok(ForkResult::Parent { .. }) => ExitCode::SUCCESS,
        Ok(ForkResult::Child) => serve(Bundle::new(PathBuf::from(dir))),
        Err(error) => {
            answer_failure(&take_driver(), Broken::of(&error));
            ExitCode::FAILURE
        }
    }
}

/// A session of its own, no parent to be killed with, nothing inherited but 0, 1 and 2.
fn detach() -> io::Result<ForkResult> {
    sys::close_from(3);
    let result = sys::fork_single_threaded()?;
    if result.is_child() {
        nix::unistd::setsid()?;
        nix::sys::prctl::set_child_subreaper(true)?;
        sys::set_not_dumpable();
        for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
            // SAFETY: ignoring a signal runs no code of ours.
            unsafe { signal(ignored, SigHandler::SigIgn) }?;
        }
    }
    Ok(result)
}

/// The socket that the driver put in the place of stdout.
fn take_driver() -> Connection {
    // SAFETY: descriptor 1 is open (the driver made it), and nothing in a shim prints to it.
    Connection::from_fd(unsafe { OwnedFd::from_raw_fd(1) })
}

fn answer_failure(driver: &Connection, Broken { reason, fault }: Broken) {
    let _ = driver.send_now(&Reply::Failed { reason, fault });
}

fn serve(bundle: Bundle) -> ExitCode {
    let driver = match own_descriptor(take_driver()) {
        Ok(driver) => driver,
        Err(_) => return ExitCode::FAILURE,
    };
    let prepared = prepare(&bundle);
    let (config, listener, signals) = match prepared {
        Ok(prepared) => prepared,
        Err(broken) => {
            answer_failure(&driver, broken);
            return ExitCode::FAILURE;
        }
    };
    let backend = make_backend(&bundle, &config);
    match server::Server::start(bundle, config, backend, listener, signals, driver) {
        Ok(server) => {
            server.run();
            ExitCode::SUCCESS
        }
        Err(()) => ExitCode::FAILURE,
    }
}

/// Moves the driver's socket away from 1, where the container's own output could otherwise reach it.
fn own_descriptor(driver: Connection) -> io::Result<Connection> {
    let moved = driver.as_fd().try_clone_to_owned()?;
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    // Descriptor 1 now belongs to /dev/null for good.
    std::mem::forget(driver);
    Ok(Connection::from_fd(moved))
}

fn prepare(bundle: &Bundle) -> Result<(ShimConfig, OwnedFd, SignalFd), Broken> {
    let config = bundle.read_config().map_err(|error| Broken::of(&error))?;
    std::env::set_current_dir(&bundle.dir).map_err(|error| Broken::doing("enter the bundle", &error))?;
    let listener = listen().map_err(|error| Broken::doing("listen on the control socket", &error))?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).map_err(|error| Broken::of(&error))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| Broken::doing("receive signals", &error))?;
    Ok((config, listener, signals))
}

/// Bound by a relative name, because the whole path may be longer than a socket address can hold.
fn listen() -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    let old_mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let _ = std::fs::remove_file(CONTROL_SOCKET);
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(CONTROL_SOCKET)?)?;
    listen(&fd, Backlog::new(64)?)?;
    nix::sys::stat::umask(old_mask);
    Ok(fd)
}

fn make_backend(bundle: &Bundle, config: &ShimConfig) -> Box<dyn Backend> {
    match (config.kind, &config.oci_runtime) {
        (DriverKind::Process, _) => Box::new(plain::Plain::new(bundle, config)),
        (DriverKind::Oci, Some(program)) => Box::new(external::External::new(bundle, config, program)),
        (DriverKind::Oci, None) => Box::new(embedded::Embedded::new(bundle, config)),
    }
}

/// Gives pipes and terminals to the user, who may reopen them through `/dev/stdout` and the like. Anything else that a
/// caller passes stays as it is.
fn give_to_user(stdio: &[OwnedFd; 3], user: &User) {
    use nix::sys::stat::{SFlag, fstat};
    for fd in stdio {
        let pipe =
            fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO);
        if pipe || nix::unistd::isatty(fd).unwrap_or(false) {
            // Not possible without root, but there it belongs to the user already.
            let _ = nix::unistd::fchown(fd, Some(nix::unistd::Uid::from_raw(user.uid)), None);
        }
    }
}

/// The descriptors of a container's first process: no input, two pipes.
struct Pipes {
    stdin: OwnedFd,
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
        Ok(Self { stdin: File::open("/dev/null")?.into(), stdout: pipe()?, stderr: pipe()? })
    }
}
