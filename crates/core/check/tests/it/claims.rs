//! The founding theory's claims where they are false: the smallest cases, on the real planner, so that the conditions of
//! GUARANTEES.md can be seen. Each has its counterpart in `spec/`.

use crate::common::{Amounts, given, memory, node, placed, request, service, waiting};
use heptad_capacity::{NodesView, Request};
use heptad_check::check;
use heptad_model::{Container, Node, Service};
use heptad_sched::plan;

fn nodes(sizes: &[u64]) -> Vec<Node> {
    sizes.iter().enumerate().map(|(i, size)| node(&format!("n{i}"), memory(*size))).collect()
}

/// Requests of services of their own.
fn requests(sizes: &[u64]) -> Vec<Request> {
    let alone = |(i, size): (usize, &u64)| request(&format!("c{i}"), &service(&format!("s{i}"), memory(*size)));
    sizes.iter().enumerate().map(alone).collect()
}

/// What each node gives after a plan for containers of those sizes.
fn loads(nodes: &[Node], sizes: &[u64]) -> Vec<u64> {
    let view = NodesView::new(nodes, []);
    let requests = requests(sizes);
    let (plan, _) = plan(&view, &requests);
    assert_eq!(check(&view, &plan, &requests), []);
    nodes.iter().map(|node| given(plan.allocations(), &node.name)[1]).collect()
}

/// Whether some assignment places all: every one is tried.
fn fits_at_all(free: &mut [u64], sizes: &[u64]) -> bool {
    let Some((first, rest)) = sizes.split_first() else { return true };
    (0..free.len()).any(|node| {
        if free[node] < *first {
            return false;
        }
        free[node] -= first;
        let fits = fits_at_all(free, rest);
        free[node] += first;
        fits
    })
}

/// "Least fragmentation is optimal." 6 and 5 are free; 3, 3 and 5 are asked; all fit, and best-fit leaves one out.
#[test]
fn least_fragmentation_misses_a_packing() {
    let (nodes, sizes) = (nodes(&[6, 5]), [3, 3, 5]);
    assert!(fits_at_all(&mut [6, 5], &sizes));
    assert_eq!(loads(&nodes, &sizes), [3, 3]);
    // In another order it finds it: it is the order that misleads, which no greedy rule can know.
    assert_eq!(loads(&nodes, &[5, 3, 3]), [6, 5]);
}

/// "The linear program gives the optimal schedule." Two nodes of 3 have room for three containers of 2 only if one is cut.
#[test]
fn the_relaxation_places_what_cannot_be_placed() {
    let (free, sizes) = ([3, 3], [2, 2, 2]);
    assert!(sizes.iter().sum::<u64>() <= free.iter().sum());
    assert!(!fits_at_all(&mut free.clone(), &sizes));
    assert_eq!(loads(&nodes(&free), &sizes), [2, 2]);
}

/// "Best-fit uses more than half." Not of unequal nodes: 11 of 110, which is above C_min / (2 C_max) = 1/20.
#[test]
fn unequal_nodes_may_be_nearly_empty() {
    let nodes = nodes(&[10, 100]);
    assert_eq!(loads(&nodes, &[6, 5]), [6, 5]);
}

/// Best-fit over all nodes is not any-fit where nodes are unequal: it opens the small one though the large one has room.
#[test]
fn best_fit_opens_a_small_node_before_it_fills_a_large_one() {
    let nodes = nodes(&[10, 100]);
    assert_eq!(loads(&nodes, &[11, 1]), [1, 11]);
}

/// Departures: two equal nodes filled by 1 and 9 each, both 9 leave, and a tenth is used. They could be merged.
#[test]
fn departures_leave_nodes_nearly_empty() {
    let nodes = nodes(&[10, 10]);
    assert_eq!(loads(&nodes, &[1, 9, 1, 9]), [10, 10]);
    let small = service("small", memory(1));
    let left: Vec<Container> = [placed("a", &small, "n0"), placed("b", &small, "n1")].into();
    let view = NodesView::new(&nodes, &left);
    let used: Vec<u64> = view.nodes().iter().map(|node| node.allocation.resources.amounts()[1]).collect();
    assert_eq!(used, [1, 1]);
    assert!(used.iter().sum::<u64>() <= 10, "one node would do: no two used nodes that can merge is the condition");
}

/// "The node with the lowest utilisation" is worst-fit: with it every one of n nodes is opened by n small containers.
#[test]
fn worst_fit_opens_every_node() {
    let nodes = nodes(&[10; 8]);
    let view = NodesView::new(&nodes, []);
    let mut spread = requests(&[1; 8]);
    spread.iter_mut().for_each(|request| request.placement = heptad_model::Placement::Spread);
    assert_eq!(plan(&view, &spread).0.allocations().len(), 8);
    assert_eq!(plan(&view, &requests(&[1; 8])).0.allocations().len(), 1);
}

/// Replicas of one service are kept apart on purpose, so packing is any-fit across services only.
#[test]
fn replicas_of_one_service_are_no_case_of_any_fit() {
    let nodes = nodes(&[100, 100]);
    let web: Service = service("web", memory(10));
    let replicas: Vec<Request> =
        ["a", "b"].map(|id| Request::of(&waiting(id, &web), heptad_model::Placement::Pack)).into();
    let (plan, _) = plan(&NodesView::new(&nodes, []), &replicas);
    assert_eq!(plan.allocations().len(), 2);
}

/// With one used node there is no bound: it may hold next to nothing.
#[test]
fn one_used_node_may_be_nearly_empty() {
    assert_eq!(loads(&nodes(&[100, 100]), &[1]), [1, 0]);
}

/// With d resources half of each is too much to ask: here 3/8 of the whole is used and no third container fits.
#[test]
fn half_of_every_resource_is_not_promised() {
    let nodes = [node("n0", [4; 4]), node("n1", [4; 4])];
    let asks: [Amounts; 2] = [[3, 1, 1, 1], [3, 1, 1, 1]];
    let requests: Vec<Request> =
        asks.iter().enumerate().map(|(i, asks)| request(&format!("c{i}"), &service(&format!("s{i}"), *asks))).collect();
    let (plan, _) = plan(&NodesView::new(&nodes, []), &requests);
    assert_eq!(plan.allocations().len(), 2);
    let total: u64 = plan.allocations().values().flat_map(|row| row.resources.amounts()).sum();
    assert_eq!(total * 8, 3 * 32);
}
