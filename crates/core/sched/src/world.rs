//! All that placement looks at, as it is stored, so that a change can be tried: the view is built anew with it.
//! Knows no store and changes nothing but its own lists of references.

use crate::cluster::Cluster;
use heptad_capacity::{NodesView, Request};
use heptad_model::{Container, ContainerId, Node, NodeName, Quota, Service};

/// What there is, each list in any order.
#[derive(Clone, Debug, Default)]
pub struct World<'a> {
    /// The nodes.
    pub nodes: Vec<&'a Node>,
    /// The services.
    pub services: Vec<&'a Service>,
    /// The containers, those without a node too.
    pub containers: Vec<&'a Container>,
    /// The quotas.
    pub quotas: Vec<&'a Quota>,
    /// Who waits for a node on which room is kept for it.
    pub kept: Vec<&'a Request>,
}

impl<'a> World<'a> {
    /// The nodes as planners see them.
    pub fn view(&self) -> NodesView {
        NodesView::new(self.nodes.iter().copied(), self.containers.iter().copied())
            .with_services(self.services.iter().copied())
            .with_quotas(self.quotas.iter().copied(), self.containers.iter().copied())
    }

    /// The working view on `view`, nothing planned yet; what is kept for others than `request` is nobody's.
    pub fn cluster<'v>(&self, view: &'v NodesView, request: &Request) -> Cluster<'v> {
        let mut cluster = Cluster::new(view);
        for kept in self.kept.iter().filter(|kept| kept.container != request.container) {
            if let Some(node) = kept.reserved.as_ref().and_then(|node| view.index(node)) {
                cluster.hold(node, kept);
            }
        }
        cluster
    }

    /// Whether that node takes the request, or any if none is named.
    pub(crate) fn takes(&self, request: &Request, node: Option<&NodeName>) -> bool {
        let view = self.view();
        let cluster = self.cluster(&view, request);
        if cluster.quota_refuses(request).is_some() {
            return false;
        }
        match node {
            None => cluster.candidates(request).next().is_some(),
            Some(name) => view.index(name).is_some_and(|node| cluster.refuses(node, request).is_none()),
        }
    }

    pub(crate) fn service_of(&self, request: &Request) -> Option<&'a Service> {
        let key = &request.service;
        self.services.iter().copied().find(|service| service.name == key.name && service.namespace == key.namespace)
    }

    /// With that node instead of the one of its name, or beside the others.
    pub(crate) fn with_node<'b>(&self, node: &'b Node) -> World<'b>
    where
        'a: 'b,
    {
        let mut world: World<'b> = self.clone();
        world.nodes.retain(|other| other.name != node.name);
        world.nodes.push(node);
        world
    }

    /// With that service instead of the one of its name.
    pub(crate) fn with_service<'b>(&self, service: &'b Service) -> World<'b>
    where
        'a: 'b,
    {
        let mut world: World<'b> = self.clone();
        world.services.retain(|other| other.name != service.name || other.namespace != service.namespace);
        world.services.push(service);
        world
    }

    /// Without those containers.
    pub(crate) fn without(&self, gone: &[ContainerId]) -> World<'a> {
        let mut world = self.clone();
        world.containers.retain(|container| !gone.contains(&container.id));
        world
    }
}
