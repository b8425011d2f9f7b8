//! Which server is asked, when another one is, and what is never sent twice.

use crate::support::{Mood, cluster};
use bytes::Bytes;
use heptad_api::ErrorCode;
use heptad_client::{Body, Error, Options};
use heptad_model::NodeName;
use std::time::Duration;

#[tokio::test]
async fn a_client_stays_with_the_server_that_answers() {
    let (servers, client) = cluster([Mood::Down, Mood::Well, Mood::Well]);
    for _ in 0..3 {
        assert_eq!(client.version().await.expect("b answers").version, "b");
    }
    servers.set("a", Mood::Well);
    assert_eq!(client.version().await.expect("b answers").version, "b", "it does not go back without need");
    servers.set("b", Mood::Down);
    assert_eq!(client.version().await.expect("c answers").version, "c");
    assert_eq!(client.address(), "c");
}

#[tokio::test]
async fn reads_go_on_elsewhere_whatever_happens_to_a_server() {
    for mood in [Mood::Down, Mood::Hangs, Mood::Dies, Mood::Refuses(ErrorCode::Unavailable)] {
        let (_, client) = cluster([mood, mood, Mood::Well]);
        assert_eq!(client.version().await.unwrap_or_else(|error| panic!("{mood:?}: {error}")).version, "c");
    }
}

#[tokio::test]
async fn the_only_server_is_asked_again_if_it_is_replaced_meanwhile() {
    let (servers, client) = cluster([Mood::IsReplaced, Mood::Down, Mood::Down]);
    let client = client.only("a");
    assert_eq!(client.version().await.expect("its successor answers").version, "a");
    assert_eq!(servers.heard().len(), 2);
    // What may have been done is not repeated, and the client gives up at some point.
    servers.set("a", Mood::IsReplaced);
    let fresh = client.only("a");
    fresh.heartbeat(&NodeName("n1".to_owned())).await.expect_err("nobody knows what became of it");
    servers.set("a", Mood::Dies);
    servers.heard();
    client.only("a").version().await.expect_err("it always closes");
    assert!(servers.heard().len() <= 3);
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_costs_little_while_there_is_another() {
    const LONG_MS: u64 = 600_000;
    let (_, client) = cluster([Mood::Mute, Mood::Well, Mood::Well]);
    let patient = Options {
        connect_timeout_ms: LONG_MS,
        silence_ms_max: LONG_MS,
        connect_silence_ms_max: 20,
        ..Options::default()
    };
    let client = client.with_options(patient);
    // For a read and for a write: nothing was sent.
    let asked = async {
        assert_eq!(client.only("b").version().await.expect("it answers").version, "b");
        client.heartbeat(&NodeName("n1".to_owned())).await.expect("b hears it");
        client.version().await.expect("b answers").version
    };
    assert_eq!(tokio::time::timeout(Duration::from_millis(LONG_MS / 10), asked).await.expect("soon"), "b");
}

#[tokio::test]
async fn writes_that_may_have_been_done_are_not_sent_again() {
    let node = NodeName("n1".to_owned());
    let (servers, client) = cluster([Mood::Dies, Mood::Well, Mood::Well]);
    let error = client.heartbeat(&node).await.expect_err("nobody knows what became of it");
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(servers.heard(), ["a POST /v1/nodes/n1/heartbeat"]);
    client.heartbeat(&node).await.expect("the next one goes to another server");
    assert_eq!(servers.heard(), ["b POST /v1/nodes/n1/heartbeat"]);

    let (servers, client) = cluster([Mood::Refuses(ErrorCode::Unavailable), Mood::Well, Mood::Well]);
    let error = client.heartbeat(&node).await.expect_err("it may have been done");
    assert_eq!(error.code(), Some(ErrorCode::Unavailable));
    assert_eq!(servers.heard().len(), 1);
    client.heartbeat(&node).await.expect("b takes it");
}

#[tokio::test]
async fn writes_that_surely_were_not_done_are_sent_to_the_next_server() {
    let node = NodeName("n1".to_owned());
    for mood in [Mood::Down, Mood::Refuses(ErrorCode::NotLeader)] {
        let (_, client) = cluster([mood, Mood::Well, Mood::Well]);
        client.heartbeat(&node).await.unwrap_or_else(|error| panic!("{mood:?}: {error}"));
        assert_eq!(client.address(), "b");
    }
}

#[tokio::test]
async fn a_streamed_body_survives_servers_that_cannot_be_reached() {
    let (servers, client) = cluster([Mood::Down, Mood::Down, Mood::Well]);
    let body = || {
        let chunks = ["ab", "cd"].map(|text| Ok(Bytes::from(text)));
        Body::stream(futures_util::stream::iter(chunks))
    };
    let stored: serde_json::Value = client.storage_put("bucket", "key", body(), Some(4)).await.expect("c stores it");
    assert_eq!(stored["bytes"], 4, "the whole body arrived");
    servers.set("c", Mood::Refuses(ErrorCode::NotLeader));
    servers.set("a", Mood::Well);
    let refused = client.storage_put::<serde_json::Value>("bucket", "key", body(), None).await;
    assert!(refused.is_err(), "the body was read by c and cannot be sent again");
}

#[tokio::test]
async fn an_idle_connection_that_hangs_does_not_cost_twice() {
    let (servers, client) = cluster([Mood::Well, Mood::Well, Mood::Well]);
    client.version().await.expect("a answers");
    servers.set("a", Mood::Hangs);
    servers.heard();
    assert_eq!(client.version().await.expect("b answers").version, "b");
    assert_eq!(servers.heard(), ["a GET /v1/version", "b GET /v1/version"]);
}

#[tokio::test]
async fn the_error_names_all_servers_or_what_one_of_them_said() {
    let (_, client) = cluster([Mood::Down, Mood::Down, Mood::Down]);
    let error = client.version().await.expect_err("nobody is there");
    assert!(error.to_string().contains("a, b, c"), "{error}");
    assert!(error.is_transient());
    let (_, client) = cluster([Mood::Refuses(ErrorCode::Unavailable), Mood::Down, Mood::Down]);
    let error = client.version().await.expect_err("nobody can work");
    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
}

#[tokio::test]
async fn one_server_alone_can_be_asked() {
    let (servers, client) = cluster([Mood::Well, Mood::Well, Mood::Down]);
    for (endpoint, reached) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(client.only(endpoint).version().await.is_ok(), reached, "{endpoint}");
    }
    assert_eq!(servers.heard(), ["a GET /v1/version", "b GET /v1/version"]);
    assert_eq!(client.endpoints(), ["a", "b", "c"]);
}
