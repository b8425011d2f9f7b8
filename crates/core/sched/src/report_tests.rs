//! What people read when something has no node, and that the remedies help.

use super::*;
use crate::{
    plan,
    samples::{memory, random_requests, random_view, request},
};
use heptad_capacity::Allocation;
use heptad_model::{Node, NodeStatus, Protocol};
use proptest::prelude::*;

fn world() -> NodesView {
    let mut nodes = ["a", "b", "c", "d"].map(|name| Node::new(name, memory(100)));
    nodes[2].status = NodeStatus::NotReady;
    let row = |mib: u64, ports: &[u16]| Allocation {
        resources: memory(mib),
        host_ports: ports.iter().map(|port| (*port, Protocol::Tcp)).collect(),
        ..Allocation::default()
    };
    let rows = [
        ("a".into(), row(82, &[])),
        ("b".into(), row(90, &[])),
        ("c".into(), row(99, &[])),
        ("d".into(), row(0, &[80])),
    ];
    NodesView::with_rows(&nodes, &rows.into(), [])
}

#[test]
fn every_node_is_named_with_its_first_obstacle_and_the_smallest_changes() {
    let mut asked = request("web-1", "web", 30);
    asked.host_ports.insert((80, Protocol::Tcp));
    let mut other = asked.clone();
    other.container = "web-2".into();
    let (_, report) = plan(&world(), &[asked, other]);
    let text = "\
2 containers have no node for service default/web (each asks memory 30Mi, host port 80/TCP)
  node a: memory: asked 30Mi, allocatable 100Mi, allocated 82Mi, free 18Mi
  node b: memory: asked 30Mi, allocatable 100Mi, allocated 90Mi, free 10Mi
  node c: it is not ready (status NotReady)
  node d: host port 80/TCP is taken
  to fit: free host port 80/TCP on node d
  or: lower memory to 18Mi (by 12Mi) to fit node a
  or: free 12Mi of memory on node a";
    assert_eq!(report.to_string(), text);
    let summary = "all 4 nodes refuse: 1 host port 80, 2 memory, 1 not ready; free host port 80/TCP on node d, \
                   or lower memory to 18Mi (by 12Mi) to fit node a, or free 12Mi of memory on node a";
    assert_eq!(report.unplaced[0].summary(), summary);
}

#[test]
fn no_node_at_all_or_none_large_enough_asks_for_one() {
    let unplaced = explain(&NodesView::default(), &request("x", "web", 30)).expect("there is no node");
    assert_eq!(unplaced.summary(), "there is no node; add a node that can give memory 30Mi");
    let full = NodesView::with_rows(
        &[Node::new("a", memory(10))],
        &[("a".into(), Allocation { resources: memory(10), ..Default::default() })].into(),
        [],
    );
    let unplaced = explain(&full, &request("x", "web", 30)).expect("it is full and too small");
    assert_eq!(unplaced.summary(), "the only node refuses: memory; add a node that can give memory 30Mi");
    assert_eq!(explain(&full, &request("x", "web", 0)), None);
}

#[test]
fn a_node_that_only_is_not_ready_is_the_easiest_remedy() {
    let mut node = Node::new("a", memory(100));
    node.status = NodeStatus::Unknown;
    let unplaced = explain(&NodesView::new(&[node], []), &request("x", "web", 30)).expect("none is ready");
    assert_eq!(unplaced.remedies, [Remedy::MakeReady { node: "a".into() }]);
    assert_eq!(unplaced.refusals[0].to_string(), "node a: it is not ready (status Unknown)");
}

/// The view after a remedy, and what is asked then.
fn after(view: &NodesView, request: &Request, remedy: &Remedy) -> (NodesView, Request) {
    let mut request = request.clone();
    let less = |amount: &ResourceVector, shortfalls: &[Shortfall]| {
        let mut amounts = amount.amounts();
        shortfalls.iter().for_each(|s| amounts[s.dimension as usize] -= s.by);
        ResourceVector::from_amounts(amounts)
    };
    let mut nodes = Vec::new();
    let mut rows = BTreeMap::new();
    for at in view.nodes() {
        let mut node = Node::new(at.name.as_str(), at.capacity);
        node.status = at.status;
        let mut row = at.allocation.clone();
        match remedy {
            Remedy::MakeReady { node: name } if *name == at.name => node.status = NodeStatus::Ready,
            Remedy::FreeHostPorts { node: name, ports } if *name == at.name => {
                row.host_ports.retain(|p| !ports.contains(p))
            }
            Remedy::FreeResources { node: name, shortfalls } if *name == at.name => {
                row.resources = less(&row.resources, shortfalls);
            }
            Remedy::LowerRequest { node: name, shortfalls, .. } if *name == at.name => {
                request.resources = less(&request.resources, shortfalls);
            }
            _ => {}
        }
        nodes.push(node);
        rows.insert(at.name.clone(), row);
    }
    if let Remedy::AddNode { resources, .. } = remedy {
        nodes.push(Node::new("new", *resources));
    }
    (NodesView::with_rows(&nodes, &rows, []), request)
}

proptest! {
    #[test]
    fn every_remedy_helps(view in random_view(), requests in random_requests()) {
        for request in &requests {
            let Some(unplaced) = explain(&view, request) else { continue };
            prop_assert!(!unplaced.remedies.is_empty());
            for remedy in &unplaced.remedies {
                let (view, request) = after(&view, request, remedy);
                prop_assert_eq!(explain(&view, &request), None, "{} does not help", remedy);
            }
        }
    }
}
