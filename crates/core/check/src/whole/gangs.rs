//! The judge's reading of gangs: no part of one has nodes without the others, and none waits for which there is room.

use super::{Judge, Tally};
use crate::Finding;
use heptad_capacity::{Plan, Request};
use heptad_model::{ContainerId, NodeName, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// The members of a gang that are asked for and had no node before.
pub(super) struct Asked<'a> {
    members: Vec<&'a Request>,
    size: u32,
}

/// The gangs of those who are asked for, without those of `bound`, who had nodes before.
pub(super) fn gangs<'a>(
    asked: &BTreeMap<&'a ContainerId, &'a Request>,
    bound: &BTreeSet<&ContainerId>,
) -> BTreeMap<(&'a ServiceKey, u64), Asked<'a>> {
    let mut gangs: BTreeMap<(&ServiceKey, u64), Asked<'a>> = BTreeMap::new();
    for request in asked.values().filter(|request| !bound.contains(&request.container)) {
        if let Some(gang) = request.gang {
            let all = gangs.entry((&request.service, gang.group));
            let all = all.or_insert_with(|| Asked { members: Vec::new(), size: 0 });
            all.members.push(request);
            all.size = all.size.max(gang.size);
        }
    }
    gangs
}

/// Each gang has all its nodes or none.
pub(super) fn whole(gangs: &BTreeMap<(&ServiceKey, u64), Asked<'_>>, plan: &Plan, found: &mut Vec<Finding>) {
    for ((service, _), gang) in gangs {
        let placed = gang.members.iter().filter(|member| plan.bindings().contains_key(&member.container)).count();
        let size = gang.members.len().max(gang.size as usize);
        if placed > 0 && placed < size {
            found.push(Finding::GangParted { service: (*service).clone(), placed, size });
        }
    }
}

/// Every gang that waits would find no room as a whole. Of one whose members differ, or that looks at its neighbours, that
/// cannot be said by counting.
pub(super) fn left_out<'a>(
    gangs: &BTreeMap<(&'a ServiceKey, u64), Asked<'a>>,
    plan: &Plan,
    after: &BTreeMap<&NodeName, Tally<'a>>,
    judge: &Judge<'_>,
    found: &mut Vec<Finding>,
) {
    for gang in gangs.values() {
        let Some(first) = gang.members.first() else { continue };
        let waits = !gang.members.iter().any(|member| plan.bindings().contains_key(&member.container));
        let is_complete = gang.members.len() >= gang.size as usize;
        if !waits || !is_complete || !judge.is_plain(first) || !gang.members.iter().all(|m| asks_the_same(m, first)) {
            continue;
        }
        let open = after.values().filter(|tally| judge.wrong(first, tally.node, 0).is_none());
        let mut rooms = open.map(|tally| (tally, tally.room(first))).filter(|(_, room)| *room > 0).peekable();
        let Some(node) = rooms.peek().map(|(tally, _)| tally.node.name.clone()) else { continue };
        let room = rooms.fold(0, |sum: u64, (_, room)| sum.saturating_add(room));
        if room >= gang.members.len() as u64 {
            found.push(Finding::LeftOut { container: first.container.clone(), node });
        }
    }
}

fn asks_the_same(a: &Request, b: &Request) -> bool {
    (a.resources, &a.devices, &a.host_ports, &a.pinned) == (b.resources, &b.devices, &b.host_ports, &b.pinned)
}
