//! Whether everything is in its wanted state once faults are over: every service whole, every machine with exactly what
//! is bound to it, nothing left of what was deleted.

use crate::{
    machine::{Phase, Process},
    mirror::Mirror,
    world::World,
};
use heptad_model::{Container, ContainerId, ContainerStatus, DesiredState, ExitKind, NodeStatus, Service, standing};

/// The first deviation from the wanted state.
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
    if let Some((node, condition)) = mirror.nodes.values().find_map(|node| Some((node, node.condition()?))) {
        return Some(format!("node {} says {condition}", node.name));
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
    let own = || mirror.containers.values().filter(|c| c.service_id == service.id);
    if service.mode.job().is_some() {
        let rollout = mirror.rollouts.get(&service.key().to_string());
        let standing = standing::standing(service, &own().collect::<Vec<_>>(), rollout, 0, 0);
        let is_over = standing.settled || standing.failed.is_some();
        return (!is_over).then(|| format!("job {} is not over: {standing:?}", service.key()));
    }
    let template = service.template();
    let own = own().filter(|c| c.desired == DesiredState::Running);
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
        // What is left of a run is kept for its logs.
        Some(service) if service.mode.job().is_some() => {
            (!container.is_finished()).then(|| format!("container {id} of a job still runs"))
        }
        Some(service) if service.template() != container.template => Some(format!("container {id} is not replaced")),
        Some(_) => None,
    }
}

fn machine_unwell(world: &World, mirror: &Mirror) -> Option<String> {
    let machines = world.machines();
    machines.all().find_map(|(name, machine)| {
        let wrong =
            mirror.bound_to(name).find_map(|container| is_otherwise(container, machine.processes.get(&container.id)));
        let is_bound = |id: &&ContainerId| mirror.containers.get(*id).is_some_and(|c| c.node.as_ref() == Some(name));
        let surplus = || machine.processes.keys().find(|id| !is_bound(id));
        wrong.map(|why| format!("{why} on {name}")).or_else(|| surplus().map(|id| format!("{name} still runs {id}")))
    })
}

/// How the record deviates from the container on its machine.
fn is_otherwise(container: &Container, process: Option<&Process>) -> Option<String> {
    let id = &container.id;
    let Some(process) = process else {
        return (!container.is_finished()).then(|| format!("container {id} does not run"));
    };
    let status = match &process.phase {
        Phase::Running if process.is_healthy => ContainerStatus::Running,
        Phase::Ended(exit) if exit.how == ExitKind::Code(0) => ContainerStatus::Succeeded,
        Phase::Ended(_) => ContainerStatus::Failed,
        _ => return Some(format!("container {id} does not run")),
    };
    let recorded = (container.status, container.restarts);
    (recorded != (status, process.run)).then(|| {
        format!(
            "container {id} is recorded as {} after {} restarts, and it is {status} in run {}",
            recorded.0, recorded.1, process.run
        )
    })
}
