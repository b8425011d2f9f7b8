//! The machines as they really are: what runs on them, whatever servers and agents believe. It refuses nothing; what
//! must never be is told to the log.

use crate::log::Log;
use heptad_model::{Container, ContainerId, Node, NodeName, ResourceVector};
use std::{collections::BTreeMap, time::Duration};

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being prepared until then.
    Starting(Duration),
    /// It runs.
    Running,
    /// It ended and is started again then.
    Crashed(Duration),
    /// Being stopped until then.
    Stopping(Duration),
}

/// A container as its machine has it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) resources: ResourceVector,
    pub(crate) phase: Phase,
    pub(crate) restarts: u32,
    /// Whether its health check passes.
    pub(crate) healthy: bool,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    capacity: ResourceVector,
    pub(crate) runs: BTreeMap<ContainerId, Run>,
}

/// All machines.
#[derive(Debug)]
pub(crate) struct Machines {
    machines: BTreeMap<NodeName, Machine>,
    log: Log,
}

impl Machines {
    pub(crate) fn new(nodes: &[Node], log: Log) -> Self {
        let machine = |node: &Node| Machine { capacity: node.capacity, runs: BTreeMap::new() };
        Self { machines: nodes.iter().map(|node| (node.name.clone(), machine(node))).collect(), log }
    }

    pub(crate) fn of(&mut self, node: &NodeName) -> &mut Machine {
        self.machines.get_mut(node).expect("agents run on machines of the world only")
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&NodeName, &Machine)> {
        self.machines.iter()
    }

    /// A machine takes a container on.
    pub(crate) fn start(&mut self, node: &NodeName, container: &Container, ready_at: Duration) {
        let id = &container.id;
        self.log.note(node.as_str(), format_args!("start {id}"));
        let elsewhere = self.machines.iter().find(|(name, machine)| *name != node && machine.runs.contains_key(id));
        if let Some((other, _)) = elsewhere {
            self.log.fail(format!("container {id} is on {node} and on {other}"));
        }
        let run = Run {
            resources: container.template.resources.vector(),
            phase: Phase::Starting(ready_at),
            restarts: 0,
            healthy: true,
        };
        let machine = self.of(node);
        machine.runs.insert(id.clone(), run);
        let (sum, capacity) = (machine.sum(), machine.capacity);
        if sum.is_none_or(|sum| sum.first_excess(&capacity).is_some()) {
            self.log.fail(format!("machine {node} has more to run than it can hold, the last is {id}"));
        }
    }

    /// A machine loses everything that runs on it.
    pub(crate) fn wipe(&mut self, node: &NodeName) {
        self.of(node).runs.clear();
    }
}

impl Machine {
    fn sum(&self) -> Option<ResourceVector> {
        ResourceVector::checked_sum(self.runs.values().map(|run| &run.resources))
    }
}
