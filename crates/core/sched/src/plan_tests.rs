//! Placement: never too much, best fit as it is defined, replicas apart, the same input the same bytes.

use super::*;
use crate::{
    BestFitScheduler, SpreadScheduler,
    samples::{memory, random_requests, random_view, request, vector},
};
use heptad_capacity::Allocation;
use heptad_check::check;
use heptad_model::{NodeStatus, Placement, ResourceVector};
use proptest::prelude::*;

/// Ready, empty nodes with so much memory.
fn view(nodes: &[(&str, u64)]) -> NodesView {
    let nodes: Vec<_> = nodes.iter().map(|(name, mib)| heptad_model::Node::new(name, memory(*mib))).collect();
    NodesView::new(&nodes, [])
}

fn nodes_of(plan: &Plan) -> Vec<(&str, &str)> {
    plan.bindings().iter().map(|(container, node)| (container.as_str(), node.as_str())).collect()
}

#[test]
fn pack_takes_the_least_room_and_spread_the_most() {
    let nodes = view(&[("a", 90), ("b", 30), ("c", 60)]);
    let mut asked = request("x", "web", 20);
    assert_eq!(nodes_of(&plan(&nodes, std::slice::from_ref(&asked)).0), [("x", "b")]);
    asked.placement = Placement::Spread;
    assert_eq!(nodes_of(&plan(&nodes, &[asked]).0), [("x", "a")]);
}

#[test]
fn equal_nodes_are_taken_by_name() {
    let nodes = view(&[("b", 30), ("a", 30)]);
    for scheduler in [&BestFitScheduler as &dyn Scheduler, &SpreadScheduler] {
        assert_eq!(nodes_of(&plan_with(&nodes, &[request("x", "web", 20)], scheduler).0), [("x", "a")]);
    }
}

#[test]
fn replicas_of_one_service_go_apart_and_other_services_together() {
    let nodes = view(&[("a", 100), ("b", 100), ("c", 100)]);
    let requests: Vec<Request> = ["1", "2", "3", "4"].map(|id| request(id, "web", 10)).into();
    assert_eq!(nodes_of(&plan(&nodes, &requests).0), [("1", "a"), ("2", "b"), ("3", "c"), ("4", "a")]);
    let requests = ["1", "2", "3"].map(|id| request(id, id, 10));
    assert_eq!(nodes_of(&plan(&nodes, &requests).0), [("1", "a"), ("2", "a"), ("3", "a")]);
}

#[test]
fn greedy_can_miss_a_packing_and_says_so() {
    let nodes = view(&[("a", 6), ("b", 5)]);
    let requests = [request("1", "x", 3), request("2", "y", 3), request("3", "z", 5)];
    let (plan, report) = plan(&nodes, &requests);
    assert_eq!(nodes_of(&plan), [("1", "b"), ("2", "a")]);
    assert_eq!(report.unplaced.len(), 1);
    assert!(report.of(&"3".into()).is_some());
}

#[test]
fn what_is_bound_or_asked_twice_is_not_planned_again() {
    let nodes = view(&[("a", 100)]);
    let requests = [request("1", "x", 3), request("1", "x", 3)];
    let (plan, report) = plan(&nodes, &requests);
    assert_eq!(plan.allocations()[&NodeName::from("a")].resources, memory(3));
    assert_eq!(report.repeated, ["1".into()]);
    assert_eq!(report.unplaced, []);
}

#[test]
fn plans_and_reports_round_trip_as_json() {
    let nodes = view(&[("a", 10)]);
    let mut first = request("1", "x", 3);
    first.host_ports.insert((80, Default::default()));
    let (plan, report) = plan(&nodes, &[first, request("2", "x", 30)]);
    let text = serde_json::to_string(&(&plan, &report)).expect("plain data");
    let back: (Plan, Report) = serde_json::from_str(&text).expect("as it was written");
    assert_eq!(back, (plan, report));
}

proptest! {
    #[test]
    fn plans_pass_the_independent_check(view in random_view(), requests in random_requests()) {
        let (plan, report) = plan(&view, &requests);
        prop_assert_eq!(check(&view, &plan, &requests), []);
        let unplaced: usize = report.unplaced.iter().map(|unplaced| unplaced.containers.len()).sum();
        prop_assert_eq!(plan.bindings().len() + unplaced + report.repeated.len(), requests.len());
    }

    #[test]
    fn capacity_holds_over_many_plans_in_a_row(view in random_view(), rounds in prop::collection::vec(random_requests(), 1..4)) {
        let nodes: Vec<_> = view.nodes().iter().map(|node| {
            let mut as_node = heptad_model::Node::new(node.name.as_str(), node.capacity);
            as_node.status = node.status;
            as_node
        }).collect();
        let rows = |view: &NodesView| view.nodes().iter().map(|n| (n.name.clone(), n.allocation.clone())).collect();
        let mut rows: BTreeMap<NodeName, Allocation> = rows(&view);
        for requests in rounds {
            let view = NodesView::with_rows(&nodes, &rows, []);
            let (plan, _) = plan(&view, &requests);
            prop_assert_eq!(check(&view, &plan, &requests), []);
            rows.extend(plan.allocations().clone());
        }
        for (node, before) in nodes.iter().zip(view.nodes()) {
            // What was over-allocated before stays as it was; nothing else may become so.
            let most = before.allocation.resources.amounts().into_iter().zip(node.capacity.amounts());
            let most: Vec<u64> = most.map(|(before, capacity)| before.max(capacity)).collect();
            prop_assert!(rows[&node.name].resources.amounts().iter().zip(most).all(|(given, most)| *given <= most));
        }
    }

    #[test]
    fn same_input_same_bytes(view in random_view(), requests in random_requests()) {
        let bytes = || serde_json::to_vec(&plan(&view, &requests)).expect("plain data");
        prop_assert_eq!(bytes(), bytes());
    }

    #[test]
    fn the_chosen_node_is_the_best_of_all_feasible_ones(view in random_view(), requests in random_requests()) {
        let mut cluster = Cluster::new(&view);
        for request in &requests {
            let all: Vec<_> = cluster.candidates(request).collect();
            let refused = (0..view.nodes().len()).filter(|node| cluster.refuses(*node, request).is_some()).count();
            prop_assert_eq!(all.len() + refused, view.nodes().len());
            prop_assert!(all.iter().all(|c| view.nodes()[c.node].status == NodeStatus::Ready));
            let fewest = all.iter().map(|c| c.replicas).min();
            let rooms = all.iter().filter(|c| Some(c.replicas) == fewest).map(|c| (cluster.measure(&c.left), c.node));
            let rooms: Vec<_> = rooms.collect();
            let least = rooms.iter().min().map(|(_, node)| *node);
            let most = rooms.iter().min_by_key(|(room, node)| (std::cmp::Reverse(room), *node)).map(|(_, node)| *node);
            prop_assert_eq!(BestFitScheduler.choose(&cluster, request), least);
            prop_assert_eq!(SpreadScheduler.choose(&cluster, request), most);
            if let Some(node) = least {
                let _ = cluster.bind(node, request);
            }
        }
    }

    #[test]
    fn in_one_dimension_least_room_is_the_textbooks(sizes in prop::collection::vec(1u64..1 << 40, 1..9), asked in 1u64..1 << 40) {
        let names: Vec<String> = (0..sizes.len()).map(|i| format!("n{i}")).collect();
        let nodes: Vec<_> = names.iter().zip(&sizes)
            .map(|(name, size)| heptad_model::Node::new(name, ResourceVector::from_amounts([0, *size, 0, 0]))).collect();
        let view = NodesView::new(&nodes, []);
        let request = Request { resources: ResourceVector::from_amounts([0, asked, 0, 0]), ..request("x", "web", 0) };
        let best = (0..sizes.len()).filter(|i| sizes[*i] >= asked).min_by_key(|i| (sizes[*i], *i));
        prop_assert_eq!(BestFitScheduler.choose(&Cluster::new(&view), &request), best);
    }

    /// G7 for equal nodes and one resource: at most one used node is at or below half.
    #[test]
    fn packing_leaves_at_most_one_used_node_half_empty(sizes in prop::collection::vec(1u64..=100, 1..60)) {
        let names: Vec<String> = (0..60).map(|i| format!("n{i:02}")).collect();
        let nodes: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 100)).collect();
        let requests: Vec<Request> =
            sizes.iter().enumerate().map(|(i, size)| request(&format!("c{i}"), &format!("s{i}"), *size)).collect();
        let (plan, report) = plan(&view(&nodes), &requests);
        prop_assert_eq!(report, Report::default());
        let half = plan.allocations().values().filter(|row| row.resources.memory <= memory(50).memory).count();
        prop_assert!(half <= 1);
    }

    #[test]
    fn more_left_measures_more_and_nothing_overflows(view in random_view(), a in vector(1 << 50), b in vector(1 << 50)) {
        let cluster = Cluster::new(&view);
        let sum = a.checked_add(&b).expect("below 2^51");
        prop_assert!(cluster.measure(&sum) >= cluster.measure(&a));
        cluster.measure(&ResourceVector::from_amounts([u64::MAX; 4]));
    }
}
