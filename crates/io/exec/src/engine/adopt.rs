//! What a new driver does with what an older one left: running containers are adopted, ended ones are known by their
//! exit file, those without a shim are ended, incomplete ones are removed.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::{Entry, Slot};
use super::{Engine, KILL_TIMEOUT_MS};
use crate::bundle::{Bundle, CONTROL_SOCKET, MARKER_VARIABLE, Started};
use crate::cgroup::Hierarchies;
use crate::client::{self, Answer};
use crate::container::id_is_valid;
use crate::driver::{Exit, ExitKind};
use crate::error::{ExecError, IoContext};
use crate::proto::{Connection, Reply, Request};
use crate::{procfs, sys};

impl Engine {
    /// Looks at every bundle, then removes the groups that belong to none.
    pub(super) fn adopt_all(&self) -> Result<(), ExecError> {
        let dir = self.options.dir.join("bundles");
        let entries = fs::read_dir(&dir).at("list", &dir)?;
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if !id_is_valid(&name) {
                continue;
            }
            match self.adopt(&name) {
                Some(entry) => {
                    tracing::info!(container = name, running = entry.exit().is_none(), "taken over");
                    self.containers().insert(name, Slot::Known(entry));
                }
                None => {
                    tracing::warn!(container = name, "was never started wholly; removed");
                    self.discard(&name);
                }
            }
        }
        self.remove_stray_groups();
        Ok(())
    }

    fn adopt(&self, id: &str) -> Option<Arc<Entry>> {
        let bundle = self.bundle(id);
        let config = bundle.read_config().ok()?;
        let connection = watch(&bundle, id);
        // Read after the shim answered: until then it may still be creating the container.
        let started = match &connection {
            Some((_, started)) => started.clone(),
            None => bundle.read_started().ok()?,
        };
        let entry = Arc::new(Entry::new(config.spec, bundle, config.cgroup, started));
        match connection {
            Some((connection, _)) => self.watcher.watch(Arc::clone(&entry), connection),
            None => {
                let exit = entry.bundle.read_exit().unwrap_or_else(|| end_without_shim(&entry));
                entry.record_end(exit);
                // A shim that told the end may still be removing the groups.
                kill_group(&entry.cgroup, Duration::from_millis(KILL_TIMEOUT_MS));
                entry.shim_is_gone();
            }
        }
        Some(entry)
    }

    fn remove_stray_groups(&self) {
        let parent = &self.options.cgroup_parent;
        if parent.is_empty() {
            return;
        }
        let known: Vec<String> = self.containers().keys().cloned().collect();
        for name in Hierarchies::find().children(parent) {
            if !known.contains(&name) {
                tracing::warn!(group = name, "belongs to no container; removed");
                kill_group(&format!("{parent}/{name}"), Duration::from_millis(KILL_TIMEOUT_MS));
            }
        }
    }
}

fn watch(bundle: &Bundle, id: &str) -> Option<(Connection, Started)> {
    let connection = Connection::connect(&bundle.dir, CONTROL_SOCKET).ok()?;
    match client::ask_on(&connection, id, "watch", &Request::Watch, &[]) {
        Ok(Answer::Reply(Reply::Started { started })) => Some((connection, started)),
        _ => None,
    }
}

/// The container outlived its shim, or died with it: nobody can learn how it ends, so it is ended here.
pub(super) fn end_without_shim(entry: &Entry) -> Exit {
    if entry.is_alive()
        && let Ok(pidfd) = sys::pidfd_open(entry.started.pid)
        && entry.is_alive()
    {
        let _ = sys::pidfd_send_signal(&pidfd, libc::SIGKILL);
    }
    if entry.cgroup.is_empty() {
        kill_marked(&entry.bundle);
    }
    kill_group(&entry.cgroup, Duration::from_millis(KILL_TIMEOUT_MS));
    let deadline = Instant::now() + Duration::from_millis(KILL_TIMEOUT_MS);
    while entry.is_alive() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let exit = Exit { how: ExitKind::Unknown, oom_killed: false, at_ms: sys::now_ms() };
    if let Err(error) = entry.bundle.write_exit(&exit) {
        tracing::warn!(
            container = entry.id(),
            error = heptad_model::with_causes(&error),
            "its end could not be recorded"
        );
    }
    let _ = fs::remove_dir_all(entry.bundle.path("runtime"));
    exit
}

/// Kills all processes that were started for this bundle and kept the mark in their environment, until none is left.
fn kill_marked(bundle: &Bundle) {
    let mark = format!("{MARKER_VARIABLE}={}", bundle.dir.display());
    let deadline = Instant::now() + Duration::from_millis(KILL_TIMEOUT_MS);
    loop {
        let marked: Vec<i32> = procfs::all()
            .into_iter()
            .filter(|stat| stat.is_alive() && procfs::environment_has(stat.pid, &mark))
            .map(|stat| stat.pid)
            .collect();
        if marked.is_empty() || Instant::now() >= deadline {
            return;
        }
        for pid in marked {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends and removes a control group, if there is one.
pub(super) fn kill_group(group: &str, timeout: Duration) {
    if group.is_empty() {
        return;
    }
    let hierarchies = Hierarchies::find();
    let deadline = Instant::now() + timeout;
    while !hierarchies.pids(group).is_empty() && Instant::now() < deadline {
        hierarchies.kill_all(group);
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Err(error) = hierarchies.remove(group, deadline.saturating_duration_since(Instant::now())) {
        tracing::warn!(group, error = error.to_string(), "cannot be removed");
    }
}
