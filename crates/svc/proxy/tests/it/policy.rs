//! What is denied: 403 over HTTP, a reset otherwise, and never a byte to the target.

use crate::support::*;
use http::{Request, Response};
use std::{
    io::ErrorKind,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn http_callers_that_are_not_listed_get_403_and_the_reason() {
    let world = World::new().service("db", &[named("db").await]).allow("db", &["client"]);
    let (proxy, address) = world.serve("db").await;
    assert_eq!(Client::connect(address).await.get("/").await, (200, "db".to_owned()));
    for (from, caller) in [("127.0.0.2", "default/stranger"), ("127.0.0.3", "external")] {
        let (status, text) = Client::connect_from(from, address).await.get("/").await;
        let problem: serde_json::Value = serde_json::from_str(&text).expect("problem details");
        assert_eq!((status, &problem["caller"], &problem["target"]), (403, &caller.into(), &"default/db".into()));
        assert_eq!(problem["policies"], serde_json::json!(["default/db-callers"]));
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("may not call default/db on port 80")));
    }
    let denied: Vec<u64> = proxy.counts().iter().map(|count| count.denied).collect();
    assert_eq!(denied, [0, 1, 1]);
}

#[tokio::test]
async fn http_callers_that_are_slow_to_ask_are_told_so_all_the_same() {
    let world = World::new().service("db", &[named("db").await]).service("empty", &[]).allow("db", &["client"]);
    let (proxy, address) = world.serve("db").await;
    for (address, expected) in [(address, "HTTP/1.1 403 "), (listen_too(&proxy, address).await, "HTTP/1.1 503 ")] {
        let mut stream = connect_from("127.0.0.2", address).await;
        // Longer than the proxy waits for a client whose server may speak first.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let asked = b"GET / HTTP/1.1\r\nhost: db\r\nconnection: close\r\n\r\n";
        stream.write_all(asked).await.expect("it is accepted");
        let mut said = String::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await.expect("it ends soon");
        ended.expect("in order");
        assert!(said.starts_with(expected), "{said}");
    }
    let counts = proxy.counts();
    let sum = |of: fn(&heptad_proxy::CallCount) -> u64| counts.iter().map(of).sum::<u64>();
    assert_eq!((sum(|c| c.denied), sum(|c| c.unavailable), sum(|c| c.tunnels)), (1, 1, 0), "each is counted once");
}

/// A listener for the service `empty` beside that of `db`.
async fn listen_too(proxy: &heptad_proxy::Proxy, db: std::net::SocketAddr) -> std::net::SocketAddr {
    let address = free_address();
    let wanted = [(db, (key("db"), 80)), (address, (key("empty"), 80))];
    assert!(proxy.set_service_listeners(wanted.into()).await.is_empty());
    address
}

#[tokio::test]
async fn plain_callers_that_are_not_listed_are_reset_and_nothing_reaches_the_target() {
    static ACCEPTED: AtomicU64 = AtomicU64::new(0);
    let (endpoint, _server) = tcp_server(|_| async { _ = ACCEPTED.fetch_add(1, Relaxed) }).await;
    let (_proxy, address) = World::new().service("db", &[endpoint]).allow("db", &["client"]).serve("db").await;
    for bytes in [&b"\x00\x01hello"[..], b""] {
        let mut stream = connect_from("127.0.0.2", address).await;
        stream.write_all(bytes).await.expect("it is accepted");
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it ends soon");
        assert_eq!(ended.expect_err("it is no regular end").kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(ACCEPTED.load(Relaxed), 0);
}

#[tokio::test]
async fn a_denied_upload_gets_its_403_though_nobody_reads_it() {
    let (_proxy, address) = World::new().service("db", &[named("db").await]).allow("db", &[]).serve("db").await;
    let request = Request::post("/").header("host", "db").body("x".repeat(100_000)).expect("a request");
    let (status, _) = Client::connect(address).await.send(request).await.expect("a response");
    assert_eq!(status, 403);
}

#[tokio::test]
async fn a_changed_policy_holds_for_the_next_request_of_a_kept_connection() {
    let world = World::new().service("db", &[named("db").await]);
    let (proxy, address) = world.serve("db").await;
    let mut client = Client::connect(address).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.0, 200);
        proxy.set_table(world.clone().allow("db", &["stranger"]).table());
        assert_eq!(client.get("/").await.0, 403);
        proxy.set_table(world.table());
    }
}

#[tokio::test]
async fn a_rule_does_not_lead_around_a_policy() {
    let world = World::new().service("web", &[named("web").await]).service("db", &[named("db").await]);
    let world = world.allow("db", &["web"]).split("web", "/db", &[("db", 1)]);
    let (_proxy, address) = world.serve("web").await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/").await.0, 200);
    assert_eq!(client.get("/db").await.0, 403);
    // A client that is silent at first, or hesitates, is still judged by its request.
    for first in ["", "GE"] {
        let mut stream = connect_from("127.0.0.1", address).await;
        stream.write_all(first.as_bytes()).await.expect("it reads");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let rest = &"GET /db HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"[first.len()..];
        stream.write_all(rest.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("a response");
        assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_around_a_rule_on_it() {
    let world = World::new().service("web", &[mirror().await]).service("guard", &[named("guard").await]);
    let world = world.split("web", "/admin", &[("guard", 1)]);
    let (_proxy, address) = world.serve("web").await;
    let status = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
        raw(address, request.as_bytes(), PATIENCE).await
    };
    for path in ["/admin", "//admin", "/%61dmin", "/x/../admin", "/x/%2E./admin?a=//b"] {
        let text = status(path).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("guard"), "{path}: {text}");
    }
    for path in ["/%2fadmin", "/x%2f..%2Fadmin", "/\\admin", "/admin/..%2fpublic"] {
        let text = status(path).await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("default/web"), "{path}: {text}");
    }
    let text = status("//public/./%7Ea%2fb?c=//d/../e").await;
    assert!(text.contains("GET /public/~a%2Fb?c=//d/../e\n"), "the server sees what was judged: {text}");
}

#[tokio::test]
async fn without_rules_on_paths_a_path_passes_as_it_was_sent() {
    let (_proxy, address) = World::new().service("web", &[mirror().await]).serve("web").await;
    let path = "//a/../%61%2fb/./?c";
    let request = format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    let text = raw(address, request.as_bytes(), PATIENCE).await;
    assert!(text.contains(&format!("GET {path}\n")), "{text}");
}

#[tokio::test]
async fn what_only_proxies_say_to_each_other_passes_in_no_direction() {
    let (endpoint, _server) = http_server(|request| async move {
        let said = request.headers().keys().filter(|name| name.as_str().starts_with("heptad-")).count();
        Response::builder().header("heptad-refused", "x").body(said.to_string()).expect("a response")
    })
    .await;
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let request = "GET / HTTP/1.1\r\nhost: web\r\nheptad-caller: spiffe://heptad/operator\r\nheptad-endpoint: a:1\r\n\
                   heptad-revision: 1\r\nheptad-refused: {}\r\nconnection: close\r\n\r\n";
    let text = raw(address, request.as_bytes(), PATIENCE).await;
    assert!(text.ends_with("\r\n\r\n0") && !text.contains("heptad-refused"), "{text}");
}
