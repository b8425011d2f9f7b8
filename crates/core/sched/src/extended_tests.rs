//! Devices and gangs through planner, rows and judge: by hand, at random, and made wrong on purpose.

use crate::{
    Cluster, Report, plan,
    samples::{memory, request, vector},
};
use heptad_capacity::{Allocation, Capacity, Gang, Grant, NodesView, Plan, Request};
use heptad_check::{Finding, RowPart, check};
use heptad_model::{
    Container, ContainerId, DeviceMillis, Node, NodeName, Placement, ResourceVector, Service, ServiceKey,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Ready nodes with so much memory and so many GPUs.
fn view(nodes: &[(&str, u64, u32)]) -> NodesView {
    NodesView::new(&nodes.iter().map(|(name, mib, gpus)| node(name, memory(*mib), *gpus)).collect::<Vec<_>>(), [])
}

fn node(name: &str, capacity: ResourceVector, gpus: u32) -> Node {
    let mut node = Node::new(name, capacity);
    if gpus > 0 {
        node.devices.insert("gpu".to_owned(), gpus);
    }
    node
}

/// A request for memory and thousandths of GPUs.
fn asks(container: &str, service: &str, mib: u64, gpu: u32) -> Request {
    let devices = if gpu == 0 { [].into() } else { [("gpu".to_owned(), DeviceMillis(gpu))].into() };
    Request { devices, ..request(container, service, mib) }
}

/// So many members of one gang.
fn gang(service: &str, members: u32, mib: u64, gpu: u32) -> Vec<Request> {
    let member = |i| {
        let gang = Some(Gang { group: 0, size: members });
        Request { gang, ..asks(&format!("{service}-{i}"), service, mib, gpu) }
    };
    (0..members).map(member).collect()
}

fn planned(view: &NodesView, requests: &[Request]) -> (Plan, Report) {
    let (plan, report) = plan(view, requests);
    assert_eq!(check(view, &plan, requests), []);
    (plan, report)
}

fn at(plan: &Plan, container: &str) -> (String, Vec<u32>) {
    let id = ContainerId::from(container);
    (plan.bindings()[&id].to_string(), plan.devices(&id).remove("gpu").unwrap_or_default())
}

#[test]
fn whole_devices_and_shares_are_given_by_index() {
    let view = view(&[("a", 100, 0), ("b", 100, 3)]);
    let requests =
        [asks("half", "x", 1, 500), asks("two", "y", 1, 2_000), asks("more", "x", 1, 300), asks("none", "z", 1, 0)];
    let (plan, report) = planned(&view, &requests);
    assert_eq!(report.unplaced, []);
    assert_eq!(at(&plan, "half"), ("b".to_owned(), vec![0]));
    assert_eq!(at(&plan, "two"), ("b".to_owned(), vec![1, 2]));
    assert_eq!(at(&plan, "more"), ("b".to_owned(), vec![0]));
    assert_eq!(at(&plan, "none").1, Vec::<u32>::new());
}

#[test]
fn too_few_devices_are_said_for_every_node_with_what_would_help() {
    let view = view(&[("a", 100, 0), ("b", 100, 2), ("c", 100, 1)]);
    let requests = [asks("1", "x", 1, 1_000), asks("2", "x", 1, 600), asks("3", "train", 1, 2_000)];
    let (_, report) = planned(&view, &requests);
    let text = "\
1 container has no node for service default/train (each asks memory 1Mi, gpu 2)
  node a: gpu: asked 2 whole, and the node has none
  node b: gpu: asked 2 whole, free 1 of 2
  node c: gpu: asked 2 whole, free 0 of 1
  to fit: free 2 gpu on node b";
    assert_eq!(report.to_string(), text);
    assert_eq!(report.unplaced[0].counts, BTreeMap::from([("gpu".to_owned(), 3)]));
    let (_, report) = planned(&view, &[asks("big", "train", 1, 4_000)]);
    assert_eq!(report.unplaced[0].summary(), "all 3 nodes refuse: 3 gpu; add a node that can give memory 1Mi, gpu 4");
}

#[test]
fn a_gang_that_does_not_fit_waits_whole_and_disturbs_nobody() {
    let view = view(&[("a", 100, 4), ("b", 100, 3)]);
    let mut requests = gang("train", 4, 10, 2_000);
    let single = asks("single", "web", 10, 1_000);
    requests.insert(2, single.clone());
    let (plan, report) = planned(&view, &requests);
    assert_eq!(plan.bindings().len(), 1, "only the single one has a node");
    let (alone, _) = planned(&view, &[single]);
    assert_eq!(plan, alone, "it has what it has without the gang");
    let said = report.of(&"train-3".into()).expect("it waits");
    assert_eq!(said.containers.len(), 4);
    let start = "gang of 4: 3 could be placed, the next fails because all 2 nodes refuse: 2 gpu; free 2 gpu on node";
    assert!(said.summary().starts_with(start), "{}", said.summary());
    let (plan, report) = planned(&view, &gang("train", 3, 10, 2_000));
    assert_eq!((plan.bindings().len(), report.unplaced.len()), (3, 0), "three fit");
}

#[test]
fn nobody_of_a_gang_is_placed_before_all_of_it_are_there() {
    let view = view(&[("a", 100, 0)]);
    let some = &gang("train", 3, 1, 0)[..2];
    let (plan, report) = planned(&view, some);
    assert!(plan.is_empty());
    assert_eq!(report.unplaced[0].summary(), "gang of 3: only 2 of its containers are there yet");
}

#[test]
fn the_next_gang_gets_the_room_of_one_that_does_not_fit() {
    let view = view(&[("a", 100, 0), ("b", 100, 0)]);
    let requests = [gang("large", 3, 60, 0), gang("larger", 3, 60, 0), gang("small", 2, 60, 0)].concat();
    let (plan, report) = planned(&view, &requests);
    let placed: Vec<&str> = plan.bindings().keys().map(ContainerId::as_str).collect();
    assert_eq!(placed, ["small-0", "small-1"]);
    assert_eq!(report.unplaced.len(), 2);
    assert!(report.unplaced.iter().all(|group| group.gang.is_some_and(|gang| gang.placed == 0)), "after all else");
}

#[test]
fn rows_derived_from_containers_know_their_devices() {
    let view = view(&[("a", 100, 2)]);
    let mut service = Service::new("x", "host");
    service.resources.devices.insert("gpu".to_owned(), DeviceMillis(700));
    let mut container = Container::pending("x-1".into(), &service, 0);
    let request = Request::of(&container, Placement::Pack);
    let (plan, _) = planned(&view, std::slice::from_ref(&request));
    container.node = Some("a".into());
    container.devices = plan.devices(&container.id);
    let mut row = Allocation::of([&container]);
    assert_eq!(row, plan.allocations()[&NodeName::from("a")]);
    row.release(&request).expect("it is there");
    assert_eq!(row, Allocation::default());
}

/// What is found after `change` to a good plan of two containers with devices beside one from before.
fn found(change: impl FnOnce(&mut Allocation)) -> Vec<Finding> {
    let nodes = [node("a", memory(100), 4)];
    let mut before = Allocation::default();
    let capacity = Capacity { resources: &nodes[0].capacity, devices: &nodes[0].devices };
    before.bind(capacity, &asks("old", "x", 1, 600)).expect("it fits");
    let view = NodesView::with_rows(&nodes, &[("a".into(), before)].into(), []);
    let requests = [asks("two", "y", 1, 2_000), asks("share", "y", 1, 300)];
    let (plan, _) = planned(&view, &requests);
    let mut rows = plan.allocations().clone();
    change(rows.get_mut(&NodeName::from("a")).expect("a row"));
    check(&view, &Plan::new(plan.bindings().clone(), rows), &requests)
}

#[test]
fn the_judge_finds_every_wrong_device() {
    let row =
        |findings: Vec<Finding>| findings.iter().any(|f| matches!(f, Finding::WrongRow { part: RowPart::Devices, .. }));
    let exceeded = |findings: Vec<Finding>| findings.iter().any(|f| matches!(f, Finding::DeviceExceeded { .. }));
    fn grant<'a>(row: &'a mut Allocation, container: &str) -> &'a mut Grant {
        row.devices.0.get_mut("gpu").and_then(|all| all.get_mut(&container.into())).expect("it has some")
    }
    let take_back = |row: &mut Allocation, container: &str| {
        row.devices.0.get_mut("gpu").and_then(|all| all.remove(&container.into())).expect("it has some");
    };
    assert_eq!(found(|_| {}), []);
    assert!(exceeded(found(|r| grant(r, "two").indices = vec![0, 1])), "one that is shared is given whole");
    assert!(exceeded(found(|r| grant(r, "two").indices = vec![3, 4])), "there is no fifth");
    assert!(exceeded(found(|r| grant(r, "share").indices = vec![1])), "a share of what is given whole");
    assert!(row(found(|r| grant(r, "two").indices = vec![1, 1])), "one device for two");
    assert!(row(found(|r| grant(r, "two").indices = vec![1])), "one instead of two");
    assert!(row(found(|r| grant(r, "share").millis = 200)), "less than asked");
    assert!(row(found(|r| grant(r, "old").indices = vec![3])), "what was given before is moved");
    assert!(row(found(|r| take_back(r, "share"))), "nothing given");
    assert!(row(found(|r| take_back(r, "old"))), "taken from another");
    assert!(row(found(|r| {
        let same = grant(r, "old").clone();
        r.devices.0.get_mut("gpu").expect("a kind").insert("ghost".into(), same);
    })));
}

#[test]
fn the_judge_finds_parts_of_gangs_and_gangs_left_out() {
    let view = view(&[("a", 100, 2), ("b", 100, 2)]);
    let requests = gang("train", 3, 10, 1_000);
    let (plan, _) = planned(&view, &requests);
    let (alone, _) =
        crate::plan(&view, &requests[..2].iter().cloned().map(|r| Request { gang: None, ..r }).collect::<Vec<_>>());
    let service = ServiceKey::new("default", "train");
    let parted = Finding::GangParted { service: service.clone(), placed: 2, size: 3 };
    assert_eq!(check(&view, &alone, &requests), [parted]);
    let parted = Finding::GangParted { service, placed: 2, size: 3 };
    assert!(check(&view, &alone, &requests[..2]).contains(&parted), "one of three is not even asked for");
    let left_out = check(&view, &Plan::default(), &requests);
    assert!(matches!(left_out[..], [Finding::LeftOut { .. }]), "{left_out:?}");
    assert_eq!(plan.bindings().len(), 3);
    let too_many = gang("train", 5, 10, 1_000);
    assert_eq!(check(&view, &Plan::default(), &too_many), []);
}

fn gpus() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 2 => 1u32..1_000, 2 => (1u32..4).prop_map(|n| n * 1_000)]
}

prop_compose! {
    fn random_world()(
        nodes in prop::collection::vec((vector(40), 0u32..5), 1..6),
        all in prop::collection::vec((0u8..4, vector(9), gpus(), 0u8..4, any::<bool>()), 0..24),
    ) -> (NodesView, Vec<Request>) {
        let nodes: Vec<Node> =
            nodes.into_iter().enumerate().map(|(i, (capacity, gpus))| node(&format!("n{i}"), capacity, gpus)).collect();
        let mut shapes: BTreeMap<u8, (ResourceVector, u32)> = BTreeMap::new();
        let requests = all.into_iter().enumerate().map(|(i, (service, resources, gpu, size, spread))| {
            // The services 0 and 1 are gangs, all of whose members ask the same.
            let is_gang = service < 2;
            let (resources, gpu) = if is_gang { *shapes.entry(service).or_insert((resources, gpu)) } else { (resources, gpu) };
            Request {
                resources,
                gang: is_gang.then_some(Gang { group: 0, size: size.into() }),
                placement: if spread { Placement::Spread } else { Placement::Pack },
                ..asks(&format!("c{i}"), &format!("s{service}"), 0, gpu)
            }
        }).collect();
        (NodesView::new(&nodes, []), requests)
    }
}

proptest! {
    #[test]
    fn no_plan_gives_a_device_twice_or_a_part_of_a_gang((view, requests) in random_world()) {
        let (plan, report) = plan(&view, &requests);
        prop_assert_eq!(check(&view, &plan, &requests), []);
        for service in ["s0", "s1"] {
            let of = requests.iter().filter(|r| r.service.name == service);
            let placed = of.clone().filter(|r| plan.bindings().contains_key(&r.container)).count();
            prop_assert!(placed == 0 || placed == of.count());
        }
        let unplaced: usize = report.unplaced.iter().map(|group| group.containers.len()).sum();
        prop_assert_eq!(plan.bindings().len() + unplaced, requests.len());
    }

    #[test]
    fn gangs_without_nodes_leave_no_trace((view, requests) in random_world()) {
        let (with, _) = plan(&view, &requests);
        let is_waiting = |r: &&Request| r.gang.is_none() || with.bindings().contains_key(&r.container);
        let others: Vec<Request> = requests.iter().filter(is_waiting).cloned().collect();
        prop_assert_eq!(plan(&view, &others).0, with);
    }

    #[test]
    fn what_is_released_in_any_order_is_free_again((view, requests) in random_world(), order in any::<u64>()) {
        let (plan, _) = plan(&view, &requests);
        let mut rows = plan.allocations().clone();
        let mut bound: Vec<&Request> =
            requests.iter().filter(|r| plan.bindings().contains_key(&r.container)).collect();
        bound.sort_by_key(|r| r.container.as_str().bytes().fold(order, |h, b| h.wrapping_mul(31).wrapping_add(b.into())));
        for request in bound {
            let row = rows.get_mut(&plan.bindings()[&request.container]).expect("a row");
            prop_assert_eq!(row.release(request), Ok(()));
        }
        prop_assert!(rows.values().all(|row| *row == Allocation::default()));
    }

    #[test]
    fn a_plan_is_bound_again_in_any_order_with_its_devices((view, requests) in random_world(), order in any::<u64>()) {
        let (plan, _) = plan(&view, &requests);
        let mut bound: Vec<&Request> =
            requests.iter().filter(|r| plan.bindings().contains_key(&r.container)).collect();
        bound.sort_by_key(|r| r.container.as_str().bytes().fold(order, |h, b| h.wrapping_mul(31).wrapping_add(b.into())));
        let mut cluster = Cluster::new(&view);
        for request in bound {
            let node = view.index(&plan.bindings()[&request.container]).expect("a node");
            prop_assert_eq!(cluster.bind_to(node, request, &plan.devices(&request.container)), Ok(()));
        }
        prop_assert_eq!(&cluster.into_touched(), plan.allocations());
    }
}
