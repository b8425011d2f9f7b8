//! The table: everything that a decision looks at, immutable and compiled. What changes often (endpoints) is separate
//! from what is costly to compile (policies and rules), so a changed endpoint costs no compilation.

use crate::{
    decide::port_of,
    facts::Draw,
    names::{Names, Parts},
    path,
    policy::{Direction, Policy},
    rule::Rule,
    split::Sides,
};
use heptad_model::{
    Container, ContainerId, Endpoint, Expose, NetworkPolicy, NodeName, Protocol, Service, ServiceKey, Snapshot,
    TrafficRule, snapshot::ready_endpoints,
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};
use thiserror::Error;

/// What a table is built from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// All services.
    pub services: &'a [Service],
    /// All containers.
    pub containers: &'a [Container],
    /// All network policies.
    pub policies: &'a [NetworkPolicy],
    /// All traffic rules.
    pub rules: &'a [TrafficRule],
}

impl<'a> From<&'a Snapshot> for Inputs<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        let Snapshot { services, containers, policies, rules, .. } = snapshot;
        Self { services, containers, policies, rules }
    }
}

/// An object that could not be used. The server's validation refuses such objects, so this is rare.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TableProblem {
    /// The rule is left out.
    #[error("the traffic rule {rule} is not used: {why}; change it")]
    Rule {
        /// `NAMESPACE/NAME`.
        rule: String,
        /// The reason.
        why: String,
    },
    /// The second service is not reachable under that host.
    #[error("the host `{host}` leads to {kept}, not to {lost}; give one of them another")]
    Host {
        /// The host of `expose`.
        host: String,
        /// The service to which it leads.
        kept: ServiceKey,
        /// The service that also wanted it.
        lost: ServiceKey,
    },
}

/// The traffic rules cannot tell how the server will read this path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "the traffic rules of {service} cannot be applied to a path that servers read in two ways; send it without escaped \
     slashes, backslashes and NUL"
)]
pub struct AmbiguousPath {
    /// The service that is addressed.
    pub service: ServiceKey,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: ServiceKey,
    pub(crate) service: Service,
    /// TCP ports, in the order of the specification.
    pub(crate) ports: Vec<u16>,
    ingress: Vec<usize>,
    egress: Vec<usize>,
    /// In order of precedence.
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Default)]
struct Mesh {
    services: Vec<Entry>,
    by_key: Names,
    by_address: BTreeMap<Ipv4Addr, usize>,
    by_host: Names,
    /// The service and port of each host, in the order of the hosts.
    hosts: Vec<(String, (usize, u16))>,
    policies: Vec<Policy>,
    problems: Vec<TableProblem>,
}

/// Everything a decision looks at. Cheap to share as `Arc<Table>`; a change makes another table.
#[derive(Debug, Default)]
pub struct Table {
    mesh: Arc<Mesh>,
    /// By the index of the service, then by container port; ordered by container.
    endpoints: Vec<BTreeMap<u16, Vec<Endpoint>>>,
    /// By the index of the service: those whose requests are shared out by revision.
    splits: BTreeMap<usize, Sides>,
    by_container: BTreeMap<ContainerId, ServiceKey>,
    /// The services whose containers a node has, in any state.
    bound: BTreeMap<NodeName, BTreeSet<ServiceKey>>,
    revision: u64,
}

impl Table {
    /// Compiles everything. The order of the inputs does not matter.
    pub fn build(inputs: &Inputs<'_>) -> Self {
        Self { mesh: Arc::new(Mesh::build(inputs)), ..Self::default() }.with_containers(inputs.containers)
    }

    /// The same services, policies and rules with other containers; nothing is compiled again.
    pub fn with_containers<'a>(&self, containers: impl IntoIterator<Item = &'a Container, IntoIter: Clone>) -> Self {
        let containers = containers.into_iter();
        let mut endpoints = vec![BTreeMap::<u16, Vec<Endpoint>>::new(); self.mesh.services.len()];
        // Containers of a deleted service whose name was taken by another must not serve the other's requests.
        let own = |c: &&Container| self.service(&c.service).is_some_and(|service| service.id == c.service_id);
        for (key, ready) in ready_endpoints(containers.clone().filter(own)) {
            let Some(index) = self.mesh.index(&key) else { continue };
            let ports = &mut endpoints[index];
            for endpoint in ready {
                ports.entry(endpoint.port).or_default().push(endpoint);
            }
        }
        let splits = self.mesh.services.iter().enumerate().filter_map(|(index, entry)| {
            let mine = containers.clone().filter(|c| c.service == entry.key && c.service_id == entry.service.id);
            Some((index, Sides::new(entry.service.split?, mine)))
        });
        let splits = splits.collect();
        let (bound, revision) = (bound(containers.clone()), self.revision);
        let by_container = containers.map(|c| (c.id.clone(), c.service.clone())).collect();
        Self { mesh: Arc::clone(&self.mesh), endpoints, splits, by_container, bound, revision }
    }

    /// The same at a revision of the state, by which the tables of two nodes can be compared.
    pub fn at_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The revision of the state from which it was built; 0 if unknown.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a container of that service is bound to that node, in any state: then calls from there may be the
    /// service's.
    pub fn is_bound(&self, service: &ServiceKey, node: &NodeName) -> bool {
        self.bound.get(node).is_some_and(|services| services.contains(service))
    }

    /// The ready endpoint that is that container's port, and its service.
    pub fn endpoint_of(&self, container: &ContainerId, port: u16) -> Option<(&ServiceKey, &Endpoint)> {
        let (index, entry) = self.entry(self.by_container.get(container)?)?;
        Some((&entry.key, endpoint_in(self.endpoints_at(index, port), container)?))
    }

    /// Whether a port of that container is a ready endpoint.
    pub fn has_endpoint(&self, container: &ContainerId) -> bool {
        let service = self.by_container.get(container).and_then(|key| self.entry(key));
        service
            .is_some_and(|(index, _)| self.endpoints[index].values().any(|all| endpoint_in(all, container).is_some()))
    }

    /// The addresses of services, each with the TCP ports that the service declares and at which something can be
    /// served now, by the service itself or by a backend of its rules.
    pub fn served(&self) -> BTreeMap<Ipv4Addr, BTreeSet<u16>> {
        let is_served = |index, port| !self.endpoints_at(index, port).is_empty();
        let mut served: BTreeMap<Ipv4Addr, BTreeSet<u16>> = BTreeMap::new();
        for (index, entry) in self.mesh.services.iter().enumerate() {
            let Some(address) = entry.service.address else { continue };
            let backends = || entry.rules.iter().flat_map(|rule| &rule.backends).filter_map(|backend| backend.index);
            let by_rule = |port| backends().any(|index| is_served(index, port_of(self.entry_at(index), port)));
            let some = entry.ports.iter().filter(|port| is_served(index, **port) || by_rule(**port));
            served.entry(address).or_default().extend(some);
        }
        served
    }

    /// Objects that could not be used.
    pub fn problems(&self) -> &[TableProblem] {
        &self.mesh.problems
    }

    /// The service of that key.
    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.entry(key).map(|(_, entry)| &entry.service)
    }

    /// All services, ordered by key.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.mesh.services.iter().map(|entry| &entry.service)
    }

    /// The service of that stable address.
    pub fn service_at(&self, address: Ipv4Addr) -> Option<&ServiceKey> {
        self.mesh.by_address.get(&address).map(|&index| &self.mesh.services[index].key)
    }

    /// The service and port that are exposed under that host (without a port, any case, with or without the dot of the root).
    pub fn service_exposed_as(&self, host: &str) -> Option<(&ServiceKey, u16)> {
        let found = self.mesh.exposed(&Expose::host_compared(host));
        found.map(|(index, port)| (&self.mesh.services[index].key, port))
    }

    /// The path to pass on to a service: as it was sent, unless the service has rules on paths. In that case it is the
    /// normal form, which those rules judge, so that no server that reads it in one of the usual ways sees another
    /// path.
    ///
    /// # Errors
    /// One of those rules would hold for one of the ways in which servers read a path, and not for another.
    pub fn path_for<'p>(&self, target: &ServiceKey, path: &'p str) -> Result<Cow<'p, str>, AmbiguousPath> {
        let Some((_, entry)) = self.entry(target).filter(|_| !path::is_plain(path)) else {
            return Ok(Cow::Borrowed(path));
        };
        let conditions = || entry.rules.iter().flat_map(|rule| &rule.conditions).filter(|c| c.is_on_path());
        if conditions().next().is_none() {
            return Ok(Cow::Borrowed(path));
        }
        let normal = path::normal(path);
        let agree = |reading: &path::Reading| conditions().all(|condition| condition.agrees(&normal, reading));
        match path::readings(&normal).is_some_and(|readings| readings.iter().all(agree)) {
            true => Ok(normal),
            false => Err(AmbiguousPath { service: target.clone() }),
        }
    }

    /// Whether both were compiled from the same services, policies and rules, and differ only in containers.
    pub fn has_rules_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mesh, &other.mesh)
    }

    /// The service of a container, ready or not.
    pub fn service_of(&self, container: &ContainerId) -> Option<&ServiceKey> {
        self.by_container.get(container)
    }

    /// The port used for a service when none is named: its first over TCP.
    pub fn port_default(&self, key: &ServiceKey) -> Option<u16> {
        self.entry(key)?.1.ports.first().copied()
    }

    /// The ready endpoints of a port of a service.
    pub fn endpoints(&self, key: &ServiceKey, port: u16) -> &[Endpoint] {
        self.entry(key).map_or(&[], |(index, _)| self.endpoints_at(index, port))
    }

    /// Every ready endpoint.
    pub fn endpoints_all(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().flat_map(BTreeMap::values).flatten()
    }

    pub(crate) fn entry(&self, key: &ServiceKey) -> Option<(usize, &Entry)> {
        self.mesh.index(key).map(|index| (index, &self.mesh.services[index]))
    }

    pub(crate) fn entry_at(&self, index: usize) -> &Entry {
        &self.mesh.services[index]
    }

    /// The ready endpoints that the draw leaves to choose from: those of one side, while a service has two.
    pub(crate) fn endpoints_drawn(&self, index: usize, port: u16, draw: Draw) -> &[Endpoint] {
        let all = self.endpoints_at(index, port);
        self.splits.get(&index).and_then(|sides| sides.drawn(port, draw)).unwrap_or(all)
    }

    pub(crate) fn endpoints_at(&self, index: usize, port: u16) -> &[Endpoint] {
        self.endpoints[index].get(&port).map_or(&[], Vec::as_slice)
    }

    /// The policies that restrict a service in that direction, ordered by name.
    pub(crate) fn selecting(&self, direction: Direction, entry: &Entry) -> impl Iterator<Item = &Policy> {
        let indexes = match direction {
            Direction::Ingress => &entry.ingress,
            Direction::Egress => &entry.egress,
        };
        indexes.iter().map(|&index| &self.mesh.policies[index])
    }
}

impl Mesh {
    fn build(inputs: &Inputs<'_>) -> Self {
        let mut policies: Vec<Policy> = inputs.policies.iter().map(Policy::new).collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let services: BTreeMap<ServiceKey, &Service> = inputs.services.iter().map(|s| (s.key(), s)).collect();
        let by_key: BTreeMap<ServiceKey, usize> = services.keys().cloned().zip(0..).collect();
        let mut problems = Vec::new();
        let mut rules = compiled_rules(inputs.rules, &by_key, &mut problems);
        let services: Vec<Entry> = services
            .into_iter()
            .map(|(key, service)| Entry {
                ports: tcp_ports(service),
                ingress: selecting(&policies, Direction::Ingress, service),
                egress: selecting(&policies, Direction::Egress, service),
                rules: rules.remove(&key).unwrap_or_default(),
                service: service.clone(),
                key,
            })
            .collect();
        let hosts: Vec<(String, (usize, u16))> = hosts(&services, &mut problems).into_iter().collect();
        let by_host = Names::new(&hosts.iter().map(|(host, _)| host_name(host)).collect::<Vec<_>>());
        let by_key = Names::new(&services.iter().map(|entry| name(&entry.key)).collect::<Vec<_>>());
        let by_address = services.iter().zip(0..).filter_map(|(entry, i)| Some((entry.service.address?, i))).collect();
        Self { services, by_key, by_address, by_host, hosts, policies, problems }
    }

    fn index(&self, key: &ServiceKey) -> Option<usize> {
        self.by_key.find(name(key), |index| name(&self.services[index].key))
    }

    fn exposed(&self, host: &str) -> Option<(usize, u16)> {
        self.by_host.find(host_name(host), |index| host_name(&self.hosts[index].0)).map(|index| self.hosts[index].1)
    }
}

/// The endpoint of a container among those of one port, which are in the order of containers.
fn endpoint_in<'a>(endpoints: &'a [Endpoint], container: &ContainerId) -> Option<&'a Endpoint> {
    let at = endpoints.binary_search_by(|endpoint| endpoint.container.cmp(container)).ok()?;
    Some(&endpoints[at])
}

fn name(key: &ServiceKey) -> Parts<'_> {
    [key.namespace.as_str(), &key.name]
}

fn host_name(host: &str) -> Parts<'_> {
    [host, ""]
}

fn bound<'a>(containers: impl Iterator<Item = &'a Container>) -> BTreeMap<NodeName, BTreeSet<ServiceKey>> {
    let mut all: BTreeMap<NodeName, BTreeSet<ServiceKey>> = BTreeMap::new();
    for container in containers {
        let Some(node) = &container.node else { continue };
        // Most containers belong to a pair that is there already: nothing is copied for those.
        match all.get_mut(node) {
            Some(services) if services.contains(&container.service) => {}
            Some(services) => _ = services.insert(container.service.clone()),
            None => _ = all.insert(node.clone(), BTreeSet::from([container.service.clone()])),
        }
    }
    all
}

fn tcp_ports(service: &Service) -> Vec<u16> {
    service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.container_port).collect()
}

fn selecting(policies: &[Policy], direction: Direction, service: &Service) -> Vec<usize> {
    let selects = |(index, policy): (usize, &Policy)| policy.selects(direction, service).then_some(index);
    policies.iter().enumerate().filter_map(selects).collect()
}

/// The usable rules of every addressed service, in order of precedence.
fn compiled_rules(
    rules: &[TrafficRule],
    by_key: &BTreeMap<ServiceKey, usize>,
    problems: &mut Vec<TableProblem>,
) -> BTreeMap<ServiceKey, Vec<Rule>> {
    let mut all: BTreeMap<ServiceKey, Vec<Rule>> = BTreeMap::new();
    let mut unusable = BTreeSet::new();
    for rule in rules {
        let addressed = ServiceKey { namespace: rule.namespace.clone(), name: rule.service.clone() };
        match Rule::new(rule, |key| by_key.get(key).copied()) {
            Ok(compiled) => all.entry(addressed).or_default().push(compiled),
            Err(why) => _ = unusable.insert((format!("{}/{}", rule.namespace, rule.name), why)),
        }
    }
    problems.extend(unusable.into_iter().map(|(rule, why)| TableProblem::Rule { rule, why }));
    all.values_mut().for_each(|rules| rules.sort_by(Rule::precedence));
    all
}

/// A host that two services want leads to the older one. The server refuses the second, so this is rare.
fn hosts(services: &[Entry], problems: &mut Vec<TableProblem>) -> BTreeMap<String, (usize, u16)> {
    let mut hosts: BTreeMap<String, (usize, u16)> = BTreeMap::new();
    let mut by_age: Vec<(usize, &Entry)> = services.iter().enumerate().collect();
    by_age.sort_by_key(|(_, entry)| entry.service.created_revision);
    for (index, entry) in by_age {
        let Some(expose) = &entry.service.expose else { continue };
        let Some(port) = expose.port.or(entry.ports.first().copied()) else { continue };
        let host = Expose::host_compared(&expose.host).into_owned();
        match hosts.get(&host) {
            None => _ = hosts.insert(host, (index, port)),
            Some(&(first, _)) => {
                let (kept, lost) = (services[first].key.clone(), entry.key.clone());
                problems.push(TableProblem::Host { host, kept, lost });
            }
        }
    }
    hosts
}
