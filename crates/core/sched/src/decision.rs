//! Why a node is chosen: of every other node whether it can take the container at all, and if so what it is behind in;
//! grouped by reason, so that the answer is short however many nodes there are. Chooses nothing itself.

use crate::{
    cluster::Cluster,
    feasible::Candidate,
    gate::Gate,
    scheduler::{ByPlacement, Scheduler},
};
use heptad_capacity::{NodeIndex, Reason, Refusal, Request};
use heptad_model::{ContainerId, Dimension, NodeName, Placement, ResourceVector, ServiceKey};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Most nodes that a group names.
pub const EXAMPLES_MAX: usize = 5;

/// A node that can take a container, and what it is chosen by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The node.
    pub node: NodeName,
    /// How many wishes that are no requirements it does not fulfil.
    pub unwished: u32,
    /// How many other replicas of the service it has.
    pub replicas: u32,
    /// What it would have left with the container.
    pub left: ResourceVector,
}

/// What decided against a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Loss {
    /// It fulfils fewer wishes.
    Wishes,
    /// It has more replicas of the service.
    Replicas,
    /// The policy prefers what the other one would have left.
    Room,
    /// Nothing but the order of the names.
    Name,
    /// It cannot take the container: the reason in a word or two.
    Refused {
        /// The word.
        word: String,
    },
}

/// One of the nodes that lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Loser {
    /// It could take the container.
    Able(Standing),
    /// It cannot.
    Refused(Refusal),
}

impl Loser {
    /// The node.
    pub fn node(&self) -> &NodeName {
        match self {
            Self::Able(standing) => &standing.node,
            Self::Refused(refusal) => &refusal.node,
        }
    }
}

/// The nodes that lost for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losers {
    /// The reason.
    pub loss: Loss,
    /// How many they are.
    pub nodes: u32,
    /// At most [`EXAMPLES_MAX`] of them: those that came nearest.
    pub examples: Vec<Loser>,
}

/// Where a container would be placed, and why nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The container.
    pub container: ContainerId,
    /// Its service.
    pub service: ServiceKey,
    /// How its node is chosen among those that can take it.
    pub placement: Placement,
    /// How many nodes there are.
    pub nodes: u32,
    /// How many of them can take it.
    pub able: u32,
    /// The node that is chosen; none if no node can take it.
    pub winner: Option<Standing>,
    /// The others: those that could take it first, in the order in which reasons decide.
    pub losers: Vec<Losers>,
}

fn standing(cluster: &Cluster<'_>, candidate: &Candidate) -> Standing {
    let node = cluster.nodes()[candidate.node].name.clone();
    Standing { node, unwished: candidate.unwished, replicas: candidate.replicas, left: candidate.left }
}

/// How the node of that name stands; none if it cannot take the request.
pub fn standing_of(cluster: &Cluster<'_>, request: &Request, node: NodeIndex) -> Option<Standing> {
    let candidate = cluster.candidates(request).find(|candidate| candidate.node == node)?;
    Some(standing(cluster, &candidate))
}

/// The node that [`ByPlacement`] chooses for the request, and why each other node is not chosen.
pub fn decision(cluster: &Cluster<'_>, request: &Request) -> Decision {
    let able: BTreeMap<NodeIndex, Candidate> =
        cluster.candidates(request).map(|candidate| (candidate.node, candidate)).collect();
    let chosen = ByPlacement.choose(cluster, request).and_then(|node| able.get(&node));
    let gate = Gate::new(cluster, request);
    let mut groups: BTreeMap<Loss, Vec<(u128, Loser)>> = BTreeMap::new();
    for node in (0..cluster.nodes().len()).filter(|node| chosen.is_none_or(|chosen| chosen.node != *node)) {
        let lost = match able.get(&node) {
            Some(candidate) => chosen.map(|chosen| behind(cluster, candidate, chosen)),
            None => refused(cluster, &gate, node, request),
        };
        if let Some((loss, distance, loser)) = lost {
            groups.entry(loss).or_default().push((distance, loser));
        }
    }
    Decision {
        container: request.container.clone(),
        service: request.service.clone(),
        placement: request.placement,
        nodes: count(cluster.nodes().len()),
        able: count(able.len()),
        winner: chosen.map(|chosen| standing(cluster, chosen)),
        losers: groups.into_iter().map(|(loss, all)| group(loss, all)).collect(),
    }
}

/// The first key in which a node that could take the request is behind the chosen one, and by how much.
fn behind(cluster: &Cluster<'_>, candidate: &Candidate, chosen: &Candidate) -> (Loss, u128, Loser) {
    let room = candidate.room.abs_diff(chosen.room);
    let (loss, distance) = if candidate.unwished != chosen.unwished {
        (Loss::Wishes, candidate.unwished.into())
    } else if candidate.replicas != chosen.replicas {
        (Loss::Replicas, candidate.replicas.into())
    } else if room > 0 {
        (Loss::Room, room)
    } else {
        (Loss::Name, 0)
    };
    (loss, distance, Loser::Able(standing(cluster, candidate)))
}

fn refused(cluster: &Cluster<'_>, gate: &Gate<'_>, node: NodeIndex, request: &Request) -> Option<(Loss, u128, Loser)> {
    let refusal = match cluster.refusal(gate, node, request) {
        Some(refusal) => refusal,
        None => {
            let reason = Reason::Quota(Box::new(cluster.quota_refuses(request)?));
            Refusal { node: cluster.nodes()[node].name.clone(), reason }
        }
    };
    let distance = refusal.distance();
    Some((Loss::Refused { word: refusal.reason.word() }, distance, Loser::Refused(refusal)))
}

fn group(loss: Loss, mut all: Vec<(u128, Loser)>) -> Losers {
    let nodes = count(all.len());
    // Stable: of equals the first by name.
    all.sort_by_key(|(distance, _)| *distance);
    let examples = all.into_iter().take(EXAMPLES_MAX).map(|(_, loser)| loser).collect();
    Losers { loss, nodes, examples }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What of each dimension `left` is more or less than `other`, in words; what decides is the sum of all.
fn difference(left: &ResourceVector, other: &ResourceVector) -> String {
    let differs = |dimension: &Dimension| left.get(*dimension) != other.get(*dimension);
    let sign = |dimension: Dimension| if left.get(dimension) > other.get(dimension) { '+' } else { '-' };
    let all: Vec<Dimension> = Dimension::ALL.into_iter().filter(differs).collect();
    let words = all.iter().map(|dimension| {
        let by = left.get(*dimension).abs_diff(other.get(*dimension));
        format!("{}{} {dimension}", sign(*dimension), dimension.show(by))
    });
    let words = words.collect::<Vec<_>>().join(", ");
    let is_mixed = all.windows(2).any(|two| sign(two[0]) != sign(two[1]));
    if is_mixed { format!("{words} (as shares of the largest node, added up)") } else { words }
}

fn times(number: u32, what: &str) -> String {
    match number {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// What the policy prefers.
fn preferred(placement: Placement) -> &'static str {
    match placement {
        Placement::Pack => "pack takes the node that would have the least left",
        Placement::Spread => "spread takes the node that would have the most left",
    }
}

impl Decision {
    /// What the chosen node is ahead of the others by, in a sentence.
    pub fn because(&self) -> String {
        let has = |loss: &Loss| self.losers.iter().any(|losers| losers.loss == *loss);
        let mut because = Vec::new();
        if has(&Loss::Wishes) {
            because.push("it fulfils the most wishes".to_owned());
        }
        if has(&Loss::Replicas) {
            because.push(format!("it has the fewest replicas of {}", self.service.name));
        }
        if has(&Loss::Room) {
            because.push(preferred(self.placement).to_owned());
        }
        if because.is_empty() && has(&Loss::Name) {
            because.push("it is the first by name of equals".to_owned());
        }
        match (&self.winner, because.is_empty()) {
            (None, _) => "no node can take it".to_owned(),
            (Some(_), true) if self.nodes == 1 => "it is the only node".to_owned(),
            (Some(_), true) => "no other node can take it".to_owned(),
            (Some(_), false) => because.join("; of these, "),
        }
    }

    /// What decided against the nodes of a group, in a few words.
    pub fn loss(&self, losers: &Losers) -> String {
        match (&losers.loss, self.placement) {
            (Loss::Wishes, _) => "fulfils fewer wishes".to_owned(),
            (Loss::Replicas, _) => format!("more replicas of {}", self.service.name),
            (Loss::Room, Placement::Pack) => "more left".to_owned(),
            (Loss::Room, Placement::Spread) => "less left".to_owned(),
            (Loss::Name, _) => "the same; a later name".to_owned(),
            (Loss::Refused { word }, _) => word.clone(),
        }
    }

    /// What decided against one node, compared with the chosen one.
    pub fn compared(&self, loss: &Loss, loser: &Loser) -> String {
        let (standing, winner) = match (loser, &self.winner) {
            (Loser::Refused(refusal), _) => return refusal.reason.to_string(),
            (Loser::Able(standing), Some(winner)) => (standing, winner),
            (Loser::Able(_), None) => return String::new(),
        };
        match loss {
            Loss::Wishes => {
                format!("{} unfulfilled, {} has {}", times(standing.unwished, "wish"), winner.node, winner.unwished)
            }
            Loss::Replicas => {
                let (here, there) = (times(standing.replicas, "replica"), times(winner.replicas, "replica"));
                format!("{here} of {} there, {there} on {}", self.service.name, winner.node)
            }
            Loss::Room => {
                let more = if self.placement == Placement::Spread { "less" } else { "more" };
                let difference = difference(&standing.left, &winner.left);
                format!("would have {more} left than {}: {difference}", winner.node)
            }
            Loss::Name => format!("as good as {}, which comes first by name", winner.node),
            Loss::Refused { word } => word.clone(),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.winner {
            None => write!(f, "no node can take {}", self.container)?,
            Some(winner) => write!(f, "{} goes to node {}: {}", self.container, winner.node, self.because())?,
        }
        for losers in &self.losers {
            write!(f, "\n  {} x {}", losers.nodes, self.loss(losers))?;
            for example in &losers.examples {
                write!(f, "\n    {}: {}", example.node(), self.compared(&losers.loss, example))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "decision_tests.rs"]
mod tests;
