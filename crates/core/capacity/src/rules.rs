//! What services ask of nodes beside room: labels, borne taints, neighbours, even spreading; resolved against each other
//! once, so that a placement looks at counters only. Knows no free room and chooses nothing.

use crate::{
    domain_counts::{Domain, DomainCounts},
    eligibility::Eligibility,
    engine::NodeIndex,
    node::NodeView,
};
use heptad_model::{AffinityRule, Service, ServiceKey, Toleration, TopologySpread, placement::TOPOLOGY_NODE};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

/// Where a service stands among those of [`Rules`].
type ServiceIndex = usize;
/// Where a rule stands among those of [`Rules`].
pub type RuleIndex = usize;

/// Which domain each node belongs to, by one topology key.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// By node; none if the node has no such label.
    pub of_node: Vec<Option<Domain>>,
    /// The values of the label, by domain.
    pub names: Vec<String>,
}

impl Topology {
    fn of(key: &str, nodes: &[NodeView]) -> Self {
        if key == TOPOLOGY_NODE {
            let names = nodes.iter().map(|node| node.name.to_string()).collect();
            return Self { of_node: (0..nodes.len()).map(Some).collect(), names };
        }
        let values: BTreeSet<&String> = nodes.iter().filter_map(|node| node.labels.get(key)).collect();
        let numbers: BTreeMap<&String, Domain> = values.iter().enumerate().map(|(i, value)| (*value, i)).collect();
        let of_node = nodes.iter().map(|node| node.labels.get(key).map(|value| numbers[value])).collect();
        Self { of_node, names: values.into_iter().cloned().collect() }
    }
}

/// What a rule says of the domain of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// It has a container of a selected service.
    Near(AffinityRule),
    /// It has none.
    Apart(AffinityRule),
    /// It has at most so many replicas more than the domain with the fewest.
    Even {
        /// So many.
        max_skew: u32,
    },
}

/// A rule over the domains of one topology key, held by one service.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it says.
    pub kind: RuleKind,
    /// Whether it is a requirement; else it is a wish.
    pub required: bool,
    holder: ServiceIndex,
    /// The topology key.
    pub key: String,
    /// The containers that are there.
    pub counts: Counts,
    /// Whether it speaks only of those that stay while the others of their service are exchanged.
    of_staying: bool,
    usable: OnceLock<Vec<Domain>>,
}

/// How many containers there are in each domain.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Of the services that the rule speaks of.
    pub matched: DomainCounts,
    /// Of the service that holds the rule.
    pub holders: DomainCounts,
}

/// A service that asks something of nodes, or of whom another one's rule speaks.
#[derive(Clone, Debug)]
pub struct ServiceRules {
    /// The service.
    pub key: ServiceKey,
    /// The labels that its nodes must carry.
    pub node_selector: BTreeMap<String, String>,
    /// The taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Its priority.
    pub priority: i32,
    /// The rules that it holds.
    pub holds: Vec<RuleIndex>,
    /// The rules, its own and others', that speak of it.
    pub matched_by: Vec<RuleIndex>,
    /// Of all services that ask the same of nodes.
    eligibility: Arc<OnceLock<Eligibility>>,
}

impl ServiceRules {
    fn of(service: &Service) -> Self {
        Self {
            key: service.key(),
            node_selector: service.node_selector.clone(),
            tolerations: service.tolerations.clone(),
            priority: service.priority,
            holds: Vec::new(),
            matched_by: Vec::new(),
            eligibility: Arc::default(),
        }
    }

    /// The nodes that it can use. Worked out once per view, by whoever asks first.
    pub fn eligibility(&self, nodes: &[NodeView]) -> &Eligibility {
        self.eligibility.get_or_init(|| Eligibility::of(nodes, &self.node_selector, &self.tolerations))
    }
}

/// All services that are not plain, and their rules.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    services: Vec<ServiceRules>,
    rules: Vec<Rule>,
    topologies: BTreeMap<String, Topology>,
    /// What holds for services that ask nothing of nodes.
    plain: Eligibility,
    by_key: BTreeMap<ServiceKey, ServiceIndex>,
}

fn asks_something(service: &Service) -> bool {
    let rules = service.affinity.len() + service.anti_affinity.len() + service.topology_spread.len();
    rules + service.node_selector.len() + service.tolerations.len() > 0 || service.priority != 0
}

impl Rules {
    pub(crate) fn new(nodes: &[NodeView]) -> Self {
        Self { plain: Eligibility::of(nodes, &BTreeMap::new(), &[]), ..Self::default() }
    }

    /// Resolves the rules of `services`; `replicas` says on which nodes a service has how many containers, `staying` how many
    /// of them stay while others are exchanged.
    pub(crate) fn resolve<'s, 'r>(
        &mut self,
        nodes: &[NodeView],
        services: impl IntoIterator<Item = &'s Service>,
        replicas: impl Fn(&ServiceKey) -> Option<&'r BTreeMap<NodeIndex, u32>>,
        staying: impl Fn(&ServiceKey) -> Option<&'r BTreeMap<NodeIndex, u32>>,
    ) {
        let all: BTreeMap<ServiceKey, &Service> =
            services.into_iter().map(|service| (service.key(), service)).collect();
        for service in all.values().filter(|service| asks_something(service)) {
            let holder = self.index_or_insert(service);
            self.add_rules(holder, service, nodes, staying(&service.key()).is_some());
        }
        for index in 0..self.rules.len() {
            for service in spoken_of(&self.rules[index].kind, &self.services[self.rules[index].holder].key, &all) {
                let matched = self.index_or_insert(service);
                self.services[matched].matched_by.push(index);
            }
        }
        self.share_eligibility();
        for service in 0..self.services.len() {
            let key = &self.services[service].key;
            let (all, stay) = (replicas(key), staying(key));
            for (spread, of_staying) in [(all, false), (stay, true)] {
                spread.into_iter().flatten().for_each(|(node, count)| self.count(service, *node, *count, of_staying));
            }
        }
    }

    /// Services that ask the same of nodes can use the same ones.
    fn share_eligibility(&mut self) {
        let mut known: BTreeMap<_, Arc<OnceLock<Eligibility>>> = BTreeMap::new();
        for ServiceRules { node_selector, tolerations, eligibility, .. } in &mut self.services {
            *eligibility = Arc::clone(known.entry((&*node_selector, &*tolerations)).or_default());
        }
    }

    fn index_or_insert(&mut self, service: &Service) -> ServiceIndex {
        *self.by_key.entry(service.key()).or_insert_with(|| {
            self.services.push(ServiceRules::of(service));
            self.services.len() - 1
        })
    }

    fn add_rules(&mut self, holder: ServiceIndex, service: &Service, nodes: &[NodeView], exchanged: bool) {
        let near = service
            .affinity
            .iter()
            .map(|rule| (RuleKind::Near(rule.clone()), rule.required, &rule.topology_key, false));
        let apart = service
            .anti_affinity
            .iter()
            .map(|rule| (RuleKind::Apart(rule.clone()), rule.required, &rule.topology_key, false));
        let even = |s: &TopologySpread| RuleKind::Even { max_skew: s.max_skew };
        let spreads = service.topology_spread.iter();
        let even_all = spreads.clone().map(|s| (even(s), s.required && !exchanged, &s.topology_key, false));
        let spreads_required = spreads.filter(|s| s.required);
        let even_staying =
            spreads_required.clone().filter(|_| exchanged).map(|s| (even(s), true, &s.topology_key, true));
        // The emptiest domain is wished for all the same: a node that is lost or drained may add to a skew that is permitted.
        let loose = spreads_required.filter(|s| s.max_skew > 1);
        let emptiest = loose.map(|s| (RuleKind::Even { max_skew: 1 }, false, &s.topology_key, exchanged));
        let even = even_all.chain(even_staying).chain(emptiest);
        for (kind, required, key, of_staying) in near.chain(apart).chain(even) {
            self.topologies.entry(key.clone()).or_insert_with(|| Topology::of(key, nodes));
            self.services[holder].holds.push(self.rules.len());
            let (key, counts, usable) = (key.clone(), Counts::default(), OnceLock::new());
            self.rules.push(Rule { kind, required, holder, key, counts, of_staying, usable });
        }
    }

    fn count(&mut self, service: ServiceIndex, node: NodeIndex, more: u32, of_staying: bool) {
        let Self { services, rules, topologies, .. } = self;
        for (index, side) in services[service].touches() {
            let rule = &mut rules[index];
            if rule.of_staying != of_staying {
                continue;
            }
            if let Some(domain) = topologies[&rule.key].of_node[node] {
                rule.counts.side(side).add(domain, more);
            }
        }
    }

    /// What is known of a service; nothing if it asks nothing and no rule speaks of it.
    pub fn get(&self, service: &ServiceKey) -> Option<&ServiceRules> {
        self.by_key.get(service).map(|index| &self.services[*index])
    }

    /// Whether containers that are placed elsewhere can make a node possible for the service that was not before.
    pub fn may_open(&self, service: &ServiceRules) -> bool {
        let opens = |rule: &Rule| rule.required && !matches!(rule.kind, RuleKind::Apart(_));
        service.holds.iter().any(|index| opens(&self.rules[*index]))
    }

    /// The domains, in order, that have a node which the holder of the rule can use.
    pub fn usable(&self, rule: RuleIndex, nodes: &[NodeView]) -> &[Domain] {
        let rule = &self.rules[rule];
        rule.usable.get_or_init(|| {
            let of_node = &self.topologies[&rule.key].of_node;
            let usable = self.holder(rule).eligibility(nodes).nodes.iter().filter_map(|node| of_node[node]);
            usable.collect::<BTreeSet<Domain>>().into_iter().collect()
        })
    }

    /// The service that holds a rule.
    pub fn holder(&self, rule: &Rule) -> &ServiceRules {
        &self.services[rule.holder]
    }

    /// The rule that stands there.
    #[inline]
    pub fn rule(&self, rule: RuleIndex) -> &Rule {
        &self.rules[rule]
    }

    /// The domains over which a rule goes.
    pub fn topology(&self, rule: &Rule) -> &Topology {
        &self.topologies[&rule.key]
    }

    /// The nodes that services can use that ask nothing of nodes.
    pub fn plain(&self) -> &Eligibility {
        &self.plain
    }
}

/// Which counter of a rule a container is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of those that it speaks of.
    Matched,
    /// Of those that hold it.
    Holders,
}

impl Counts {
    /// One of the two.
    pub fn side(&mut self, side: Side) -> &mut DomainCounts {
        match side {
            Side::Matched => &mut self.matched,
            Side::Holders => &mut self.holders,
        }
    }
}

impl ServiceRules {
    /// The counters that a container of the service is counted in.
    pub fn touches(&self) -> impl Iterator<Item = (RuleIndex, Side)> + '_ {
        let matched = self.matched_by.iter().map(|rule| (*rule, Side::Matched));
        matched.chain(self.holds.iter().map(|rule| (*rule, Side::Holders)))
    }

    /// Whether its placement depends on, or matters to, containers elsewhere than on the node itself.
    pub(crate) fn looks_around(&self) -> bool {
        !self.holds.is_empty() || !self.matched_by.is_empty()
    }
}

/// The services that a rule of `holder` speaks of.
fn spoken_of<'s>(kind: &RuleKind, holder: &ServiceKey, all: &BTreeMap<ServiceKey, &'s Service>) -> Vec<&'s Service> {
    let rule = match kind {
        RuleKind::Even { .. } => return all.get(holder).copied().into_iter().collect(),
        RuleKind::Near(rule) | RuleKind::Apart(rule) => rule,
    };
    let namespace = rule.namespace.as_ref().unwrap_or(&holder.namespace);
    let named = |name: &String| all.get(&ServiceKey { namespace: namespace.clone(), name: name.clone() });
    let named: Vec<&Service> = if rule.services.is_empty() {
        let first = ServiceKey { namespace: namespace.clone(), name: String::new() };
        all.range(first..).take_while(|(key, _)| key.namespace == *namespace).map(|(_, service)| *service).collect()
    } else {
        let names: BTreeSet<&String> = rule.services.iter().collect();
        names.into_iter().filter_map(named).copied().collect()
    };
    named.into_iter().filter(|service| rule.selects(&holder.namespace, service)).collect()
}
