//! Which requests are refused to which callers, over the real API.

use super::{cluster::Cluster, refusal, said};
use crate::common::{node, running, service};
use heptad_api::{
    ErrorCode, ProblemDetails, endpoints,
    operations::{ApplyRequest, ExecRequest},
    trust::{Role, TokenRequest},
};
use heptad_client::Client;
use heptad_control::Peer;
use heptad_model::{
    Container, DesiredState, Event, EventKind, Namespace, NetworkPolicy, Node, NodeName, Service, ServiceKey,
};
use heptad_pki::{PeerIdentity, SpiffeId};
use serde_json::json;
use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

async fn containers(client: &Client) -> Vec<Container> {
    client.list::<Container>().await.expect("listed").items.into_iter().map(|item| item.object).collect()
}

/// Two nodes with a container each.
async fn two_nodes(cluster: &Cluster) -> (super::cluster::Joined, super::cluster::Joined, Container, Container) {
    let (n1, n2) = (cluster.node("n1").await, cluster.node("n2").await);
    let mut pair = service("web", 2);
    pair.resources = crate::common::resources(600, 64).into();
    cluster.admin().create(&pair).await.expect("made");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let all = containers(&cluster.operator).await;
        let on = |name: &str| all.iter().find(|c| c.node.as_ref() == Some(&NodeName::from(name))).cloned();
        if let (Some(first), Some(second)) = (on("n1"), on("n2")) {
            return (n1, n2, first, second);
        }
        assert!(Instant::now() < deadline, "still {all:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn event(subject: &str) -> Event {
    Event {
        id: String::new(),
        at_ms: 0,
        kind: EventKind::Normal,
        reason: "Test".into(),
        subject: subject.into(),
        message: "x".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_writes_only_itself_and_what_is_bound_to_it() {
    let cluster = Cluster::new().await;
    let (n1, _n2, own, other) = two_nodes(&cluster).await;
    let client = &n1.client;
    let (me, them) = (NodeName::from("n1"), NodeName::from("n2"));
    client.report_container(&own.id, &running(&me)).await.expect("its own");
    for report in [running(&me), running(&them)] {
        assert_eq!(refusal(client.report_container(&other.id, &report).await), ErrorCode::Forbidden);
    }
    // Nor its own under another's name.
    assert!(client.report_container(&own.id, &running(&them)).await.is_err());
    for node in [&me, &them] {
        assert_eq!(refusal(client.delete_container(&other.id, node).await), ErrorCode::Forbidden);
    }
    let gone = client.delete_container(&"web-none".into(), &me).await;
    assert_eq!(refusal(gone), ErrorCode::NotFound, "what is gone is gone, not forbidden");
    assert_eq!(refusal(client.heartbeat(&them).await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.replace(&node("n2", 1, 1), None).await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.create(&node("n3", 1, 1)).await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.delete::<Node>(&Namespace::default(), "n1", None).await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.create(&service("x", 1)).await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.apply(&ApplyRequest::default()).await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.snapshot().await), ErrorCode::Forbidden);
    assert_eq!(refusal(client.tokens().await), ErrorCode::Forbidden);
    let request = ExecRequest { command: vec!["sh".into()], stdin: Default::default(), timeout_ms: 1 };
    assert_eq!(refusal(client.exec(&own.id, &request).await), ErrorCode::Forbidden);
    for (subject, permitted) in [
        ("node/n1".to_owned(), true),
        (format!("container/{}", own.id), true),
        ("node/n2".to_owned(), false),
        (format!("container/{}", other.id), false),
        ("service/default/web".to_owned(), false),
    ] {
        assert_eq!(client.create_event(&event(&subject)).await.is_ok(), permitted, "{subject}");
    }
    // What its proxy needs.
    assert!(client.list::<Service>().await.is_ok() && client.list::<Node>().await.is_ok());
    assert_eq!(containers(client).await.len(), 2);
    // Stopped and gone: its own only.
    cluster.admin().delete::<Service>(&Namespace::default(), "web", None).await.expect("deleted");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !containers(client).await.iter().all(|c| c.desired == DesiredState::Stopped) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.delete_container(&own.id, &me).await.expect("its own is gone");
}

/// The refusal of a request with this token, or none, by curl.
fn refused_with(cluster: &Cluster, token: Option<&str>, method: &str, path: &str) -> Option<ErrorCode> {
    let address = cluster.control.tls().expect("it listens on TLS");
    let mut curl = Command::new("curl");
    curl.args(["-ksS", "--max-time", "5", "-w", "\n%{http_code}", &format!("https://{address}{path}")]);
    match method {
        "HEAD" => curl.arg("-I"),
        "GET" => curl.arg("-G"),
        _ => curl.args(["-X", method, "-d", "{}"]),
    };
    if let Some(token) = token {
        curl.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let output = curl.output().expect("this test needs curl: apt-get install curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    match status {
        "000" => panic!("curl: {}", String::from_utf8_lossy(&output.stderr)),
        "401" => Some(ErrorCode::Unauthorized),
        "403" => Some(ErrorCode::Forbidden),
        _ => serde_json::from_str::<ProblemDetails>(body).ok().map(|problem| problem.code),
    }
}

/// Every operation of the table, by method and path.
fn sweep(cluster: &Cluster, token: Option<&str>) -> Vec<(String, Option<ErrorCode>)> {
    let all = endpoints::all().into_iter().map(|endpoint| {
        let path = endpoint.path.replace("{namespace}", "default").replace(['{', '}'], "");
        let path = if endpoint.operation == "delete_container" { format!("{path}?node=n1") } else { path };
        let code = refused_with(cluster, token, endpoint.method, &path);
        (format!("{} {}", endpoint.method, endpoint.path), code)
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_viewers_are_refused_whatever_the_table_has() {
    let cluster = Cluster::new().await;
    for (asked, code) in sweep(&cluster, None) {
        let open = asked.starts_with("GET /v1/health") || asked == "POST /v1/join";
        assert_eq!(code == Some(ErrorCode::Unauthorized), !open, "{asked}: {code:?}");
    }
    let request = TokenRequest { name: "v".into(), role: Role::Viewer, ttl_ms: None };
    let viewer = cluster.admin().create_token(&request).await.expect("a token").token;
    for (asked, code) in sweep(&cluster, Some(&viewer)) {
        let changes = !asked.starts_with("GET") && !asked.starts_with("HEAD");
        let harmless = ["POST /v1/plan", "POST /v1/mesh/check"].contains(&asked.as_str());
        // What is looked up first may not be there.
        let absent = asked.contains("/v1/containers/{id}") && code == Some(ErrorCode::NotFound);
        if changes && !harmless && !absent {
            assert_eq!(code, Some(ErrorCode::Forbidden), "{asked}");
        }
    }
    for (asked, code) in sweep(&cluster, Some(&cluster.made.admin_token.expose())) {
        assert_ne!(code, Some(ErrorCode::Unauthorized), "{asked}");
        assert!(code != Some(ErrorCode::Forbidden) || asked == "POST /v1/certificates", "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployer_stays_in_one_namespace() {
    let cluster = Cluster::new().await;
    let deployer = cluster.with_role("deployer:shop").await;
    let of = |namespace: &str, name: &str| Service { namespace: namespace.into(), ..service(name, 1) };
    deployer.create(&of("shop", "web")).await.expect("its own");
    assert_eq!(refusal(deployer.create(&of("other", "web")).await), ErrorCode::Forbidden);
    let apply = |services: &[Service]| ApplyRequest {
        objects: services.iter().cloned().map(heptad_api::Manifest::Service).collect(),
    };
    deployer.apply(&apply(&[of("shop", "a"), of("shop", "b")])).await.expect("its own");
    let mixed = apply(&[of("shop", "c"), of("other", "d")]);
    assert_eq!(refusal(deployer.apply(&mixed).await), ErrorCode::Forbidden);
    assert!(deployer.get::<Service>(&"shop".into(), "c").await.is_err(), "nothing of it was applied");
    let viewer = cluster.with_role("viewer").await;
    assert_eq!(refusal(viewer.apply(&apply(&[of("shop", "e")])).await), ErrorCode::Forbidden);
    assert_eq!(refusal(viewer.apply(&ApplyRequest::default()).await), ErrorCode::Forbidden);
    viewer.plan(&apply(&[of("shop", "e")])).await.expect("a plan changes nothing");
    assert_eq!(refusal(deployer.create(&node("n9", 1, 1)).await), ErrorCode::Forbidden);
    let more = TokenRequest { name: "me".into(), role: "admin".parse().expect("a role"), ttl_ms: None };
    assert_eq!(refusal(deployer.create_token(&more).await), ErrorCode::Forbidden, "nobody lifts himself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployers_network_policies_reach_no_other_namespace() {
    let cluster = Cluster::new().await;
    let deployer = cluster.with_role("deployer:shop").await;
    let policy = |name: &str, selects: Option<&str>| -> NetworkPolicy {
        let selector = selects.map_or(json!({}), |namespace| json!({ "namespace": namespace }));
        let value = json!({ "name": name, "namespace": "shop", "selector": selector, "ingress": [] });
        serde_json::from_value(value).expect("a policy")
    };
    deployer.create(&policy("own", None)).await.expect("its own");
    deployer.create(&policy("same", Some("shop"))).await.expect("its own, said twice");
    assert_eq!(refusal(deployer.create(&policy("x", Some("other"))).await), ErrorCode::Forbidden);
    assert_eq!(refusal(deployer.replace(&policy("own", Some("other")), None).await), ErrorCode::Forbidden);
    let patch = json!({ "selector": { "namespace": "other" } });
    let shop = Namespace::from("shop");
    assert_eq!(refusal(deployer.patch::<NetworkPolicy>(&shop, "own", &patch, None).await), ErrorCode::Forbidden);
    let apply = |policy| ApplyRequest { objects: vec![heptad_api::Manifest::Policy(policy)] };
    assert_eq!(refusal(deployer.apply(&apply(policy("own", Some("other")))).await), ErrorCode::Forbidden);
    // A policy that an administrator made reaches further, and a deployer may not change it.
    cluster.admin().create(&policy("wide", Some("other"))).await.expect("an administrator's");
    let open = json!({ "ingress": null });
    assert_eq!(refusal(deployer.patch::<NetworkPolicy>(&shop, "wide", &open, None).await), ErrorCode::Forbidden);
    assert_eq!(refusal(deployer.delete::<NetworkPolicy>(&shop, "wide", None).await), ErrorCode::Forbidden);
    assert_eq!(refusal(deployer.apply(&apply(policy("wide", None))).await), ErrorCode::Forbidden);
    deployer.delete::<NetworkPolicy>(&shop, "own", None).await.expect("its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_belongs_to_the_first_service_that_has_it() {
    let cluster = Cluster::new().await;
    let (admin, deployer) = (cluster.admin(), cluster.with_role("deployer:aaa").await);
    let with_host = |namespace: &str, name: &str, host: Option<&str>| {
        let expose = host.map(|host| heptad_model::Expose { host: host.to_owned(), port: Some(80) });
        let ports = vec![heptad_model::Port::tcp(80)];
        Service { namespace: namespace.into(), expose, ports, ..service(name, 0) }
    };
    let apply = |objects: Vec<Service>| ApplyRequest {
        objects: objects.into_iter().map(heptad_api::Manifest::Service).collect(),
    };
    let host = Some("shop.example.com");
    admin.create(&with_host("shop", "web", host)).await.expect("the first has it");
    deployer.create(&with_host("aaa", "zz", None)).await.expect("its own");
    let patch = json!({ "expose": { "host": "shop.example.com", "port": 80 } });
    let ways = [
        deployer.patch::<Service>(&"aaa".into(), "zz", &patch, None).await.err(),
        deployer.create(&with_host("aaa", "new", host)).await.err(),
        deployer.replace(&with_host("aaa", "zz", host), None).await.err(),
        deployer.apply(&apply(vec![with_host("aaa", "zz", host)])).await.err(),
        admin.create(&with_host("other", "zz", host)).await.err(),
    ];
    for (at, error) in ways.into_iter().enumerate() {
        let error = error.expect("refused");
        assert_eq!(error.code(), Some(ErrorCode::Conflict), "{at}: {error}");
        assert!(!said(&error).contains("shop/web"), "{at}: {error}");
    }
    // Whoever may write both services moves the host at once; its owner changes other fields, and gives it back.
    let moved = vec![with_host("aaa", "zz", host), with_host("shop", "web", None)];
    assert_eq!(refusal(deployer.apply(&apply(moved.clone())).await), ErrorCode::Forbidden);
    admin.apply(&apply(moved)).await.expect("moved");
    deployer
        .patch::<Service>(&"aaa".into(), "zz", &json!({ "replicas": 0, "labels": { "a": "b" } }), None)
        .await
        .expect("its own");
    assert_eq!(refusal(admin.create(&with_host("shop", "next", host)).await), ErrorCode::Conflict);
    deployer.delete::<Service>(&"aaa".into(), "zz", None).await.expect("its own");
    admin.create(&with_host("shop", "next", host)).await.expect("it is free");
    // Many at once: one gets it.
    let racing = (0..8).map(|number| {
        let (admin, service) = (admin.clone(), with_host("shop", &format!("r{number}"), Some("race.example.com")));
        tokio::spawn(async move { admin.create(&service).await.is_ok() })
    });
    let mut won = 0;
    for one in racing.collect::<Vec<_>>() {
        won += usize::from(one.await.expect("no panic"));
    }
    assert_eq!(won, 1);
}

fn identity(id: SpiffeId, trust_domain: &str, key_sha256: &str, not_after_ms: u64) -> Peer {
    let (trust_domain, key_sha256) = (trust_domain.to_owned(), key_sha256.to_owned());
    Peer::Tls(Some(Arc::new(PeerIdentity { id, trust_domain, key_sha256, not_after_ms })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_must_be_of_this_cluster_of_this_time_and_of_this_key() {
    let cluster = Cluster::new().await;
    let n1 = cluster.node("n1").await;
    let key = n1.key.sha256();
    let (node, late) = (SpiffeId::Node("n1".into()), u64::MAX);
    let whoami = |peer| {
        let client = cluster.as_peer(peer);
        async move { client.whoami().await }
    };
    let good = whoami(identity(node.clone(), "cluster.local", &key, late)).await.expect("it is n1");
    assert_eq!(good.principal, "node/n1");
    for (peer, code) in [
        (identity(node.clone(), "other.local", &key, late), ErrorCode::Unauthorized),
        (identity(node.clone(), "cluster.local", &key, 1), ErrorCode::Unauthorized),
        (identity(node.clone(), "cluster.local", "other", late), ErrorCode::NodeRemoved),
        (identity(SpiffeId::Node("n7".into()), "cluster.local", &key, late), ErrorCode::NodeRemoved),
        (identity(SpiffeId::Service(ServiceKey::new("a", "b")), "cluster.local", &key, late), ErrorCode::Forbidden),
    ] {
        let shown = format!("{peer:?}");
        // A connection with an ended certificate is closed before or after it is answered.
        let result = whoami(peer).await.expect_err("refused");
        assert!(result.code().is_none_or(|c| c == code), "{shown}: {result}");
    }
}
