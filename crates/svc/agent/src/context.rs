//! What all containers of the node share: the driver, images, network, client; and the steps that use several of them.

use crate::{
    callers::Callers,
    launch::{self, RunFiles, RunLabel, RunNetwork},
    options::Options,
    plane::Plane,
    reporter::Reporter,
    services::Services,
    traffic::Traffic,
};
use heptad_api::operations::{ContainerSettings, ImagePin, SettingsFile};
use heptad_client::Client;
use heptad_exec::{
    ContainerState, Driver, DriverKind, ExecError, Network as NetworkChoice, RootFs,
    image::{Digest, Image, ImageStore, ProcessRequest, PullPolicy, Reference},
};
use heptad_model::{Container, ContainerId, ContainerStatus, Event, EventKind, Protocol};
use heptad_net::Network;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::sleep,
};

/// Containers that are ended at a time when all of them are.
const ENDED_AT_ONCE_MAX: usize = 64;

/// Shared by all workers of the node.
pub(crate) struct Context {
    pub(crate) options: Options,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: ImageStore,
    /// None with the process driver: its containers share the node's network.
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) client: Client,
    /// The same control plane, for what the workers tell it.
    pub(crate) plane: Arc<dyn Plane>,
    pub(crate) traffic: Option<Arc<dyn Traffic>>,
    pub(crate) services: Services,
    pub(crate) callers: Callers,
    pub(crate) starts: Arc<Semaphore>,
}

/// What a start needs before it touches the node.
pub(crate) struct Prepared {
    files: RunFiles,
    settings: Vec<SettingsFile>,
    /// One of the starts that may be under way at once.
    turn: OwnedSemaphorePermit,
}

/// Why a container could not be started.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

pub(crate) fn failure(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure { reason, message: chain(error) }
}

/// The error with its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the control plane has answered, so that asking the same again is useless.
pub(crate) fn is_answer(error: &heptad_client::Error) -> bool {
    matches!(error, heptad_client::Error::Problem(problem) if problem.status < 500 && problem.status != 429)
}

impl Context {
    /// Runs a blocking call of the driver.
    pub(crate) async fn driver<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Driver) -> Result<T, ExecError> + Send + 'static,
    ) -> Result<T, ExecError> {
        let driver = self.driver.clone();
        spawn_blocking(move || call(&*driver)).await.unwrap_or_else(|panic| {
            Err(ExecError::Start { id: String::new(), reason: format!("a call of the driver broke off: {panic}") })
        })
    }

    /// Fetches the image and waits for a turn. Dropping the future leaves nothing behind.
    pub(crate) async fn prepare(&self, container: &Container, reporter: &Reporter) -> Result<Prepared, Failure> {
        let ContainerSettings { mut environment, files: settings } = self.settings(container).await?;
        environment.extend(container.template.environment.clone());
        let files = self.files(container, environment, reporter).await?;
        let turn = self.starts.clone().acquire_owned().await.map_err(|error| failure("StartFailed", &error))?;
        Ok(Prepared { files, settings, turn })
    }

    /// Network and process. Gives where the ports are reached and when it was started.
    pub(crate) async fn begin(
        self: Arc<Self>,
        container: Container,
        run: u32,
        prepared: Prepared,
    ) -> Result<(BTreeMap<u16, SocketAddr>, u64), Failure> {
        // In a task of its own: it ends in a known state, and keeps its turn until then, even if the agent ends.
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
        let mut spec = launch::spec(&container, run, files, network, &self.options.program);
        spec.mounts.extend(mounts);
        let started = self.driver(move |driver| driver.start(&spec)).await;
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
        let reference: Reference = template
            .image
            .parse()
            .map_err(|error: heptad_exec::image::ReferenceError| failure("InvalidImage", &error))?;
        if reference == Reference::Host {
            let process = launch::host_process(container, environment)
                .map_err(|message| Failure { reason: "InvalidImage", message })?;
            return Ok(RunFiles { rootfs: RootFs::Host, process, image: None });
        }
        if self.driver.kind() == DriverKind::Process {
            let message = format!(
                "image {reference} needs the oci driver, and this node runs plain processes; run heptad as root, or use \
                 the image `host`"
            );
            return Err(Failure { reason: "InvalidImage", message });
        }
        let by_tag = !reference.is_pinned();
        let pulled = self.pull(&self.pinned(container, reference).await?, reporter).await;
        let image = pulled.map_err(|mut failure| {
            if by_tag {
                let name = &container.service.name;
                failure.message += &format!("; `heptad rollout restart {name}` looks at the tag again");
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
            working_dir: None,
            stop_signal: template.stop_signal.clone(),
        };
        let process = spawn_blocking(move || image.process(&request)).await;
        let process = process.map_err(|error| failure("StartFailed", &error))?;
        let process = process.map_err(|error| failure("InvalidImage", &error))?;
        Ok(RunFiles { rootfs: RootFs::Overlay { lower_dirs }, process, image: digest })
    }

    /// The reference with the digest that all containers of this one's revision run.
    async fn pinned(&self, container: &Container, reference: Reference) -> Result<Reference, Failure> {
        if reference.is_pinned() {
            return Ok(reference);
        }
        // What it ran before it still runs, also while nobody can be asked.
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
                    let (done, total) = heptad_exec::image::PullProgress::bytes(&seen.borrow_and_update());
                    if total > 0 {
                        reporter.set(|report| {
                            report.status = ContainerStatus::Pending;
                            report.reason = "Pulling".to_owned();
                            report.message = format!("{} of {} KiB of the image", done >> 10, total >> 10);
                        });
                    }
                    // Each change that is told is a write of the store.
                    sleep(Duration::from_millis(500)).await;
                }
            }
        });
        let pulled = self.images.ensure(reference, PullPolicy::IfNotPresent, Some(progress)).await;
        telling.abort();
        pulled.map_err(|error| failure("ImagePullFailed", &error))
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
        let attached = attached.map_err(|error| failure("NetworkFailed", &error))?;
        self.callers.set_address(&container.id, &container.service, attached.ip.into());
        // Before it runs. A policy that came meanwhile may have been applied to all just before this.
        loop {
            let outside = self.services.outside(&container.service);
            let kept = network.set_outside(container.id.as_str(), outside).await;
            kept.map_err(|error| failure("NetworkFailed", &error))?;
            if self.services.outside(&container.service) == outside {
                break;
            }
        }
        let tcp = container.template.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
        Ok(RunNetwork {
            addresses: tcp.map(|port| (port.container_port, (attached.ip, port.container_port).into())).collect(),
            resolv_conf: Some(heptad_net::resolv_conf(attached.gateway, container.service.namespace.as_str())),
            hosts: Some(heptad_net::hosts_file(attached.ip, &container.id.hostname())),
            network: NetworkChoice::Namespace(attached.netns_path),
            environment,
        })
    }

    /// Learns who calls from the containers that an agent before this one started.
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

    /// Whether the container's network stands, if it needs one.
    pub(crate) async fn has_network(&self, id: &ContainerId) -> bool {
        match &self.network {
            Some(network) => network.list().await.iter().any(|attached| attached.id == id.as_str()),
            None => true,
        }
    }

    /// Opens or closes the way to the world outside for every container, as the policies say.
    pub(crate) async fn apply_outside(&self) {
        let Some(network) = &self.network else { return };
        let attached = network.list().await;
        for (id, service) in self.callers.all() {
            let wanted = self.services.outside(&service);
            let differs = attached.iter().any(|a| a.id == id.as_str() && a.outside != wanted);
            if differs && let Err(error) = network.set_outside(id.as_str(), wanted).await {
                tracing::warn!(container = %id, error = chain(&error), "a policy on the world outside does not hold");
            }
        }
    }

    /// Stops every run of the container and removes all that is left of it. What was `spent` on waiting for its requests
    /// is a part of its grace.
    pub(crate) async fn clear_away(self: Arc<Self>, id: &ContainerId, spent: Duration) -> Result<(), ExecError> {
        let wanted = id.clone();
        self.driver(move |driver| {
            for status in driver.list() {
                if RunLabel::of(&status.spec).is_some_and(|label| label.container == wanted) {
                    if matches!(status.state, ContainerState::Running { .. }) {
                        driver.stop(&status.spec.id, Some(grace_left(status.spec.stop_grace_ms, spent)))?;
                    }
                    driver.remove(&status.spec.id)?;
                }
            }
            Ok(())
        })
        .await?;
        self.callers.remove(id);
        self.remove_settings(id).await;
        if let Some(network) = &self.network {
            let reason = |error: heptad_net::Error| ExecError::Start { id: id.to_string(), reason: chain(&error) };
            network.detach(id.as_str()).await.map_err(reason)?;
        }
        Ok(())
    }

    /// Gives back the network of a container that does not run any more.
    pub(crate) async fn release_network(&self, id: &ContainerId) {
        self.callers.remove(id);
        if let Some(network) = &self.network
            && let Err(error) = network.detach(id.as_str()).await
        {
            tracing::warn!(container = %id, error = chain(&error), "the network of a finished container stays for now");
        }
    }

    /// Kills and removes every container of this node.
    pub(crate) async fn clear_all(self: Arc<Self>) {
        // Starts that are under way end first and no other follows, or their containers would be missed.
        let turns = u32::try_from(self.options.starts_max).unwrap_or(u32::MAX);
        drop(self.starts.acquire_many(turns).await);
        self.starts.close();
        // One that cannot be killed must not save the others.
        let remove = |driver: &dyn Driver, run: &str| {
            if let Err(error) = driver.stop(run, None).and_then(|_| driver.remove(run)) {
                tracing::warn!(run, error = chain(&error), "a container could not be removed");
            }
        };
        let cleared = self.driver(move |driver| {
            for some in driver.list().chunks(ENDED_AT_ONCE_MAX) {
                std::thread::scope(|scope| {
                    some.iter().for_each(|run| _ = scope.spawn(move || remove(driver, &run.spec.id)))
                });
            }
            Ok(())
        });
        if let Err(error) = cleared.await {
            tracing::warn!(error = chain(&error), "not all containers could be removed");
        }
    }

    /// Tells the control plane that the container is gone from this node, until it has heard it.
    pub(crate) async fn say_gone(&self, id: &ContainerId) {
        let mut delay_ms = 50;
        while let Err(error) = self.plane.gone(id, &self.options.node).await {
            if is_answer(&error) {
                tracing::debug!(container = %id, %error, "the control plane knows already");
                return;
            }
            sleep(Duration::from_millis(delay_ms)).await;
            delay_ms = (delay_ms * 2).min(5_000);
        }
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

/// The time that a program has to end by itself, of a grace of which some was spent: never much less than is left to one
/// that knows that it ends.
fn grace_left(grace_ms: u64, spent: Duration) -> Duration {
    const LEFT_MS_MIN: u64 = 2_000;
    let grace = Duration::from_millis(grace_ms);
    grace.saturating_sub(spent).max(grace.min(Duration::from_millis(LEFT_MS_MIN)))
}

/// A free loopback port for each of the container's. Another process may take one before the container does; then the
/// container ends and its next run gets another.
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

    #[test]
    fn waiting_for_requests_is_a_part_of_the_grace() {
        let left = |grace_ms, spent_ms| grace_left(grace_ms, Duration::from_millis(spent_ms)).as_millis();
        assert_eq!(left(10_000, 300), 9_700);
        assert_eq!(left(10_000, 10_000), 2_000);
        assert_eq!(left(500, 500), 500);
        assert_eq!(left(0, 0), 0);
    }
}
