//! One thread that listens to all shims for the end of their containers. It waits for nothing else.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::adopt;
use super::entry::Entry;
use crate::proto::{Connection, Received, Reply};

pub(super) struct Watcher {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

struct Inbox {
    wake: EventFd,
    state: Mutex<InboxState>,
}

#[derive(Default)]
struct InboxState {
    new: Vec<(Arc<Entry>, Connection)>,
    closing: bool,
}

impl Inbox {
    fn state(&self) -> std::sync::MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = self.wake.write(1);
    }
}

impl Watcher {
    pub(super) fn start() -> std::io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let inbox = Arc::new(Inbox { wake, state: Mutex::default() });
        let theirs = Arc::clone(&inbox);
        let thread = std::thread::Builder::new().name("exec-watch".to_owned()).spawn(move || run(&theirs))?;
        Ok(Self { inbox, thread: Some(thread) })
    }

    pub(super) fn watch(&self, entry: Arc<Entry>, connection: Connection) {
        self.inbox.state().new.push((entry, connection));
        self.inbox.wake();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.inbox.state().closing = true;
        self.inbox.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(inbox: &Inbox) {
    let mut watched: Vec<(Arc<Entry>, Connection)> = Vec::new();
    loop {
        {
            let mut state = inbox.state();
            if state.closing {
                return;
            }
            watched.append(&mut state.new);
        }
        let mut fds = vec![PollFd::new(inbox.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(watched.iter().map(|(_, connection)| PollFd::new(connection.as_fd(), PollFlags::POLLIN)));
        let _ = poll(&mut fds, PollTimeout::NONE);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let _ = inbox.wake.read();
        let mut index = 0;
        watched.retain(|(entry, connection)| {
            index += 1;
            !ready[index] || listen(entry, connection)
        });
    }
}

/// Handles a shim's message; false when there will be no more.
fn listen(entry: &Entry, connection: &Connection) -> bool {
    loop {
        match connection.receive::<Reply>(Duration::ZERO) {
            Ok(Received::Message(Reply::Exited { exit }, _)) => entry.record_end(exit),
            Ok(Received::Message(..)) => {}
            Ok(Received::Nothing) => return true,
            Ok(Received::Closed) | Err(_) => break,
        }
    }
    if entry.exit().is_none() {
        match entry.bundle.read_exit() {
            Some(exit) => entry.record_end(exit),
            None => {
                tracing::warn!(container = entry.id(), fd = connection.as_fd().as_raw_fd(), "its shim was killed");
                entry.record_end(adopt::end_without_shim(entry));
            }
        }
    }
    entry.shim_is_gone();
    false
}
