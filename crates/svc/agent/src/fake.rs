//! A driver and a control plane in memory, for tests of the workers: no kernel, no network, and only the test's time.

use crate::{
    callers::Callers,
    context::{Context, now_ms},
    lease::Lease,
    options::Options,
    plane::Plane,
    services::Services,
};
use futures_util::future::BoxFuture;
use heptad_api::{
    ErrorCode, ProblemDetails,
    operations::{ContainerReport, ContainerSettings},
};
use heptad_client::{Client, Error};
use heptad_exec::{
    CgroupMode, ContainerSpec, ContainerState, ContainerStatus, Driver, DriverKind, ExecCommand, ExecError, ExecIo,
    ExecOutput, ExecRequest, ExecSession, Exit, ExitKind, LogReader, NodeFacts, PipedExec, Usage,
};
use heptad_image::ImageStore;
use heptad_model::{ContainerId, Event, NodeFault, NodeName, ResourceVector};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, watch};

/// Longer than any test waits; it passes at once when nothing else can happen.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// Waits until the list holds what is sought, and returns what `look` found.
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
    /// The calls in order, such as `start web-1.0`.
    pub(crate) done: watch::Sender<Vec<String>>,
    /// How runs ended, including those removed since; `None` for lost runs.
    ends: watch::Sender<BTreeMap<String, Option<Exit>>>,
}

#[derive(Debug, Default)]
struct State {
    runs: BTreeMap<String, ContainerStatus>,
    starts_refused: u32,
    stops_refused: u32,
    starts_held: bool,
    checks: VecDeque<ExecOutput>,
    /// Why starts are refused, if the cause lies with the node.
    fault: Option<NodeFault>,
    graces: BTreeMap<String, Duration>,
}

impl FakeDriver {
    fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            done: watch::Sender::default(),
            ends: watch::Sender::default(),
        }
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

    /// The same, for a cause that lies with the node.
    pub(crate) fn refuse_starts_for(&self, count: u32, fault: NodeFault) {
        let mut state = self.state();
        (state.starts_refused, state.fault) = (count, Some(fault));
    }

    pub(crate) fn refuse_stops(&self, count: u32) {
        self.state().stops_refused = count;
    }

    pub(crate) fn hold_starts(&self, held: bool) {
        self.state().starts_held = held;
        self.changed.notify_all();
    }

    /// The next answers to commands inside; the last one repeats.
    pub(crate) fn answer(&self, outputs: impl IntoIterator<Item = ExecOutput>) {
        self.state().checks.extend(outputs);
    }

    /// Ends a run by itself, `ran_ms` after its start.
    pub(crate) fn end(&self, id: &str, how: ExitKind, oom_killed: bool, ran_ms: u64) {
        let mut state = self.state();
        let run = state.runs.get_mut(id).expect("it was started");
        let exit = Exit { how, oom_killed, at_ms: run.started_at_ms + ran_ms };
        run.state = ContainerState::Exited(exit.clone());
        self.ends.send_modify(|ends| _ = ends.insert(id.to_owned(), Some(exit)));
    }

    /// Somebody else removes what is left of a run.
    pub(crate) fn lose(&self, id: &str) {
        self.state().runs.remove(id).expect("it was started");
        self.ends.send_modify(|ends| _ = ends.insert(id.to_owned(), None));
    }

    /// Runs something that no worker started.
    pub(crate) fn run(&self, spec: ContainerSpec) {
        let (id, state) = (spec.id.clone(), ContainerState::Running { pid: 1 });
        self.state().runs.insert(id, ContainerStatus { spec, started_at_ms: now_ms(), state });
    }

    /// The grace with which each run was stopped.
    pub(crate) fn graces(&self) -> BTreeMap<String, Duration> {
        self.state().graces.clone()
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
            let (id, reason) = (spec.id.clone(), "it was refused".to_owned());
            return Err(ExecError::Start { id, reason, fault: state.fault });
        }
        assert!(!state.runs.contains_key(&spec.id), "a run is started once: {}", spec.id);
        let container = |run: &str| run.rsplit_once('.').map(|(container, _)| container.to_owned());
        let running = |run: &&ContainerStatus| matches!(run.state, ContainerState::Running { .. });
        let mut running = state.runs.values().filter(running);
        assert!(
            !running.any(|run| container(&run.spec.id) == container(&spec.id)),
            "two runs of one container at once"
        );
        let status =
            ContainerStatus { spec: spec.clone(), started_at_ms: now_ms(), state: ContainerState::Running { pid: 1 } };
        state.runs.insert(spec.id.clone(), status.clone());
        drop(state);
        self.note("start", &spec.id);
        Ok(status)
    }

    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<Exit, ExecError> {
        self.note("stop", id);
        self.state().graces.extend(grace.map(|grace| (id.to_owned(), grace)));
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

    fn ended(&self, id: &str) -> BoxFuture<'static, Option<Exit>> {
        let (id, mut ends) = (id.to_owned(), self.ends.subscribe());
        Box::pin(async move { ends.wait_for(|ends| ends.contains_key(&id)).await.ok()?.get(&id)?.clone() })
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

/// What a worker reported to the control plane.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Report(ContainerReport),
    Event(Event),
    Gone,
}

/// Answers, unless it is away.
#[derive(Debug)]
pub(crate) struct FakePlane {
    pub(crate) told: watch::Sender<Vec<Told>>,
    pub(crate) away: watch::Sender<bool>,
    /// The error with which everything is refused.
    pub(crate) refusal: watch::Sender<Option<ErrorCode>>,
    /// How many requests were refused.
    pub(crate) refused: watch::Sender<Vec<ErrorCode>>,
}

impl FakePlane {
    fn hear(&self, told: Told) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if *self.away.borrow() {
                return Err(Error::NoServer { operation: "tell".to_owned() });
            }
            if let Some(code) = *self.refusal.borrow() {
                self.refused.send_modify(|all| all.push(code));
                return Err(Error::Problem(Box::new(ProblemDetails::new(code, "it was refused"))));
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

/// A node made of these two.
pub(crate) fn node() -> (tempfile::TempDir, Arc<FakeDriver>, Arc<FakePlane>, Arc<Context>) {
    let dir = tempfile::tempdir().expect("a directory");
    let driver = Arc::new(FakeDriver::new());
    let plane = Arc::new(FakePlane {
        told: watch::Sender::new(Vec::new()),
        away: watch::Sender::new(false),
        refusal: watch::Sender::new(None),
        refused: watch::Sender::new(Vec::new()),
    });
    let context = Arc::new(Context {
        options: Options {
            settings_dir: dir.path().join("settings"),
            address: Some(([10, 0, 0, 1], 7444).into()),
            starts_max: 1,
            ..Options::new("n1", ResourceVector::ZERO, "/x")
        },
        driver: driver.clone(),
        images: ImageStore::open(dir.path().join("images"), heptad_image::Options::default()).expect("an empty store"),
        network: None,
        plane: plane.clone(),
        client: Client::unix(dir.path().join("nobody")),
        traffic: None,
        services: Services::default(),
        callers: Callers::default(),
        lease: Lease::default(),
        starts: Arc::new(Semaphore::new(1)),
        turns: Default::default(),
        health: watch::Sender::default(),
    });
    (dir, driver, plane, context)
}
