//! The clients of a shim: watchers of the end, and owners of commands that run inside. Never waits for one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{SockFlag, accept4};

use crate::bundle::Started;
use crate::container::User;
use crate::driver::{Exit, ExitKind};
use crate::proto::{Connection, Received, Reply, Request};
use crate::shim::backend::Backend;
use crate::{procfs, sys};

const CLIENTS_MAX: usize = 128;

/// The pause between two checks of the commands that are to end.
const LOOK_MS: u64 = 10;
/// Time for processes to reap what was killed below them; then all are killed together.
const LEFT_TIMEOUT_MS: u64 = 2_000;

pub(super) struct Clients {
    all: Vec<Client>,
    /// Commands whose owners have left.
    left: Vec<LeftCommand>,
    /// Of the container, and so of commands that name no other.
    user: User,
}

struct LeftCommand {
    /// A child that was not reaped, so its pid is still its own.
    pid: i32,
    since: Instant,
}

struct Client {
    connection: Connection,
    watches: bool,
    /// The command that it runs inside.
    command: Option<i32>,
}

/// Requests of the clients to the loop itself.
#[derive(Default)]
pub(super) struct Actions {
    /// Graces of stops, in milliseconds.
    pub(super) stops: Vec<u64>,
}

impl Clients {
    pub(super) fn new(user: User) -> Self {
        Self { all: Vec::new(), left: Vec::new(), user }
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().map(|client| client.connection.as_fd())
    }

    pub(super) fn add_watcher(&mut self, connection: Connection, started: &Started) {
        let _ = connection.send_now(&Reply::Started { started: started.clone() });
        self.all.push(Client { connection, watches: true, command: None });
    }

    /// Accepts new clients; turns away those beyond the bound.
    pub(super) fn accept(&mut self, listener: &OwnedFd) {
        while let Ok(fd) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            // SAFETY: the kernel has just made this descriptor for us.
            let connection = Connection::from_fd(unsafe { OwnedFd::from_raw_fd(fd) });
            if self.all.len() < CLIENTS_MAX {
                self.all.push(Client { connection, watches: false, command: None });
            } else {
                let _ = connection.send_now(&Reply::Refused { reason: "too many connections".to_owned() });
            }
        }
    }

    /// Answers requests; drops clients that left, and their commands.
    pub(super) fn serve(&mut self, backend: &mut dyn Backend, started: &Started) -> Actions {
        let mut actions = Actions::default();
        let Self { all, left, user } = self;
        all.retain_mut(|client| {
            let mut leave = |command: Option<i32>| {
                left.extend(command.map(|pid| LeftCommand { pid, since: Instant::now() }));
                false
            };
            loop {
                match client.connection.receive::<Request>(Duration::ZERO) {
                    Ok(Received::Message(request, descriptors)) => {
                        let reply = client.handle(request, descriptors, backend, (started, &*user), &mut actions);
                        if client.connection.send_now(&reply).is_err() {
                            return leave(client.command);
                        }
                    }
                    Ok(Received::Nothing) => return true,
                    Ok(Received::Closed) | Err(_) => return leave(client.command),
                }
            }
        });
        actions
    }

    /// When commands of departed owners are checked again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (!self.left.is_empty()).then(|| Instant::now() + Duration::from_millis(LOOK_MS))
    }

    /// A departing client takes its command along, with all processes of it. The process right below a supervisor is
    /// killed last, because the supervisor ends with it, and nobody would reap what dies later. Until then it is
    /// stopped: it neither ends by itself when what it waits for is killed, nor creates others meanwhile.
    pub(super) fn end_left_commands(&mut self, backend: &dyn Backend) {
        for command in &self.left {
            let over = command.since.elapsed() > Duration::from_millis(LEFT_TIMEOUT_MS);
            let below = procfs::descendants(command.pid);
            let first =
                below.iter().filter(|stat| stat.parent == command.pid).map(|stat| (stat.start_time, stat.pid)).min();
            for stat in &below {
                let last = first == Some((stat.start_time, stat.pid));
                let waits = last && !over && !(below.len() == 1 && stat.state == 'T');
                let _ = sys::kill(stat.pid, if waits { libc::SIGSTOP } else { libc::SIGKILL });
            }
            if over || (below.is_empty() && !backend.supervises_commands()) {
                let _ = sys::kill(command.pid, libc::SIGKILL);
            }
        }
    }

    pub(super) fn command_ended(&mut self, pid: i32, how: ExitKind) {
        self.left.retain(|command| command.pid != pid);
        self.all.retain(|client| {
            let its_own = client.command == Some(pid);
            if its_own {
                let _ = client.connection.send_now(&Reply::ExecExited { how });
            }
            !its_own
        });
    }

    pub(super) fn container_ended(&mut self, exit: &Exit) {
        for client in self.all.iter().filter(|client| client.watches) {
            let _ = client.connection.send_now(&Reply::Exited { exit: exit.clone() });
        }
    }
}

impl Client {
    fn handle(
        &mut self,
        request: Request,
        descriptors: Vec<OwnedFd>,
        backend: &mut dyn Backend,
        (started, user): (&Started, &User),
        actions: &mut Actions,
    ) -> Reply {
        match request {
            Request::Watch => {
                self.watches = true;
                Reply::Started { started: started.clone() }
            }
            Request::Signal { signal } => done(backend.signal(started.pid, signal)),
            Request::Stop { grace_ms } => {
                actions.stops.push(grace_ms);
                Reply::Done
            }
            Request::Exec { command } => {
                let Ok(stdio) = <[OwnedFd; 3]>::try_from(descriptors) else {
                    return Reply::Refused { reason: "a command needs three descriptors".to_owned() };
                };
                if self.command.is_some() {
                    return Reply::Refused { reason: "a connection runs one command".to_owned() };
                }
                crate::shim::give_to_user(&stdio, command.user.as_ref().unwrap_or(user));
                match backend.exec(&command, stdio) {
                    Ok(pid) => {
                        self.command = Some(pid);
                        Reply::ExecStarted
                    }
                    Err(reason) => Reply::Refused { reason },
                }
            }
            Request::Usage => {
                let usage = backend.usage();
                Reply::Usage { memory_bytes: usage.memory_bytes, cpu_usec: usage.cpu_usec, pids: usage.pids }
            }
        }
    }
}

fn done(result: nix::Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Refused { reason: error.desc().to_owned() },
    }
}
