//! Tokens of people: made, revoked, ended.

use super::{cluster::Cluster, refusal, said};
use heptad_api::{
    ErrorCode,
    trust::{Role, TokenRequest},
};
use heptad_model::Node;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_who_it_was_made_for_until_it_is_revoked() {
    let cluster = Cluster::new().await;
    let admin = cluster.admin();
    let request = TokenRequest { name: "alice".into(), role: Role::Viewer, ttl_ms: None };
    let made = admin.create_token(&request).await.expect("a token");
    assert!(made.info.created_by.contains("admin"), "{}", made.info.created_by);
    let alice = cluster.person(&made.token);
    let me = alice.whoami().await.expect("answered");
    assert_eq!((me.name.as_deref(), me.role), (Some("alice"), Some(Role::Viewer)));
    let listed = admin.tokens().await.expect("listed");
    assert_eq!(listed.len(), 2);
    assert!(!serde_json::to_string(&listed).expect("text").contains(made.token.split('.').nth(1).expect("a secret")));
    let mut watch = alice.watch::<Node>(None).await.expect("she watches");
    admin.delete_token(&made.info.id).await.expect("revoked");
    assert_eq!(refusal(alice.whoami().await), ErrorCode::Unauthorized, "at once");
    let ended = async { while watch.next().await.is_ok_and(|batch| batch.is_some()) {} };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the open watch ends");
    assert_eq!(refusal(admin.delete_token(&made.info.id).await), ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_and_nonsense_is_refused() {
    let cluster = Cluster::new().await;
    let admin = cluster.admin();
    let request = TokenRequest { name: "bob".into(), role: Role::Admin, ttl_ms: Some(1) };
    let made = admin.create_token(&request).await.expect("a token");
    tokio::time::sleep(Duration::from_millis(5)).await;
    let error = cluster.person(&made.token).whoami().await.expect_err("it has ended");
    assert!(said(&error).contains("has ended"), "{error}");
    let good = cluster.made.admin_token.expose();
    for bad in ["x", "", ".", &good[1..], &good.to_uppercase(), &format!("{}.{}", &good[..8], "b".repeat(32))] {
        assert_eq!(refusal(cluster.person(bad).whoami().await), ErrorCode::Unauthorized, "{bad}");
    }
    for (name, ttl_ms) in [("", None), ("x\n", None), ("x", Some(0))] {
        let request = TokenRequest { name: name.into(), role: Role::Viewer, ttl_ms };
        assert_eq!(refusal(admin.create_token(&request).await), ErrorCode::Invalid, "{name:?} {ttl_ms:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_administrator_stays() {
    let cluster = Cluster::new().await;
    let admin = cluster.admin();
    let first = cluster.made.admin_token.id();
    let fleeting = TokenRequest { name: "c".into(), role: Role::Admin, ttl_ms: Some(3_600_000) };
    admin.create_token(&fleeting).await.expect("a token");
    assert_eq!(refusal(admin.delete_token(first).await), ErrorCode::Conflict, "the other one ends by itself");
    let lasting = TokenRequest { name: "d".into(), role: Role::Admin, ttl_ms: None };
    admin.create_token(&lasting).await.expect("a token");
    admin.delete_token(first).await.expect("there is another");
}
