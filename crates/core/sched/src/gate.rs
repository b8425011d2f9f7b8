//! The one rule of feasibility, of planner, committer and explanation alike: what stands between a request and a node.
//! All that is the same for every node is looked up once per request; per node there are only comparisons.

use crate::cluster::Cluster;
use heptad_capacity::{
    Domain, DomainCounts, Eligibility, HostPort, NodeIndex, QuotaShort, Request, Unfit,
    engine::NodeSet,
    rules::{RuleIndex, RuleKind, ServiceRules},
    unfit,
};
use heptad_model::{DeviceMillis, Dimension};
use std::{collections::BTreeMap, sync::Arc};

/// What stands between a request and a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle<'a> {
    Unfit(Unfit<'a>),
    Quota(QuotaShort),
    Port(HostPort),
    Dimension(Dimension),
    Devices(&'a String, DeviceMillis),
    /// A rule; whether it is another service's, which holds it against the request's.
    Rule(RuleIndex, bool),
}

/// What a rule says of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    /// It has one of them.
    Some,
    /// It has none of them.
    None,
    /// It has less than this.
    Below(u32),
    /// Whatever it has, if it is a domain at all: the first of its kind is near nobody.
    Any,
}

/// One rule as it stands for one request.
#[derive(Clone, Debug)]
struct Clause<'a> {
    rule: RuleIndex,
    held_against: bool,
    of_node: &'a [Option<Domain>],
    counts: &'a DomainCounts,
    test: Test,
}

impl Clause<'_> {
    /// `gone`: how many of those that are counted in the node's domain are thought away.
    fn holds(&self, node: NodeIndex, gone: u32) -> bool {
        // Who is to be apart from others is so where there is no domain; all else needs one.
        let Some(domain) = self.of_node[node] else { return self.test == Test::None };
        let count = self.counts.get(domain).saturating_sub(gone);
        match self.test {
            Test::Some => count > 0,
            Test::None => count == 0,
            Test::Below(bound) => count < bound,
            Test::Any => true,
        }
    }
}

/// A request and all that is known of it beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Gate<'a> {
    cluster: &'a Cluster<'a>,
    request: &'a Request,
    rules: Option<&'a ServiceRules>,
    eligibility: &'a Eligibility,
    quota: Option<QuotaShort>,
    required: Vec<Clause<'a>>,
    wished: Vec<Clause<'a>>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(cluster: &'a Cluster<'_>, request: &'a Request) -> Self {
        let view = cluster.view;
        let rules = view.rules().get(&request.service);
        let eligibility = rules.map_or(view.rules().plain(), |rules| rules.eligibility(view.nodes()));
        let quota = cluster.quota_refuses(request);
        let mut gate = Self { cluster, request, rules, eligibility, quota, required: Vec::new(), wished: Vec::new() };
        if let Some(rules) = rules {
            gate.add_clauses(rules);
        }
        gate
    }

    fn add_clauses(&mut self, rules: &'a ServiceRules) {
        let all = self.cluster.view.rules();
        for &index in &rules.holds {
            let clause = self.own(index, rules);
            if all.rule(index).required { self.required.push(clause) } else { self.wished.push(clause) }
        }
        for &index in &rules.matched_by {
            let rule = all.rule(index);
            if rule.required && matches!(rule.kind, RuleKind::Apart(_)) {
                let of_node = &all.topology(rule).of_node;
                let counts = &self.cluster.counts(index).holders;
                self.required.push(Clause { rule: index, held_against: true, of_node, counts, test: Test::None });
            }
        }
    }

    /// A rule of the request's own service.
    fn own(&self, index: RuleIndex, rules: &ServiceRules) -> Clause<'a> {
        let all = self.cluster.view.rules();
        let rule = all.rule(index);
        let of_node = &all.topology(rule).of_node;
        let counts = &self.cluster.counts(index).matched;
        let test = match rule.kind {
            RuleKind::Apart(_) => Test::None,
            // Were it to wait for others of its own kind, the first one would wait for ever.
            RuleKind::Near(_) if rules.matched_by.contains(&index) && counts.is_zero() => Test::Any,
            RuleKind::Near(_) => Test::Some,
            RuleKind::Even { max_skew } => Test::Below(self.cluster.fewest(index).saturating_add(max_skew)),
        };
        Clause { rule: index, held_against: false, of_node, counts, test }
    }

    /// Whether the node takes the request.
    pub(crate) fn is_open(&self, node: NodeIndex) -> bool {
        self.request.resources.fits(&self.cluster.free(node)) && self.is_open_with_room(node)
    }

    /// The same where what is left of the resources is known to suffice.
    pub(crate) fn is_open_with_room(&self, node: NodeIndex) -> bool {
        self.is_fit(node)
            && self.quota.is_none()
            && self.cluster.taken_ports(node, self.request).next().is_none()
            && (self.request.devices.is_empty() || self.lacking_device(node).is_none())
            && self.required.iter().all(|clause| clause.holds(node, 0))
    }

    /// Whether nothing stands against every container of the service there.
    fn is_fit(&self, node: NodeIndex) -> bool {
        match &self.request.pinned {
            None => self.eligibility.nodes.contains(node),
            Some(_) => self.all_unfit(node).next().is_none(),
        }
    }

    /// The first thing that stands against it; exactly if the node is not open.
    pub(crate) fn obstacle(&self, node: NodeIndex) -> Option<Obstacle<'a>> {
        let quota = || self.quota.clone().map(Obstacle::Quota);
        if self.is_open(node) { None } else { quota().or_else(|| self.node_obstacle(node)) }
    }

    /// The first thing of the node that stands against it.
    pub(crate) fn node_obstacle(&self, node: NodeIndex) -> Option<Obstacle<'a>> {
        let unfit = || self.all_unfit(node).next().map(Obstacle::Unfit);
        let port = || self.cluster.taken_ports(node, self.request).next().map(Obstacle::Port);
        let dimension = || self.request.resources.first_excess(&self.cluster.free(node)).map(Obstacle::Dimension);
        let devices = || self.lacking_device(node).map(|(kind, asked)| Obstacle::Devices(kind, asked));
        unfit().or_else(port).or_else(dimension).or_else(devices).or_else(|| self.broken(node).next())
    }

    /// The first kind of device of which too little is left.
    pub(crate) fn lacking_device(&self, node: NodeIndex) -> Option<(&'a String, DeviceMillis)> {
        self.cluster.lacking_devices(node, self.request, &|_| false).next()
    }

    /// All that stands against every container of the service there.
    pub(crate) fn all_unfit(&self, node: NodeIndex) -> impl Iterator<Item = Unfit<'a>> + 'a {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let (selector, tolerations) =
            self.rules.map_or((&NONE, &[][..]), |rules| (&rules.node_selector, &rules.tolerations[..]));
        unfit(&self.cluster.view.nodes()[node], selector, tolerations, self.request.pinned.as_ref())
    }

    /// The required rules that are broken there.
    pub(crate) fn broken(&self, node: NodeIndex) -> impl Iterator<Item = Obstacle<'a>> + '_ {
        let broken = self.required.iter().filter(move |clause| !clause.holds(node, 0));
        broken.map(|clause| Obstacle::Rule(clause.rule, clause.held_against))
    }

    /// How many wishes are not fulfilled there.
    pub(crate) fn unwished(&self, node: NodeIndex) -> u32 {
        if self.wished.is_empty() {
            return self.eligibility.avoided(node);
        }
        let broken = self.wished.iter().filter(|clause| !clause.holds(node, 0)).count();
        self.eligibility.avoided(node).saturating_add(u32::try_from(broken).unwrap_or(u32::MAX))
    }

    /// Whether nodes differ in how many wishes they fulfil.
    pub(crate) fn has_wishes(&self) -> bool {
        !self.wished.is_empty() || self.eligibility.avoids_some()
    }

    /// Whether a quota, which speaks of no node, stands against it.
    pub(crate) fn is_over_quota(&self) -> bool {
        self.quota.is_some()
    }

    /// Whether what is placed elsewhere can open a node that was not open before.
    pub(crate) fn may_open(&self) -> bool {
        self.rules.is_some_and(|rules| self.cluster.view.rules().may_open(rules))
    }

    /// The nodes that the service can use, if it is not pinned.
    pub(crate) fn usable(&self) -> &Arc<NodeSet> {
        &self.eligibility.nodes
    }

    /// Whether the service can use the node at all.
    pub(crate) fn is_eligible(&self, node: NodeIndex) -> bool {
        self.is_fit(node) && self.quota.is_none()
    }

    /// Whether the required rules would hold there without some containers of the node; `gone` says how many of these a
    /// rule counts.
    pub(crate) fn rules_hold_without(&self, node: NodeIndex, gone: impl Fn(RuleIndex, bool) -> u32) -> bool {
        self.required.iter().all(|clause| clause.holds(node, gone(clause.rule, clause.held_against)))
    }
}
