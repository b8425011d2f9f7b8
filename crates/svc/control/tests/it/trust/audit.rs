//! The audit log of a server: every call that could change something, and nothing secret.

use super::cluster::Cluster;
use crate::common::{node, service};
use heptad_api::trust::{JoinTokenRequest, Role, TokenRequest};
use heptad_model::{Namespace, Node, NodeName, Service};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mutating_call_has_its_line_and_no_secret_is_in_it() {
    let cluster = Cluster::new().await;
    let admin = cluster.admin();
    let made = admin
        .create_token(&TokenRequest { name: "alice".into(), role: Role::Viewer, ttl_ms: None })
        .await
        .expect("a token");
    let alice = cluster.person(&made.token);
    let join = cluster.token_for(JoinTokenRequest::default()).await;
    let n1 = cluster.join(&join, "n1").await.expect("it joins");
    n1.client.replace(&node("n1", 1_000, 1_024), None).await.expect("it registers");
    n1.client.heartbeat(&NodeName::from("n1")).await.expect("heard");
    let secretive =
        Service { environment: [("PASSWORD".to_owned(), "hunter2".to_owned())].into(), ..service("web", 0) };
    admin.create(&secretive).await.expect("made");
    assert!(alice.create(&service("x", 1)).await.is_err());
    assert!(alice.list::<Node>().await.is_ok());
    assert!(admin.delete::<Service>(&Namespace::default(), "none", None).await.is_err());
    cluster.operator.delete::<Service>(&Namespace::default(), "web", None).await.expect("deleted");
    assert!(cluster.join("bad", "n2").await.is_err());

    let text = std::fs::read_to_string(cluster.audit_file()).expect("the log");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            let kind = word(line, "principal");
            let who = format!("{}{}", word(line, "name"), kind.split('/').next().unwrap_or_default());
            format!("{who} {} {} {}", word(line, "method"), word(line, "path"), line["status"])
        })
        .collect();
    assert_eq!(
        told,
        [
            "adminperson POST /v1/tokens 200",
            "adminperson POST /v1/join-tokens 200",
            "anonymous POST /v1/join 200",
            "node PUT /v1/nodes/n1 200",
            "adminperson POST /v1/namespaces/default/services 200",
            "aliceperson POST /v1/namespaces/default/services 403",
            "adminperson DELETE /v1/namespaces/default/services/none 404",
            "operator DELETE /v1/namespaces/default/services/web 200",
        ]
    );
    assert!(
        lines.iter().all(|line| line["time"].is_string() && line["server"] == "s1" && line["duration_ms"].is_u64())
    );
    for secret in [&*cluster.made.admin_token.expose(), &made.token, &join, "hunter2", "BEGIN"] {
        let secret = secret.split_once('.').map_or(secret, |(_, secret)| secret);
        assert!(!text.contains(secret), "{secret}");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(cluster.audit_file()).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
}
