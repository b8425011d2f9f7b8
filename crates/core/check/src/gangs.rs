//! The judge's reading of gangs: no part of one has nodes without the others, and none waits for which there is room.

use super::{Finding, Judge, Rooms, asked::One};
use heptad_capacity::{NodesView, Plan, Request};
use heptad_model::{ContainerId, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};

/// The members of a gang that are asked for and had no node before.
pub(super) struct Asked<'a> {
    members: Vec<One<'a>>,
    size: u32,
}

/// The gangs of those who are asked for, without those of `bound`, who had nodes before.
pub(super) fn gangs<'a>(
    asked: &[One<'a>],
    bound: &BTreeSet<&ContainerId>,
) -> BTreeMap<(&'a ServiceKey, u64), Asked<'a>> {
    let mut gangs: BTreeMap<(&ServiceKey, u64), Asked<'a>> = BTreeMap::new();
    for one in asked.iter().filter(|one| one.request.gang.is_some() && !bound.contains(&one.request.container)) {
        if let Some(gang) = one.request.gang {
            let all = gangs.entry((&one.request.service, gang.group));
            let all = all.or_insert_with(|| Asked { members: Vec::new(), size: 0 });
            all.members.push(*one);
            all.size = all.size.max(gang.size);
        }
    }
    gangs
}

/// Each gang has all its nodes or none.
pub(super) fn whole(gangs: &BTreeMap<(&ServiceKey, u64), Asked<'_>>, plan: &Plan, found: &mut Vec<Finding>) {
    for ((service, _), gang) in gangs {
        let placed =
            gang.members.iter().filter(|member| plan.bindings().contains_key(&member.request.container)).count();
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
    view: &NodesView,
    judge: &Judge<'_>,
    rooms: &Rooms<'_, '_, 'a>,
    found: &mut Vec<Finding>,
) {
    for gang in gangs.values() {
        let Some(first) = gang.members.first() else { continue };
        let waits = !gang.members.iter().any(|member| plan.bindings().contains_key(&member.request.container));
        let is_complete = gang.members.len() >= gang.size as usize;
        let are_alike = gang.members.iter().all(|member| asks_the_same(member.request, first.request));
        if !waits || !is_complete || !judge.is_plain(first) || !are_alike {
            continue;
        }
        if let Some((node, _)) = rooms.all_rooms(first).filter(|(_, room)| *room >= gang.members.len() as u64) {
            let (container, node) = (first.request.container.clone(), view.nodes()[node].name.clone());
            found.push(Finding::LeftOut { container, node });
        }
    }
}

fn asks_the_same(a: &Request, b: &Request) -> bool {
    (a.resources, &a.devices, &a.host_ports, &a.pinned) == (b.resources, &b.devices, &b.host_ports, &b.pinned)
}
