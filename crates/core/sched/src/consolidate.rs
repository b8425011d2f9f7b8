//! The whole placement as one problem of the optimiser: which containers could be elsewhere, at what price, and which of
//! the moves that it finds can begin now. Knows no solver; what a solution is worth is judged by `heptad_certify`.

use crate::cluster::Cluster;
use heptad_capacity::{NodeIndex, NodeView, NodesView, Request, unfit};
use heptad_certify::{
    AMOUNT_MAX, Amounts, Certificate, CertificateError, Class, Group, Item, Limit, Node, NodeSet, Problem, Solution,
    verify,
};
use heptad_model::{
    Container, ContainerId, Mode, NodeName, NodeStatus, Placement, ResourceVector, Service, ServiceKey, Strategy,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the optimiser weighs against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// What a used node costs.
    pub opening: u64,
    /// What a move costs: a node is freed only if that takes fewer than `opening / per_move` moves.
    pub per_move: u64,
    /// What a container without a node costs.
    pub unplaced: u64,
    /// Moves at most.
    pub moves_max: u64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { opening: 100, per_move: 1, unplaced: 1_000_000, moves_max: 20 }
    }
}

/// A problem and what its numbers stand for.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// The problem.
    pub problem: Problem,
    /// By item: the container.
    pub containers: Vec<ContainerId>,
    /// By node of the problem: its place in [`NodesView::nodes`].
    pub nodes: Vec<NodeIndex>,
    /// Containers that stay where they are, since a rule, a port, a device or a change under way ties them.
    pub fixed: usize,
}

/// A container that would be better on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The container.
    pub container: ContainerId,
    /// Its service.
    pub service: ServiceKey,
    /// Where it is.
    pub from: NodeName,
    /// Where it would be better.
    pub to: NodeName,
}

/// A container that becomes an item.
struct Seed<'a> {
    container: &'a Container,
    service: &'a Service,
    /// The node to which it is bound.
    current: Option<NodeIndex>,
    /// That node, or the one where a plan would put it.
    near: Option<NodeIndex>,
}

/// The problem to bring the running containers onto fewer nodes. `services` gives those services of which no change is
/// under way. No node gets more containers of one service than one has now.
pub fn consolidation<'a>(
    view: &NodesView,
    containers: impl IntoIterator<Item = &'a Container>,
    services: impl Fn(&ServiceKey) -> Option<&'a Service>,
    prices: &Prices,
) -> Instance {
    let (mut seeds, mut fixed) = (Vec::new(), 0);
    for container in containers.into_iter().filter(|c| c.node.is_some()) {
        let service = services(&container.service).filter(|service| may_move(view, service, container));
        let at = container.node.as_ref().and_then(|name| view.index(name));
        match (service, at) {
            (Some(service), Some(at)) if is_target(service, &view.nodes()[at]) => {
                seeds.push(Seed { container, service, current: Some(at), near: Some(at) });
            }
            _ => fixed += 1,
        }
    }
    let mut instance = Building::new(view, &seeds, prices).finish(&seeds, fixed, prices);
    instance.problem.moves_max = Some(prices.moves_max);
    instance
}

/// The problem to place containers that have no node in `view`. No node gets more containers of one service than `planned`
/// puts on one.
pub fn placement<'a>(
    view: &NodesView,
    waiting: impl IntoIterator<Item = (&'a Container, &'a Service)>,
    planned: &BTreeMap<ContainerId, NodeName>,
    prices: &Prices,
) -> Instance {
    let near = |container: &Container| planned.get(&container.id).and_then(|name| view.index(name));
    let (free, tied): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|(container, service)| is_free(view, service, container));
    let seed = |(container, service)| Seed { container, service, current: None, near: near(container) };
    let seeds: Vec<Seed<'_>> = free.into_iter().map(seed).collect();
    Building::new(view, &seeds, prices).finish(&seeds, tied.len(), prices)
}

/// Whether nothing but room, labels and taints decides where the container may be.
fn is_free(view: &NodesView, service: &Service, container: &Container) -> bool {
    let has_devices = !service.resources.devices.is_empty() || !container.template.resources.devices.is_empty();
    let is_tied = container.pinned.is_some() || container.host_ports().next().is_some() || has_devices || service.gang;
    service.mode == Mode::Service && !is_tied && !view.looks_around(&service.key())
}

/// Whether a running container may be replaced by one elsewhere: it is well, and its service packs and may run once more
/// than asked for a moment.
fn may_move(view: &NodesView, service: &Service, container: &Container) -> bool {
    let is_well = container.is_alive() && container.ready && container.template == service.template();
    let may_be_more = !service.never_twice && matches!(service.strategy, Strategy::Rolling(_));
    is_well && may_be_more && service.placement == Placement::Pack && is_free(view, service, container)
}

fn is_target(service: &Service, node: &NodeView) -> bool {
    unfit(node, &service.node_selector, &service.tolerations, None).next().is_none()
}

fn amounts(resources: &ResourceVector) -> Amounts {
    let mut amounts = Amounts::default();
    amounts.iter_mut().zip(resources.amounts()).for_each(|(out, amount)| *out = amount.min(AMOUNT_MAX));
    amounts
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// A problem in the making.
struct Building<'v> {
    view: &'v NodesView,
    problem: Problem,
    /// By node of the problem: its place in the view, growing.
    nodes: Vec<NodeIndex>,
}

impl<'v> Building<'v> {
    /// The nodes that take new containers, from which those of `seeds` that are bound are thought away.
    fn new(view: &'v NodesView, seeds: &[Seed<'_>], prices: &Prices) -> Self {
        let mut leaving: BTreeMap<NodeIndex, (usize, ResourceVector)> = BTreeMap::new();
        for (at, seed) in seeds.iter().filter_map(|seed| Some((seed.current?, seed))) {
            let (count, sum) = leaving.entry(at).or_default();
            *count += 1;
            *sum = sum.checked_add(&seed.container.template.resources.vector()).unwrap_or(*sum);
        }
        let mut building = Self { view, problem: Problem { dimensions: 4, ..Problem::default() }, nodes: Vec::new() };
        let takes = |node: &NodeView| {
            node.status == NodeStatus::Ready && node.condition.is_none() && !node.draining && !node.unschedulable
        };
        for (index, node) in view.nodes().iter().enumerate().filter(|(_, node)| takes(node)) {
            let (count, sum) = leaving.remove(&index).unwrap_or_default();
            let stays = node.allocation.resources.saturating_sub(&sum);
            let is_open = node.allocation.containers.len() > count;
            building.nodes.push(index);
            building.problem.nodes.push(Node {
                capacity: amounts(&node.capacity.saturating_sub(&stays)),
                opening: if is_open { 0 } else { prices.opening },
            });
        }
        building
    }

    /// The place in the problem of a node of the view.
    fn node(&self, at: Option<NodeIndex>) -> Option<u32> {
        self.nodes.binary_search(&at?).ok().map(number)
    }

    fn finish(mut self, seeds: &[Seed<'_>], fixed: usize, prices: &Prices) -> Instance {
        let mut by_service: BTreeMap<ServiceKey, Vec<&Seed<'_>>> = BTreeMap::new();
        seeds.iter().for_each(|seed| by_service.entry(seed.service.key()).or_default().push(seed));
        let mut containers = Vec::new();
        for own in by_service.values() {
            self.add(own, prices);
            containers.extend(own.iter().map(|seed| seed.container.id.clone()));
        }
        Instance { problem: self.problem, containers, nodes: self.nodes, fixed }
    }

    /// The containers of one service: one shape, one bound on moves, one bound per node.
    fn add(&mut self, own: &[&Seed<'_>], prices: &Prices) {
        let Some(service) = own.first().map(|seed| seed.service) else { return };
        let mut allowed = NodeSet::empty();
        let open = |(_, at): &(usize, &NodeIndex)| is_target(service, &self.view.nodes()[**at]);
        self.nodes.iter().enumerate().filter(open).for_each(|(place, _)| allowed.insert(place));
        let demand = amounts(&service.resources.vector());
        self.problem.classes.push(Class { demand, allowed: Some(allowed), costs: Vec::new() });
        // Half of a service at a time: the other half is where it was known to be well.
        self.problem.groups.push(Group { moves_max: own.len().div_ceil(2) as u64 });
        let mut on_node: BTreeMap<NodeIndex, u32> = BTreeMap::new();
        own.iter().filter_map(|seed| seed.near).for_each(|at| *on_node.entry(at).or_default() += 1);
        let most = on_node.values().copied().max().unwrap_or(1);
        let domains = (0..self.nodes.len()).map(number).collect();
        self.problem.limits.push(Limit { domains, max: most });
        for seed in own {
            let current = self.node(seed.current);
            let item = Item {
                class: number(self.problem.classes.len() - 1),
                current,
                move_price: current.map_or(0, |_| prices.per_move),
                unplaced_price: seed.current.is_none().then_some(prices.unplaced),
                group: Some(number(self.problem.groups.len() - 1)),
                limits: vec![number(self.problem.limits.len() - 1)],
            };
            self.problem.items.push(item);
        }
    }
}

impl Instance {
    /// The same without a price or a bound on moves: how good a placement could be at all.
    #[must_use]
    pub fn without_moves(mut self) -> Self {
        self.problem.moves_max = None;
        self.problem.groups.iter_mut().for_each(|group| group.moves_max = u64::MAX);
        self.problem.items.iter_mut().for_each(|item| item.move_price = 0);
        self
    }

    /// The solution that leaves everything where it is, or where `planned` puts it.
    pub fn solution(&self, view: &NodesView, place: impl Fn(&ContainerId) -> Option<NodeName>) -> Solution {
        let node = |id| self.nodes.binary_search(&view.index(&place(id)?)?).ok().map(number);
        Solution { nodes: self.containers.iter().map(node).collect() }
    }

    /// The lower bound that `certificate` proves. Without the prices of moves every cost is a multiple of one node's, so
    /// there the bound rises to the next multiple; and moves only add to it.
    ///
    /// # Errors
    /// Prices that cannot be added exactly.
    pub fn lower_bound(&self, certificate: &Certificate) -> Result<i128, CertificateError> {
        let with_moves = verify(&self.problem, certificate)?.cost();
        let mut whole = self.problem.clone();
        whole.items.iter_mut().for_each(|item| item.move_price = 0);
        let nodes = whole.nodes.iter().map(|node| node.opening);
        let prices = nodes.chain(whole.items.iter().filter_map(|item| item.unplaced_price));
        let step = i128::from(prices.filter(|price| *price > 0).fold(0, gcd)).max(1);
        let without_moves = verify(&whole, certificate)?.cost();
        Ok(with_moves.max((without_moves + step - 1).div_euclid(step) * step))
    }

    /// The name of a node of a solution.
    pub fn node_name(&self, view: &NodesView, place: Option<u32>) -> Option<NodeName> {
        self.nodes.get(place? as usize).map(|at| view.nodes()[*at].name.clone())
    }

    /// Nodes that have something: an item, or a container that stays.
    pub fn nodes_used(&self, solution: &Solution) -> usize {
        let with_items: BTreeSet<u32> = solution.nodes.iter().flatten().copied().collect();
        let nodes = self.problem.nodes.iter().enumerate();
        nodes.filter(|(place, node)| node.opening == 0 || with_items.contains(&number(*place))).count()
    }

    /// The moves from where things are to `solution`, those first whose nodes they empty soonest.
    pub fn relocations<'a>(
        &self,
        view: &NodesView,
        solution: &Solution,
        container: impl Fn(&ContainerId) -> Option<&'a Container>,
    ) -> Vec<Relocation> {
        let name = |place| self.node_name(view, place);
        let moved = self.problem.items.iter().zip(&solution.nodes).zip(&self.containers);
        let moved = moved.filter(|((item, to), _)| item.current.is_some() && to.is_some() && item.current != **to);
        let mut moves: Vec<Relocation> = moved
            .filter_map(|((item, to), id)| {
                let service = container(id)?.service.clone();
                Some(Relocation { container: id.clone(), service, from: name(item.current)?, to: name(*to)? })
            })
            .collect();
        let mut leaving: BTreeMap<NodeName, usize> = BTreeMap::new();
        moves.iter().for_each(|relocation| *leaving.entry(relocation.from.clone()).or_default() += 1);
        moves.sort_by_cached_key(|m| (leaving[&m.from], m.from.clone(), m.container.clone()));
        moves
    }
}

/// Which of the moves can begin now: the successor has room beside everything that is there, and all rules let it in.
/// The others wait for room that these give.
pub fn possible_now<'a>(
    view: &NodesView,
    relocations: &[Relocation],
    container: impl Fn(&ContainerId) -> Option<&'a Container>,
) -> Vec<Relocation> {
    let mut cluster = Cluster::new(view);
    let mut possible = Vec::new();
    for relocation in relocations {
        let Some((container, to)) = container(&relocation.container).zip(view.index(&relocation.to)) else { continue };
        let request = Request::of(container, Placement::Pack);
        if cluster.refuses(to, &request).is_none() {
            cluster.hold(to, &request);
            possible.push(relocation.clone());
        }
    }
    possible
}

#[cfg(test)]
#[path = "consolidate_tests.rs"]
mod tests;
