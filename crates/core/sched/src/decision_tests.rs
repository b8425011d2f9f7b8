//! Why a node wins: what people read, and against the scheduler on random small worlds.

use super::*;
use crate::samples::{memory, random_requests, random_view, request};
use heptad_capacity::NodesView;
use heptad_model::{Container, Node, NodeStatus, Service};
use proptest::prelude::*;

/// `a` is full, `b` and `e` have room, `c` has a replica already, `d` is not ready.
fn world() -> NodesView {
    let mut nodes = ["a", "b", "c", "d", "e"].map(|name| Node::new(name, memory(100)));
    nodes[3].status = NodeStatus::NotReady;
    let mut containers = Vec::new();
    for (i, (service, mib, node)) in
        [("other", 90, "a"), ("other", 40, "b"), ("web", 30, "c"), ("other", 20, "e")].into_iter().enumerate()
    {
        let service = Service { resources: memory(mib).into(), ..Service::new(service, "host") };
        let mut container = Container::pending(format!("c{i}").into(), &service, 0);
        container.node = Some(node.into());
        containers.push(container);
    }
    NodesView::new(&nodes, &containers)
}

#[test]
fn the_winner_and_each_loser_are_compared_in_words() {
    let view = world();
    let made = decision(&Cluster::new(&view), &request("web-2", "web", 30));
    let text = "\
web-2 goes to node b: it has the fewest replicas of web; of these, pack takes the node that would have the least left
  1 x more replicas of web
    c: 1 replica of web there, no replica on b
  1 x more left
    e: would have more left than b: +20Mi memory
  1 x memory
    a: memory: asked 30Mi, allocatable 100Mi, allocated 90Mi, free 10Mi
  1 x not ready
    d: it is not ready (status NotReady)";
    assert_eq!(made.to_string(), text);
    assert_eq!((made.nodes, made.able), (5, 3));
    let spread = Request { placement: Placement::Spread, ..request("web-2", "web", 30) };
    let made = decision(&Cluster::new(&view), &spread);
    assert_eq!(made.winner.as_ref().map(|winner| winner.node.as_str()), Some("e"));
    let lost = &made.losers[1];
    assert_eq!(made.loss(lost), "less left");
    assert_eq!(made.compared(&lost.loss, &lost.examples[0]), "would have less left than e: -20Mi memory");
}

#[test]
fn a_thousand_nodes_are_a_few_lines_with_the_nearest_as_examples() {
    let nodes: Vec<Node> = (0..1000).map(|i| Node::new(&format!("n{i:03}"), memory(10 + i % 7))).collect();
    let made = decision(&Cluster::new(&NodesView::new(&nodes, [])), &request("x", "web", 20));
    assert_eq!((made.winner.is_none(), made.able, made.losers.len()), (true, 0, 1));
    assert_eq!((made.losers[0].nodes, made.losers[0].examples.len()), (1000, EXAMPLES_MAX));
    assert_eq!(made.losers[0].examples[0].node().as_str(), "n006", "the one with the most free comes first");
    assert_eq!(made.because(), "no node can take it");
    let made = decision(&Cluster::new(&NodesView::new(&nodes[..1], [])), &request("x", "web", 1));
    assert_eq!(made.because(), "it is the only node");
}

proptest! {
    #[test]
    fn every_node_is_counted_once_and_the_winner_is_the_schedulers(
        view in random_view(), requests in random_requests(),
    ) {
        let cluster = Cluster::new(&view);
        for request in &requests {
            let made = decision(&cluster, request);
            let chosen = ByPlacement.choose(&cluster, request).map(|node| view.nodes()[node].name.clone());
            prop_assert_eq!(made.winner.as_ref().map(|winner| winner.node.clone()), chosen);
            let lost: u32 = made.losers.iter().map(|losers| losers.nodes).sum();
            prop_assert_eq!((lost + u32::from(made.winner.is_some())) as usize, view.nodes().len());
            for (losers, loser) in made.losers.iter().flat_map(|l| l.examples.iter().map(move |e| (l, e))) {
                let Some(winner) = &made.winner else { break };
                let Loser::Able(standing) = loser else { continue };
                // The reason that is told is true: it is the first key that differs.
                let keys = |s: &Standing| (s.unwished, s.replicas, cluster.measure(&s.left));
                let (here, there) = (keys(standing), keys(winner));
                prop_assert!(match losers.loss {
                    Loss::Wishes => here.0 > there.0,
                    Loss::Replicas => here.0 == there.0 && here.1 > there.1,
                    Loss::Room => (here.0, here.1) == (there.0, there.1) && match request.placement {
                        Placement::Pack => here.2 > there.2,
                        Placement::Spread => here.2 < there.2,
                    },
                    Loss::Name => here == there && standing.node > winner.node,
                    Loss::Refused { .. } => false,
                }, "{}", made);
            }
        }
    }
}
