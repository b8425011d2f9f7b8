//! G7 on the real planner: what it does is the step relation of `spec/G7_anyfit.v`, and the bounds proved there hold of it.
//! Every container is of a service of its own, because replicas of one service are spread on purpose.

use crate::common::{Amounts, given, node, request, service};
use heptad_capacity::{Allocation, NodesView, Request};
use heptad_model::{Node, NodeName};
use heptad_sched::plan;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Rows = BTreeMap<NodeName, Allocation>;

/// What was placed, step by step.
struct Run {
    nodes: Vec<Node>,
    rows: Rows,
}

/// One step of a placer: the request, the node that it chose, and the rows before.
struct Step<'a> {
    nodes: &'a [Node],
    before: &'a Rows,
    asks: Amounts,
    chosen: &'a NodeName,
}

impl Step<'_> {
    fn room(&self, node: &Node) -> Amounts {
        let given = given(self.before, &node.name);
        std::array::from_fn(|k| node.capacity.amounts()[k] - given[k])
    }

    /// `fits` of the model.
    fn fits(&self, node: &Node) -> bool {
        self.room(node).iter().zip(self.asks).all(|(room, asked)| asked <= *room)
    }

    fn is_used(&self, name: &NodeName) -> bool {
        self.before.contains_key(name)
    }

    fn chosen(&self) -> &Node {
        self.nodes.iter().find(|node| node.name == *self.chosen).expect("it was chosen among them")
    }

    /// `any_fit` of the model: an unused node is opened only if no used node takes the container.
    fn is_any_fit(&self) -> bool {
        self.fits(self.chosen())
            && (self.is_used(self.chosen) || !self.nodes.iter().any(|node| self.is_used(&node.name) && self.fits(node)))
    }

    /// `best_fit` of the model, of one resource: no node that takes the container has less room.
    fn is_best_fit(&self, k: usize) -> bool {
        let least = self.nodes.iter().filter(|node| self.fits(node)).map(|node| self.room(node)[k]).min();
        self.fits(self.chosen()) && least == Some(self.room(self.chosen())[k])
    }
}

/// Places one container after the other, all in one plan, and shows each step; what has no room is left out.
fn run(
    nodes: Vec<Node>,
    items: &[Amounts],
    mut judge: impl FnMut(&Step<'_>) -> Result<(), TestCaseError>,
) -> Result<Run, TestCaseError> {
    let requests: Vec<Request> = items
        .iter()
        .enumerate()
        .map(|(i, asks)| request(&format!("c{i:03}"), &service(&format!("s{i:03}"), *asks)))
        .collect();
    let (plan, report) = plan(&NodesView::new(&nodes, []), &requests);
    let mut rows = Rows::new();
    for (request, asks) in requests.iter().zip(items) {
        let Some(chosen) = plan.bindings().get(&request.container) else { continue };
        judge(&Step { nodes: &nodes, before: &rows, asks: *asks, chosen })?;
        let capacity = nodes.iter().find(|node| node.name == *chosen).map(|node| node.capacity).expect("it is there");
        rows.entry(chosen.clone()).or_default().bind(&capacity, request).expect("the plan fits");
    }
    prop_assert_eq!(&rows, plan.allocations());
    prop_assert!(
        report.unplaced.iter().map(|unplaced| unplaced.containers.len()).sum::<usize>() + plan.bindings().len()
            == items.len()
    );
    Ok(Run { nodes, rows })
}

impl Run {
    /// The used nodes: what each has, and what it gave.
    fn used(&self) -> Vec<(Amounts, Amounts)> {
        let used = self.nodes.iter().filter(|node| self.rows.contains_key(&node.name));
        used.map(|node| (node.capacity.amounts(), given(&self.rows, &node.name))).collect()
    }
}

fn nodes_of(capacities: &[Amounts]) -> Vec<Node> {
    capacities.iter().enumerate().map(|(i, capacity)| node(&format!("n{i:03}"), *capacity)).collect()
}

/// The sum over used nodes and the first `d` resources of given / capacity, as a fraction.
fn shares(used: &[(Amounts, Amounts)], d: usize) -> (u128, u128) {
    let whole: u128 =
        used.iter().flat_map(|(capacity, _)| &capacity[..d]).map(|c| u128::from(*c)).fold(1, least_common);
    let share = |(capacity, given): &(Amounts, Amounts)| {
        (0..d).map(|k| u128::from(given[k]) * (whole / u128::from(capacity[k]))).sum::<u128>()
    };
    (used.iter().map(share).sum(), whole)
}

fn least_common(a: u128, b: u128) -> u128 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// So many of the resources; the others are not asked and not there.
fn only(d: usize, amounts: Amounts) -> Amounts {
    std::array::from_fn(|k| if k < d { amounts[k] } else { 0 })
}

proptest! {
    /// `any_fit_equal_nodes` and `any_fit_equal_nodes_one_half_empty`.
    #[test]
    fn one_resource_equal_nodes(capacity in 1u64..200, items in prop::collection::vec(1u64..=200, 1..60)) {
        let items: Vec<Amounts> = items.into_iter().map(|asked| [0, asked.min(capacity), 0, 0]).collect();
        let run = run(nodes_of(&[[0, capacity, 0, 0]; 60]), &items, |step| {
            prop_assert!(step.is_any_fit() && step.is_best_fit(1));
            Ok(())
        })?;
        let used = run.used();
        let half_empty = used.iter().filter(|(_, given)| 2 * given[1] <= capacity).count();
        prop_assert!(half_empty <= 1);
        let total: u64 = used.iter().map(|(_, given)| given[1]).sum();
        prop_assert!(used.len() < 2 || 2 * total > used.len() as u64 * capacity);
    }

    /// `any_fit_d_resources` and `least_room_is_any_fit`, for each d that the model of resources has.
    #[test]
    fn d_resources_equal_nodes(
        d in 1usize..=4, capacity in prop::array::uniform4(1u64..40),
        items in prop::collection::vec(prop::array::uniform4(0u64..40), 1..50),
    ) {
        let items: Vec<Amounts> = items.into_iter()
            .map(|item| only(d, std::array::from_fn(|k| item[k].min(capacity[k]))))
            .filter(|item| *item != [0; 4]).collect();
        let run = run(nodes_of(&[only(d, capacity); 50]), &items, |step| {
            prop_assert!(step.is_any_fit());
            Ok(())
        })?;
        let used = run.used();
        let half_empty = used.iter().filter(|node| {
            let (sum, whole) = shares(std::slice::from_ref(node), d);
            2 * sum <= whole
        });
        prop_assert!(half_empty.count() <= 1);
        // The mean over nodes and resources, sum / (whole * n * d), is above 1 / (2 d).
        let (sum, whole) = shares(&used, d);
        prop_assert!(used.len() < 2 || 2 * sum > whole * used.len() as u128);
    }

    /// `best_fit_one_half_empty_per_capacity` and `best_fit_unequal_nodes`.
    #[test]
    fn one_resource_unequal_nodes(
        sizes in prop::collection::vec(1u64..60, 2..12), items in prop::collection::vec(1u64..60, 1..50),
    ) {
        let nodes = nodes_of(&sizes.iter().map(|size| [0, *size, 0, 0]).collect::<Vec<_>>());
        let items: Vec<Amounts> = items.into_iter().map(|asked| [0, asked, 0, 0]).collect();
        let run = run(nodes, &items, |step| {
            prop_assert!(step.is_best_fit(1));
            Ok(())
        })?;
        let used = run.used();
        for size in &sizes {
            let half_empty = used.iter().filter(|(capacity, given)| capacity[1] == *size && 2 * given[1] <= *size);
            prop_assert!(half_empty.count() <= 1, "of capacity {size}");
        }
        let (least, most) = (*sizes.iter().min().expect("some"), *sizes.iter().max().expect("some"));
        let total = |of: fn(&(Amounts, Amounts)) -> u64| used.iter().map(of).sum::<u64>();
        let (capacity, given) = (total(|(capacity, _)| capacity[1]), total(|(_, given)| given[1]));
        prop_assert!(used.len() < 2 || least * capacity < 2 * most * given);
    }

    /// Nodes of which every container that may be on one may be on all: the bound holds of each such class by itself.
    #[test]
    fn the_bound_holds_of_each_class(items in prop::collection::vec((1u64..=50, 0usize..3), 1..60)) {
        let nodes: Vec<Node> = (0..60).map(|i| {
            let mut node = node(&format!("n{i:03}"), [0, 50, 0, 0]);
            node.labels.insert("pool".into(), (i % 3).to_string());
            node
        }).collect();
        let services: Vec<_> = items.iter().enumerate().map(|(i, (asked, pool))| {
            let mut service = service(&format!("s{i:03}"), [0, *asked, 0, 0]);
            service.node_selector.insert("pool".into(), pool.to_string());
            service
        }).collect();
        let requests: Vec<Request> = services.iter().map(|service| request(&service.name, service)).collect();
        let view = NodesView::new(&nodes, []).with_services(&services);
        let (plan, report) = plan(&view, &requests);
        prop_assert!(report.repeated.is_empty());
        for pool in ["0", "1", "2"] {
            let class = nodes.iter().filter(|node| node.labels["pool"] == pool);
            let given: Vec<u64> = class.filter_map(|node| Some(plan.allocations().get(&node.name)?.resources.amounts()[1])).collect();
            prop_assert!(given.iter().filter(|given| **given <= 25).count() <= 1);
            prop_assert!(given.len() < 2 || 2 * given.iter().sum::<u64>() > 50 * given.len() as u64);
        }
    }
}

#[test]
fn the_bound_of_d_resources_is_tight() {
    // As `any_fit_d_resources_tight`: h + 1 of 2h of the first resource, nothing of the others.
    let (h, n) = (1_000, 20);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let steps = |step: &Step<'_>| {
        prop_assert!(step.is_any_fit());
        Ok(())
    };
    runner
        .run(&Just(()), |()| {
            let run = run(nodes_of(&[[2 * h; 4]; 20]), &vec![[h + 1, 0, 0, 0]; n], steps)?;
            let used = run.used();
            prop_assert_eq!(used.len(), n);
            let (sum, whole) = shares(&used, 4);
            // Above 1/8 by one part in h, and no more.
            prop_assert_eq!(sum * 2 * u128::from(h), whole * n as u128 * (u128::from(h) + 1));
            Ok(())
        })
        .expect("it holds");
}

/// What decides between a used node and an unused one is exact: one byte of a very large node counts, whatever the names are.
#[test]
fn a_byte_of_a_large_node_counts() {
    for d in 0..4 {
        let nodes = nodes_of(&[[1 << 50; 4]; 3]);
        let one: Amounts = std::array::from_fn(|k| u64::from(k == d));
        let mut rows = Rows::new();
        let first = request("old", &service("old", one));
        rows.entry(nodes[2].name.clone()).or_default().bind(&nodes[2].capacity, &first).expect("it fits");
        let view = NodesView::with_rows(&nodes, &rows, []);
        let (plan, _) = plan(&view, &[request("new", &service("new", one))]);
        assert_eq!(plan.bindings().values().collect::<Vec<_>>(), [&nodes[2].name], "dimension {d}");
    }
}
