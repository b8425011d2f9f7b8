//! The loop of a shim: one poll over the container's output, its end, and its clients. One thread, no queue that grows.

mod clients;
mod output;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::Pipes;
use super::backend::{Backend, Broken, kill_until_empty};
use crate::bundle::{Bundle, CONTROL_SOCKET, ShimConfig, Started};
use crate::driver::{Exit, ExitKind};
use crate::logs::{LogStream, LogWriter};
use crate::procfs::ProcStat;
use crate::proto::{Connection, Reply};
use crate::sys;
use clients::Clients;
use output::Output;

const KILL_TIMEOUT_MS: u64 = 10_000;

pub(super) struct Server {
    bundle: Bundle,
    stop_signal: i32,
    backend: Box<dyn Backend>,
    started: Started,
    listener: OwnedFd,
    signals: SignalFd,
    clients: Clients,
    output: Output,
    /// When a polite request turns into SIGKILL.
    kill_at: Option<Instant>,
}

impl Server {
    /// Creates the container and tells the driver, which is told the error if that fails.
    pub(super) fn start(
        bundle: Bundle,
        config: ShimConfig,
        mut backend: Box<dyn Backend>,
        listener: OwnedFd,
        signals: SignalFd,
        driver: Connection,
    ) -> Result<Self, ()> {
        let begun = begin(&bundle, &config, backend.as_mut());
        let (started, output) = match begun {
            Ok(begun) => begun,
            Err(Broken { reason, fault }) => {
                let _ = driver.send_now(&Reply::Failed { reason, fault });
                return Err(());
            }
        };
        let mut clients = Clients::new(config.spec.user);
        clients.add_watcher(driver, &started);
        let stop_signal = config.spec.stop_signal;
        Ok(Self { bundle, stop_signal, backend, started, listener, signals, clients, output, kill_at: None })
    }

    /// Returns when the container has ended and everything but its bundle is gone.
    pub(super) fn run(mut self) {
        let mut ended = None;
        loop {
            let ready = self.wait();
            if ready.output {
                self.output.pump();
            }
            if ready.clients {
                self.clients.accept(&self.listener);
                self.serve_clients();
            }
            self.clients.end_left_commands(self.backend.as_ref());
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.backend.kill_all();
                self.kill_at = Some(Instant::now() + Duration::from_millis(100));
            }
            ended = ended.or(self.reap());
            if let Some(how) = ended
                && !self.has_grace_left()
            {
                return self.finish(how);
            }
        }
    }

    fn wait(&self) -> Ready {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        let first_output = fds.len();
        fds.extend(self.output.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let first_client = fds.len();
        fds.extend(self.clients.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let _ = poll(&mut fds, self.timeout());
        let any = |fds: &[PollFd<'_>]| fds.iter().any(|fd| fd.any().unwrap_or(false));
        Ready { output: any(&fds[first_output..first_client]), clients: any(&fds[1..2]) || any(&fds[first_client..]) }
    }

    fn timeout(&self) -> PollTimeout {
        let soon = self.clients.next_look();
        let Some(at) = self.kill_at.into_iter().chain(soon).min() else { return PollTimeout::NONE };
        let millis = at.saturating_duration_since(Instant::now()).as_millis() + 1;
        PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
    }

    fn serve_clients(&mut self) {
        let actions = self.clients.serve(self.backend.as_mut(), &self.started);
        for grace_ms in actions.stops {
            self.backend.thaw();
            let _ = self.backend.signal(self.started.pid, self.stop_signal);
            let at = Instant::now() + Duration::from_millis(grace_ms);
            self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Whether a stop still waits for processes that were signalled together with the first one: a shell dies from the
    /// signal on which the program behind it begins to clean up.
    fn has_grace_left(&self) -> bool {
        self.kill_at.is_some() && self.backend.lingers(self.started.pid)
    }

    /// Reaps every ended child; returns how the container itself ended, if it did.
    fn reap(&mut self) -> Option<ExitKind> {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut ended = None;
        while let Some((pid, how)) = sys::reap(false) {
            if pid == self.started.pid {
                ended = Some(how);
            }
            self.clients.command_ended(pid, how);
        }
        ended
    }

    /// Nobody is told before it is on disk.
    fn finish(mut self, how: ExitKind) {
        let rest = kill_until_empty(self.backend.as_ref(), Duration::from_millis(KILL_TIMEOUT_MS));
        for (pid, how) in rest {
            self.clients.command_ended(pid, how);
        }
        self.output.drain();
        let exit = Exit { how, oom_killed: self.backend.oom_killed(), at_ms: sys::now_ms() };
        let written = self.bundle.write_exit(&exit);
        if let Err(error) = written {
            // The watchers still learn it; it would be unknown only after a restart of the agent.
            #[allow(clippy::print_stderr, reason = "a shim's stderr is its own file in the bundle")]
            {
                eprintln!("{}", heptad_model::with_causes(&error));
            }
        }
        self.clients.container_ended(&exit);
        self.backend.delete();
        let _ = std::fs::remove_file(CONTROL_SOCKET);
    }
}

struct Ready {
    output: bool,
    clients: bool,
}

fn begin(bundle: &Bundle, config: &ShimConfig, backend: &mut dyn Backend) -> Result<(Started, Output), Broken> {
    let log = LogWriter::open(&bundle.dir, config.spec.log.clone());
    let log = log.map_err(|error| Broken::doing("open the log", &error))?;
    let pipes = Pipes::new().map_err(|error| Broken::doing("make the output pipes", &error))?;
    let stdio = [pipes.stdin, pipes.stdout.1, pipes.stderr.1];
    super::give_to_user(&stdio, &config.spec.user);
    let pid = backend.start(stdio)?;
    let readers = [(LogStream::Stdout, pipes.stdout.0), (LogStream::Stderr, pipes.stderr.0)];
    let output = Output::new(log, readers).map_err(|error| Broken::doing("read the output", &error))?;
    // A zombie still has its start time: nobody but this process reaps it.
    let start_time = ProcStat::read(pid).map_or(0, |stat| stat.start_time);
    let shim_pid = std::process::id() as i32;
    let started = Started { shim_pid, pid, start_time, started_at_ms: sys::now_ms() };
    if let Err(error) = bundle.write_started(&started) {
        kill_until_empty(backend, Duration::from_millis(KILL_TIMEOUT_MS));
        backend.delete();
        return Err(Broken::of(&error));
    }
    Ok((started, output))
}
