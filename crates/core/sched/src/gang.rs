//! Containers that get nodes together or not at all: who belongs together, and the placement of all of them on a working
//! view that is as it was before if one finds no node. Knows nothing of how a node is chosen.

use crate::{
    cluster::Cluster,
    report::{GangShort, Unplaced, explain_in},
    scheduler::Scheduler,
};
use heptad_capacity::{Gang, NodeIndex, Request};
use heptad_model::{ContainerId, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// What tells gangs apart: the service, and the group in it.
pub(crate) type GangKey<'a> = (&'a ServiceKey, u64);

/// The gang of a request.
pub(crate) fn key(request: &Request) -> Option<GangKey<'_>> {
    request.gang.map(|gang| (&request.service, gang.group))
}

/// The members of each gang in the order in which they are asked, each once, without those that are in `seen`.
pub(crate) fn members<'a>(
    requests: &'a [Request],
    seen: &BTreeSet<&ContainerId>,
) -> BTreeMap<GangKey<'a>, Vec<&'a Request>> {
    let mut seen = seen.clone();
    let mut gangs: BTreeMap<GangKey<'a>, Vec<&'a Request>> = BTreeMap::new();
    for request in requests {
        if let Some(key) = key(request).filter(|_| seen.insert(&request.container)) {
            gangs.entry(key).or_default().push(request);
        }
    }
    gangs
}

/// How many members there must be.
pub(crate) fn size(members: &[&Request]) -> u32 {
    members.iter().filter_map(|request| request.gang).map(|Gang { size, .. }| size).max().unwrap_or(0)
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whether all members are asked for.
pub(crate) fn is_complete(members: &[&Request]) -> bool {
    number(members.len()) >= size(members)
}

/// Plans all members, one after the other; gives their nodes, or how many of them could be placed. Only then the working
/// view is another than before.
pub(crate) fn place(
    cluster: &mut Cluster<'_>,
    members: &[&Request],
    scheduler: &dyn Scheduler,
) -> Result<Vec<NodeIndex>, usize> {
    let before = cluster.clone();
    let mut nodes = Vec::with_capacity(members.len());
    for member in members {
        let node = scheduler.choose(cluster, member);
        match node.filter(|node| cluster.bind(*node, member).is_ok()) {
            Some(node) => nodes.push(node),
            None => {
                *cluster = before;
                return Err(nodes.len());
            }
        }
    }
    Ok(nodes)
}

/// Why a gang has no nodes: how many of it could be placed, and why then the next one could not.
pub(crate) fn explained(
    cluster: &Cluster<'_>,
    members: &[&Request],
    scheduler: &dyn Scheduler,
    refusals_max: usize,
) -> Option<Unplaced> {
    let mut cluster = cluster.clone();
    let mut placed = 0;
    let mut next = *members.first()?;
    if is_complete(members) {
        for member in members {
            next = member;
            let node = scheduler.choose(&cluster, member);
            if node.is_none_or(|node| cluster.bind(node, member).is_err()) {
                break;
            }
            placed += 1;
        }
    }
    let short = GangShort { size: size(members), created: number(members.len()), placed };
    let containers = members.iter().map(|member| member.container.clone()).collect();
    Some(Unplaced { containers, gang: Some(short), ..explain_in(&cluster, next, refusals_max) })
}
