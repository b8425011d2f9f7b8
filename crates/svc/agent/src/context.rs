//! What all containers of the node share: the driver, images, network, client; and the steps that use several of them.

use crate::{
    callers::Callers,
    launch::{self, RunFiles, RunLabel, RunNetwork},
    lease::Lease,
    node::look_at_disk,
    options::Options,
    plane::Plane,
    reporter::Reporter,
    services::Services,
    traffic::Traffic,
};
use heptad_api::{
    ErrorCode, ProblemDetails,
    operations::{ContainerSettings, ImagePin, SettingsFile},
};
use heptad_client::Client;
use heptad_exec::{ContainerState, Driver, DriverKind, ExecError, Network as NetworkChoice, RootFs, node_fault};
use heptad_image::{Digest, Image, ImageStore, ProcessRequest, PullPolicy, Reference};
pub(crate) use heptad_model::with_causes as chain;
use heptad_model::{
    Container, ContainerId, ContainerStatus, Event, EventKind, Namespace, NodeFault, NodeHealth, Permit, Protocol,
    ServiceKey,
};
use heptad_net::Network;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::{JoinError, spawn_blocking},
    time::{sleep, timeout},
};

/// The longest grace of all containers together that end with their node: somebody waits for it, whatever the services
/// say.
const CLEAR_GRACE_MS_MAX: u64 = 10_000;
/// Containers that are ended in parallel when all of them end.
const ENDED_AT_ONCE_MAX: usize = 64;
/// Threads that work for containers at once, apart from those of starts: for short questions, for ends, and for
/// commands that check health. Each kind has its own, so that none waits for something slow in another.
const CALLS_MAX: usize = 16;
const ENDS_MAX: usize = 32;
const CHECKS_MAX: usize = 32;
/// How many of these one namespace may use.
const CHECKS_EACH_MAX: usize = 8;
/// How long after its grace a run that has not ended is killed from here.
const ENDED_MS_MAX: u64 = 2_000;

/// Shared by all workers of the node.
pub(crate) struct Context {
    pub(crate) options: Options,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: ImageStore,
    /// None with the process driver: its containers share the node's network.
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) client: Client,
    /// The same control plane, for what the workers report.
    pub(crate) plane: Arc<dyn Plane>,
    pub(crate) traffic: Option<Arc<dyn Traffic>>,
    pub(crate) services: Services,
    pub(crate) callers: Callers,
    pub(crate) lease: Lease,
    pub(crate) starts: Arc<Semaphore>,
    pub(crate) turns: Turns,
    /// What is wrong with the node although it works.
    pub(crate) health: watch::Sender<NodeHealth>,
}

/// Permits for threads.
pub(crate) struct Turns {
    calls: Arc<Semaphore>,
    ends: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    /// How many checks one namespace may run at once, while it has some.
    shares: Mutex<BTreeMap<Namespace, Weak<Semaphore>>>,
}

impl Turns {
    /// The permits for a check of that namespace: its own, and those shared by all.
    pub(crate) fn of_checks(&self, namespace: &Namespace) -> [Arc<Semaphore>; 2] {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        let share = shares.get(namespace).and_then(Weak::upgrade).unwrap_or_else(|| {
            let fresh = Arc::new(Semaphore::new(CHECKS_EACH_MAX));
            shares.insert(namespace.clone(), Arc::downgrade(&fresh));
            fresh
        });
        [share, self.checks.clone()]
    }
}

impl Default for Turns {
    fn default() -> Self {
        let [calls, ends, checks] = [CALLS_MAX, ENDS_MAX, CHECKS_MAX].map(|turns| Arc::new(Semaphore::new(turns)));
        Self { calls, ends, checks, shares: Mutex::default() }
    }
}

/// Runs blocking work on a thread, within a limit on their number.
pub(crate) async fn on_thread<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    // Never closed. The permit is held until the work is done, even if nobody waits for it any more.
    let turn = turns.clone().acquire_owned().await;
    spawn_blocking(move || {
        let _turn = turn;
        work()
    })
    .await
}

/// What a start needs before it touches the node.
pub(crate) struct Prepared {
    files: RunFiles,
    settings: Vec<SettingsFile>,
    /// A permit for one of the starts that may be under way at once.
    turn: OwnedSemaphorePermit,
}

/// Why a container could not be started.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// Set if the cause lies with this node, so that another node may start the container.
    pub(crate) fault: Option<NodeFault>,
}

pub(crate) fn failure(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure { reason, message: chain(error), fault: node_fault(error) }
}

fn network_failure(error: &heptad_net::Error) -> Failure {
    let fault = error.is_of_node().then_some(NodeFault::Network);
    let failure = failure("NetworkFailed", error);
    Failure { fault: failure.fault.or(fault), ..failure }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn called<T>(call: Result<Result<T, ExecError>, JoinError>) -> Result<T, ExecError> {
    let broken = |error| {
        let reason = format!("a call of the driver broke off: {error}");
        ExecError::Start { id: String::new(), reason, fault: None }
    };
    call.map_err(broken).flatten()
}

/// The control plane's refusal, if repeating the request is useless. Being busy and not knowing this node do not count:
/// a certificate that ended during an outage is renewed soon.
pub(crate) fn answer_of(error: &heptad_client::Error) -> Option<&ProblemDetails> {
    match error {
        heptad_client::Error::Problem(problem) if problem.status < 500 => {
            (!matches!(problem.status, 401 | 403 | 429)).then_some(problem)
        }
        _ => None,
    }
}

impl Context {
    /// Updates the node's health; wakes others only if its conditions changed.
    pub(crate) fn learn(&self, learn: impl FnOnce(&mut NodeHealth)) {
        self.health.send_if_modified(|health| {
            let before = health.conditions().to_vec();
            learn(health);
            health.conditions() != before
        });
    }

    /// Runs a driver call that blocks for a moment.
    pub(crate) async fn driver<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Driver) -> Result<T, ExecError> + Send + 'static,
    ) -> Result<T, ExecError> {
        self.driver_on(&self.turns.calls, call).await
    }

    async fn driver_on<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        call: impl FnOnce(&dyn Driver) -> Result<T, ExecError> + Send + 'static,
    ) -> Result<T, ExecError> {
        let driver = self.driver.clone();
        called(on_thread(turns, move || call(&*driver)).await)
    }

    /// Runs file work that takes a moment.
    pub(crate) async fn files_on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        on_thread(&self.turns.calls, work).await
    }

    /// Fetches the image and waits for a permit. Dropping the future leaves nothing behind.
    pub(crate) async fn prepare(&self, container: &Container, reporter: &Reporter) -> Result<Prepared, Failure> {
        let ContainerSettings { mut environment, files: settings } = self.settings(container).await?;
        environment.extend(container.template.environment.clone());
        let files = self.files(container, environment, reporter).await?;
        let turn = self.starts.clone().acquire_owned().await.map_err(|error| failure("StartFailed", &error))?;
        Ok(Prepared { files, settings, turn })
    }

    /// Starts network and process. Returns where the ports are reached and when the process started.
    pub(crate) async fn begin(
        self: Arc<Self>,
        container: Container,
        run: u32,
        prepared: Prepared,
    ) -> Result<(BTreeMap<u16, SocketAddr>, u64), Failure> {
        // In a task of its own, so that it ends in a known state and keeps its permit until then, even if the agent
        // ends.
        let begun = tokio::spawn(self.launch(container, run, prepared)).await;
        begun.map_err(|error| failure("StartFailed", &error))?
    }

    async fn launch(
        self: Arc<Self>,
        container: Container,
        run: u32,
        prepared: Prepared,
    ) -> Result<(BTreeMap<u16, SocketAddr>, u64), Failure> {
        let Prepared { files, settings, turn: _turn } = prepared;
        let user = (files.process.uid, files.process.gid);
        let mounts = self.settings_mounts(&container.id, settings, user).await?;
        let network = self.network_of(&container).await?;
        let addresses = network.addresses.clone();
        let never_twice = self.services.never_twice(&container.service).unwrap_or_default();
        let mut spec = launch::spec(&container, run, files, network, never_twice, &self.options.program);
        spec.mounts.extend(mounts);
        let driver = self.driver.clone();
        // It holds its permit already.
        let started = called(spawn_blocking(move || driver.start(&spec)).await);
        let status = started.map_err(|error| failure("StartFailed", &error))?;
        if let ContainerState::Running { pid } = status.state {
            self.callers.set_process(&container.id, &container.service, pid);
        }
        Ok((addresses, status.started_at_ms))
    }

    async fn files(
        &self,
        container: &Container,
        environment: BTreeMap<String, String>,
        reporter: &Reporter,
    ) -> Result<RunFiles, Failure> {
        let template = &container.template;
        let reference: Reference =
            template.image.parse().map_err(|error: heptad_image::ReferenceError| failure("InvalidImage", &error))?;
        if reference == Reference::Host {
            let failed = |message| Failure { reason: "InvalidImage", message, fault: None };
            if self.driver.kind() == DriverKind::Process {
                launch::suits_a_process(template).map_err(failed)?;
            }
            let process = launch::host_process(container, environment).map_err(failed)?;
            return Ok(RunFiles { rootfs: RootFs::Host, process, image: None });
        }
        if self.driver.kind() == DriverKind::Process {
            let message = format!(
                "image {reference} needs the oci driver, and this node runs plain processes; run heptad as root, or use \
                 the image `host`"
            );
            return Err(Failure { reason: "InvalidImage", message, fault: None });
        }
        let by_tag = !reference.is_pinned();
        let pulled = self.pull(&self.pinned(container, reference).await?, reporter).await;
        let image = pulled.map_err(|mut failure| {
            if by_tag {
                let name = &container.service.name;
                failure.message += &format!("; `heptad rollout restart {name}` resolves the tag again");
            }
            failure
        })?;
        let lower_dirs = image.layers.clone();
        let digest = image.digest.as_ref().map(ToString::to_string);
        let request = ProcessRequest {
            command: Some(template.command.clone()).filter(|words| !words.is_empty()),
            args: Some(template.args.clone()).filter(|words| !words.is_empty()),
            env: environment,
            user: template.user.clone(),
            groups: template.group_add.clone(),
            working_dir: template.working_dir.clone(),
            stop_signal: template.stop_signal.clone(),
        };
        let process = self.files_on_thread(move || image.process(&request)).await;
        let process = process.map_err(|error| failure("StartFailed", &error))?;
        let process = process.map_err(|error| failure("InvalidImage", &error))?;
        Ok(RunFiles { rootfs: RootFs::Overlay { lower_dirs }, process, image: digest })
    }

    /// The reference with the digest that all containers of this revision run.
    async fn pinned(&self, container: &Container, reference: Reference) -> Result<Reference, Failure> {
        if reference.is_pinned() {
            return Ok(reference);
        }
        // What it ran before still counts, even while nobody can be asked.
        let id = container.id.clone();
        let runs = self.driver(|driver| Ok(driver.list())).await.unwrap_or_default();
        let ran = runs.iter().filter_map(|run| RunLabel::of(&run.spec)).filter(|label| label.container == id);
        if let Some(digest) = ran.filter_map(|label| label.image?.parse().ok()).next() {
            return Ok(reference.pinned(digest));
        }
        let failed = |error: &heptad_client::Error| failure("ImagePullFailed", error);
        let mut pin = self.client.container_image(&id, &ImagePin::default()).await.map_err(|e| failed(&e))?;
        if pin.digest.is_none() {
            let found = self.images.resolve(&reference).await.map_err(|error| failure("ImagePullFailed", &error))?;
            let proposed = ImagePin { digest: Some(found.to_string()) };
            pin = self.client.container_image(&id, &proposed).await.map_err(|e| failed(&e))?;
        }
        let digest: Digest =
            pin.digest.unwrap_or_default().parse().map_err(|error| failure("ImagePullFailed", &error))?;
        Ok(reference.pinned(digest))
    }

    async fn pull(&self, reference: &Reference, reporter: &Reporter) -> Result<Image, Failure> {
        let (progress, mut seen) = tokio::sync::watch::channel(Default::default());
        let telling = tokio::spawn({
            let reporter = reporter.clone();
            async move {
                while seen.changed().await.is_ok() {
                    let (done, total) = heptad_image::PullProgress::bytes(&seen.borrow_and_update());
                    if total > 0 {
                        reporter.set(|report| {
                            report.status = ContainerStatus::Pending;
                            report.reason = "Pulling".to_owned();
                            report.message = format!("{} of {} KiB of the image", done >> 10, total >> 10);
                        });
                    }
                    // Each change that is reported is a write to the store.
                    sleep(Duration::from_millis(500)).await;
                }
            }
        });
        let pulled = self.images.ensure(reference, PullPolicy::IfNotPresent, Some(progress)).await;
        telling.abort();
        let error = match pulled {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        let failed = failure("ImagePullFailed", &error);
        let Some(Ok((_, room))) = look_at_disk(self).await else { return Err(failed) };
        let fault = room.fault_of_large(failed.fault);
        if fault == failed.fault {
            return Err(failed);
        }
        let message = format!("the image is too large for this node's disk, of which {room}: {}", failed.message);
        Err(Failure { message, fault, ..failed })
    }

    async fn network_of(&self, container: &Container) -> Result<RunNetwork, Failure> {
        let mut environment = launch::identity(container, &self.options.node);
        let Some(network) = &self.network else {
            let addresses = free_ports(container).map_err(|error| failure("NetworkFailed", &error))?;
            environment.extend(self.services.variables(&container.service.namespace));
            environment.extend(port_variables(&addresses));
            return Ok(RunNetwork {
                network: NetworkChoice::Host,
                addresses,
                resolv_conf: None,
                hosts: None,
                environment,
            });
        };
        let attached = network.attach(container.id.as_str(), &host_ports(container)).await;
        let attached = attached.map_err(|error| network_failure(&error))?;
        self.callers.set_address(&container.id, &container.service, attached.ip.into());
        // Before it runs: a policy that arrived meanwhile may have been applied to all containers just before this one.
        loop {
            let outside = self.services.outside(&container.service);
            let kept = network.set_outside(container.id.as_str(), outside).await;
            kept.map_err(|error| network_failure(&error))?;
            if self.services.outside(&container.service) == outside {
                break;
            }
        }
        let tcp = container.template.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        Ok(RunNetwork {
            addresses: tcp.map(|port| (port.container_port, (attached.ip, port.container_port).into())).collect(),
            resolv_conf: Some(heptad_net::resolv_conf(attached.gateway, container.service.namespace.as_str())),
            hosts: Some(heptad_net::hosts_file(
                attached.ip,
                &launch::hostname(container),
                &container.template.extra_hosts,
            )),
            network: NetworkChoice::Namespace(attached.netns_path),
            environment,
        })
    }

    /// Learns the callers from the containers that an earlier agent started.
    pub(crate) async fn learn_callers(&self) {
        let runs = self.driver(|driver| Ok(driver.list())).await.unwrap_or_default();
        let attached = match &self.network {
            Some(network) => network.list().await,
            None => Vec::new(),
        };
        for (label, state) in runs.iter().filter_map(|run| Some((RunLabel::of(&run.spec)?, &run.state))) {
            if let ContainerState::Running { pid } = state {
                self.callers.set_process(&label.container, &label.service, *pid);
            }
            if let Some(own) = attached.iter().find(|a| a.id == label.container.as_str()) {
                self.callers.set_address(&label.container, &label.service, own.ip.into());
            }
        }
    }

    /// Whether a container of the service may run now. If the service is not known, `told` says whether it must never
    /// run twice.
    pub(crate) fn permits(&self, service: &ServiceKey, told: bool) -> bool {
        match self.lease.permit() {
            Permit::All => true,
            Permit::NothingTwice => !self.services.never_twice(service).unwrap_or(told),
            Permit::Nothing => false,
        }
    }

    /// Whether the container's network exists, if it needs one.
    pub(crate) async fn has_network(&self, id: &ContainerId) -> bool {
        match &self.network {
            Some(network) => network.list().await.iter().any(|attached| attached.id == id.as_str()),
            None => true,
        }
    }

    /// Opens or closes the way to the outside world for every container, as the policies say.
    pub(crate) async fn apply_outside(&self) {
        let Some(network) = &self.network else { return };
        let attached = network.list().await;
        for (id, service) in self.callers.all() {
            let wanted = self.services.outside(&service);
            let differs = attached.iter().any(|a| a.id == id.as_str() && a.outside != wanted);
            if differs && let Err(error) = network.set_outside(id.as_str(), wanted).await {
                tracing::warn!(container = %id, error = chain(&error), "a policy on the outside world could not be applied");
            }
        }
    }

    /// Stops every run of the container and removes all that is left of it. The time `spent` waiting for its requests
    /// counts towards its grace.
    pub(crate) async fn clear_away(self: Arc<Self>, id: &ContainerId, spent: Duration) -> Result<(), ExecError> {
        for status in self.driver(|driver| Ok(driver.list())).await? {
            if RunLabel::of(&status.spec).is_some_and(|label| label.container == *id) {
                let runs = matches!(status.state, ContainerState::Running { .. });
                let grace = runs.then(|| grace_left(status.spec.stop_grace_ms, spent));
                self.clear_run(status.spec.id, grace).await?;
            }
        }
        self.callers.remove(id);
        self.remove_settings(id).await;
        if let Some(network) = &self.network {
            let failed =
                |error: heptad_net::Error| ExecError::Start { id: id.to_string(), reason: chain(&error), fault: None };
            network.detach(id.as_str()).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Stops the run if it runs, and removes it. No thread waits while its grace passes.
    async fn clear_run(&self, run: String, grace: Option<Duration>) -> Result<(), ExecError> {
        if let Some(grace) = grace {
            let id = run.clone();
            self.driver_on(&self.turns.ends, move |driver| driver.begin_stop(&id, grace)).await?;
            // `stop` finds out whether the process ended.
            let _ = timeout(grace + Duration::from_millis(ENDED_MS_MAX), self.driver.gone(&run)).await;
        }
        let end = move |driver: &dyn Driver| {
            if grace.is_some() {
                driver.stop(&run, Some(Duration::ZERO))?;
            }
            driver.remove(&run)
        };
        self.driver_on(&self.turns.ends, end).await
    }

    /// Releases the network of a container that no longer runs.
    pub(crate) async fn release_network(&self, id: &ContainerId) {
        self.callers.remove(id);
        if let Some(network) = &self.network
            && let Err(error) = network.detach(id.as_str()).await
        {
            tracing::warn!(container = %id, error = chain(&error), "the network of a finished container stays for now");
        }
    }

    /// Ends and removes every container of this node. Somebody waits for this, so no long grace of a program counts.
    pub(crate) async fn clear_all(self: Arc<Self>) {
        // Starts under way end first and no new ones follow; otherwise their containers would be missed.
        let turns = u32::try_from(self.options.starts_max).unwrap_or(u32::MAX);
        drop(self.starts.acquire_many(turns).await);
        self.starts.close();
        // A container that cannot be killed must not save the others.
        let remove = |driver: &dyn Driver, run: &str, grace: Duration| {
            if let Err(error) = driver.stop(run, Some(grace)).and_then(|_| driver.remove(run)) {
                tracing::warn!(run, error = chain(&error), "a container could not be removed");
            }
        };
        let until = Instant::now() + Duration::from_millis(CLEAR_GRACE_MS_MAX);
        let cleared = self.driver(move |driver| {
            for some in driver.list().chunks(ENDED_AT_ONCE_MAX) {
                let left = until.saturating_duration_since(Instant::now());
                std::thread::scope(|scope| {
                    for run in some {
                        let end = move || {
                            let grace = Duration::from_millis(run.spec.stop_grace_ms).min(left);
                            remove(driver, &run.spec.id, grace);
                        };
                        if std::thread::Builder::new().spawn_scoped(scope, end).is_err() {
                            // No thread is available: one after the other.
                            end();
                        }
                    }
                });
            }
            Ok(())
        });
        if let Err(error) = cleared.await {
            tracing::warn!(error = chain(&error), "not all containers could be removed");
        }
    }

    /// Tells the control plane that the container is gone from this node, until it has heard it. Returns whether the
    /// container is gone for the control plane too: it is not if the control plane still wants it.
    pub(crate) async fn say_gone(&self, id: &ContainerId) -> bool {
        let mut delay_ms = 50;
        while let Err(error) = self.plane.gone(id, &self.options.node).await {
            if let Some(problem) = answer_of(&error) {
                tracing::debug!(container = %id, %error, "the end of the container was refused");
                return problem.code != ErrorCode::Conflict;
            }
            tracing::debug!(container = %id, %error, "the end of the container will be reported again");
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(5_000);
        }
        true
    }

    /// Records an event; lost if the control plane is away, since events are for people.
    pub(crate) fn event(self: &Arc<Self>, id: &ContainerId, kind: EventKind, reason: &str, message: &str) {
        let event = Event {
            id: String::new(),
            at_ms: now_ms(),
            kind,
            reason: reason.to_owned(),
            subject: format!("container/{id}"),
            message: message.to_owned(),
        };
        let context = self.clone();
        tokio::spawn(async move {
            if let Err(error) = context.plane.event(&event).await {
                tracing::debug!(%error, reason = event.reason, "an event was not recorded");
            }
        });
    }
}

/// The time that a program has left to end by itself, when some of its grace was spent: never much less than a program
/// gets that knows that it is ending.
fn grace_left(grace_ms: u64, spent: Duration) -> Duration {
    const LEFT_MS_MIN: u64 = 2_000;
    let grace = Duration::from_millis(grace_ms);
    grace.saturating_sub(spent).max(grace.min(Duration::from_millis(LEFT_MS_MIN)))
}

/// A free loopback port for each port of the container. Another process may take one before the container does; then
/// the container ends, and its next run gets another.
fn free_ports(container: &Container) -> std::io::Result<BTreeMap<u16, SocketAddr>> {
    let mut out = BTreeMap::new();
    let mut held = Vec::new();
    for port in container.template.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port.host_port.unwrap_or(0)))?;
        out.insert(port.container_port, listener.local_addr()?);
        held.push(listener);
    }
    Ok(out)
}

/// `PORT`: where to listen for the first container port; `PORT_N`: where to listen for container port N.
fn port_variables(addresses: &BTreeMap<u16, SocketAddr>) -> BTreeMap<String, String> {
    let named = addresses.iter().map(|(port, address)| (format!("PORT_{port}"), address.port().to_string()));
    let first = addresses.values().next().map(|address| ("PORT".to_owned(), address.port().to_string()));
    named.chain(first).collect()
}

fn host_ports(container: &Container) -> Vec<heptad_net::HostPort> {
    let published = container.template.ports.iter().filter_map(|port| {
        let protocol = match port.protocol {
            Protocol::Tcp => heptad_net::Protocol::Tcp,
            Protocol::Udp => heptad_net::Protocol::Udp,
        };
        Some(heptad_net::HostPort { host_port: port.host_port?, container_port: port.container_port, protocol })
    });
    published.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_exec::ContainerSpec;
    use heptad_image::ImageError;

    #[tokio::test]
    async fn the_end_of_the_node_does_not_wait_for_a_long_grace() {
        let (_dir, driver, _, context) = crate::fake::node();
        for (run, stop_grace_ms) in [("web-1.0", 600_000), ("web-2.0", 300)] {
            let spec = ContainerSpec::new(run, RootFs::Host, vec!["/bin/true".to_owned()]);
            driver.run(ContainerSpec { stop_grace_ms, ..spec });
        }
        context.clear_all().await;
        assert_eq!(driver.ids(), Vec::<String>::new());
        let graces = driver.graces();
        assert_eq!(graces["web-2.0"].as_millis(), 300);
        assert!(graces["web-1.0"].as_millis() <= u128::from(CLEAR_GRACE_MS_MAX), "{graces:?}");
    }

    #[test]
    fn a_full_disk_below_the_images_is_the_nodes_fault() {
        let source = std::io::Error::from_raw_os_error(rustix::io::Errno::DQUOT.raw_os_error());
        let full = ImageError::Store { operation: "write", path: "/x".into(), source };
        assert_eq!(failure("ImagePullFailed", &full).fault, Some(NodeFault::DiskFull));
        let absent = ImageError::Absent { image: "no space left on device".to_owned() };
        assert_eq!(failure("ImagePullFailed", &absent).fault, None);
    }

    #[test]
    fn waiting_for_requests_is_a_part_of_the_grace() {
        let left = |grace_ms, spent_ms| grace_left(grace_ms, Duration::from_millis(spent_ms)).as_millis();
        assert_eq!(left(10_000, 300), 9_700);
        assert_eq!(left(10_000, 10_000), 2_000);
        assert_eq!(left(500, 500), 500);
        assert_eq!(left(0, 0), 0);
    }
}
