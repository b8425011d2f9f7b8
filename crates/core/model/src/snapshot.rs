//! The whole system C = (N, S, C, R, L, M, P) at one revision. R is in the nodes' capacities and the containers' requests.

use crate::{
    Container, Namespace, NetworkPolicy, Node, Service, ServiceKey, TrafficRule,
    ids::{ContainerId, NodeName},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// One place where a service's port is really served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// The container.
    pub container: ContainerId,
    /// The container port.
    pub port: u16,
    /// Where it is reached on its node.
    pub address: SocketAddr,
    /// Its node; from any other, it is reached through the proxy there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
}

/// L: the balanced backends of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoadBalancer {
    /// The service.
    pub service: ServiceKey,
    /// Its ready endpoints, ordered.
    pub backends: Vec<Endpoint>,
}

/// M: something whose health is monitored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MonitoringTarget {
    /// The monitored container.
    pub container: ContainerId,
}

/// Everything at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// The revision at which everything was read.
    pub revision: u64,
    /// N.
    pub nodes: Vec<Node>,
    /// S.
    pub services: Vec<Service>,
    /// C.
    pub containers: Vec<Container>,
    /// L.
    pub load_balancers: Vec<LoadBalancer>,
    /// M.
    pub monitoring: Vec<MonitoringTarget>,
    /// P: who may call whom.
    pub policies: Vec<NetworkPolicy>,
    /// P: where requests go.
    pub rules: Vec<TrafficRule>,
}

/// The ready endpoints of every service, ordered by container and port. What routing and load balancers see.
pub fn ready_endpoints<'a>(containers: impl IntoIterator<Item = &'a Container>) -> BTreeMap<ServiceKey, Vec<Endpoint>> {
    let mut all: BTreeMap<ServiceKey, Vec<Endpoint>> = BTreeMap::new();
    for container in containers.into_iter().filter(|c| c.ready && c.is_alive()) {
        let endpoints = all.entry(container.service.clone()).or_default();
        endpoints.extend(container.addresses.iter().map(|(&port, &address)| Endpoint {
            container: container.id.clone(),
            port,
            address,
            node: container.node.clone(),
        }));
    }
    all.values_mut().for_each(|endpoints| endpoints.sort());
    all
}

impl Snapshot {
    /// Fills L and M, which follow from the containers.
    pub fn with_derived(mut self) -> Self {
        self.load_balancers = ready_endpoints(&self.containers)
            .into_iter()
            .map(|(service, backends)| LoadBalancer { service, backends })
            .collect();
        self.monitoring = self
            .containers
            .iter()
            .filter(|c| c.is_alive() && c.node.is_some())
            .map(|c| MonitoringTarget { container: c.id.clone() })
            .collect();
        self
    }

    /// The service of that key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.iter().find(|s| s.name == key.name && s.namespace == key.namespace)
    }

    /// The services of a namespace.
    pub fn services_of<'a>(&'a self, namespace: &'a Namespace) -> impl Iterator<Item = &'a Service> {
        self.services.iter().filter(move |s| &s.namespace == namespace)
    }
}
