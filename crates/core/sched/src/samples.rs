//! Small worlds for the tests of this crate and of `heptad-check`, by hand and at random.

use heptad_capacity::{NodesView, Request};
use heptad_model::{Container, Node, NodeStatus, Placement, Protocol, ResourceVector, Service, ServiceKey};
use proptest::prelude::*;

/// So many MiB of memory and nothing else.
pub(crate) fn memory(mib: u64) -> ResourceVector {
    ResourceVector::from_amounts([0, mib << 20, 0, 0])
}

/// A request for memory.
pub(crate) fn request(container: &str, service: &str, mib: u64) -> Request {
    Request {
        container: container.into(),
        service: ServiceKey::new("default", service),
        resources: memory(mib),
        devices: [].into(),
        host_ports: [].into(),
        placement: Placement::Pack,
        pinned: None,
        reserved: None,
        gang: None,
    }
}

/// A random vector of small amounts, so that nodes get full.
pub(crate) fn vector(most: u64) -> impl Strategy<Value = ResourceVector> {
    proptest::array::uniform4(0..=most).prop_map(ResourceVector::from_amounts)
}

prop_compose! {
    /// Nodes of which some are not ready, some hold containers of the services `s0`, `s1` from before, some too many.
    pub(crate) fn random_view()(
        nodes in prop::collection::vec((vector(40), 0u8..8, prop::collection::vec((vector(12), 0u16..4), 0..3)), 0..7)
    ) -> NodesView {
        let mut containers = Vec::new();
        let nodes: Vec<Node> = nodes.into_iter().enumerate().map(|(i, (capacity, status, held))| {
            let name = format!("n{i}");
            for (j, (resources, port)) in held.into_iter().enumerate() {
                let mut service = Service::new(&format!("s{}", j % 2), "host");
                service.resources = resources.into();
                if port > 0 {
                    service.ports = vec![heptad_model::Port { host_port: Some(80 + port), ..heptad_model::Port::tcp(1) }];
                }
                let mut container = Container::pending(format!("old-{i}-{j}").into(), &service, 0);
                container.node = Some(name.as_str().into());
                containers.push(container);
            }
            let mut node = Node::new(&name, capacity);
            node.status = match status { 0 => NodeStatus::NotReady, 1 => NodeStatus::Unknown, _ => NodeStatus::Ready };
            node
        }).collect();
        NodesView::new(&nodes, &containers)
    }
}

prop_compose! {
    /// Requests of three services, some with host ports, some asked twice.
    pub(crate) fn random_requests()(
        all in prop::collection::vec((0u8..40, 0u8..3, vector(12), 0u16..6, any::<bool>(), any::<bool>()), 0..30)
    ) -> Vec<Request> {
        all.into_iter().map(|(id, service, resources, port, udp, spread)| Request {
            container: format!("c{id}").into(),
            service: ServiceKey::new("default", format!("s{service}")),
            resources,
            devices: [].into(),
            host_ports: if port < 3 { [].into() } else {
                [(78 + port, if udp { Protocol::Udp } else { Protocol::Tcp })].into()
            },
            placement: if spread { Placement::Spread } else { Placement::Pack },
            pinned: None,
            reserved: None,
            gang: None,
        }).collect()
    }
}
