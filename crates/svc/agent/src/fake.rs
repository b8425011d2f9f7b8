//! A driver and a control plane in memory, for tests of the workers: no kernel, no network, and no time but the test's.

use crate::{
    callers::Callers,
    context::{Context, now_ms},
    options::Options,
    plane::Plane,
    services::Services,
};
use futures_util::future::BoxFuture;
use heptad_api::operations::{ContainerReport, ContainerSettings};
use heptad_client::{Client, Error};
use heptad_exec::{
    CgroupMode, ContainerSpec, ContainerState, ContainerStatus, Driver, DriverKind, ExecCommand, ExecError, ExecIo,
    ExecOutput, ExecRequest, ExecSession, Exit, ExitEvent, ExitKind, LogReader, NodeFacts, PipedExec, Usage,
    image::{self, ImageStore},
};
use heptad_model::{ContainerId, Event, NodeName, ResourceVector};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{
    Semaphore,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};

/// Longer than any test waits; it passes at once when nothing else can happen.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// Waits until the list has what is looked for, and gives what `look` found.
pub(crate) async fn seen<S, T>(list: &watch::Sender<Vec<S>>, what: &str, look: impl Fn(&[S]) -> Option<T>) -> T
where
    S: std::fmt::Debug,
{
    let mut list = list.subscribe();
    let found = tokio::time::timeout(PATIENCE, list.wait_for(|list| look(list).is_some())).await;
    let found = found.map(|list| list.ok().and_then(|list| look(&list)));
    found.ok().flatten().unwrap_or_else(|| panic!("never seen: {what}; only {:#?}", list.borrow()))
}

/// Runs containers in memory.
#[derive(Debug)]
pub(crate) struct FakeDriver {
    state: Mutex<State>,
    changed: Condvar,
    /// What was asked, in order, such as `start web-1.0`.
    pub(crate) done: watch::Sender<Vec<String>>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<String, ContainerStatus>,
    subscribers: Vec<UnboundedSender<ExitEvent>>,
    starts_refused: u32,
    stops_refused: u32,
    starts_held: bool,
    checks: VecDeque<ExecOutput>,
}

impl FakeDriver {
    fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), done: watch::Sender::new(Vec::new()) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: &str, id: &str) {
        self.done.send_modify(|done| done.push(format!("{what} {id}")));
    }

    pub(crate) fn refuse_starts(&self, count: u32) {
        self.state().starts_refused = count;
    }

    pub(crate) fn refuse_stops(&self, count: u32) {
        self.state().stops_refused = count;
    }

    pub(crate) fn hold_starts(&self, held: bool) {
        self.state().starts_held = held;
        self.changed.notify_all();
    }

    /// The next answers to commands inside; the last one stays.
    pub(crate) fn answer(&self, outputs: impl IntoIterator<Item = ExecOutput>) {
        self.state().checks.extend(outputs);
    }

    /// Ends a run by itself, `ran_ms` after its start.
    pub(crate) fn end(&self, id: &str, how: ExitKind, oom_killed: bool, ran_ms: u64) {
        let mut state = self.state();
        let run = state.runs.get_mut(id).expect("it was started");
        let exit = Exit { how, oom_killed, at_ms: run.started_at_ms + ran_ms };
        run.state = ContainerState::Exited(exit.clone());
        let event = ExitEvent { id: id.to_owned(), exit };
        state.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    /// Tells an end again that was told before.
    pub(crate) fn tell_again(&self, id: &str) {
        let exit = Exit { how: ExitKind::Code(1), oom_killed: false, at_ms: 0 };
        let event = ExitEvent { id: id.to_owned(), exit };
        self.state().subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.state().runs.keys().cloned().collect()
    }
}

fn unknown(id: &str) -> ExecError {
    ExecError::NotFound { id: id.to_owned() }
}

impl Driver for FakeDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Process
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            cgroup_mode: CgroupMode::None,
            limits_cpu: false,
            limits_memory: false,
            limits_swap: false,
            limits_pids: false,
            runs_containers: false,
            missing: Vec::new(),
            cgroup_namespaces: false,
            user_namespaces: false,
            seccomp: false,
            nft: false,
            open_files_max: 1,
            cpu_millis: 1,
            memory_bytes: 1,
            kernel: String::new(),
            architecture: String::new(),
        }
    }

    fn start(&self, spec: &ContainerSpec) -> Result<ContainerStatus, ExecError> {
        self.note("starting", &spec.id);
        let waited = self.changed.wait_while(self.state(), |state| state.starts_held);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.starts_refused > 0 {
            state.starts_refused -= 1;
            return Err(ExecError::Start { id: spec.id.clone(), reason: "it was refused".to_owned() });
        }
        assert!(!state.runs.contains_key(&spec.id), "a run is started once: {}", spec.id);
        let running = |run: &ContainerStatus| matches!(run.state, ContainerState::Running { .. });
        assert!(!state.runs.values().any(running), "two runs of one container at once");
        let status =
            ContainerStatus { spec: spec.clone(), started_at_ms: now_ms(), state: ContainerState::Running { pid: 1 } };
        state.runs.insert(spec.id.clone(), status.clone());
        drop(state);
        self.note("start", &spec.id);
        Ok(status)
    }

    fn stop(&self, id: &str, _grace: Option<Duration>) -> Result<Exit, ExecError> {
        self.note("stop", id);
        let refused = {
            let mut state = self.state();
            let refused = state.stops_refused > 0;
            state.stops_refused = state.stops_refused.saturating_sub(1);
            refused
        };
        if refused {
            return Err(ExecError::Unkillable { id: id.to_owned(), waited_ms: 1 });
        }
        self.end(id, ExitKind::Signal(15), false, 0);
        Ok(Exit { how: ExitKind::Signal(15), oom_killed: false, at_ms: now_ms() })
    }

    fn kill(&self, id: &str, _signal: i32) -> Result<(), ExecError> {
        Err(unknown(id))
    }

    fn remove(&self, id: &str) -> Result<(), ExecError> {
        if self.state().runs.remove(id).is_some() {
            self.note("remove", id);
        }
        Ok(())
    }

    fn list(&self) -> Vec<ContainerStatus> {
        self.state().runs.values().cloned().collect()
    }

    fn status(&self, id: &str) -> Result<ContainerStatus, ExecError> {
        self.state().runs.get(id).cloned().ok_or_else(|| unknown(id))
    }

    fn wait(&self, id: &str, _timeout: Duration) -> Result<Option<Exit>, ExecError> {
        Err(unknown(id))
    }

    fn exits(&self) -> UnboundedReceiver<ExitEvent> {
        let (sender, receiver) = unbounded_channel();
        self.state().subscribers.push(sender);
        receiver
    }

    fn exec(&self, id: &str, _request: &ExecRequest) -> Result<ExecOutput, ExecError> {
        let mut state = self.state();
        let next = if state.checks.len() > 1 { state.checks.pop_front() } else { state.checks.front().cloned() };
        next.ok_or_else(|| unknown(id))
    }

    fn exec_piped(&self, id: &str, _command: &ExecCommand) -> Result<PipedExec, ExecError> {
        Err(unknown(id))
    }

    fn exec_on(&self, id: &str, _command: &ExecCommand, _io: ExecIo) -> Result<ExecSession, ExecError> {
        Err(unknown(id))
    }

    fn logs(&self, id: &str, _tail: Option<usize>, _follow: bool) -> Result<LogReader, ExecError> {
        Err(unknown(id))
    }

    fn usage(&self, id: &str) -> Result<Usage, ExecError> {
        Err(unknown(id))
    }
}

/// What a worker told the control plane.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Report(ContainerReport),
    Event(Event),
    Gone,
}

/// Listens, unless it is away.
#[derive(Debug)]
pub(crate) struct FakePlane {
    pub(crate) told: watch::Sender<Vec<Told>>,
    pub(crate) away: watch::Sender<bool>,
}

impl FakePlane {
    fn hear(&self, told: Told) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if *self.away.borrow() {
                return Err(Error::NoServer { operation: "tell".to_owned() });
            }
            self.told.send_modify(|all| all.push(told));
            Ok(())
        })
    }
}

impl Plane for FakePlane {
    fn report<'a>(&'a self, _id: &'a ContainerId, report: &'a ContainerReport) -> BoxFuture<'a, Result<(), Error>> {
        self.hear(Told::Report(report.clone()))
    }

    fn gone<'a>(&'a self, _id: &'a ContainerId, _node: &'a NodeName) -> BoxFuture<'a, Result<(), Error>> {
        self.hear(Told::Gone)
    }

    fn event<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Error>> {
        self.hear(Told::Event(event.clone()))
    }

    fn settings<'a>(&'a self, _id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerSettings, Error>> {
        Box::pin(async { Ok(ContainerSettings::default()) })
    }
}

/// A node of these two.
pub(crate) fn node() -> (tempfile::TempDir, Arc<FakeDriver>, Arc<FakePlane>, Arc<Context>) {
    let dir = tempfile::tempdir().expect("a directory");
    let driver = Arc::new(FakeDriver::new());
    let plane = Arc::new(FakePlane { told: watch::Sender::new(Vec::new()), away: watch::Sender::new(false) });
    let context = Arc::new(Context {
        options: Options {
            settings_dir: dir.path().join("settings"),
            ..Options::new("n1", ResourceVector::ZERO, "/x")
        },
        driver: driver.clone(),
        images: ImageStore::open(dir.path().join("images"), image::Options::default()).expect("an empty store"),
        network: None,
        plane: plane.clone(),
        client: Client::unix(dir.path().join("nobody")),
        traffic: None,
        services: Services::default(),
        callers: Callers::default(),
        starts: Arc::new(Semaphore::new(1)),
    });
    (dir, driver, plane, context)
}
