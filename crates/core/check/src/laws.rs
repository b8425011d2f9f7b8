//! The laws by which a plan is judged: what services require of domains, as far as it matters to those who ask for a node, and
//! the containers that each speaks of, counted as they are once the plan is committed.

use super::{
    Present, Tally,
    domains::{Counts, Domain, Topology},
    rules::unusable,
};
use heptad_capacity::{NodeIndex, NodesView, Spread};
use heptad_model::{AffinityRule, Namespace, NodeName, NodeStatus, Service, ServiceKey, Toleration, TopologySpread};
use std::collections::{BTreeMap, BTreeSet};

/// What a service requires of domains.
#[derive(Clone, Copy)]
pub(super) enum Demand<'a> {
    Near(&'a AffinityRule),
    Apart(&'a AffinityRule),
    Even(&'a TopologySpread),
}

/// A requirement and the containers that it looks at, once the plan is committed.
pub(super) struct Law<'a> {
    pub(super) holder: &'a Service,
    /// Where the holder stands among those that ask, if it does.
    pub(super) number: Option<usize>,
    pub(super) demand: Demand<'a>,
    /// Which of the topologies it is about.
    pub(super) topology: usize,
    /// Whether the holder's own containers are among those that it speaks of.
    pub(super) speaks_of_itself: bool,
    /// Of the services that it speaks of, by domain.
    pub(super) spoken_of: Counts,
    /// Of the holder, by domain; not of those that are to be even.
    pub(super) holders: Counts,
    /// Whether one of those that it speaks of was on a node before the plan.
    pub(super) existed: bool,
    /// The least count of a domain in which there is a node that the holder can use.
    pub(super) fewest: u32,
}

/// What decides which nodes a service can use, and by which key their domains are told apart.
type Usable<'a> = (&'a BTreeMap<String, String>, &'a [Toleration], usize);

/// Who makes the laws.
pub(super) struct Lawmaker<'j, 'a> {
    view: &'a NodesView,
    /// Who asks, in order.
    keys: &'j [&'a ServiceKey],
    /// All services, in order.
    services: &'j [&'a Service],
    /// The specifications of those who ask.
    specs: &'j [Option<&'a Service>],
    present: &'j dyn Fn(&ServiceKey) -> Option<Present<'a>>,
    /// The new containers: where their service stands among those that ask, and the node.
    placed: Vec<(usize, NodeIndex)>,
    draining: BTreeSet<&'a NodeName>,
    usable: BTreeMap<Usable<'a>, Vec<Domain>>,
    pub(super) topologies: Vec<Topology<'a>>,
    pub(super) laws: Vec<Law<'a>>,
    /// By service that asks: the laws that it holds or that forbid others its company.
    pub(super) laws_of: Vec<BTreeSet<usize>>,
}

/// By what services are ordered.
pub(super) fn name(service: &Service) -> (&Namespace, &String) {
    (&service.namespace, &service.name)
}

fn demands<'a>(service: &'a Service) -> impl Iterator<Item = (Demand<'a>, &'a str)> {
    let near = service.affinity.iter().filter(|rule| rule.required).map(|r| (Demand::Near(r), &r.topology_key));
    let apart = service.anti_affinity.iter().filter(|rule| rule.required).map(|r| (Demand::Apart(r), &r.topology_key));
    let even = service.topology_spread.iter().filter(|s| s.required).map(|s| (Demand::Even(s), &s.topology_key));
    near.chain(apart).chain(even).map(|(demand, key)| (demand, key.as_str()))
}

impl<'j, 'a> Lawmaker<'j, 'a> {
    pub(super) fn new(
        view: &'a NodesView,
        keys: &'j [&'a ServiceKey],
        services: &'j [&'a Service],
        specs: &'j [Option<&'a Service>],
        present: &'j dyn Fn(&ServiceKey) -> Option<Present<'a>>,
    ) -> Self {
        let laws_of = vec![BTreeSet::new(); keys.len()];
        let (placed, draining, usable) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        let (topologies, laws) = (Vec::new(), Vec::new());
        Self { view, keys, services, specs, present, placed, draining, usable, topologies, laws, laws_of }
    }

    /// Makes all laws that matter to somebody who asks: one's own, and those that forbid others one's company.
    pub(super) fn enact_all(&mut self, tallies: &[Tally<'_, 'a>]) {
        let some: Vec<(&'a Service, Demand<'a>, &'a str)> = self
            .services
            .iter()
            .flat_map(|service| demands(service).map(|(demand, key)| (*service, demand, key)))
            .filter(|(holder, demand, _)| self.number(name(holder)).is_some() || self.forbids_company(holder, *demand))
            .collect();
        if some.is_empty() {
            return;
        }
        let bound =
            |tally: &Tally<'_, 'a>| tally.bound.iter().map(|(_, one)| (one.service, tally.index)).collect::<Vec<_>>();
        self.placed = tallies.iter().flat_map(bound).collect();
        self.placed.sort_unstable();
        self.draining = self.view.nodes().iter().filter(|node| node.draining).map(|node| &node.name).collect();
        for (holder, demand, key) in some {
            self.enact(holder, demand, key);
        }
    }

    /// Where a service stands among those who ask.
    fn number(&self, name: (&Namespace, &String)) -> Option<usize> {
        self.keys.binary_search_by(|key| (&key.namespace, &key.name).cmp(&name)).ok()
    }

    /// Whether the demand keeps somebody who asks away from its holder.
    fn forbids_company(&self, holder: &Service, demand: Demand<'a>) -> bool {
        let Demand::Apart(rule) = demand else { return false };
        let selects = |spec: &Option<&Service>| spec.is_some_and(|spec| rule.selects(&holder.namespace, spec));
        let namespace = rule.namespace.as_ref().unwrap_or(&holder.namespace);
        match rule.services.is_empty() {
            true => self.specs.iter().any(selects),
            false => {
                rule.services.iter().filter_map(|of| self.number((namespace, of))).any(|i| selects(&self.specs[i]))
            }
        }
    }

    /// The services that a rule speaks of.
    fn selected(&self, holder: &Service, rule: &AffinityRule) -> Vec<&'a Service> {
        let namespace = rule.namespace.as_ref().unwrap_or(&holder.namespace);
        let named: BTreeSet<&String> = rule.services.iter().collect();
        let of_name: Vec<&Service> = match named.is_empty() {
            true => self.services.to_vec(),
            false => named.into_iter().filter_map(|of| find(self.services, (namespace, of))).collect(),
        };
        of_name.into_iter().filter(|service| rule.selects(&holder.namespace, service)).collect()
    }

    fn topology(&mut self, key: &'a str) -> usize {
        let known = self.topologies.iter().position(|topology| topology.key == key);
        known.unwrap_or_else(|| {
            self.topologies.push(Topology::new(key, self.view.nodes()));
            self.topologies.len() - 1
        })
    }

    fn enact(&mut self, holder: &'a Service, demand: Demand<'a>, key: &'a str) {
        let topology = self.topology(key);
        let domains = &self.topologies[topology];
        let selected: Vec<&Service> = match demand {
            Demand::Even(_) => vec![holder],
            Demand::Near(rule) | Demand::Apart(rule) => self.selected(holder, rule),
        };
        // Even are to be those that stay; the others of a service that is being exchanged leave.
        let staying = match demand {
            Demand::Even(_) => self.staying(holder),
            Demand::Near(_) | Demand::Apart(_) => None,
        };
        let before = |key: &ServiceKey| staying.as_ref().or_else(|| self.view.spread_of(key)).into_iter().flatten();
        let keys: Vec<ServiceKey> = selected.iter().map(|service| service.key()).collect();
        let in_domain = |(node, count): (&NodeIndex, &u32)| Some((domains.domain(*node)?, *count));
        let old = keys.iter().flat_map(before).filter_map(in_domain);
        let mut existed = false;
        let old = old.inspect(|(_, count)| existed |= *count > 0);
        let new = selected.iter().filter_map(|service| self.number(name(service)));
        let new = new.flat_map(|number| self.placed_of(number)).filter_map(|node| Some((domains.domain(node)?, 1)));
        let spoken_of: Counts = old.chain(new).collect();
        let number = self.number(name(holder));
        let holders: Counts = match demand {
            Demand::Even(_) => Counts::default(),
            Demand::Near(_) | Demand::Apart(_) => {
                let new = number.into_iter().flat_map(|number| self.placed_of(number));
                let new = new.filter_map(|node| Some((domains.domain(node)?, 1)));
                let old = self.view.spread_of(&holder.key()).into_iter().flatten();
                old.filter_map(in_domain).chain(new).collect()
            }
        };
        let fewest = match demand {
            Demand::Even(_) => spoken_of.fewest(self.usable_domains(holder, topology)),
            Demand::Near(_) | Demand::Apart(_) => 0,
        };
        let mut bound_by_it: BTreeSet<usize> = number.into_iter().collect();
        if let Demand::Apart(_) = demand {
            bound_by_it.extend(selected.iter().filter_map(|service| self.number(name(service))));
        }
        for service in bound_by_it {
            self.laws_of[service].insert(self.laws.len());
        }
        let speaks_of_itself = selected.iter().any(|service| name(service) == name(holder));
        self.laws.push(Law { holder, number, demand, topology, speaks_of_itself, spoken_of, holders, existed, fewest });
    }

    /// The nodes of the new containers of a service.
    fn placed_of(&self, number: usize) -> impl Iterator<Item = NodeIndex> + '_ {
        let first = self.placed.partition_point(|(service, _)| *service < number);
        self.placed[first..].iter().take_while(move |(service, _)| *service == number).map(|(_, node)| *node)
    }

    /// On which nodes the containers are that stay, if some of the service's do not: those of the present specification that
    /// are on no node which is emptied.
    fn staying(&self, holder: &Service) -> Option<Spread> {
        let (service, containers) = (self.present)(&holder.key())?;
        let template = service.template();
        let mut placed = containers.into_iter().filter(|container| container.is_alive()).filter_map(|container| {
            let node = container.node.as_ref()?;
            Some((node, container.is_made_of(&service, &template) && !self.draining.contains(node)))
        });
        let all: Vec<(&NodeName, bool)> = placed.by_ref().collect();
        if all.iter().all(|(_, stays)| *stays) {
            return None;
        }
        let (mut staying, mut leaves) = (Spread::new(), false);
        for (node, stays) in all {
            match self.view.index(node) {
                Some(index) if stays => *staying.entry(index).or_default() += 1,
                Some(_) => leaves = true,
                None => {}
            }
        }
        leaves.then_some(staying)
    }

    /// The domains in which there is a node that the service can use, in order.
    fn usable_domains(&mut self, service: &'a Service, topology: usize) -> &[Domain] {
        let asks = (&service.node_selector, &service.tolerations[..], topology);
        let (view, domains) = (self.view, &self.topologies[topology]);
        self.usable.entry(asks).or_insert_with(|| {
            let nodes = view.nodes().iter().enumerate();
            let usable = nodes
                .filter(|(_, node)| node.status == NodeStatus::Ready && unusable(node, Some(service), false).is_none());
            usable.filter_map(|(index, _)| domains.domain(index)).collect::<BTreeSet<_>>().into_iter().collect()
        })
    }
}

/// The service of that name; `services` are in order.
pub(super) fn find<'a>(services: &[&'a Service], of: (&Namespace, &String)) -> Option<&'a Service> {
    services.binary_search_by(|service| name(service).cmp(&of)).ok().map(|at| services[at])
}
