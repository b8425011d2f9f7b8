//! A simulated agent: registers, sends heartbeats, starts, checks and stops what is bound to its node, and reports
//! that, over the real client. The shipped rules (`heptad_life`) decide what an end, a failed start or a check means.
//! What runs stays on the machine when the agent crashes.

use crate::{
    draw::Draw,
    interpose,
    machine::{Phase, Process},
    mutation::Mutation,
    world::World,
};
use heptad_api::operations::ContainerReport;
use heptad_client::{Client, Error, Part, State, View, watch_part};
use heptad_life::{ContainerLife, Next, Report, RestartDelays};
use heptad_model::{
    Container, ContainerId, ContainerStatus, DesiredState, Namespace, Node, NodeCondition, NodeFault, NodeHealth,
    NodeName,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How often it sends heartbeats.
const HEARTBEAT_MS: u64 = 500;
/// The longest wait for a server to hear one.
const HEARTBEAT_TIMEOUT_MS: u64 = 600;
/// How often it checks its containers when nothing changes.
const LOOK_MS: u64 = 100;

/// Works until its host crashes.
pub(crate) async fn run(world: World, node: Node, number: usize) -> turmoil::Result {
    let draw = Draw::of(world.seed, &format!("agent {} {}", node.name, world.next_number()));
    world.log.note(node.name.as_str(), format_args!("agent starts"));
    let client = world.client(number);
    while let Err(error) = client.replace(&node, None).await {
        world.log.note(node.name.as_str(), format_args!("not registered: {error}"));
        sleep(Duration::from_millis(200)).await;
    }
    // Every server hears it, so that a new leader knows who lives.
    for server in client.endpoints() {
        tokio::spawn(beat(client.only(&server), node.name.clone()));
    }
    // Agents that take what is not theirs must be able to see it.
    let part = match world.mutation {
        Mutation::GreedyAgents => Part::All,
        _ => Part::Node(node.name.clone()),
    };
    let mut state = watch_part::<Container>(&client, part);
    state.synced().await;
    let (workers, health, health_heard) = (BTreeMap::new(), NodeHealth::default(), Vec::new());
    let mut agent = Agent { world, node: node.name, client, draw, workers, health, health_heard };
    loop {
        agent.round(&state.view()).await;
        wait(&mut state).await;
    }
}

async fn wait(state: &mut State<Container>) {
    tokio::select! {
        biased;
        _ = state.changed() => {}
        () = sleep(Duration::from_millis(LOOK_MS)) => {}
    }
}

async fn beat(client: Client, node: NodeName) {
    loop {
        // A lost one is made up for by the next. A lost message stalls a simulated connection for ever.
        let _ = timeout(Duration::from_millis(HEARTBEAT_TIMEOUT_MS), client.heartbeat(&node)).await;
        sleep(Duration::from_millis(HEARTBEAT_MS)).await;
    }
}

struct Agent {
    world: World,
    node: NodeName,
    client: Client,
    draw: Draw,
    /// Forgotten when the agent crashes.
    workers: BTreeMap<ContainerId, Worker>,
    /// The node's health as far as its agent knows it, and how much of that the server has heard.
    health: NodeHealth,
    health_heard: Vec<NodeCondition>,
}

/// What an agent knows about one container.
struct Worker {
    life: ContainerLife,
    /// What the server has heard.
    heard: Report,
    /// The run whose start it has seen.
    watched: Option<u32>,
    /// Nothing is started before.
    start_at: Duration,
    next_check: Duration,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("it is some seconds")
}

impl Worker {
    /// How an agent finds a container that was started.
    fn new(container: &Container, process: Option<&Process>) -> Self {
        let mut life = ContainerLife::new(Some(container));
        if let Some(process) = process {
            life.take_over(process.run);
        }
        Self { heard: life.report().clone(), life, watched: None, start_at: Duration::ZERO, next_check: Duration::ZERO }
    }

    /// Takes in the state of the newest run. Returns whether the next one is to be started now.
    fn take_in(&mut self, container: &Container, process: Option<&Process>, now: Duration) -> bool {
        let Some(process) = process else { return self.start_at <= now };
        match &process.phase {
            Phase::Starting(_) | Phase::Stopping(_) => false,
            Phase::Running => {
                if self.watched != Some(process.run) {
                    self.watched = Some(process.run);
                    self.next_check = now;
                    self.life.started();
                    self.life.runs(container, process.started_at_ms, BTreeMap::new());
                }
                if self.life.next_check_ms().is_some() && self.next_check <= now {
                    let result = if process.is_healthy { Ok(()) } else { Err("no answer".to_owned()) };
                    self.life.checked(ms(now), result);
                    self.next_check = now + Duration::from_millis(self.life.next_check_ms().unwrap_or(0));
                }
                false
            }
            Phase::Ended(exit) if process.run == self.life.run() => {
                let started_at_ms = process.started_at_ms;
                if let (Next::StartAfter(delay_ms), _) =
                    self.life.ended(container, started_at_ms, exit, &RestartDelays::default())
                {
                    self.start_at = now + Duration::from_millis(delay_ms);
                }
                false
            }
            Phase::Ended(_) => self.start_at <= now,
        }
    }
}

impl Agent {
    /// Advances the machine, then reports what is new.
    async fn round(&mut self, view: &Arc<View<Container>>) {
        let own: Vec<&Container> = view.objects.values().map(|item| &item.object).filter(|c| self.is_own(c)).collect();
        let (now, is_calm) = (interpose::elapsed(), self.world.is_calm());
        self.world.machines().happen(&self.node, now, is_calm, &mut self.draw);
        self.stop_others(&own, now);
        for container in own {
            self.live(container, now);
            self.tell(container).await;
        }
        self.health.passed(ms(now));
        self.tell_health().await;
    }

    /// Reports the node's health, if the server does not know it yet.
    async fn tell_health(&mut self) {
        let conditions = self.health.conditions().to_vec();
        if conditions == self.health_heard {
            return;
        }
        let patch = json!({ "conditions": conditions });
        let done = self.client.patch::<Node>(&Namespace::default(), self.node.as_str(), &patch, None).await;
        let kinds: Vec<String> = conditions.iter().map(|one| one.kind.to_string()).collect();
        self.world.log.note(self.node.as_str(), format_args!("conditions {kinds:?}: {:?}", done.as_ref().err()));
        if done.is_ok() {
            self.health_heard = conditions;
        }
    }

    fn is_own(&self, container: &Container) -> bool {
        let greedy = self.world.mutation == Mutation::GreedyAgents;
        container.node.as_ref() == Some(&self.node) || (greedy && container.node.is_some())
    }

    fn process(&self, id: &ContainerId) -> Option<Process> {
        self.world.machines().of(&self.node).processes.get(id).cloned()
    }

    /// Stops what is not wanted here, or no longer known to the server.
    fn stop_others(&mut self, own: &[&Container], now: Duration) {
        let known: BTreeSet<&ContainerId> = own.iter().map(|c| &c.id).collect();
        self.workers.retain(|id, _| known.contains(id));
        if self.world.mutation == Mutation::DeafAgents {
            return;
        }
        let wanted: BTreeSet<&ContainerId> =
            own.iter().filter(|c| c.desired == DesiredState::Running).map(|c| &c.id).collect();
        for (id, process) in &mut self.world.machines().of(&self.node).processes {
            if !wanted.contains(id) && !matches!(process.phase, Phase::Stopping(_)) {
                process.phase = Phase::Stopping(now + self.draw.ms(5, 150));
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.life.stopping();
                }
            }
        }
    }

    /// Takes in a container's state, and starts it if that is due.
    fn live(&mut self, container: &Container, now: Duration) {
        let process = self.process(&container.id);
        let worker =
            self.workers.entry(container.id.clone()).or_insert_with(|| Worker::new(container, process.as_ref()));
        if container.desired == DesiredState::Stopped {
            return;
        }
        if worker.life.is_finished() {
            if self.world.mutation != Mutation::RestlessAgents {
                return;
            }
            let next = worker.life.run() + 1;
            worker.life = ContainerLife::new(None);
            worker.life.take_over(next);
        }
        if !worker.take_in(container, process.as_ref(), now) {
            return;
        }
        let is_of_node = self.world.refuses(&self.node);
        if is_of_node || (!self.world.is_calm() && self.draw.chance(40)) {
            let (said, fault) = (("StartFailed", "it was refused"), is_of_node.then_some(NodeFault::Runtime));
            let (delay_ms, _) = worker.life.start_failed(said, fault, &RestartDelays::default());
            if let Some(failure) = worker.life.report().start_failure {
                self.health.start_failed(&failure, said.1, ms(now));
            }
            worker.start_at = now + Duration::from_millis(delay_ms);
            return;
        }
        self.health.start_succeeded();
        let ready_at = now + self.draw.ms(5, 250);
        self.world.machines().start(&self.node, container, worker.life.run(), ready_at);
    }

    /// Reports what the server does not know yet. A lost report is repeated in the next round.
    async fn tell(&mut self, container: &Container) {
        let id = &container.id;
        if container.desired == DesiredState::Stopped && self.process(id).is_none() {
            let done = self.client.delete_container(id, &self.node).await;
            return self.note(id, "gone", done.err().as_ref());
        }
        let Some(worker) = self.workers.get_mut(id) else { return };
        let report = worker.life.report().clone();
        if report == worker.heard && container.status != ContainerStatus::Unknown {
            return;
        }
        let done = self.client.report_container(id, &wire(&self.node, &report)).await;
        let what = format!("{}, {}", report.status, if report.ready { "ready" } else { "not ready" });
        // A refused report is not repeated, as with a real agent.
        if done.as_ref().err().is_none_or(|error| error.code().is_some_and(|code| code.status() < 500)) {
            worker.heard = report;
        }
        self.note(id, &what, done.err().as_ref());
    }

    fn note(&self, id: &ContainerId, what: &str, error: Option<&Error>) {
        match error {
            None => self.world.log.note(self.node.as_str(), format_args!("{id} is {what}")),
            Some(error) => self.world.log.note(self.node.as_str(), format_args!("{id} is {what}, not told: {error}")),
        }
    }
}

fn wire(node: &NodeName, report: &Report) -> ContainerReport {
    let Report { status, ready, reason, message, start_failure, addresses, restarts, exit_code, started_at_ms } =
        report.clone();
    let report = ContainerReport { node: node.clone(), status, ready, reason, message, ..ContainerReport::default() };
    ContainerReport { start_failure, addresses, restarts, exit_code, started_at_ms, ..report }
}
