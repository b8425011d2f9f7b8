//! The guarantees that are predicates over a snapshot.
//! A predicate re-derives its promise from the snapshot alone; it calls no planner.

pub use crate::guarantee::Guarantee;

use crate::{Container, DEVICE_MILLIS, Node, Snapshot, ids::is_label, resources::ResourceVector, validate::Validate};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One place where a guarantee does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// The guarantee.
    pub guarantee: Guarantee,
    /// The object.
    pub subject: String,
    /// What is wrong with it.
    pub message: String,
}

/// All findings of all guarantees.
pub fn verify(snapshot: &Snapshot) -> Vec<Finding> {
    Guarantee::PREDICATES.into_iter().flat_map(|g| g.findings(snapshot)).collect()
}

pub(crate) type Texts = Vec<(String, String)>;

fn duplicates<'a>(what: &str, ids: impl Iterator<Item = &'a str>, out: &mut Texts) {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id.to_owned()) {
            out.push((format!("{what}/{id}"), "the id is used twice".to_owned()));
        }
    }
}

/// G1: every container belongs to a service and, if bound, to a node; ids are unique; every backend is a ready container
/// of its service; every monitored target exists; every policy and rule is well-typed.
pub(crate) fn well_formed(s: &Snapshot) -> Texts {
    let mut out = Vec::new();
    let service_keys: Vec<String> = s.services.iter().map(|x| x.key().to_string()).collect();
    duplicates("node", s.nodes.iter().map(|n| n.name.as_str()), &mut out);
    duplicates("service", service_keys.iter().map(String::as_str), &mut out);
    duplicates("container", s.containers.iter().map(|c| c.id.as_str()), &mut out);
    for node in s.nodes.iter().filter(|n| !is_label(n.name.as_str())) {
        out.push((format!("node/{}", node.name), "the name is no RFC 1123 label".to_owned()));
    }
    membership(s, &mut out);
    backends(s, &mut out);
    for target in &s.monitoring {
        if !s.containers.iter().any(|c| c.id == target.container) {
            out.push((format!("container/{}", target.container), "it is monitored but does not exist".to_owned()));
        }
    }
    for policy in &s.policies {
        typed(format!("policy/{}/{}", policy.namespace, policy.name), policy, &mut out);
    }
    for rule in &s.rules {
        typed(format!("rule/{}/{}", rule.namespace, rule.name), rule, &mut out);
    }
    out
}

fn typed(subject: String, object: &impl Validate, out: &mut Texts) {
    out.extend(object.validate().into_iter().map(|p| (subject.clone(), p.to_string())));
}

fn membership(s: &Snapshot, out: &mut Texts) {
    let services: BTreeMap<_, _> = s.services.iter().map(|x| (x.key(), &x.id)).collect();
    let nodes: BTreeSet<_> = s.nodes.iter().map(|n| &n.name).collect();
    for container in &s.containers {
        let subject = format!("container/{}", container.id);
        // A container that is being stopped may outlive its service; one that is to run may not.
        let stopping = container.desired == crate::DesiredState::Stopped;
        if !stopping && services.get(&container.service) != Some(&&container.service_id) {
            out.push((subject.clone(), format!("its service {} does not exist", container.service)));
        }
        if let Some(node) = container.node.as_ref().filter(|n| !nodes.contains(n)) {
            out.push((subject, format!("it is bound to node {node}, which does not exist")));
        }
    }
}

fn backends(s: &Snapshot, out: &mut Texts) {
    let containers: BTreeMap<_, _> = s.containers.iter().map(|c| (&c.id, c)).collect();
    for balancer in &s.load_balancers {
        for backend in &balancer.backends {
            let good = containers.get(&backend.container).is_some_and(|c| {
                c.ready && c.service == balancer.service && c.addresses.get(&backend.port) == Some(&backend.address)
            });
            if !good {
                let message = format!("its backend {} is not a ready container of it", backend.container);
                out.push((format!("service/{}", balancer.service), message));
            }
        }
    }
}

/// G2, the part that must hold at every moment: each container of the present generation has its service's image,
/// resources, ports and environment; and no more containers of a serving service are wanted than its replicas plus the
/// surge of its strategy.
pub(crate) fn orchestration(s: &Snapshot) -> Texts {
    let mut out = Vec::new();
    for service in &s.services {
        let template = service.template();
        let wanted = s.containers.iter().filter(|c| c.service == service.key() && c.service_id == service.id);
        let wanted: Vec<_> = wanted.filter(|c| c.is_alive()).collect();
        for container in wanted.iter().filter(|c| c.generation == service.generation && c.template != template) {
            out.push((format!("container/{}", container.id), "it differs from its service's specification".to_owned()));
        }
        if !service.mode.is_service() {
            continue;
        }
        let (most, current) = (service.containers_max(), wanted.iter().filter(|c| c.template == template).count());
        if current > most as usize {
            let message =
                format!("{current} containers are wanted, {most} are the most for {} replicas", service.replicas);
            out.push((format!("service/{}", service.key()), message));
        }
    }
    out
}

/// G4: for every node and resource, the bound containers' requests add up to at most the capacity; no two bound
/// containers have the same host port; no device is given beyond its whole.
pub(crate) fn capacity(s: &Snapshot) -> Texts {
    let mut out = Vec::new();
    for node in &s.nodes {
        let subject = format!("node/{}", node.name);
        let here = |c: &&Container| c.bound_request().is_some_and(|(at, _)| *at == node.name);
        let bound: Vec<_> = s.containers.iter().filter(here).collect();
        match bound.iter().try_fold(ResourceVector::ZERO, |sum, c| sum.checked_add(&c.template.resources.vector())) {
            None => out.push((subject.clone(), "the sum of the requests overflows".to_owned())),
            Some(sum) => {
                if let Some(d) = sum.first_excess(&node.capacity) {
                    let message =
                        format!("{d}: {} bound, capacity {}", d.show(sum.get(d)), d.show(node.capacity.get(d)));
                    out.push((subject.clone(), message));
                }
            }
        }
        let mut ports = BTreeSet::new();
        for port in bound.iter().flat_map(|c| c.host_ports()) {
            if !ports.insert(port) {
                out.push((subject.clone(), format!("host port {}/{} is given twice", port.0, port.1)));
            }
        }
        devices(node, &bound, &mut out);
    }
    out
}

/// Each container has as many devices of each kind as it requests, all of them on its node, and none is given beyond
/// its whole.
fn devices(node: &Node, bound: &[&Container], out: &mut Texts) {
    let mut given: BTreeMap<(&str, u32), u64> = BTreeMap::new();
    for container in bound {
        let subject = || format!("container/{}", container.id);
        for (kind, asked) in &container.template.resources.devices {
            let indices: BTreeSet<u32> = container.devices.get(kind).into_iter().flatten().copied().collect();
            if indices.len() != asked.count() as usize {
                let message = format!("it asks {asked} of {kind} and has {} devices", indices.len());
                out.push((subject(), message));
            }
            for index in indices {
                *given.entry((kind, index)).or_default() += u64::from(asked.of_each());
            }
        }
        let asked = &container.template.resources.devices;
        for kind in container.devices.keys().filter(|kind| !asked.contains_key(*kind)) {
            out.push((subject(), format!("it has devices of {kind}, which it does not ask")));
        }
    }
    let subject = format!("node/{}", node.name);
    for ((kind, index), millis) in given {
        let count = node.devices.get(kind).copied().unwrap_or(0);
        if index >= count {
            out.push((subject.clone(), format!("{kind} {index} is given, and there are {count}")));
        }
        if millis > u64::from(DEVICE_MILLIS) {
            out.push((subject.clone(), format!("{kind} {index}: {millis} of {DEVICE_MILLIS} thousandths given")));
        }
    }
}

#[cfg(test)]
#[path = "invariants_tests.rs"]
mod tests;
