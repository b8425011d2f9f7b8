//! What rights do not permit: reading hidden values, taking places of other namespaces' containers, changing what
//! people set on a node.

use super::{cluster::Cluster, refusal};
use crate::common::{node, resources, service};
use heptad_api::{
    ErrorCode, Manifest,
    operations::{ApplyRequest, Outcome},
};
use heptad_client::Client;
use heptad_model::{Event, Namespace, Node, Quota, Secret, Service};
use serde_json::json;

fn secret(namespace: &str, value: &str) -> ApplyRequest {
    let secret = json!({ "name": "db", "namespace": namespace, "data": { "PASSWORD": value } });
    ApplyRequest { objects: vec![Manifest::Secret(serde_json::from_value(secret).expect("a secret"))] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_nothing_of_what_its_asker_may_not_read() {
    let cluster = Cluster::new().await;
    let (owner, stranger) = (cluster.with_role("deployer:shop").await, cluster.with_role("deployer:other").await);
    let viewer = cluster.with_role("viewer").await;
    owner.apply(&secret("shop", "right")).await.expect("applied");
    for asker in [&viewer, &stranger] {
        let said = async |request: &ApplyRequest| {
            let error = asker.plan(request).await.expect_err("it must be refused");
            (error.code(), error.to_string())
        };
        let right = said(&secret("shop", "right")).await;
        assert_eq!(right.0, Some(ErrorCode::Forbidden));
        assert_eq!(right, said(&secret("shop", "wrong")).await);
        // Nor whether there is one.
        assert_eq!(said(&secret("none", "right")).await.0, Some(ErrorCode::Forbidden));
        // Together with something harmless it is the same.
        let mut both = secret("shop", "right");
        both.objects.push(Manifest::Service(service("web", 1)));
        assert_eq!(said(&both).await, right);
        both.objects.remove(0);
        asker.plan(&both).await.expect("what may be read is planned");
    }
    let outcome = async |value: &str| {
        owner.plan(&secret("shop", value)).await.expect("who may write it knows").results[0].outcome
    };
    assert_eq!((outcome("right").await, outcome("wrong").await), (Outcome::Unchanged, Outcome::Updated));
}

fn of_priority(namespace: &str, name: &str, priority: i32) -> Service {
    Service { namespace: Namespace(namespace.into()), priority, ..service(name, 0) }
}

fn applied(service: Service) -> ApplyRequest {
    ApplyRequest { objects: vec![Manifest::Service(service)] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_that_evicts_others_is_an_administrators_to_give() {
    let cluster = Cluster::new().await;
    let (admin, deployer) = (cluster.admin(), cluster.with_role("deployer:shop").await);
    let shop = Namespace("shop".into());
    for priority in [1, 1_000_000_000] {
        let wanted = of_priority("shop", "web", priority);
        assert_eq!(refusal(deployer.create(&wanted).await), ErrorCode::Forbidden);
        assert_eq!(refusal(deployer.replace(&wanted, None).await), ErrorCode::Forbidden);
        assert_eq!(refusal(deployer.apply(&applied(wanted.clone())).await), ErrorCode::Forbidden);
        assert_eq!(refusal(deployer.plan(&applied(wanted)).await), ErrorCode::Forbidden);
    }
    deployer.create(&of_priority("shop", "low", -5)).await.expect("who gives way to others may");
    deployer.create(&of_priority("shop", "web", 0)).await.expect("as everybody");
    let raise = async |client: &Client, priority: i32| {
        client.patch::<Service>(&shop, "web", &json!({ "priority": priority }), None).await.map(drop)
    };
    assert_eq!(refusal(raise(&deployer, 7).await), ErrorCode::Forbidden);
    raise(&admin, 7).await.expect("an administrator may");
    let change = json!({ "environment": { "A": "1" } });
    deployer.patch::<Service>(&shop, "web", &change, None).await.expect("what stands may stay");
    assert_eq!(refusal(raise(&deployer, 8).await), ErrorCode::Forbidden);
    raise(&deployer, 0).await.expect("less may be had");

    // A quota permits it up to a bound, and then to everybody.
    let quota = Quota { name: "team".into(), namespace: shop.clone(), priority_max: Some(100), ..Quota::default() };
    assert_eq!(refusal(deployer.create(&quota).await), ErrorCode::Forbidden, "not its own");
    admin.create(&quota).await.expect("made");
    raise(&deployer, 100).await.expect("the quota permits it");
    assert_eq!(refusal(raise(&deployer, 101).await), ErrorCode::QuotaExceeded);
    assert_eq!(refusal(raise(&admin, 101).await), ErrorCode::QuotaExceeded);
    let elsewhere = cluster.with_role("deployer:other").await;
    assert_eq!(refusal(elsewhere.create(&of_priority("other", "web", 1)).await), ErrorCode::Forbidden);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_lift_its_quarantine_or_grow_by_its_own_word() {
    let cluster = Cluster::new().await;
    let (n1, admin) = (cluster.node("n1").await, cluster.admin());
    let everywhere = Namespace::default();
    let quarantine = json!({
        "unschedulable": true,
        "taints": [{ "key": "quarantine", "effect": "NoExecute" }],
        "labels": { "zone": "a" },
    });
    let before = admin.patch::<Node>(&everywhere, "n1", &quarantine, None).await.expect("set").object;
    let lies = [
        json!({ "unschedulable": false }),
        json!({ "taints": [] }),
        json!({ "address": "10.9.9.9:7444" }),
        json!({ "labels": { "zone": "b", "vault": "true" } }),
        json!({ "capacity": { "cpu_millis": "64", "memory": "1Ti" } }),
        json!({ "devices": { "gpu": 8 } }),
        json!({ "admitted": null, "capacity": { "memory": "1Ti" } }),
        json!({ "admitted": { "capacity": { "memory": "1Ti" } }, "capacity": { "memory": "1Ti" } }),
    ];
    for lie in &lies {
        let after = n1.client.patch::<Node>(&everywhere, "n1", lie, None).await.expect("heard").object;
        let decided = |node: &Node| (node.unschedulable, node.taints.clone(), node.address, node.labels.clone());
        assert_eq!(decided(&after), decided(&before), "{lie}");
        let most = before.capacity.amounts().map(|amount| amount + amount / 8);
        assert!(after.capacity.amounts().iter().zip(most).all(|(now, most)| *now <= most), "{lie}: {after:?}");
        assert!(after.devices.is_empty() && after.admitted == before.admitted, "{lie}: {after:?}");
    }
    let whole = Node { unschedulable: false, ..node("n1", 1_000, 1_024) };
    let after = n1.client.replace(&whole, None).await.expect("heard").object;
    assert!(after.unschedulable && after.taints == before.taints);

    // A machine that really grew: a person accepts that, after an event reported it.
    let grown = json!({ "capacity": resources(4_000, 8_192), "devices": { "gpu": 4 } });
    let told = n1.client.patch::<Node>(&everywhere, "n1", &grown, None).await.expect("heard").object;
    assert!(told.offered.is_some(), "{told:?}");
    let events = admin.list::<Event>().await.expect("listed").items;
    assert!(events.iter().any(|item| item.object.reason == "MoreThanAdmitted"), "{events:?}");
    assert_eq!(refusal(n1.client.admit_node(&"n1".into()).await), ErrorCode::Forbidden);
    let deployer = cluster.with_role("deployer:shop").await;
    assert_eq!(refusal(deployer.admit_node(&"n1".into()).await), ErrorCode::Forbidden);
    let admitted = admin.admit_node(&"n1".into()).await.expect("admitted").object;
    assert_eq!((admitted.capacity, admitted.devices["gpu"], &admitted.offered), (resources(4_000, 8_192), 4, &None));
    let again = n1.client.patch::<Node>(&everywhere, "n1", &grown, None).await.expect("heard").object;
    assert_eq!((again.capacity, again.devices["gpu"], again.offered), (resources(4_000, 8_192), 4, None));
}

/// Plans must not reveal secrets; nothing else of them leaks either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_event_or_error_has_a_value_of_a_secret() {
    let cluster = Cluster::new().await;
    let owner = cluster.with_role("deployer:shop").await;
    let said = [
        serde_json::to_string(&owner.apply(&secret("shop", "hunter2")).await.expect("applied")),
        serde_json::to_string(&owner.apply(&secret("shop", "hunter2")).await.expect("applied")),
        serde_json::to_string(&owner.plan(&secret("shop", "hunter3")).await.expect("planned")),
        serde_json::to_string(&owner.list::<Secret>().await.unwrap_or_else(|_| empty())),
        serde_json::to_string(&cluster.admin().list::<Secret>().await.expect("listed")),
        serde_json::to_string(&cluster.admin().list::<Event>().await.expect("listed")),
        serde_json::to_string(&cluster.admin().snapshot().await.expect("a snapshot")),
    ];
    for text in said {
        let text = text.expect("plain data");
        assert!(!text.contains("hunter"), "{text}");
    }
}

fn empty() -> heptad_api::List<Secret> {
    heptad_api::List { revision: 0, items: Vec::new(), next: None }
}
