//! That every remedy helps, that nothing smaller of its kind does, and what people read.

use super::*;
use crate::{
    constraint_tests::{World as Owned, random_world},
    plan,
    samples::memory,
};
use heptad_model::{Placement, ResourceVector, TopologySpread};
use proptest::prelude::*;

fn scene(world: &Owned) -> World<'_> {
    World {
        nodes: world.nodes.iter().collect(),
        services: world.services.iter().collect(),
        containers: world.containers.iter().collect(),
        quotas: world.quotas.iter().collect(),
        kept: Vec::new(),
    }
}

fn is_placed(world: &Owned, request: &Request) -> bool {
    !plan(&world.view(), std::slice::from_ref(request)).0.is_empty()
}

fn node<'w>(world: &'w mut Owned, name: &NodeName) -> &'w mut Node {
    world.nodes.iter_mut().find(|node| node.name == *name).expect("a remedy names a node that is there")
}

/// Takes `bytes` from containers of the node, one after the other.
fn free(world: &mut Owned, name: &NodeName, mut bytes: u64) {
    for container in world.containers.iter_mut().filter(|c| c.node.as_ref() == Some(name)) {
        let has = &mut container.template.resources.memory.0;
        let taken = bytes.min(*has);
        (*has, bytes) = (*has - taken, bytes - taken);
    }
    assert_eq!(bytes, 0, "the node gave less than is to be given back");
}

fn less(amount: &ResourceVector, shortfalls: &[crate::Shortfall]) -> ResourceVector {
    let mut amounts = amount.amounts();
    shortfalls.iter().for_each(|s| amounts[s.dimension as usize] -= s.by);
    ResourceVector::from_amounts(amounts)
}

/// Does by hand what a remedy says.
fn carry_out(world: &mut Owned, request: &mut Request, remedy: &Remedy) {
    match remedy {
        Remedy::MakeReady { node: name } => node(world, name).status = NodeStatus::Ready,
        Remedy::Mend { node: name, .. } => node(world, name).conditions.clear(),
        Remedy::Uncordon { node: name } => node(world, name).unschedulable = false,
        Remedy::Label { node: name, key, value } => {
            node(world, name).labels.insert(key.clone(), value.clone().expect("a value was tried"));
        }
        Remedy::Tolerate { taint, .. } => {
            let (key, operator) = (taint.key.clone(), TolerationOperator::Exists);
            let effect = Some(taint.effect);
            let service =
                world.services.iter_mut().find(|service| service.key() == request.service).expect("it is there");
            service.tolerations.push(Toleration { key, operator, effect, ..Toleration::default() });
        }
        Remedy::Relax { rule, .. } => relax_by_text(world, request, rule),
        Remedy::RaiseQuota { short } => {
            let quota = world.quotas.iter_mut().find(|quota| quota.name == short.quota).expect("it is there");
            match short.item {
                QuotaItem::Containers => *quota.containers.as_mut().expect("it is bounded") += short.missing() as u32,
                _ => quota.memory.as_mut().expect("it is bounded").0 += short.missing(),
            }
        }
        Remedy::LowerRequest { to, shortfalls, .. } => {
            assert_eq!(*to, less(&request.resources, shortfalls));
            request.resources = *to;
        }
        Remedy::FreeResources { node: name, shortfalls } => free(world, name, shortfalls[0].by),
        Remedy::AddNode { resources, labels, .. } => {
            let mut node = Node::new("added", *resources);
            node.labels = labels.clone();
            world.nodes.push(node);
        }
        Remedy::Wait { leaving: gone, .. } | Remedy::Evict { victims: gone, .. } => {
            world.containers.retain(|container| !gone.contains(&container.id));
        }
        Remedy::RaisePriority { to, victims, .. } => {
            let service =
                world.services.iter_mut().find(|service| service.key() == request.service).expect("it is there");
            service.priority = *to;
            world.containers.retain(|container| !victims.contains(&container.id));
        }
        Remedy::Together { changes } => changes.iter().for_each(|change| carry_out(world, request, change)),
        Remedy::FreeHostPorts { .. } | Remedy::FreeDevices { .. } => {
            unreachable!("nobody asks for ports or devices in these worlds")
        }
    }
}

fn relax_by_text(world: &mut Owned, request: &Request, rule: &str) {
    for service in &mut world.services {
        let (key, is_own) = (service.key(), service.key() == request.service);
        for near in service.affinity.iter_mut().filter(|_| is_own) {
            near.required &= format!("affinity to {near}") != rule;
        }
        for apart in &mut service.anti_affinity {
            let is_meant = is_own && format!("anti-affinity to {apart}") == rule;
            apart.required &= !is_meant && format!("anti-affinity of {key}") != rule;
        }
        for even in service.topology_spread.iter_mut().filter(|_| is_own) {
            even.required &= format!("spread over {}", even.topology_key) != rule;
        }
    }
}

/// A little less of the same kind of change, on any node, is not enough.
fn nothing_smaller_helps(world: &Owned, request: &Request, remedy: &Remedy) -> Result<(), TestCaseError> {
    match remedy {
        Remedy::LowerRequest { shortfalls, .. } => {
            let mut amounts = request.resources.amounts();
            amounts[1] -= shortfalls[0].by - 1;
            let resources = ResourceVector::from_amounts(amounts);
            let other = Request { resources, ..request.clone() };
            prop_assert!(!is_placed(world, &other), "less is enough");
        }
        Remedy::FreeResources { shortfalls, .. } => {
            for i in 0..world.nodes.len() {
                let mut other = world.clone();
                // A node that is too small takes it however much is given back.
                if request.resources.fits(&other.nodes[i].capacity) {
                    other.nodes[i].capacity.memory.0 += shortfalls[0].by - 1;
                    prop_assert!(!is_placed(&other, request), "less on {} is enough", other.nodes[i].name);
                }
            }
        }
        Remedy::AddNode { resources, labels, .. } => {
            let with = |resources: ResourceVector, labels: BTreeMap<String, String>| {
                let (mut other, remedy) = (world.clone(), Remedy::AddNode { resources, devices: [].into(), labels });
                carry_out(&mut other, &mut request.clone(), &remedy);
                is_placed(&other, request)
            };
            if resources.memory.0 > 0 {
                let mut smaller = *resources;
                smaller.memory.0 -= 1;
                prop_assert!(!with(smaller, labels.clone()));
            }
            for key in labels.keys() {
                let mut fewer = labels.clone();
                fewer.remove(key);
                prop_assert!(!with(*resources, fewer), "the label {key} is not needed");
            }
        }
        Remedy::RaisePriority { to, .. } => {
            let mut other = world.clone();
            for service in other.services.iter_mut().filter(|service| service.key() == request.service) {
                service.priority = to - 1;
            }
            other.containers.retain(|container| container.node.is_some() || container.id == request.container);
            prop_assert_eq!(other.preemptions(&other.view(), &Plan::default()), []);
        }
        Remedy::RaiseQuota { short } => {
            let short = QuotaShort { limit: short.limit + 1, ..short.clone() };
            let mut other = world.clone();
            carry_out(&mut other, &mut request.clone(), &Remedy::RaiseQuota { short });
            prop_assert!(!is_placed(&other, request));
        }
        _ => {}
    }
    Ok(())
}

/// What one change of a node would do is not missed.
fn nothing_easy_is_missed(world: &Owned, request: &Request, remedies: &[Remedy]) -> Result<(), TestCaseError> {
    for i in 0..world.nodes.len() {
        let (mut ready, mut open) = (world.clone(), world.clone());
        ready.nodes[i].status = NodeStatus::Ready;
        open.nodes[i].unschedulable = false;
        let has = |kind: fn(&Remedy) -> bool| remedies.iter().any(kind);
        let (is_told_ready, is_told_open) =
            (has(|r| matches!(r, Remedy::MakeReady { .. })), has(|r| matches!(r, Remedy::Uncordon { .. })));
        prop_assert!(is_told_ready || !is_placed(&ready, request), "it is not said that a node could be made ready");
        prop_assert!(is_told_open || !is_placed(&open, request), "it is not said that a node could be uncordoned");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_remedy_is_enough_and_nothing_smaller_of_its_kind_is(mut world in random_world()) {
        let (placed, _) = plan(&world.view(), &world.requests());
        for container in &mut world.containers {
            container.node = placed.bindings().get(&container.id).cloned().or(container.node.take());
        }
        for request in world.requests() {
            let advice = advise(&scene(&world), &request);
            prop_assert_eq!(advice.is_none(), is_placed(&world, &request));
            let Some(advice) = advice else { continue };
            for remedy in &advice.remedies {
                let (mut after, mut request) = (world.clone(), request.clone());
                nothing_smaller_helps(&world, &request, remedy)?;
                carry_out(&mut after, &mut request, remedy);
                prop_assert!(is_placed(&after, &request), "{} does not help", remedy);
            }
            if advice.quota.is_none() {
                nothing_easy_is_missed(&world, &request, &advice.remedies)?;
            }
        }
    }
}

fn service(name: &str, mib: u64, priority: i32) -> Service {
    Service { resources: memory(mib).into(), priority, ..Service::new(name, "host") }
}

fn on(id: &str, service: &Service, node: Option<&str>) -> Container {
    Container { node: node.map(NodeName::from), ..Container::pending(id.into(), service, 0) }
}

fn texts(world: &Owned, id: &str) -> Vec<String> {
    let container = world.containers.iter().find(|c| c.id.as_str() == id).expect("it is there");
    let advice = advise(&scene(world), &Request::of(container, Placement::Pack)).expect("no node takes it");
    advice.remedies.iter().map(Remedy::to_string).collect()
}

#[test]
fn what_would_help_is_said_in_a_line_each() {
    let services = vec![service("low", 40, 0), service("peer", 60, 5), service("big", 70, 5)];
    let mut world = Owned { nodes: vec![], services, containers: vec![], quotas: vec![] };
    world.nodes = ["n1", "n2"].map(|name| Node::new(name, memory(100))).into();
    let [low, peer, big] = [0, 1, 2].map(|i| world.services[i].clone());
    world.containers = vec![on("low-1", &low, Some("n1")), on("peer-1", &peer, Some("n2")), on("big-1", &big, None)];
    let expected = [
        "lower memory to 60Mi (by 10Mi) to fit node n1",
        "free 10Mi of memory on node n1",
        "stop low-1 (priority 0) on node n1",
        "add a node that can give memory 70Mi",
    ];
    assert_eq!(texts(&world, "big-1"), expected);
    world.services[0].priority = 5;
    let expected = "give it priority 6, so that low-1 leaves node n1 for it";
    assert_eq!(texts(&world, "big-1")[2], expected);
    world.containers[0].desired = heptad_model::DesiredState::Stopped;
    assert_eq!(texts(&world, "big-1")[0], "wait until low-1 is gone from node n1");
    world.quotas =
        vec![Quota { name: "team".into(), memory: Some(Bytes(150 << 20)), containers: Some(2), ..Quota::default() }];
    let first = "raise memory of quota team of namespace default by 20Mi and raise containers of quota team of namespace \
                 default by 1 and wait until low-1 is gone from node n1";
    assert_eq!(texts(&world, "big-1")[0], first);
}

#[test]
fn a_new_node_is_asked_for_with_the_labels_that_it_needs_and_no_others() {
    let mut web = service("web", 10, 0);
    web.node_selector.insert("disk".into(), "ssd".into());
    web.topology_spread = vec![TopologySpread { topology_key: "zone".into(), max_skew: 1, required: true }];
    let mut node = Node::new("n1", memory(5));
    node.labels = [("zone".into(), "a".into()), ("disk".into(), "ssd".into())].into();
    let containers = vec![on("web-1", &web, None)];
    let world = Owned { nodes: vec![node], services: vec![web], containers, quotas: vec![] };
    let text = "add a node that can give memory 10Mi with the label disk=ssd and zone=a";
    assert_eq!(texts(&world, "web-1").last().map(String::as_str), Some(text));
}
