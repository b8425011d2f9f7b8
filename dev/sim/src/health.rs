//! Whether everything is as it is wanted, once faults are over: every service whole, every machine with exactly what is
//! bound to it, nothing left of what was deleted.

use crate::{
    machine::{Phase, Run},
    mirror::Mirror,
    world::World,
};
use heptad_model::{Container, DesiredState, NodeStatus, Service};

/// The first thing that is not as it is wanted.
pub(crate) fn unwell(world: &World) -> Option<String> {
    let ledger = world.judge.ledger();
    let mirror = &ledger.mirror;
    if let Some(node) = world
        .shape
        .nodes
        .iter()
        .find(|node| mirror.nodes.get(&node.name).is_none_or(|known| known.status != NodeStatus::Ready))
    {
        return Some(format!("node {} is not ready", node.name));
    }
    mirror
        .services
        .values()
        .find_map(|service| service_unwell(service, mirror))
        .or_else(|| mirror.containers.values().find_map(|container| container_unwell(container, mirror)))
        .or_else(|| machine_unwell(world, mirror))
        .or_else(|| crate::user::denied(&world.wishes(), mirror))
}

fn service_unwell(service: &Service, mirror: &Mirror) -> Option<String> {
    let template = service.template();
    let own = mirror.containers.values().filter(|c| c.service_id == service.id && c.desired == DesiredState::Running);
    let good = own.filter(|c| c.template == template && c.ready && c.node.is_some()).count();
    let wanted = service.replicas as usize;
    (good != wanted).then(|| format!("service {} has {good} of {wanted} containers ready", service.key()))
}

fn container_unwell(container: &Container, mirror: &Mirror) -> Option<String> {
    let id = &container.id;
    if container.desired == DesiredState::Stopped {
        return Some(format!("container {id} is still being stopped"));
    }
    let service = mirror.services.get(&container.service);
    match service.filter(|service| service.id == container.service_id) {
        None => Some(format!("container {id} has no service")),
        Some(service) if service.template() != container.template => Some(format!("container {id} is not replaced")),
        Some(_) => None,
    }
}

fn machine_unwell(world: &World, mirror: &Mirror) -> Option<String> {
    let machines = world.machines();
    machines.all().find_map(|(name, machine)| {
        let runs = |run: &Run| run.phase == Phase::Running && run.healthy;
        let lacks = mirror.bound_to(name).find(|c| !machine.runs.get(&c.id).is_some_and(runs));
        let surplus =
            machine.runs.keys().find(|id| mirror.containers.get(*id).is_none_or(|c| c.node.as_ref() != Some(name)));
        lacks
            .map(|c| format!("container {} does not run on {name}", c.id))
            .or_else(|| surplus.map(|id| format!("{name} still runs {id}")))
    })
}
