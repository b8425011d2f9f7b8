//! Why a container has no node: for every node the first thing that stands against it, and the smallest changes that
//! would make it fit, as data and as texts for people. Knows nothing of how nodes are chosen.

use crate::{cluster::Cluster, gate::Gate};
use heptad_capacity::{HostPort, NodesView, QuotaShort, Refusal, Request};
use heptad_model::{
    ContainerId, DeviceMillis, Dimension, ExtendedResources, NodeConditionKind, NodeName, ResourceVector, Resources,
    ServiceKey, Taint,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

mod advice;
mod remedies;

pub use advice::{TRIALS_MAX, advise};

/// How much of a resource is missing, in the dimension's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// The resource.
    pub dimension: Dimension,
    /// How much.
    pub by: u64,
}

/// A smallest change that would make a container fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Remedy {
    /// The node would take it if it were ready.
    MakeReady {
        /// The node.
        node: NodeName,
    },
    /// The node would take it if this were not wrong with it.
    Mend {
        /// The node.
        node: NodeName,
        /// What is wrong with it.
        condition: NodeConditionKind,
    },
    /// The node would take it if it were not cordoned.
    Uncordon {
        /// The node.
        node: NodeName,
    },
    /// The node would take it if it carried this label.
    Label {
        /// The node.
        node: NodeName,
        /// The label's key.
        key: String,
        /// The label's value; any if none.
        value: Option<String>,
    },
    /// The node would take it if the service tolerated this taint.
    Tolerate {
        /// The node.
        node: NodeName,
        /// The taint.
        taint: Taint,
    },
    /// The node would take it if this rule were a wish and no requirement.
    Relax {
        /// The node.
        node: NodeName,
        /// The rule, in words.
        rule: String,
    },
    /// It would fit if this quota were higher.
    RaiseQuota {
        /// The quota, and what is missing.
        short: QuotaShort,
    },
    /// The node would take it if these ports were given back.
    FreeHostPorts {
        /// The node.
        node: NodeName,
        /// The ports.
        ports: BTreeSet<HostPort>,
    },
    /// The node would take it if it asked less.
    LowerRequest {
        /// The node.
        node: NodeName,
        /// What it may ask.
        to: ResourceVector,
        /// By how much less.
        shortfalls: Vec<Shortfall>,
    },
    /// The node would take it if others gave back resources.
    FreeResources {
        /// The node.
        node: NodeName,
        /// How much they would have to give back.
        shortfalls: Vec<Shortfall>,
    },
    /// The node would take it if others gave back devices.
    FreeDevices {
        /// The node.
        node: NodeName,
        /// The kind of device.
        device: String,
        /// How much the container asks of it.
        asked: DeviceMillis,
    },
    /// The node takes it when those are gone that are being stopped there; nothing has to be done.
    Wait {
        /// The node.
        node: NodeName,
        /// Who is being stopped.
        leaving: Vec<ContainerId>,
    },
    /// The node would take it without these, which have a lower priority.
    Evict {
        /// The node.
        node: NodeName,
        /// Who would have to leave; the cheapest such set.
        victims: Vec<ContainerId>,
        /// The highest priority among them.
        priority: i32,
    },
    /// Others would make room for it if its service had a higher priority.
    RaisePriority {
        /// The lowest priority that suffices.
        to: i32,
        /// The node.
        node: NodeName,
        /// Who would have to leave.
        victims: Vec<ContainerId>,
    },
    /// None of these is enough alone.
    Together {
        /// What has to be done.
        changes: Vec<Remedy>,
    },
    /// A new node that can give at least this would take it.
    AddNode {
        /// What the node must be able to give.
        resources: ResourceVector,
        /// The devices that it must have free.
        #[serde(default, skip_serializing_if = "ExtendedResources::is_empty")]
        devices: ExtendedResources,
        /// The labels that it must carry.
        labels: BTreeMap<String, String>,
    },
}

fn listed<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> String) -> String {
    items.into_iter().map(show).collect::<Vec<_>>().join(" and ")
}

/// Some names, few enough for a sentence.
fn named(containers: &[ContainerId]) -> String {
    let names: Vec<&str> = containers.iter().take(NAMED_MAX).map(ContainerId::as_str).collect();
    match containers.len().saturating_sub(NAMED_MAX) {
        0 => names.join(" and "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Containers that a sentence names.
const NAMED_MAX: usize = 5;

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeReady { node } => write!(f, "make node {node} ready"),
            Self::Mend { node, condition: NodeConditionKind::DiskPressure } => {
                write!(f, "make room on the disk of node {node}")
            }
            Self::Mend { node, condition: NodeConditionKind::StartsFailing } => {
                write!(f, "mend node {node} (`heptad describe node {node}` says why it starts nothing)")
            }
            Self::Uncordon { node } => write!(f, "uncordon node {node}"),
            Self::Label { node, key, value } => {
                let value = value.as_deref().unwrap_or("VALUE");
                write!(f, "give node {node} the label {key}={value} (`heptad node label {node} {key}={value}`)")
            }
            Self::Tolerate { node, taint } => write!(f, "tolerate the taint {taint} of node {node}, or remove it"),
            Self::Relax { node, rule } => write!(f, "say `required: false` in the {rule} to fit node {node}"),
            Self::RaiseQuota { short } => write!(
                f,
                "raise {} of quota {} of namespace {} by {}",
                short.item,
                short.quota,
                short.namespace,
                short.missing_shown()
            ),
            Self::FreeHostPorts { node, ports } => {
                write!(f, "free host port {} on node {node}", listed(ports, |(port, p)| format!("{port}/{p}")))
            }
            Self::LowerRequest { node, to, shortfalls } => {
                let to = |s: &Shortfall| s.dimension.show(to.get(s.dimension));
                let what =
                    listed(shortfalls, |s| format!("{} to {} (by {})", s.dimension, to(s), s.dimension.show(s.by)));
                write!(f, "lower {what} to fit node {node}")
            }
            Self::Wait { node, leaving } => write!(f, "wait until {} is gone from node {node}", named(leaving)),
            Self::Evict { node, victims, priority } => {
                write!(f, "stop {} (priority {priority}) on node {node}", named(victims))
            }
            Self::RaisePriority { to, node, victims } => {
                write!(f, "give it priority {to}, so that {} leaves node {node} for it", named(victims))
            }
            Self::Together { changes } => f.write_str(&listed(changes, Self::to_string)),
            Self::FreeResources { node, shortfalls } => {
                let what = listed(shortfalls, |s| format!("{} of {}", s.dimension.show(s.by), s.dimension));
                write!(f, "free {what} on node {node}")
            }
            Self::FreeDevices { node, device, asked } if asked.is_share() => {
                write!(f, "free {asked} of one {device} on node {node}")
            }
            Self::FreeDevices { node, device, asked } => write!(f, "free {asked} {device} on node {node}"),
            Self::AddNode { resources, devices, labels } => {
                write!(f, "add a node that can give {}", show_asked(resources, devices))?;
                if labels.is_empty() {
                    return Ok(());
                }
                write!(f, " with the label {}", listed(labels, |(key, value)| format!("{key}={value}")))
            }
        }
    }
}

/// What is asked, as people write it.
fn show_asked(resources: &ResourceVector, devices: &ExtendedResources) -> String {
    Resources { devices: devices.clone(), ..Resources::from(*resources) }.to_string()
}

/// How far a gang got that has no nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GangShort {
    /// How many there must be.
    pub size: u32,
    /// How many there are.
    pub created: u32,
    /// How many of them could be placed before one could not.
    pub placed: u32,
}

impl fmt::Display for GangShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, created, placed } = *self;
        if created < size {
            return write!(f, "gang of {size}: only {created} of its containers are there yet");
        }
        write!(f, "gang of {created}: {placed} could be placed, the next fails because")
    }
}

/// Containers of one service that ask the same and have no node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// The containers, in the order in which they were asked.
    pub containers: Vec<ContainerId>,
    /// Their service.
    pub service: ServiceKey,
    /// What each of them asks.
    pub asked: ResourceVector,
    /// The devices that each of them asks.
    #[serde(default, skip_serializing_if = "ExtendedResources::is_empty")]
    pub devices: ExtendedResources,
    /// How far they got if they are placed together or not at all; the rest is said of the first that has no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangShort>,
    /// The ports of the node that each of them asks.
    pub host_ports: BTreeSet<HostPort>,
    /// The quota that forbids it on every node, if one does; nodes are not looked at then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaShort>,
    /// Why each node refuses, ordered by name; after all else that is planned. Empty, with `counts` still told, in
    /// reports beyond [`REFUSALS_MAX`].
    pub refusals: Vec<Refusal>,
    /// How many nodes refuse for which reason.
    pub counts: BTreeMap<String, u32>,
    /// The smallest changes that would make one of them fit; the easiest first.
    pub remedies: Vec<Remedy>,
}

/// Most refusals that one report lists; [`explain`] lists all of one request.
pub const REFUSALS_MAX: usize = 100_000;

impl Unplaced {
    /// What each of them asks, as people write it.
    pub fn asked_shown(&self) -> String {
        show_asked(&self.asked, &self.devices)
    }

    /// One sentence, short enough for a container's message.
    pub fn summary(&self) -> String {
        let nodes: u32 = self.counts.values().sum();
        let counts: Vec<String> = self.counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let remedies: Vec<String> = self.remedies.iter().map(Remedy::to_string).collect();
        let why = match (nodes, &self.quota) {
            (_, Some(short)) => short.to_string(),
            (0, _) => "there is no node".to_owned(),
            (1, _) => {
                let reasons: Vec<&str> = self.counts.keys().map(AsRef::as_ref).collect();
                format!("the only node refuses: {}", reasons.join(", "))
            }
            _ => format!("all {nodes} nodes refuse: {}", counts.join(", ")),
        };
        match &self.gang {
            Some(gang) if gang.created < gang.size => gang.to_string(),
            Some(gang) => format!("{gang} {why}; {}", remedies.join(", or ")),
            None => format!("{why}; {}", remedies.join(", or ")),
        }
    }
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.containers.len();
        let what = if count == 1 { "container has" } else { "containers have" };
        write!(
            f,
            "{count} {what} no node for service {} (each asks {}",
            self.service,
            show_asked(&self.asked, &self.devices)
        )?;
        if !self.host_ports.is_empty() {
            write!(f, ", host port {}", listed(&self.host_ports, |(port, p)| format!("{port}/{p}")))?;
        }
        write!(f, ")")?;
        if let Some(gang) = &self.gang {
            write!(f, "\n  {gang}")?;
        }
        for refusal in &self.refusals {
            write!(f, "\n  {refusal}")?;
        }
        if self.refusals.is_empty() {
            write!(f, "\n  {}", self.summary())?;
        }
        for (i, remedy) in self.remedies.iter().enumerate() {
            write!(f, "\n  {} {remedy}", if i == 0 { "to fit:" } else { "or:" })?;
        }
        Ok(())
    }
}

/// What a plan could not place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Containers without a node, those that ask the same together.
    pub unplaced: Vec<Unplaced>,
    /// Containers that were asked a second time or have a node already; nothing was planned for these.
    pub repeated: Vec<ContainerId>,
}

impl Report {
    /// Why that container has no node; `None` if it has one.
    pub fn of(&self, container: &ContainerId) -> Option<&Unplaced> {
        self.unplaced.iter().find(|unplaced| unplaced.containers.contains(container))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, unplaced) in self.unplaced.iter().enumerate() {
            write!(f, "{}{unplaced}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Why no node of `view` takes the request; `None` if one does.
pub fn explain(view: &NodesView, request: &Request) -> Option<Unplaced> {
    let explained = explain_in(&Cluster::new(view), request, usize::MAX);
    (explained.quota.is_some() || explained.refusals.len() == view.nodes().len()).then_some(explained)
}

/// Who refuses the request on the working view and why, listed only if there are at most `refusals_max`.
pub(crate) fn explain_in(cluster: &Cluster<'_>, request: &Request, refusals_max: usize) -> Unplaced {
    let gate = Gate::new(cluster, request);
    let quota = cluster.quota_refuses(request);
    let nodes = if quota.is_some() { 0 } else { cluster.nodes().len() };
    let mut refusals: Vec<Refusal> = (0..nodes).filter_map(|node| cluster.refusal(&gate, node, request)).collect();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for refusal in &refusals {
        *counts.entry(refusal.reason.word()).or_default() += 1;
    }
    if refusals.len() > refusals_max {
        refusals.clear();
    }
    Unplaced {
        containers: vec![request.container.clone()],
        service: request.service.clone(),
        asked: request.resources,
        devices: request.devices.clone(),
        gang: None,
        host_ports: request.host_ports.clone(),
        refusals,
        counts,
        remedies: match &quota {
            Some(short) => vec![Remedy::RaiseQuota { short: short.clone() }],
            None => remedies::remedies(cluster, &gate, request),
        },
        quota,
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
