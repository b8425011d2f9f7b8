//! Joining, renewing, and being removed.

use super::{cluster::Cluster, refusal, said};
use crate::common::until;
use heptad_api::{
    ErrorCode, Object,
    trust::{JoinRole, JoinTokenRequest},
};
use heptad_control::Trust;
use heptad_model::{Namespace, Node, NodeName};
use heptad_pki::{KeyPair, Keyring};
use std::time::Duration;

async fn node(cluster: &Cluster, name: &str) -> Object<Node> {
    cluster.operator.get(&Namespace::default(), name).await.expect("it is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_joins_with_one_token_and_is_that_node() {
    let cluster = Cluster::new().await;
    let made = cluster.admin().create_join_token(&JoinTokenRequest::default()).await.expect("a join token");
    assert_eq!(made.ca_pin, cluster.made.ca_pin.to_string());
    assert_eq!(made.urls, ["https://127.0.0.1:7443"]);
    let joined = cluster.join(&made.token, "n1").await.expect("it joins");
    assert_eq!(joined.client.whoami().await.expect("answered").principal, "node/n1");
    assert_eq!((joined.answer.keyring, joined.answer.settings), (None, None), "a node gets no keyring");
    assert_eq!(joined.answer.cluster.servers[0].name, "s1");
    let row = node(&cluster, "n1").await.object;
    assert_eq!(row.key_sha256.as_deref(), Some(joined.key.sha256().as_str()));
    assert_eq!(row.address.map(|a| a.to_string()).as_deref(), Some("10.0.0.2:7444"));
    // It says what it has, and cannot give itself another key.
    let mut own = crate::common::node("n1", 1_000, 1_024);
    own.key_sha256 = Some("another".to_owned());
    joined.client.replace(&own, None).await.expect("it registers");
    let row = node(&cluster, "n1").await.object;
    assert_eq!(row.key_sha256.as_deref(), Some(joined.key.sha256().as_str()));
    assert_eq!((row.capacity, row.address.is_some()), (own.capacity, true));
    joined.client.heartbeat(&NodeName::from("n1")).await.expect("it is heard");
    let infos = cluster.admin().join_tokens().await.expect("listed");
    assert_eq!((infos[0].uses_left, infos[0].used_by.as_slice()), (0, &["n1".to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_used_up_ended_wrong_or_for_another_is_refused() {
    let cluster = Cluster::new().await;
    let one = JoinTokenRequest::default();
    let token = cluster.token_for(one.clone()).await;
    cluster.join(&token, "n1").await.expect("the first joins");
    let error = cluster.join(&token, "n2").await.map(|_| ()).expect_err("used up");
    assert!(said(&error).contains("used up"), "{error}");
    let wrong = token.chars().rev().collect::<String>();
    for bad in ["", "x", &wrong, &format!("{}.{}", &token[..8], "a".repeat(32))] {
        assert_eq!(refusal(cluster.join(bad, "n3").await.map(|_| ())), ErrorCode::Unauthorized, "{bad}");
    }
    let short = cluster.token_for(JoinTokenRequest { ttl_ms: 1, ..one.clone() }).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let error = cluster.join(&short, "n3").await.map(|_| ()).expect_err("it has ended");
    assert!(said(&error).contains("has ended"), "{error}");
    let token = cluster.token_for(one.clone()).await;
    let key = KeyPair::generate().expect("a key");
    let as_server = cluster.join_as(&token, "s9", JoinRole::Server, key).await.map(|_| ());
    assert_eq!(refusal(as_server), ErrorCode::Forbidden, "a node's token makes no server");
    assert_eq!(refusal(cluster.join(&token, "N 3").await.map(|_| ())), ErrorCode::BadRequest);
    assert_eq!(refusal(cluster.join(&token, "n1").await.map(|_| ())), ErrorCode::AlreadyExists);
    let id = &token[..8];
    cluster.admin().delete_join_token(id).await.expect("deleted");
    assert_eq!(refusal(cluster.join(&token, "n3").await.map(|_| ())), ErrorCode::Unauthorized);
    for (uses, ttl_ms, name) in [(0, 1, None), (1, 0, None), (1, u64::MAX, None), (1, 1, Some("A B"))] {
        let request = JoinTokenRequest { uses, ttl_ms, name: name.map(str::to_owned), ..one.clone() };
        assert_eq!(refusal(cluster.admin().create_join_token(&request).await), ErrorCode::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_use_a_token_as_often_as_it_says() {
    let cluster = Cluster::new().await;
    let token = cluster.token_for(JoinTokenRequest { uses: 5, ..JoinTokenRequest::default() }).await;
    let names: Vec<String> = (0..12).map(|i| format!("n{i}")).collect();
    let joins = names.iter().map(|name| cluster.join(&token, name));
    let done = futures_util::future::join_all(joins).await;
    assert_eq!(done.iter().filter(|joined| joined.is_ok()).count(), 5);
    let nodes = cluster.operator.list::<Node>().await.expect("listed").items;
    assert_eq!(nodes.len(), 5, "who was refused left nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_without_another_use() {
    let cluster = Cluster::new().await;
    let token = cluster.token_for(JoinTokenRequest::default()).await;
    let first = cluster.join(&token, "n1").await.expect("it joins");
    let pem = first.key.to_pem();
    let again = KeyPair::from_pem(&pem).expect("the same key");
    let again = cluster.join_as(&token, "n1", JoinRole::Node, again).await.expect("it is answered again");
    assert!(again.client.whoami().await.is_ok());
    // Once removed, it is not admitted again by a token that it has used up.
    cluster.admin().delete::<Node>(&Namespace::default(), "n1", None).await.expect("removed");
    let key = KeyPair::from_pem(&pem).expect("the same key");
    assert!(cluster.join_as(&token, "n1", JoinRole::Node, key).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_name_replaces_the_machine_of_that_name() {
    let cluster = Cluster::new().await;
    let old = cluster.node("n1").await;
    let named = JoinTokenRequest { name: Some("n1".to_owned()), ..JoinTokenRequest::default() };
    let token = cluster.token_for(named).await;
    assert_eq!(refusal(cluster.join(&token, "n2").await.map(|_| ())), ErrorCode::Forbidden);
    let new = cluster.join(&token, "n1").await.expect("it replaces the old one");
    assert!(new.client.whoami().await.is_ok());
    assert_eq!(refusal(old.client.whoami().await), ErrorCode::NodeRemoved);
    assert_eq!(node(&cluster, "n1").await.object.capacity.cpu_millis.0, 1_000, "the rest stayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_refused_at_once_also_on_open_connections() {
    let cluster = Cluster::new().await;
    // Once through this server, and once behind its back, as another server would do it.
    for (name, through) in [("n1", true), ("n2", false)] {
        let joined = cluster.node(name).await;
        let mut watch = joined.client.watch::<Node>(None).await.expect("it watches");
        if through {
            cluster.admin().delete::<Node>(&Namespace::default(), name, None).await.expect("removed");
            assert_eq!(refusal(joined.client.whoami().await), ErrorCode::NodeRemoved, "at once");
        } else {
            let objects = cluster.control.objects();
            objects.delete::<Node>(&Namespace::default(), name, None).await.expect("removed");
        }
        let ended = async { while watch.next().await.is_ok_and(|batch| batch.is_some()) {} };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the open watch is cut");
        until("requests are refused", || async { joined.client.whoami().await.is_err() }).await;
        assert_eq!(refusal(joined.client.whoami().await), ErrorCode::NodeRemoved);
        let error = joined.client.replace(&crate::common::node(name, 1, 1), None).await.expect_err("it is gone");
        assert!(said(&error).contains("join again"), "{error}");
        let csr = joined.key.csr_pem().expect("a request");
        assert_eq!(refusal(joined.client.renew_certificate(&csr).await), ErrorCode::NodeRemoved);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_for_the_same_key_only() {
    let cluster = Cluster::new().await;
    let joined = cluster.node("n1").await;
    let renewed = joined.client.renew_certificate(&joined.key.csr_pem().expect("a request")).await.expect("renewed");
    assert_ne!(renewed.certificate_pem, joined.answer.certificate_pem);
    let client = cluster.certified(&renewed.certificate_pem, &renewed.trust_bundle_pem, &joined.key);
    assert_eq!(client.whoami().await.expect("answered").principal, "node/n1");
    let other = KeyPair::generate().expect("a key");
    let asked = other.csr_pem_asking_for("spiffe://cluster.local/server/s1").expect("a request");
    assert_eq!(refusal(joined.client.renew_certificate(&asked).await), ErrorCode::Forbidden);
    let asked = joined.key.csr_pem_asking_for("spiffe://cluster.local/server/s1").expect("a request");
    let renewed = joined.client.renew_certificate(&asked).await.expect("it gets what it is");
    let client = cluster.certified(&renewed.certificate_pem, &renewed.trust_bundle_pem, &joined.key);
    assert_eq!(client.whoami().await.expect("answered").principal, "node/n1", "not what it asked for");
    assert_eq!(refusal(joined.client.renew_certificate("nonsense").await), ErrorCode::BadRequest);
    assert_eq!(refusal(cluster.stranger().renew_certificate(&asked).await), ErrorCode::Unauthorized);
    assert_eq!(refusal(cluster.admin().renew_certificate(&asked).await), ErrorCode::Forbidden);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_gets_the_keyring_and_what_it_needs_besides() {
    let cluster = Cluster::new().await;
    let token = cluster.token_for(JoinTokenRequest { role: JoinRole::Server, ..JoinTokenRequest::default() }).await;
    let key = KeyPair::generate().expect("a key");
    let joined = cluster.join_as(&token, "s2", JoinRole::Server, key).await.expect("it joins");
    assert_eq!(joined.client.whoami().await.expect("answered").principal, "server/s2");
    let keyring = Keyring::from_json(joined.answer.keyring.expect("a keyring").as_bytes()).expect("it is one");
    assert!(Trust::open(cluster.store.clone(), keyring, Default::default()).await.is_ok(), "it opens the CA's key");
    assert_eq!(joined.answer.settings.expect("settings")["etcd"][0], "https://10.0.0.9:2379");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_once_and_opened_with_its_own_keyring() {
    let cluster = Cluster::new().await;
    let again = Trust::initialize(&*cluster.store, &cluster.keyring, &Default::default()).await;
    assert_eq!(again.expect_err("it is there").code(), ErrorCode::AlreadyExists);
    let foreign = Keyring::generate().expect("a keyring");
    let error = Trust::open(cluster.store.clone(), foreign, Default::default()).await.expect_err("another's keyring");
    assert!(error.to_string().contains("keyring"), "{error}");
    let rows = heptad_state::StoreExt::list(&*cluster.store, "/trust/").await.expect("listed").0;
    let all: String = rows.iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect();
    let secret = cluster.made.admin_token.expose();
    assert!(!all.contains(secret.split('.').nth(1).expect("a secret")) && !all.contains("PRIVATE"));
    assert!(all.contains(&cluster.made.admin_token.hash()));
}
