//! Selectors, taints, neighbours, spreading, quotas and priorities: planner, judge and remedies against each other on
//! random small worlds, and against trying everything.

use crate::{Candidate, Cluster, Preemption, Scheduler, explain, plan, plan_with, preempt, samples::memory};
use heptad_capacity::{NodeIndex, NodesView, Plan, Reason, Request};
use heptad_check::{Finding, check_with};
use heptad_model::{
    AffinityRule, Bytes, Container, ContainerId, Node, NodeCondition, NodeConditionKind, NodeName, NodeStatus,
    Placement, Quota, Service, Taint, TaintEffect, Toleration, TolerationOperator, TopologySpread,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What keeps new containers off a node.
fn under_pressure() -> NodeCondition {
    NodeCondition { kind: NodeConditionKind::DiskPressure, message: "little room".to_owned(), since_ms: 1 }
}

/// A cluster, and what waits for a node.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    pub(crate) containers: Vec<Container>,
    pub(crate) quotas: Vec<Quota>,
}

impl World {
    pub(crate) fn view(&self) -> NodesView {
        NodesView::new(&self.nodes, &self.containers)
            .with_services(&self.services)
            .with_quotas(&self.quotas, &self.containers)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        let waiting = self.containers.iter().filter(|c| c.node.is_none());
        let mut requests: Vec<Request> = waiting.map(|c| Request::of(c, Default::default())).collect();
        let view = self.view();
        requests.sort_by_key(|r| (std::cmp::Reverse(view.priority(&r.service)), r.container.clone()));
        requests
    }

    fn findings(&self, view: &NodesView, plan: &Plan) -> Vec<Finding> {
        check_with(view, plan, &self.requests(), &self.services)
    }

    fn service(&self, name: &str) -> &Service {
        self.services.iter().find(|service| service.name == name).expect("it is there")
    }

    pub(crate) fn preemptions(&self, view: &NodesView, plan: &Plan) -> Vec<Preemption> {
        preempt(view, &self.requests(), plan, &self.containers, |key| self.services.iter().find(|s| s.key() == *key))
    }
}

fn node(name: &str, mib: u64, labels: &[(&str, &str)]) -> Node {
    let mut node = Node::new(name, memory(mib));
    node.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    node
}

fn service(name: &str, mib: u64) -> Service {
    Service { resources: memory(mib).into(), ..Service::new(name, "host") }
}

fn container(id: &str, service: &Service, node: Option<&str>) -> Container {
    Container { node: node.map(NodeName::from), ..Container::pending(id.into(), service, 0) }
}

fn taint(effect: TaintEffect) -> Taint {
    Taint { key: "special".into(), value: String::new(), effect }
}

fn rule(services: &[&str], topology_key: &str, required: bool) -> AffinityRule {
    AffinityRule { topology_key: topology_key.to_owned(), required, ..AffinityRule::on_services(services) }
}

fn world(nodes: Vec<Node>, services: Vec<Service>, waiting: &[(&str, &str)]) -> World {
    let mut world = World { nodes, services, containers: Vec::new(), quotas: Vec::new() };
    for (id, of) in waiting {
        let container = container(id, world.service(of), None);
        world.containers.push(container);
    }
    world
}

fn bound(plan: &Plan) -> Vec<(&str, &str)> {
    plan.bindings().iter().map(|(container, node)| (container.as_str(), node.as_str())).collect()
}

fn zones() -> Vec<Node> {
    [("a1", "a"), ("a2", "a"), ("b1", "b"), ("c1", "c")].map(|(name, zone)| node(name, 100, &[("zone", zone)])).into()
}

#[test]
fn selectors_taints_and_cordons_keep_containers_off_and_say_so() {
    let mut nodes = vec![node("a", 100, &[("disk", "ssd")]), node("b", 100, &[]), node("c", 100, &[("disk", "ssd")])];
    nodes.push(node("d", 100, &[("disk", "ssd")]));
    nodes[0].unschedulable = true;
    nodes[2].taints = vec![taint(TaintEffect::NoSchedule)];
    nodes[3].conditions = vec![under_pressure()];
    let mut web = service("web", 10);
    web.node_selector.insert("disk".into(), "ssd".into());
    let mut world = world(nodes, vec![web], &[("web-1", "web")]);
    let (plan_, report) = plan(&world.view(), &world.requests());
    assert_eq!(bound(&plan_), []);
    let text = "\
1 container has no node for service default/web (each asks memory 10Mi)
  node a: it is cordoned
  node b: it does not carry the label disk=ssd
  node c: its taint special:NoSchedule is not tolerated
  node d: its disk fills up (DiskPressure), so that it gets nothing new
  to fit: make room on the disk of node d
  or: uncordon node a
  or: give node b the label disk=ssd (`heptad node label b disk=ssd`)
  or: tolerate the taint special:NoSchedule of node c, or remove it";
    assert_eq!(report.to_string(), text);
    let operator = TolerationOperator::Exists;
    world.services[0].tolerations = vec![Toleration { key: "special".into(), operator, ..Toleration::default() }];
    assert_eq!(bound(&plan(&world.view(), &world.requests()).0), [("web-1", "c")]);
}

#[test]
fn a_taint_that_is_better_avoided_is_taken_last() {
    let mut nodes = vec![node("a", 10, &[]), node("b", 100, &[])];
    nodes[0].taints = vec![taint(TaintEffect::PreferNoSchedule)];
    let world = world(nodes, vec![service("web", 10)], &[("web-1", "web")]);
    assert_eq!(bound(&plan(&world.view(), &world.requests()).0), [("web-1", "b")]);
}

#[test]
fn a_required_spread_is_kept_and_a_wished_one_gives_way() {
    let mut web = service("web", 60);
    let spread = |required| TopologySpread { topology_key: "zone".into(), max_skew: 1, required };
    web.topology_spread = vec![spread(true)];
    let waiting = [("w1", "web"), ("w2", "web"), ("w3", "web"), ("w4", "web"), ("w5", "web")];
    let mut world = world(zones(), vec![web], &waiting);
    let (plan_, report) = plan(&world.view(), &world.requests());
    assert_eq!(plan_.bindings().len(), 4);
    assert_eq!(report.unplaced[0].counts.get("memory"), Some(&4));
    world.nodes[3].capacity = memory(50);
    let (plan_, report) = plan(&world.view(), &world.requests());
    // Zone c takes none, so the others may have one each.
    assert_eq!(plan_.bindings().len(), 2);
    assert!(report.unplaced[0].summary().contains("spread over zone"), "{}", report.unplaced[0].summary());
    assert_eq!(world.findings(&world.view(), &plan_), []);
    world.services[0].topology_spread = vec![spread(false)];
    assert_eq!(plan(&world.view(), &world.requests()).0.bindings().len(), 3);
}

#[test]
fn replicas_apart_and_neighbours_near_whatever_the_order() {
    let mut web = service("web", 10);
    web.anti_affinity = vec![rule(&["web"], "zone", true)];
    let mut cache = service("cache", 10);
    cache.affinity = vec![rule(&["web"], heptad_model::placement::TOPOLOGY_NODE, true)];
    // The caches are asked first, so they wait for the webs within the same plan.
    let waiting = [("c1", "cache"), ("w1", "web"), ("w2", "web"), ("w3", "web"), ("w4", "web")];
    let world = world(zones(), vec![web, cache], &waiting);
    let view = world.view();
    let (plan_, report) = plan(&view, &world.requests());
    assert_eq!(world.findings(&view, &plan_), []);
    assert_eq!(plan_.bindings().len(), 4);
    assert!(plan_.bindings().contains_key(&ContainerId::from("c1")));
    let words: Vec<&String> = report.unplaced[0].counts.keys().collect();
    assert_eq!(words, ["anti-affinity to web"]);
}

#[test]
fn whoever_is_kept_apart_keeps_others_apart() {
    let mut hermit = service("hermit", 10);
    hermit.anti_affinity = vec![rule(&["web"], "zone", true)];
    let mut world = world(vec![node("a", 100, &[("zone", "a")])], vec![hermit, service("web", 10)], &[("w1", "web")]);
    let there = container("h1", world.service("hermit"), Some("a"));
    world.containers.push(there);
    let (plan_, report) = plan(&world.view(), &world.requests());
    assert_eq!(bound(&plan_), []);
    let reason = &report.unplaced[0].refusals[0].reason;
    assert!(matches!(reason, Reason::KeptApart { by, .. } if by.name == "hermit"), "{reason}");
}

#[test]
fn a_quota_bounds_what_a_namespace_takes() {
    let mut world = world(zones(), vec![service("web", 30)], &[("w1", "web"), ("w2", "web"), ("w3", "web")]);
    world.quotas = vec![Quota { name: "team".into(), memory: Some(Bytes(70 << 20)), ..Quota::default() }];
    let view = world.view();
    let (plan_, report) = plan(&view, &world.requests());
    assert_eq!(plan_.bindings().len(), 2);
    assert_eq!(world.findings(&view, &plan_), []);
    let summary = "quota team of namespace default: memory: asked 30Mi, limit 70Mi, used 60Mi; raise memory of quota team \
                   of namespace default by 20Mi";
    assert_eq!(report.unplaced[0].summary(), summary);
    world.quotas[0].memory = Some(Bytes(59 << 20));
    let found = world.findings(&world.view(), &plan_);
    assert!(found.iter().any(|f| matches!(f, Finding::QuotaExceeded { .. })), "{found:?}");
}

#[test]
fn what_is_kept_for_a_container_is_nobody_elses() {
    let mut world =
        world(vec![node("a", 100, &[])], vec![service("big", 80), service("small", 30)], &[("s1", "small")]);
    let leaving = container("old", world.service("small"), Some("a"));
    world.containers.push(leaving);
    let mut requests = vec![Request::of(&container("b1", world.service("big"), None), Default::default())];
    requests[0].reserved = Some("a".into());
    requests.extend(world.requests());
    let view = world.view();
    let (plan_, _) = plan(&view, &requests);
    assert_eq!(bound(&plan_), []);
    assert_eq!(check_with(&view, &plan_, &requests, &world.services), []);
    requests[0].reserved = None;
    assert_eq!(bound(&plan(&view, &requests).0), [("s1", "a")]);
}

#[test]
fn the_cheapest_of_lower_priority_leave_and_nobody_else() {
    let with = |name: &str, mib, priority| Service { priority, ..service(name, mib) };
    let services = vec![with("vip", 50, 10), with("low", 30, 0), with("mid", 60, 5), with("peer", 100, 10)];
    let nodes = vec![node("a", 100, &[]), node("b", 100, &[]), node("c", 100, &[])];
    let mut world = world(nodes, services, &[("v1", "vip")]);
    for (id, of, at) in
        [("l1", "low", "a"), ("l2", "low", "a"), ("l3", "low", "a"), ("m1", "mid", "b"), ("p1", "peer", "c")]
    {
        let container = container(id, world.service(of), Some(at));
        world.containers.push(container);
    }
    let view = world.view();
    let (plan_, _) = plan(&view, &world.requests());
    let preemptions = world.preemptions(&view, &plan_);
    // Two of the lowest priority rather than one of a higher.
    assert_eq!((preemptions[0].node.as_str(), preemptions[0].victims.len()), ("a", 2));
    assert!(preemptions[0].to_string().ends_with("of lower priority leave node a for default/vip (priority 10)"));
    // What needs two to be ready does not give two away.
    world.services[1].min_ready = Some(2);
    world.containers.iter_mut().for_each(|c| c.ready = c.node.is_some());
    let preemptions = world.preemptions(&world.view(), &plan_);
    assert_eq!((preemptions[0].node.as_str(), preemptions[0].victims.len()), ("b", 1));
    // Those that leave anyway make the room.
    world
        .containers
        .iter_mut()
        .filter(|c| c.id.as_str() == "m1")
        .for_each(|c| c.desired = heptad_model::DesiredState::Stopped);
    assert_eq!(world.preemptions(&world.view(), &plan_), []);
}

prop_compose! {
    fn random_rules()(
        to in 0usize..4, zone in any::<bool>(), required in prop::bool::weighted(0.8), what in 0u8..6,
    ) -> (u8, AffinityRule, TopologySpread) {
        let key = if zone { "zone" } else { heptad_model::placement::TOPOLOGY_NODE };
        let spread = TopologySpread { topology_key: key.to_owned(), max_skew: 1 + u32::from(what % 2), required };
        (what, rule(&[["s0", "s1", "s2", "s3"][to]], key, required), spread)
    }
}

prop_compose! {
    fn random_service(number: usize)(
        mib in 0u64..12, ssd in prop::bool::weighted(0.2), bears in any::<bool>(), priority in 0i32..3,
        rules in prop::collection::vec(random_rules(), 0..3), least in prop::option::weighted(0.3, 0u32..3),
    ) -> Service {
        let mut service = service(&format!("s{number}"), mib);
        if ssd {
            service.node_selector.insert("disk".into(), "ssd".into());
        }
        if bears {
            let operator = TolerationOperator::Exists;
            service.tolerations.push(Toleration { key: "special".into(), operator, ..Toleration::default() });
        }
        service.priority = priority;
        service.min_ready = least;
        for (what, rule, spread) in rules {
            match what {
                0 | 1 => service.anti_affinity.push(rule),
                2 | 3 => service.affinity.push(rule),
                _ if service.topology_spread.is_empty() => service.topology_spread.push(spread),
                _ => {}
            }
        }
        service
    }
}

prop_compose! {
    fn random_node(number: usize)(
        mib in 0u64..40, zone in 0usize..4, ssd in any::<bool>(), special in 0u8..8, state in 0u8..10,
    ) -> Node {
        let mut node = node(&format!("n{number}"), mib, &[]);
        if zone < 3 {
            node.labels.insert("zone".into(), ["a", "b", "c"][zone].into());
        }
        if ssd {
            node.labels.insert("disk".into(), "ssd".into());
        }
        node.taints = match special {
            0 => vec![taint(TaintEffect::NoSchedule)],
            1 => vec![taint(TaintEffect::PreferNoSchedule)],
            2 => vec![taint(TaintEffect::NoExecute)],
            _ => Vec::new(),
        };
        node.status = if state == 0 { NodeStatus::NotReady } else { NodeStatus::Ready };
        node.unschedulable = state == 1;
        node.conditions = (state == 2).then(under_pressure).into_iter().collect();
        node
    }
}

prop_compose! {
    pub(crate) fn random_world()(
        nodes in (random_node(0), random_node(1), random_node(2), random_node(3), random_node(4)),
        services in (random_service(0), random_service(1), random_service(2), random_service(3)),
        held in prop::collection::vec((0usize..4, 0usize..5, any::<bool>(), prop::bool::weighted(0.1)), 0..8),
        waiting in prop::collection::vec(0usize..4, 0..10),
        quota in prop::option::weighted(0.3, (0u64..60, 0u32..12)),
    ) -> World {
        let nodes = vec![nodes.0, nodes.1, nodes.2, nodes.3, nodes.4];
        let services = vec![services.0, services.1, services.2, services.3];
        let mut containers = Vec::new();
        for (i, (service, node, ready, leaves)) in held.into_iter().enumerate() {
            let mut there = container(&format!("old-{i}"), &services[service], Some(nodes[node].name.as_str()));
            there.ready = ready;
            if leaves {
                there.desired = heptad_model::DesiredState::Stopped;
            }
            containers.push(there);
        }
        containers.extend(waiting.into_iter().enumerate().map(|(i, s)| container(&format!("new-{i}"), &services[s], None)));
        let quota = quota.map(|(mib, count)| Quota {
            name: "team".into(), memory: Some(Bytes(mib << 20)), containers: Some(count), ..Quota::default()
        });
        World { nodes, services, containers, quotas: quota.into_iter().collect() }
    }
}

/// The plan with one container elsewhere, its rows changed with it.
fn moved(world: &World, view: &NodesView, plan: &Plan, container: &ContainerId, to: &NodeName) -> Plan {
    let (mut bindings, mut rows) = (BTreeMap::new(), BTreeMap::new());
    for request in world.requests().iter().filter(|r| plan.bindings().contains_key(&r.container)) {
        let node = if request.container == *container { to } else { &plan.bindings()[&request.container] };
        bindings.insert(request.container.clone(), node.clone());
        let before = || view.get(node).expect("it is there").allocation.clone();
        let row = rows.entry(node.clone()).or_insert_with(before);
        row.resources = row.resources.checked_add(&request.resources).expect("samples are small");
        row.containers.insert(request.container.clone());
    }
    Plan::new(bindings, rows)
}

/// Whether the containers of a plan can be bound one after the other, in some order.
fn committable(world: &World, view: &NodesView, plan: &Plan) -> bool {
    let mut cluster = Cluster::new(view);
    let mut left: Vec<Request> =
        world.requests().into_iter().filter(|r| plan.bindings().contains_key(&r.container)).collect();
    loop {
        let before = left.len();
        left.retain(|request| {
            let node = view.index(&plan.bindings()[&request.container]).expect("it is there");
            cluster.bind(node, request).is_err()
        });
        if left.is_empty() || left.len() == before {
            return left.is_empty();
        }
    }
}

/// The order of candidates as it is said, without the engine's search.
#[derive(Debug)]
struct LooksAtAll;

impl Scheduler for LooksAtAll {
    fn choose(&self, cluster: &Cluster<'_>, request: &Request) -> Option<NodeIndex> {
        let rank = |room: u128| if request.placement == Placement::Spread { u128::MAX - room } else { room };
        let key = |c: &Candidate| (c.unwished, c.replicas, rank(cluster.measure(&c.left)), c.node);
        cluster.candidates(request).min_by_key(key).map(|candidate| candidate.node)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn plans_under_constraints_pass_the_independent_check(world in random_world()) {
        let view = world.view();
        let (plan, report) = plan(&view, &world.requests());
        prop_assert_eq!(world.findings(&view, &plan), []);
        prop_assert!(committable(&world, &view, &plan));
        for unplaced in &report.unplaced {
            prop_assert_eq!(unplaced.refusals.len(), if unplaced.quota.is_some() { 0 } else { view.nodes().len() });
            prop_assert!(!unplaced.remedies.is_empty());
        }
    }

    /// The search, and how it goes on from one request to the next, against a look at every node for each request.
    #[test]
    fn the_search_chooses_what_a_look_at_all_nodes_chooses(world in random_world(), spread: bool) {
        let view = world.view();
        let mut requests = world.requests();
        if spread {
            requests.iter_mut().for_each(|request| request.placement = Placement::Spread);
        }
        let searched = plan(&view, &requests);
        prop_assert_eq!(&searched, &plan_with(&view, &requests, &LooksAtAll));
        let bytes = |(plan, _): &(Plan, _)| serde_json::to_vec(plan).expect("plain data");
        prop_assert_eq!(bytes(&searched), bytes(&plan(&view, &requests)));
    }

    /// Mutation: a container moved elsewhere is found, unless the planner could have put it there as well.
    #[test]
    fn a_moved_container_is_found_exactly_if_it_may_not_be_there(
        world in random_world(), pick: prop::sample::Index, to in 0usize..5,
    ) {
        let view = world.view();
        let (plan, _) = plan(&view, &world.requests());
        if plan.is_empty() {
            return Ok(());
        }
        let container = plan.bindings().keys().nth(pick.index(plan.bindings().len())).expect("within").clone();
        let other = moved(&world, &view, &plan, &container, &world.nodes[to].name);
        let mut found = world.findings(&view, &other);
        found.retain(|finding| !matches!(finding, Finding::LeftOut { .. }));
        if committable(&world, &view, &other) {
            prop_assert_eq!(found, []);
        } else {
            // Only an order may be missing: two that are near each other and neither of whom may be the first.
            let may_wait = world.services.iter().any(|s| !s.affinity.is_empty() || !s.topology_spread.is_empty());
            prop_assert!(!found.is_empty() || may_wait);
        }
    }

    #[test]
    fn explanations_name_every_node_and_agree_with_the_candidates(world in random_world()) {
        let view = world.view();
        for request in world.requests() {
            let candidates = Cluster::new(&view).candidates(&request).count();
            prop_assert_eq!(explain(&view, &request).is_none(), candidates > 0);
        }
    }

    #[test]
    fn who_leaves_is_of_lower_priority_enough_and_not_too_many(world in random_world()) {
        let view = world.view();
        let (plan, _) = plan(&view, &world.requests());
        let preemptions = world.preemptions(&view, &plan);
        let mut gone: BTreeSet<ContainerId> = BTreeSet::new();
        let mut evicted: BTreeMap<&str, u32> = BTreeMap::new();
        for preemption in &preemptions {
            prop_assert!(!preemption.victims.is_empty());
            for victim in &preemption.victims {
                prop_assert!(gone.insert(victim.clone()), "{victim} leaves twice");
                let victim = world.containers.iter().find(|c| c.id == *victim).expect("it is there");
                prop_assert_eq!(victim.node.as_ref(), Some(&preemption.node));
                prop_assert!(view.priority(&victim.service) < preemption.priority);
                *evicted.entry(&world.service(&victim.service.name).name).or_default() += u32::from(victim.ready);
            }
        }
        for (name, count) in evicted {
            let Some(least) = world.service(name).min_ready else { continue };
            let ready = world.containers.iter().filter(|c| c.service.name == name && c.ready && c.is_alive()).count();
            prop_assert!(count == 0 || ready as u32 >= least + count, "{name} keeps too few");
        }
        // If it is for the first who waits, it is decided on the plan alone, so it can be tried out.
        let waits = world.requests().into_iter().find(|request| !plan.bindings().contains_key(&request.container));
        if let Some(first) = preemptions.first().filter(|first| waits.is_some_and(|r| r.container == first.container)) {
            let takes = |without: &BTreeSet<&ContainerId>| {
                let mut after = world.clone();
                for (container, node) in plan.bindings() {
                    after.containers.iter_mut().filter(|c| c.id == *container).for_each(|c| c.node = Some(node.clone()));
                }
                after.containers.retain(|c| c.node.is_none() || (c.is_alive() && !without.contains(&c.id)));
                let view = after.view();
                let request = after.requests().into_iter().find(|r| r.container == first.container).expect("it waits");
                let node = view.index(&first.node).expect("it is there");
                Cluster::new(&view).refuses(node, &request).is_none()
            };
            let all: BTreeSet<&ContainerId> = first.victims.iter().collect();
            prop_assert!(takes(&all), "not enough leave");
            for one in &first.victims {
                let fewer: BTreeSet<&ContainerId> = all.iter().copied().filter(|id| *id != one).collect();
                prop_assert!(!takes(&fewer), "{one} need not leave");
            }
        }
    }
}
