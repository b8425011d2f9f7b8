//! A simulated agent: registers, reports that it lives, starts and stops what is bound to its node, and says how that
//! goes, over the real client. What runs stays on the machine when the agent crashes.

use crate::{
    draw::Draw,
    interpose,
    machine::{Phase, Run},
    mutation::Mutation,
    world::World,
};
use heptad_api::operations::ContainerReport;
use heptad_client::{Client, Part, State, View, watch_part};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, Node, NodeName};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// How often it says that it lives.
const HEARTBEAT_MS: u64 = 500;
/// Longest wait for a server to hear that.
const HEARTBEAT_TIMEOUT_MS: u64 = 600;
/// How often it looks at its containers when nothing changes.
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
    // Agents that take what is not theirs have to see it.
    let part = match world.mutation {
        Mutation::GreedyAgents => Part::All,
        _ => Part::Node(node.name.clone()),
    };
    let mut state = watch_part::<Container>(&client, part);
    state.synced().await;
    let mut agent = Agent { world, node: node.name, client, draw };
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
        // One that is lost is made good by the next. A lost message stalls a simulated connection for ever.
        let _ = timeout(Duration::from_millis(HEARTBEAT_TIMEOUT_MS), client.heartbeat(&node)).await;
        sleep(Duration::from_millis(HEARTBEAT_MS)).await;
    }
}

struct Agent {
    world: World,
    node: NodeName,
    client: Client,
    draw: Draw,
}

impl Agent {
    /// Moves the machine on, then says what is new.
    async fn round(&mut self, view: &Arc<View<Container>>) {
        let own: Vec<&Container> = view.objects.values().map(|item| &item.object).filter(|c| self.is_own(c)).collect();
        self.take_on(&own);
        self.stop_others(&own);
        self.advance();
        for container in own {
            self.tell(container).await;
        }
    }

    fn is_own(&self, container: &Container) -> bool {
        let greedy = self.world.mutation == Mutation::GreedyAgents;
        container.node.as_ref() == Some(&self.node) || (greedy && container.node.is_some())
    }

    fn take_on(&mut self, own: &[&Container]) {
        let now = interpose::elapsed();
        for container in own.iter().filter(|c| c.desired == DesiredState::Running) {
            if !self.world.machines().of(&self.node).runs.contains_key(&container.id) {
                let ready_at = now + self.draw.ms(5, 250);
                self.world.machines().start(&self.node, container, ready_at);
            }
        }
    }

    /// Stops what is not wanted here, or not known to the server any more.
    fn stop_others(&mut self, own: &[&Container]) {
        if self.world.mutation == Mutation::DeafAgents {
            return;
        }
        let now = interpose::elapsed();
        let mut machines = self.world.machines();
        for (id, run) in &mut machines.of(&self.node).runs {
            let wanted = own.iter().any(|c| c.id == *id && c.desired == DesiredState::Running);
            if !wanted && !matches!(run.phase, Phase::Stopping(_)) {
                run.phase = Phase::Stopping(now + self.draw.ms(5, 150));
            }
        }
    }

    /// What happens on the machine by itself.
    fn advance(&mut self) {
        let (now, calm) = (interpose::elapsed(), self.world.is_calm());
        let mut machines = self.world.machines();
        let runs = &mut machines.of(&self.node).runs;
        runs.retain(|_, run| !matches!(run.phase, Phase::Stopping(until) if until <= now));
        for run in runs.values_mut() {
            match run.phase {
                Phase::Starting(until) if until <= now => run.phase = Phase::Running,
                Phase::Crashed(until) if until <= now => {
                    run.restarts += 1;
                    run.phase = Phase::Starting(now + self.draw.ms(5, 100));
                }
                Phase::Running if calm => run.healthy = true,
                Phase::Running if self.draw.chance(8) => run.phase = Phase::Crashed(now + self.draw.ms(20, 400)),
                Phase::Running if self.draw.chance(12) => run.healthy = !run.healthy,
                _ => {}
            }
        }
    }

    /// Tells the server what it does not know yet. What is refused or lost is repeated in the next round.
    async fn tell(&self, container: &Container) {
        let id = &container.id;
        let run = self.world.machines().of(&self.node).runs.get(id).cloned();
        match run {
            None if container.desired == DesiredState::Stopped => {
                let done = self.client.delete_container(id, &self.node).await;
                self.note(id, "gone", done.err());
            }
            Some(run) if container.desired == DesiredState::Running => {
                let report = report(&self.node, &run);
                if (report.status, report.ready, report.restarts)
                    != (container.status, container.ready, container.restarts)
                {
                    let done = self.client.report_container(id, &report).await;
                    self.note(id, if report.ready { "ready" } else { "not ready" }, done.err());
                }
            }
            _ => {}
        }
    }

    fn note(&self, id: &ContainerId, what: &str, error: Option<heptad_client::Error>) {
        match error {
            None => self.world.log.note(self.node.as_str(), format_args!("{id} is {what}")),
            Some(error) => self.world.log.note(self.node.as_str(), format_args!("{id} is {what}, not told: {error}")),
        }
    }
}

fn report(node: &NodeName, run: &Run) -> ContainerReport {
    let running = run.phase == Phase::Running;
    let status = match run.phase {
        Phase::Running => ContainerStatus::Running,
        Phase::Crashed(_) => ContainerStatus::Failed,
        Phase::Starting(_) | Phase::Stopping(_) => ContainerStatus::Pending,
    };
    let (ready, restarts) = (running && run.healthy, run.restarts);
    ContainerReport { node: node.clone(), status, ready, restarts, ..ContainerReport::default() }
}
