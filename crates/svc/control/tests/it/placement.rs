//! Quotas, priorities and taints over the API: what is bound, who leaves, who comes.

use crate::common::{Agent, World, all_ready, node, service};
use heptad_api::operations::ContainerReport;
use heptad_model::{
    Container, CpuMillis, Event, Namespace, Node, NodeFault, NodeName, Port, Quota, ResourceVector, Service,
    StartFailure,
};
use serde_json::json;

fn of<'a>(all: &'a [Container], name: &str) -> Vec<&'a Container> {
    all.iter().filter(|c| c.service.name == name).collect()
}

fn with_cpu(name: &str, replicas: u32, cpu: u64) -> Service {
    let resources = ResourceVector { cpu_millis: CpuMillis(cpu), ..ResourceVector::ZERO };
    Service { resources: resources.into(), stop_grace_ms: 0, ..service(name, replicas) }
}

async fn reasons(world: &World) -> Vec<String> {
    world.client.list::<Event>().await.expect("a list").items.into_iter().map(|item| item.object.reason).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_bounds_containers_and_services_of_its_namespace() {
    let world = World::new().await;
    let _agent = Agent::start(&world.client, &node("n1", 8000, 8192)).await;
    let mut quota = Quota { name: "team".into(), containers: Some(2), services: Some(1), ..Quota::default() };
    world.client.create(&quota).await.expect("created");
    world.client.create(&with_cpu("web", 3, 10)).await.expect("the first service");
    let waits = |all: &[Container]| {
        let told = all.iter().filter(|c| c.node.is_none() && c.message.contains("quota team")).count();
        (all.len(), told) == (3, 1) && all.iter().filter(|c| c.ready).count() == 2
    };
    world.containers_until(waits).await;
    let refused = world.client.create(&with_cpu("other", 1, 10)).await.expect_err("one service too many");
    assert!(refused.to_string().contains("quota team"), "{refused}");
    (quota.containers, quota.services) = (Some(3), Some(2));
    world.client.replace(&quota, None).await.expect("raised");
    world.containers_until(all_ready(3)).await;
    world.client.create(&with_cpu("other", 1, 10)).await.expect("the second service");
    world.client.delete::<Quota>(&Namespace::default(), "team", None).await.expect("deleted");
    world.containers_until(all_ready(4)).await;
    world.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_higher_priority_takes_the_room_once_the_others_are_gone() {
    let world = World::new().await;
    let _agent = Agent::start(&world.client, &node("n1", 1000, 4096)).await;
    world.client.create(&with_cpu("low", 4, 250)).await.expect("created");
    world.containers_until(all_ready(4)).await;
    let vip = Service { priority: 10, ..with_cpu("vip", 1, 500) };
    world.client.create(&vip).await.expect("created");
    let settled = |all: &[Container]| {
        let (vip, low) = (of(all, "vip"), of(all, "low"));
        let waiting = low.iter().filter(|c| c.node.is_none()).count();
        vip.len() == 1 && vip[0].ready && low.iter().filter(|c| c.ready).count() == 2 && (low.len(), waiting) == (4, 2)
    };
    world.containers_until(settled).await;
    let snapshot = world.snapshot().await;
    assert!(snapshot.containers.iter().all(|c| c.reservation.is_none()), "nothing is kept any more");
    let reasons = reasons(&world).await;
    let count = |word: &str| reasons.iter().filter(|reason| *reason == word).count();
    assert_eq!((count("Preempted"), count("Preempting")), (2, 1), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taints_stop_what_does_not_bear_them_and_cordoned_nodes_take_nothing() {
    let world = World::new().await;
    let _agents = [
        Agent::start(&world.client, &node("n1", 4000, 4096)).await,
        Agent::start(&world.client, &node("n2", 4000, 4096)).await,
    ];
    world.client.create(&with_cpu("web", 2, 10)).await.expect("created");
    world.containers_until(all_ready(2)).await;
    let patch = json!({"taints": [{"key": "leaking", "effect": "NoExecute"}]});
    world.client.patch::<Node>(&Namespace::default(), "n1", &patch, None).await.expect("tainted");
    let on = |name: &str, all: &[Container]| {
        all_ready(2)(all) && all.iter().all(|c| c.node.as_ref() == Some(&NodeName::from(name)))
    };
    world.containers_until(|all| on("n2", all)).await;
    assert!(reasons(&world).await.contains(&"Evicted".to_owned()));
    world
        .client
        .patch::<Node>(&Namespace::default(), "n2", &json!({"unschedulable": true}), None)
        .await
        .expect("cordoned");
    world.client.create(&with_cpu("late", 1, 10)).await.expect("created");
    let waits = |all: &[Container]| of(all, "late").iter().any(|c| c.message.contains("1 cordoned, 1 taint leaking"));
    world.containers_until(waits).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_container_publishes_a_port_of_the_platforms_own() {
    let world = World::new().await;
    for (port, refused) in [(53, true), (7_443, true), (7_444, true), (15_001, true), (7_445, false)] {
        let ports = vec![Port { host_port: Some(port), ..Port::tcp(80) }];
        let web = Service { ports, ..service(&format!("web-{port}"), 1) };
        let created = world.client.create(&web).await;
        let words = created.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!(words.contains("ports[0].host_port"), refused, "{port}: {words}");
        assert_eq!(created.is_err(), refused, "{port}: {words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_cannot_start_goes_elsewhere_and_people_are_told() {
    let world = World::new().await;
    let (client, everywhere) = (&world.client, Namespace::default());
    client.replace(&node("n1", 4000, 4096), None).await.expect("registered");
    client.create(&with_cpu("web", 1, 10)).await.expect("created");
    let bound = world.containers_until(|all| all.iter().any(|c| c.node.is_some())).await.remove(0);
    let _agent = Agent::start(client, &node("n2", 4000, 4096)).await;
    let start_failure = Some(StartFailure { fault: NodeFault::DiskFull, tries: 3 });
    let reason = "StartFailed".to_owned();
    let report = ContainerReport { node: "n1".into(), start_failure, reason, ..ContainerReport::default() };
    client.report_container(&bound.id, &report).await.expect("heard");
    let conditions = json!([{"kind": "DiskPressure", "message": "the disk of /x fills up", "since_ms": 7}]);
    client.patch::<Node>(&everywhere, "n1", &json!({ "conditions": conditions }), None).await.expect("heard");
    world.containers_until(|all| all.iter().any(|c| c.id == bound.id && !c.is_alive())).await;
    client.delete_container(&bound.id, &"n1".into()).await.expect("gone");
    let moved = world.containers_until(all_ready(1)).await.remove(0);
    assert_eq!(moved.node, Some(NodeName::from("n2")));
    let why = client.why(&moved.service).await.expect("an answer");
    let told =
        why.events.iter().any(|one| one.event.message.contains("could not be started on node n1: its disk is full"));
    assert!(told, "{:#?}", why.events);

    // Nothing new is placed on it, and the report includes a remedy; once the condition is over, it takes containers
    // again.
    client
        .create(&Service { node_selector: [("x".into(), "y".into())].into(), ..with_cpu("late", 1, 10) })
        .await
        .expect("created");
    client.patch::<Node>(&everywhere, "n1", &json!({"labels": {"x": "y"}}), None).await.expect("labelled");
    let waits = |all: &[Container]| of(all, "late").iter().any(|c| c.message.contains("1 DiskPressure"));
    world.containers_until(waits).await;
    client.patch::<Node>(&everywhere, "n1", &json!({"conditions": []}), None).await.expect("heard");
    world.containers_until(|all| of(all, "late").iter().any(|c| c.node == Some("n1".into()))).await;
    let told = reasons(&world).await;
    assert!(["DiskPressure", "DiskPressureEnded"].iter().all(|word| told.iter().any(|one| one == word)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_says_why_its_node_won_and_one_without_what_would_help() {
    let world = World::new().await;
    let _agents = [
        Agent::start(&world.client, &node("n1", 4000, 4096)).await,
        Agent::start(&world.client, &node("n2", 2000, 4096)).await,
        Agent::start(&world.client, &node("n3", 100, 4096)).await,
    ];
    let web = with_cpu("web", 1, 500);
    world.client.create(&web).await.expect("created");
    let placed = world.containers_until(all_ready(1)).await.remove(0);
    assert_eq!(placed.node, Some(NodeName::from("n2")), "pack takes the fullest");
    let why = world.client.container_why(&placed.id).await.expect("an answer");
    let decision = why.containers[0].decision.as_ref().expect("it has a node");
    assert_eq!((decision.node.as_ref(), decision.nodes, decision.able), (placed.node.as_ref(), 3, 2));
    let lost: Vec<(&str, &str, &str)> = decision
        .lost
        .iter()
        .map(|lost| (lost.reason.as_str(), lost.examples[0].node.as_str(), lost.examples[0].text.as_str()))
        .collect();
    let cpu = "cpu: asked 500m, allocatable 100m, allocated 0, free 100m";
    assert_eq!(lost, [("more left", "n1", "would have more left than n2: +2 cpu"), ("cpu", "n3", cpu)]);
    let why = world.client.why(&web.key()).await.expect("an answer");
    let told = &why.placed[0];
    assert_eq!(
        (&told.container, Some(&told.node), told.best.as_ref()),
        (&placed.id, placed.node.as_ref(), placed.node.as_ref())
    );
    let absent = world.client.container_why(&"nobody".into()).await.expect_err("there is none");
    assert!(absent.is_not_found(), "{absent}");

    // Both request more than is left; the remedies apply to the planned state, not to the present one.
    let large = Service { priority: 1, ..with_cpu("large", 2, 3800) };
    let request = heptad_api::operations::ApplyRequest { objects: vec![heptad_api::Manifest::Service(large.clone())] };
    let plan = world.client.plan(&request).await.expect("a plan");
    assert_eq!((plan.unplaced[0].containers, plan.unplaced[0].asked.as_str()), (1, "cpu 3800m"));
    world.client.create(&large).await.expect("created");
    let waits = |all: &[Container]| {
        of(all, "large").iter().any(|c| c.ready) && of(all, "large").iter().any(|c| c.reason == "Unschedulable")
    };
    world.containers_until(waits).await;
    let why = world.client.why(&large.key()).await.expect("an answer");
    let unplaced = why.containers[0].unplaced.as_ref().expect("it has no node");
    let groups: Vec<_> = unplaced.groups.iter().map(|group| (group.reason.as_str(), group.nodes)).collect();
    assert_eq!(groups, [("cpu", 3)]);
    assert_eq!(unplaced.groups[0].examples[0].node.as_str(), "n2", "the one with the most left comes first");
    // A higher priority would also be that of its own replica on n1, so it would not help.
    let expected = [
        "lower cpu to 1500m (by 2300m) to fit node n2",
        "free 3600m of cpu on node n1",
        "add a node that can give cpu 3800m",
    ];
    assert_eq!(unplaced.remedies, expected);
    assert_eq!(plan.unplaced[0].remedies, expected);
}
