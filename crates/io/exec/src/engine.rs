//! The driver behind both drivers: containers of one directory, each with its bundle and its shim. Knows no runtime.

mod adopt;
mod entry;
mod watcher;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use heptad_model::NodeFault;
use nix::fcntl::{Flock, FlockArg};

use crate::bundle::{Bundle, ShimConfig};
use crate::cgroup::Hierarchies;
use crate::client::{self, Answer};
use crate::collect::PipedExec;
use crate::container::ContainerSpec;
use crate::driver::{
    ContainerState, ContainerStatus, Driver, DriverKind, ExecCommand, ExecIo, ExecOutput, ExecRequest, ExecSession,
    Exit, Usage,
};
use crate::error::{ExecError, IoContext};
use crate::facts::{NodeFacts, facts};
use crate::fault::node_fault;
use crate::launch::{Launcher, ShimCommand};
use crate::logs::LogReader;
use crate::proto::{Received, Reply, Request};
use entry::{Entry, Slot};
use watcher::Watcher;

/// Making a container takes tens of milliseconds; a machine under heavy load may take longer.
const START_TIMEOUT_MS: u64 = 60_000;
/// How long after the last grace a process that is still there counts as impossible to kill.
const KILL_TIMEOUT_MS: u64 = 15_000;

pub(crate) struct EngineOptions {
    pub(crate) kind: DriverKind,
    pub(crate) dir: PathBuf,
    pub(crate) shim: ShimCommand,
    pub(crate) oci_runtime: Option<PathBuf>,
    /// The group above all containers' groups; empty for the process driver.
    pub(crate) cgroup_parent: String,
    pub(crate) hidden_dirs: Vec<PathBuf>,
}

pub(crate) struct Engine {
    options: EngineOptions,
    facts: NodeFacts,
    launcher: Launcher,
    containers: Mutex<BTreeMap<String, Slot>>,
    watcher: Watcher,
    _lock: Flock<File>,
}

impl Engine {
    pub(crate) fn open(options: EngineOptions) -> Result<Self, ExecError> {
        DirBuilder::new().recursive(true).mode(0o700).create(options.dir.join("bundles")).at("create", &options.dir)?;
        let lock = lock(&options)?;
        let launcher = Launcher::new(options.shim.clone()).at("open", &options.shim.program)?;
        let watcher = Watcher::start().at("start the watcher of", &options.dir)?;
        let (facts, containers) = (facts_for(options.kind), Mutex::default());
        let engine = Self { facts, launcher, containers, watcher, _lock: lock, options };
        engine.adopt_all()?;
        Ok(engine)
    }

    fn containers(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Slot>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundle(&self, id: &str) -> Bundle {
        Bundle::new(self.options.dir.join("bundles").join(id))
    }

    fn cgroup(&self, id: &str) -> String {
        match self.options.cgroup_parent.as_str() {
            "" => String::new(),
            parent => format!("{parent}/{id}"),
        }
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, ExecError> {
        match self.containers().get(id) {
            Some(Slot::Known(entry)) => Ok(Arc::clone(entry)),
            Some(Slot::Starting) | None => Err(ExecError::NotFound { id: id.to_owned() }),
        }
    }

    fn check(&self, spec: &ContainerSpec) -> Result<(), ExecError> {
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(ExecError::InvalidSpec { id: spec.id.clone(), problems });
        }
        if self.options.kind == DriverKind::Process {
            return Ok(());
        }
        let mode = format!("control groups: {:?}", self.facts.cgroup_mode);
        let refuse = |resource| Err(ExecError::NotEnforceable { resource, why: mode.clone() });
        match &spec.limits {
            limits if limits.cpu_millis.is_some() && !self.facts.limits_cpu => refuse("CPU"),
            limits if limits.memory_bytes.is_some() && !self.facts.limits_memory => refuse("memory"),
            _ => Ok(()),
        }
    }

    /// Reserves the name while the container is created, so that two callers cannot create it twice.
    fn reserve(&self, id: &str) -> Result<(), ExecError> {
        let mut containers = self.containers();
        if containers.contains_key(id) {
            return Err(ExecError::Exists { id: id.to_owned() });
        }
        containers.insert(id.to_owned(), Slot::Starting);
        Ok(())
    }

    fn launch(&self, spec: &ContainerSpec) -> Result<ContainerStatus, ExecError> {
        let bundle = Bundle::create(self.bundle(&spec.id).dir)?;
        bundle.write_config(&ShimConfig {
            kind: self.options.kind,
            spec: spec.clone(),
            facts: self.facts.clone(),
            cgroup: self.cgroup(&spec.id),
            oci_runtime: self.options.oci_runtime.clone(),
            hidden_dirs: self.options.hidden_dirs.clone(),
        })?;
        let failed = |reason: String, fault| ExecError::Start { id: spec.id.clone(), reason, fault };
        // Until the shim answers, nothing is known about the container: whatever breaks is this node's fault.
        let broken = |reason: String| failed(reason, Some(NodeFault::Runtime));
        let launched = self.launcher.launch(&bundle);
        let connection =
            launched.map_err(|error| failed(error.to_string(), node_fault(&error).or(Some(NodeFault::Runtime))))?;
        let received = client::receive(&connection, Duration::from_millis(START_TIMEOUT_MS));
        match received {
            Ok(Received::Message(Reply::Started { started }, _)) => {
                let entry = Arc::new(Entry::new(spec.clone(), bundle, self.cgroup(&spec.id), started));
                // Known before its end can be reported.
                self.containers().insert(spec.id.clone(), Slot::Known(Arc::clone(&entry)));
                let status = entry.status();
                self.watcher.watch(entry, connection);
                Ok(status)
            }
            Ok(Received::Message(Reply::Failed { reason, fault }, _)) => Err(failed(reason, fault)),
            Ok(Received::Message(other, _)) => Err(broken(format!("its shim said {other:?}"))),
            Ok(Received::Nothing) => Err(broken(format!("its shim was silent for {START_TIMEOUT_MS} ms"))),
            Ok(Received::Closed) => Err(broken(format!("its shim died: {}", bundle.shim_errors()))),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    /// After a failed start: removes whatever there is of it.
    fn discard(&self, id: &str) {
        adopt::kill_group(&self.cgroup(id), Duration::from_millis(KILL_TIMEOUT_MS));
        let _ = self.bundle(id).remove();
    }

    fn running(&self, id: &str) -> Result<Arc<Entry>, ExecError> {
        let entry = self.entry(id)?;
        match entry.exit() {
            None => Ok(entry),
            Some(_) => Err(ExecError::NotRunning { id: id.to_owned() }),
        }
    }
}

/// Without control groups nothing bounds a container as a whole, and that must be reported.
fn facts_for(kind: DriverKind) -> NodeFacts {
    let found = facts();
    match kind {
        DriverKind::Oci => found,
        DriverKind::Process => {
            NodeFacts { limits_cpu: false, limits_memory: false, limits_swap: false, limits_pids: false, ..found }
        }
    }
}

/// One driver at a time: two would fight over the same containers.
fn lock(options: &EngineOptions) -> Result<Flock<File>, ExecError> {
    let path = options.dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).at("open", &path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| ExecError::DirectoryInUse { path: options.dir.clone() })
}

/// Asks the shim to stop the container. A silent one waits for the container itself, in which a frozen or stopped process
/// holds up the entry of a command: that is over once everything in the container is killed.
fn ask_to_stop(entry: &Entry, grace_ms: u64) -> Result<(), ExecError> {
    match client::ask(&entry.bundle, entry.id(), "stop", &Request::Stop { grace_ms }) {
        Err(ExecError::ShimSilent { .. }) if !entry.cgroup.is_empty() => {
            adopt::kill_group(&entry.cgroup, Duration::from_millis(KILL_TIMEOUT_MS));
            Ok(())
        }
        asked => asked.map(drop),
    }
}

fn in_ms(grace: Duration) -> u64 {
    u64::try_from(grace.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

impl Driver for Engine {
    fn kind(&self) -> DriverKind {
        self.options.kind
    }

    fn facts(&self) -> NodeFacts {
        self.facts.clone()
    }

    fn start(&self, spec: &ContainerSpec) -> Result<ContainerStatus, ExecError> {
        self.check(spec)?;
        self.reserve(&spec.id)?;
        self.launch(spec).inspect_err(|_| {
            self.discard(&spec.id);
            self.containers().remove(&spec.id);
        })
    }

    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<Exit, ExecError> {
        let entry = self.entry(id)?;
        if let Some(exit) = entry.exit() {
            return Ok(exit);
        }
        let grace = grace.unwrap_or(Duration::from_millis(entry.spec.stop_grace_ms));
        let grace_ms = in_ms(grace);
        ask_to_stop(&entry, grace_ms)?;
        let patience = Duration::from_millis(grace_ms.saturating_add(KILL_TIMEOUT_MS));
        if let Some(exit) = entry.wait(patience) {
            return Ok(exit);
        }
        adopt::kill_group(&entry.cgroup, Duration::from_millis(KILL_TIMEOUT_MS));
        let waited_ms = KILL_TIMEOUT_MS;
        entry.wait(Duration::from_millis(waited_ms)).ok_or(ExecError::Unkillable { id: id.to_owned(), waited_ms })
    }

    fn begin_stop(&self, id: &str, grace: Duration) -> Result<(), ExecError> {
        let entry = self.entry(id)?;
        ask_to_stop(&entry, in_ms(grace))
    }

    fn ended(&self, id: &str) -> BoxFuture<'static, Option<Exit>> {
        match self.entry(id) {
            Ok(entry) => Box::pin(entry.wait_exit()),
            Err(_) => Box::pin(std::future::ready(None)),
        }
    }

    fn gone(&self, id: &str) -> BoxFuture<'static, ()> {
        match self.entry(id) {
            Ok(entry) => Box::pin(entry.gone()),
            Err(_) => Box::pin(std::future::ready(())),
        }
    }

    fn kill(&self, id: &str, signal: i32) -> Result<(), ExecError> {
        let entry = self.running(id)?;
        match client::ask(&entry.bundle, id, "signal", &Request::Signal { signal })? {
            Answer::Reply(Reply::Done) => Ok(()),
            Answer::Reply(Reply::Refused { reason }) => {
                Err(ExecError::ShimRefused { id: id.to_owned(), request: "signal", reason })
            }
            Answer::Reply(_) | Answer::NoShim => Err(ExecError::NotRunning { id: id.to_owned() }),
        }
    }

    fn remove(&self, id: &str) -> Result<(), ExecError> {
        let entry = match self.entry(id) {
            Ok(entry) => entry,
            Err(ExecError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if entry.exit().is_none() {
            return Err(ExecError::StillRunning { id: id.to_owned() });
        }
        // The shim removes groups and state after reporting the end.
        let waited_ms = KILL_TIMEOUT_MS;
        if !entry.wait_shim(Duration::from_millis(waited_ms)) {
            return Err(ExecError::ShimSilent { id: id.to_owned(), request: "end", waited_ms });
        }
        entry.bundle.remove()?;
        self.containers().remove(id);
        Ok(())
    }

    fn list(&self) -> Vec<ContainerStatus> {
        let containers = self.containers();
        containers
            .values()
            .filter_map(|slot| match slot {
                Slot::Known(entry) => Some(entry.status()),
                Slot::Starting => None,
            })
            .collect()
    }

    fn status(&self, id: &str) -> Result<ContainerStatus, ExecError> {
        let entry = self.entry(id)?;
        let mut status = entry.status();
        if entry.exit().is_none() && !entry.is_alive() {
            // Its end is on the way through the shim.
            if let Some(exit) = entry.wait(Duration::from_millis(KILL_TIMEOUT_MS)) {
                status.state = ContainerState::Exited(exit);
            }
        }
        Ok(status)
    }

    fn wait(&self, id: &str, timeout: Duration) -> Result<Option<Exit>, ExecError> {
        Ok(self.entry(id)?.wait(timeout))
    }

    fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecOutput, ExecError> {
        let begun = Instant::now();
        let piped = self.exec_piped(id, &request.command)?;
        let left = request.timeout.saturating_sub(begun.elapsed());
        piped.collect(&request.stdin, left, request.output_bytes_max)
    }

    fn exec_piped(&self, id: &str, command: &ExecCommand) -> Result<PipedExec, ExecError> {
        let (theirs, pipes) = crate::collect::pipes().at("make pipes for a command in", id)?;
        let session = self.exec_on(id, command, theirs)?;
        Ok(PipedExec { session, pipes })
    }

    fn exec_on(&self, id: &str, command: &ExecCommand, io: ExecIo) -> Result<ExecSession, ExecError> {
        let entry = self.running(id)?;
        let mut like_spec = entry.spec.clone();
        like_spec.args = command.args.clone();
        like_spec.env.extend(command.env.clone());
        like_spec.user = command.user.clone().unwrap_or(like_spec.user);
        like_spec.cwd = command.cwd.clone().unwrap_or(like_spec.cwd);
        let problems = like_spec.problems();
        if !problems.is_empty() {
            return Err(ExecError::InvalidSpec { id: id.to_owned(), problems });
        }
        client::start_exec(&entry.bundle, id, command, &io)
    }

    fn logs(&self, id: &str, tail: Option<usize>, follow: bool) -> Result<LogReader, ExecError> {
        let entry = self.entry(id)?;
        let dir = entry.bundle.dir.clone();
        Ok(LogReader::open(&dir, tail, follow, Box::new(move || entry.exit().is_some())))
    }

    fn usage(&self, id: &str) -> Result<Usage, ExecError> {
        let entry = self.running(id)?;
        if !entry.cgroup.is_empty() {
            return Ok(Hierarchies::find().usage(&entry.cgroup));
        }
        match client::ask(&entry.bundle, id, "usage", &Request::Usage)? {
            Answer::Reply(Reply::Usage { memory_bytes, cpu_usec, pids }) => Ok(Usage { memory_bytes, cpu_usec, pids }),
            _ => Err(ExecError::NotRunning { id: id.to_owned() }),
        }
    }

    /// Containers keep running; an empty group above them is removed.
    fn close(&self) {
        let parent = &self.options.cgroup_parent;
        if !parent.is_empty() && self.containers().is_empty() {
            // Only this driver creates groups in it, so no container can be on its way into it.
            Hierarchies::find().remove_if_empty(parent);
            let _ = fs::remove_dir(self.options.dir.join("bundles"));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
