//! Plans made wrong on purpose: the check refuses every one, and judges as the committer's rows do.

use crate::{
    common::Draft,
    samples::{memory, random_requests, random_view, request},
};
use heptad_capacity::{Allocation, NodesView, Plan, Request};
use heptad_check::{Finding, RowPart, check};
use heptad_model::{ContainerId, Node, NodeName, NodeStatus, Protocol, ResourceVector};
use heptad_sched::{Cluster, Scheduler, plan, plan_with};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Two ready nodes (`a` with a container and a port from before), one that is not, and requests that all fit.
fn world() -> (NodesView, Vec<Request>) {
    let mut nodes = ["a", "b", "c"].map(|name| Node::new(name, memory(100)));
    nodes[2].status = NodeStatus::NotReady;
    let before = Allocation {
        resources: memory(50),
        host_ports: [(81, Protocol::Tcp)].into(),
        containers: ["old".into()].into(),
        ..Allocation::default()
    };
    let rows = [("a".into(), before)].into();
    let mut requests: Vec<Request> =
        [("1", 40), ("2", 50), ("3", 20)].into_iter().map(|(id, mib)| request(id, id, mib)).collect();
    requests[0].host_ports.insert((80, Protocol::Tcp));
    requests[2].host_ports.insert((80, Protocol::Tcp));
    (NodesView::with_rows(&nodes, &rows, []), requests)
}

fn row<'a>(draft: &'a mut Draft, node: &str) -> &'a mut Allocation {
    draft.allocations.get_mut(&NodeName::from(node)).expect("the node is touched")
}

/// What is found after `change` to a good plan and its requests.
fn found(change: impl FnOnce(&mut Draft, &mut Vec<Request>)) -> Vec<Finding> {
    let (view, mut requests) = world();
    let (plan, report) = plan(&view, &requests);
    assert_eq!(report.unplaced, []);
    let bound: Vec<_> = plan.bindings().values().map(NodeName::as_str).collect();
    assert_eq!(bound, ["a", "b", "b"]);
    assert_eq!(check(&view, &plan, &requests), []);
    let mut draft = Draft::of(&plan);
    change(&mut draft, &mut requests);
    check(&view, &draft.plan(), &requests)
}

fn is_found(change: impl FnOnce(&mut Draft, &mut Vec<Request>), what: impl Fn(&Finding) -> bool) {
    let found = found(change);
    assert!(found.iter().any(what), "{found:?}");
}

#[test]
fn wrong_bindings_are_found() {
    use Finding::*;
    let bind = |container: &'static str, node: &'static str| {
        move |draft: &mut Draft, _: &mut Vec<Request>| {
            draft.bindings.insert(container.into(), node.into());
        }
    };
    is_found(bind("stranger", "a"), |f| matches!(f, NotRequested { .. }));
    is_found(bind("old", "b"), |f| matches!(f, AlreadyBound { .. }));
    is_found(bind("1", "nowhere"), |f| matches!(f, UnknownNode { .. }));
    is_found(bind("1", "c"), |f| matches!(f, NodeNotReady { .. }));
    is_found(bind("2", "a"), |f| matches!(f, CapacityExceeded { .. }));
    is_found(bind("3", "a"), |f| matches!(f, HostPortTwice { .. }));
    is_found(
        |draft, _| {
            draft.bindings.remove(&ContainerId::from("2"));
        },
        |f| matches!(f, LeftOut { .. }),
    );
}

#[test]
fn wrong_rows_are_found() {
    use Finding::*;
    let part = |wanted: RowPart| move |f: &Finding| matches!(f, WrongRow { part, .. } if *part == wanted);
    let differ = |f: &Finding| matches!(f, RowsAndBindingsDiffer { .. });
    is_found(|draft, _| row(draft, "a").resources = memory(89), part(RowPart::Resources));
    is_found(|draft, _| row(draft, "b").host_ports.clear(), part(RowPart::HostPorts));
    is_found(|draft, _| _ = row(draft, "a").containers.pop_first(), part(RowPart::Containers));
    is_found(|draft, _| _ = row(draft, "a").containers.insert("ghost".into()), part(RowPart::Containers));
    is_found(|draft, _| _ = draft.allocations.pop_first(), differ);
    is_found(|draft, _| _ = draft.allocations.insert("c".into(), Allocation::default()), differ);
    is_found(|draft, _| _ = draft.allocations.insert("nowhere".into(), Allocation::default()), differ);
}

#[test]
fn requests_that_grew_after_the_plan_are_found() {
    is_found(|_, requests| requests[0].resources = memory(51), |f| matches!(f, Finding::CapacityExceeded { .. }));
    is_found(
        |_, requests| _ = requests[0].host_ports.insert((81, Protocol::Tcp)),
        |f| matches!(f, Finding::HostPortTwice { .. }),
    );
    let huge = ResourceVector::from_amounts([u64::MAX; 4]);
    is_found(
        |_, requests| requests.iter_mut().for_each(|request| request.resources = huge),
        |f| matches!(f, Finding::CapacityExceeded { .. }),
    );
}

#[test]
fn who_asks_nothing_of_what_is_exceeded_is_left_out_wrongly() {
    let exceeded = Allocation { resources: memory(200), ..Allocation::default() };
    let view = NodesView::with_rows(&[Node::new("a", memory(100))], &[("a".into(), exceeded)].into(), []);
    let requests = [request("1", "x", 0), request("2", "y", 1)];
    let left = |container: &str| Finding::LeftOut { container: container.into(), node: "a".into() };
    assert_eq!(check(&view, &Plan::default(), &requests), [left("1")]);
    assert_eq!(check(&view, &plan(&view, &requests).0, &requests), []);
}

#[test]
fn findings_say_what_is_wrong() {
    let texts: Vec<String> = found(|draft, _| _ = draft.bindings.insert("2".into(), "a".into()))
        .into_iter()
        .map(|finding| finding.to_string())
        .collect();
    assert_eq!(texts[0], "node a: memory 140Mi given, capacity 100Mi");
}

/// A scheduler that always says the same node.
#[derive(Debug)]
struct Stubborn(usize);

impl Scheduler for Stubborn {
    fn choose(&self, cluster: &Cluster<'_>, _: &Request) -> Option<usize> {
        (self.0 < cluster.nodes().len()).then_some(self.0)
    }
}

/// A plan that binds every request to the node that `choice` says, asking nobody.
fn careless(view: &NodesView, requests: &[Request], choice: &[usize]) -> Plan {
    let mut draft = Draft::of(&Plan::default());
    for (request, node) in requests.iter().zip(choice) {
        let node = &view.nodes()[node % view.nodes().len()];
        if draft.bindings.insert(request.container.clone(), node.name.clone()).is_some() {
            return Plan::default();
        }
        let row = draft.allocations.entry(node.name.clone()).or_insert_with(|| node.allocation.clone());
        row.resources = row.resources.checked_add(&request.resources).expect("samples are small");
        row.host_ports.extend(&request.host_ports);
        row.containers.insert(request.container.clone());
    }
    draft.plan()
}

/// Whether the committer's rows would take all bindings, one after the other.
fn committable(view: &NodesView, plan: &Plan, requests: &[Request]) -> bool {
    let mut cluster = Cluster::new(view);
    let mut asked = requests.iter().filter_map(|request| Some((request, plan.bindings().get(&request.container)?)));
    asked.all(|(request, node)| view.index(node).is_some_and(|node| cluster.bind(node, request).is_ok()))
}

proptest! {
    #[test]
    fn the_check_and_the_rows_agree_on_careless_plans(
        view in random_view().prop_filter("some node", |view| !view.nodes().is_empty()),
        requests in random_requests(), choice in prop::collection::vec(0usize..7, 0..8),
    ) {
        let plan = careless(&view, &requests, &choice);
        let bound: Vec<Request> =
            requests.iter().filter(|r| plan.bindings().contains_key(&r.container)).cloned().collect();
        let unique: BTreeSet<_> = bound.iter().map(|request| &request.container).collect();
        prop_assume!(unique.len() == bound.len());
        prop_assert_eq!(check(&view, &plan, &bound).is_empty(), committable(&view, &plan, &bound));
    }

    #[test]
    fn a_scheduler_that_does_not_look_cannot_exceed_a_capacity(
        view in random_view(), requests in random_requests(), node in 0usize..7,
    ) {
        let (plan, _) = plan_with(&view, &requests, &Stubborn(node));
        let found = check(&view, &plan, &requests);
        prop_assert!(found.iter().all(|finding| matches!(finding, Finding::LeftOut { .. })), "{found:?}");
    }

    #[test]
    fn a_binding_moved_without_its_rows_is_found(view in random_view(), requests in random_requests(), pick: prop::sample::Index, to: prop::sample::Index) {
        let (plan, _) = plan(&view, &requests);
        prop_assume!(!plan.is_empty());
        let mut draft = Draft::of(&plan);
        let (container, from) = draft.bindings.iter().nth(pick.index(draft.bindings.len())).map(|(c, n)| (c.clone(), n.clone())).expect("it is within");
        let to = view.nodes()[to.index(view.nodes().len())].name.clone();
        prop_assume!(from != to);
        draft.bindings.insert(container, to);
        prop_assert!(!check(&view, &draft.plan(), &requests).is_empty());
    }
}
