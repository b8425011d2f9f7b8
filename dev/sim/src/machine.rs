//! The true state of the machines: what runs on them, whatever servers and agents believe. Refuses nothing; reports
//! violations to the log.

use crate::{draw::Draw, log::Log};
use heptad_model::{Container, ContainerId, Exit, ExitKind, Node, NodeName, ResourceVector};
use std::{collections::BTreeMap, time::Duration};

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being prepared until then.
    Starting(Duration),
    /// It runs.
    Running,
    /// It ended; what is left of it takes no room.
    Ended(Exit),
    /// Being stopped until then.
    Stopping(Duration),
}

/// A container as its machine has it: its newest run.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) resources: ResourceVector,
    /// The number of the run.
    pub(crate) run: u32,
    pub(crate) phase: Phase,
    pub(crate) started_at_ms: u64,
    /// Whether its health check passes.
    pub(crate) is_healthy: bool,
    /// Whether it ends by itself.
    is_job: bool,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    capacity: ResourceVector,
    pub(crate) processes: BTreeMap<ContainerId, Process>,
}

/// All machines.
#[derive(Debug)]
pub(crate) struct Machines {
    machines: BTreeMap<NodeName, Machine>,
    log: Log,
}

impl Machines {
    pub(crate) fn new(nodes: &[Node], log: Log) -> Self {
        let machine = |node: &Node| Machine { capacity: node.capacity, processes: BTreeMap::new() };
        Self { machines: nodes.iter().map(|node| (node.name.clone(), machine(node))).collect(), log }
    }

    pub(crate) fn of(&mut self, node: &NodeName) -> &mut Machine {
        self.machines.get_mut(node).expect("agents run on machines of the world only")
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&NodeName, &Machine)> {
        self.machines.iter()
    }

    /// A machine starts a run of a container.
    pub(crate) fn start(&mut self, node: &NodeName, container: &Container, run: u32, ready_at: Duration) {
        let id = &container.id;
        self.log.note(node.as_str(), format_args!("start {id}, run {run}"));
        let elsewhere =
            self.machines.iter().find(|(name, machine)| *name != node && machine.processes.contains_key(id));
        if let Some((other, _)) = elsewhere {
            self.log.fail(format!("container {id} is on {node} and on {other}"));
        }
        let process = Process {
            resources: container.template.resources.vector(),
            run,
            phase: Phase::Starting(ready_at),
            started_at_ms: 0,
            is_healthy: true,
            is_job: container.template.retries.is_some(),
        };
        let machine = self.of(node);
        let before = machine.processes.insert(id.clone(), process);
        let (sum, capacity) = (machine.sum(), machine.capacity);
        if sum.is_none_or(|sum| sum.first_excess(&capacity).is_some()) {
            self.log.fail(format!("machine {node} has more to run than it can hold, the last is {id}"));
        }
        if before.is_some_and(|before| !matches!(before.phase, Phase::Ended(_)) || before.run >= run) {
            self.log.fail(format!("container {id} is started on {node} although a run of it is there"));
        }
    }

    /// What happens on a machine by itself by now.
    pub(crate) fn happen(&mut self, node: &NodeName, now: Duration, is_calm: bool, draw: &mut Draw) {
        let processes = &mut self.of(node).processes;
        processes.retain(|_, process| !matches!(process.phase, Phase::Stopping(until) if until <= now));
        let at_ms = u64::try_from(now.as_millis()).expect("it is some seconds");
        let ended = |how, oom_killed| Phase::Ended(Exit { how, oom_killed, at_ms });
        for process in processes.values_mut() {
            match process.phase {
                Phase::Starting(until) if until <= now => {
                    (process.phase, process.started_at_ms) = (Phase::Running, at_ms);
                }
                Phase::Running if process.is_job && draw.chance(150) => {
                    let code = if is_calm || draw.chance(500) { 0 } else { 1 };
                    process.phase = ended(ExitKind::Code(code), false);
                }
                Phase::Running if is_calm => process.is_healthy = true,
                Phase::Running if draw.chance(8) => {
                    let ends = [(ExitKind::Code(0), false), (ExitKind::Code(3), false), (ExitKind::Signal(9), true)];
                    let (how, oom_killed) = *draw.pick(&ends);
                    process.phase = ended(how, oom_killed);
                }
                Phase::Running if draw.chance(12) => process.is_healthy = !process.is_healthy,
                _ => {}
            }
        }
    }

    /// A machine loses everything that is on it.
    pub(crate) fn wipe(&mut self, node: &NodeName) {
        self.of(node).processes.clear();
    }
}

impl Machine {
    fn sum(&self) -> Option<ResourceVector> {
        let here = self.processes.values().filter(|process| !matches!(process.phase, Phase::Ended(_)));
        ResourceVector::checked_sum(here.map(|process| &process.resources))
    }
}
