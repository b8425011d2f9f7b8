//! Requests to containers of other nodes: they arrive whole, and both ends decide.

use crate::{nodes::*, support::*};
use heptad_proxy::{Body, CallError, Options, Parts, PeerNode, Proxy};
use heptad_route::Caller;
use http::{Request, Response};
use http_body_util::BodyExt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

#[tokio::test]
async fn a_request_reaches_a_container_of_another_node_with_its_head() {
    let (wires, [n1, n2], address) = pair(mirror().await).await;
    let mut client = Client::connect(address).await;
    let request = Request::get("/a%20b?c=d")
        .header("host", "shop.example.com")
        .header("x-own", "1")
        .header("heptad-caller", "operator")
        .body(String::new());
    let (status, text) = client.send(request.expect("a request")).await.expect("a response");
    assert_eq!(status, 200);
    for line in ["GET /a%20b?c=d\n", "host: shop.example.com\n", "x-own: 1\n", "x-forwarded-for: 127.0.0.1\n"] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    assert!(!text.contains("heptad-"), "what proxies say to each other stays there: {text}");
    for _ in 0..20 {
        assert_eq!(client.get("/").await.0, 200);
    }
    assert_eq!(wires.made.load(Relaxed), 1, "one warm connection");
    let (sent, received) = (&n1.peers()[0], &n2.peers()[0]);
    assert_eq!((sent.node.as_str(), sent.requests, sent.connections, sent.is_reachable), ("n2", 21, 1, true));
    assert_eq!((received.node.as_str(), received.received, received.received_refused), ("n1", 21, 0));
    assert_eq!(n1.counts()[0].responses[1], 21, "a request is counted where it was decided on");
    assert!(n2.counts().is_empty());
}

#[tokio::test]
async fn heads_without_bodies_and_bodies_of_any_length_pass() {
    let endpoint = http_server(|request: Request<hyper::body::Incoming>| async move {
        let status: u16 = request.uri().path()[1..].parse().expect("a status");
        let body = if status == 304 || request.method() == http::Method::HEAD { "" } else { "0123456789" };
        let length = if request.method() == http::Method::HEAD { 10 } else { body.len() };
        let response = Response::builder().status(status).header("content-length", length).header("etag", "\"1\"");
        response.body(body.to_owned()).expect("a response")
    })
    .await
    .0;
    let (_wires, _nodes, address) = pair(endpoint).await;
    let mut client = Client::connect(address).await;
    for (method, path, expected) in [
        ("GET", "/200", (200, "0123456789")),
        ("HEAD", "/200", (200, "")),
        ("GET", "/304", (304, "")),
        ("GET", "/503", (503, "0123456789")),
    ] {
        let request = Request::builder().method(method).uri(path).header("host", "web").body(String::new());
        let (status, text) = client.send(request.expect("a request")).await.expect("a response");
        assert_eq!((status, text.as_str()), expected, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_stream_both_ways_at_once() {
    for over_tcp in [false, true] {
        let (wires, [n1, _n2], _) = pair(echo().await).await;
        if over_tcp {
            wires.over_tcp("n2");
        }
        let (sender, receiver) =
            tokio::sync::mpsc::channel::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>(1);
        let body = http_body_util::StreamBody::new(futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|frame| (frame, receiver))
        }));
        let request = Request::post("/").header("host", "web").body(Body::boxed(Box::pin(body))).expect("a request");
        let caller = Caller::Service(key("client"));
        let first = sender.send(Ok(http_body::Frame::data("first".into())));
        first.await.expect("the body is held");
        // The response begins before the request has ended.
        let answer = n1.call(&caller, &key("web"), None, request).await.expect("a response");
        let mut body = answer.response.into_body();
        let frame = body.frame().await.expect("a frame").expect("it reads");
        assert_eq!(frame.into_data().ok().as_deref(), Some(&b"first"[..]));
        let chunk = bytes::Bytes::from(vec![7; 64 << 10]);
        let sending = tokio::spawn(async move {
            for _ in 0..320 {
                sender.send(Ok(http_body::Frame::data(chunk.clone()))).await.expect("it is read");
            }
        });
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame.expect("it reads").into_data().map_or(0, |data| data.len());
        }
        sending.await.expect("everything was sent");
        assert_eq!(bytes, 320 * (64 << 10));
    }
}

#[tokio::test]
async fn policies_hold_at_both_ends() {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    let endpoint = http_server(move |_| {
        counted.fetch_add(1, Relaxed);
        async { Response::new("web".to_owned()) }
    });
    let endpoint = endpoint.await.0;
    let open = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint]);
    let closed = open.clone().allow("web", &["client"]);
    let (_wires, [n1, n2]) = nodes(&closed, ["n1", "n2"]).await;
    let address = listen(&n1, "web").await;
    let (mut client, mut stranger) = (Client::connect(address).await, Client::connect_from("127.0.0.2", address).await);
    assert_eq!(client.get("/").await, (200, "web".to_owned()));
    assert_eq!(stranger.get("/").await.0, 403);
    assert_eq!(n2.peers()[0].received, 1, "what the sender denies is not sent");
    // A sender whose table has no policy, whether outdated or lying.
    n1.set_table(open.table());
    assert_eq!(client.get("/").await.0, 200);
    let (status, text) = stranger.get("/").await;
    assert_eq!(status, 403);
    assert!(
        text.contains("default/stranger may not call default/web") && text.contains("default/web-callers"),
        "{text}"
    );
    assert_eq!(served.load(Relaxed), 2, "nothing that is denied reaches the container");
    assert_eq!(n2.peers()[0].received_refused, 1);
    let flow = raw_from("127.0.0.2", address).await;
    assert!(flow.is_err() || flow.is_ok_and(|bytes| bytes.is_empty()), "a flow is denied, too");
    assert_eq!(n2.peers()[0].received_refused, 2);
    let denied: u64 = n1.counts().iter().map(|count| count.denied).sum();
    assert_eq!(denied, 3);
}

async fn raw_from(from: &str, to: std::net::SocketAddr) -> std::io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = connect_from(from, to).await;
    stream.write_all(b"\0\x01\x02opaque").await?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    Ok(all)
}

#[tokio::test]
async fn a_node_speaks_only_for_services_of_which_it_has_containers() {
    let endpoint = named("web").await;
    let world = World::new().service("web", &[]).on("n2", "web", &[endpoint]).caller_on("n3", "client");
    let (wires, [n1, _n2]) = nodes(&world, ["n1", "n2"]).await;
    let call = async |proxy: &Proxy, caller: &Caller| {
        let request = Request::get("/").body(Body::empty()).expect("a request");
        proxy.call(caller, &key("web"), None, request).await.map(|answer| answer.response.status().as_u16())
    };
    // `client` has a container, but not on n1.
    let error = call(&n1, &Caller::Service(key("client"))).await.expect_err("it is refused");
    assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("the node n1 may not speak for default/client"), "{cause}");
    assert!(call(&n1, &Caller::Operator).await.is_err(), "only servers speak for the operator");
    assert_eq!(call(&n1, &Caller::External).await.expect("anyone speaks for those outside"), 200);
    let from = PeerNode { node: Some("n3".into()), is_server: true };
    let connector = Arc::new(Wire { wires, from });
    let options = Options { node: Some("n3".into()), ..Options::default() };
    let parts = Parts { connector: Some(connector), table: Some(world.table()), ..Parts::new(resolver()) };
    let server = Proxy::start_with(options, parts).await.expect("the proxy starts");
    assert_eq!(call(&server, &Caller::Operator).await.expect("a server does"), 200);
    assert_eq!(call(&server, &Caller::Service(key("client"))).await.expect("it has a container there"), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_hold_over_nodes() {
    let (old, new) = (named("old").await, named("new").await);
    let world = from_n1(World::new().service("web", &[]).service("web-v2", &[]));
    // The more endpoints a version has, and the further away they are, the less this may matter.
    let world =
        world.on("n2", "web", &[old]).on("n3", "web", &[old]).on("n1", "web", &[old]).on("n3", "web-v2", &[new]);
    let world = world.split("web", "/", &[("web", 90), ("web-v2", 10)]);
    let (_wires, [n1, ..]) =
        nodes_with(&world, ["n1", "n2", "n3"], Options { draw_seed: Some(7), ..Options::default() }).await;
    let address = listen(&n1, "web").await;
    let mut client = Client::connect(address).await;
    let mut news = 0;
    for _ in 0..5_000 {
        let (status, text) = client.get("/").await;
        assert_eq!(status, 200);
        news += usize::from(text == "new");
    }
    assert!((420..=580).contains(&news), "{news} of 5000");
    let requests: Vec<u64> = n1.peers().iter().map(|peer| peer.requests).collect();
    // A third of 90 % each, and all of the 10 % on n3.
    assert!(requests[0].abs_diff(1_500) < 200 && requests[1].abs_diff(2_000) < 200, "{requests:?}");
}

#[tokio::test]
async fn local_endpoints_can_come_first() {
    let (here, there) = (named("here").await, named("there").await);
    let world = from_n1(World::new().service("web", &[])).on("n1", "web", &[here]).on("n2", "web", &[there]);
    let (_wires, [n1, _n2]) =
        nodes_with(&world, ["n1", "n2"], Options { local_first: true, ..Options::default() }).await;
    let address = listen(&n1, "web").await;
    let mut client = Client::connect(address).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.1, "here");
    }
    n1.set_table(from_n1(World::new().service("web", &[])).on("n2", "web", &[there]).table());
    assert_eq!(client.get("/").await.1, "there");
}

#[tokio::test]
async fn a_receiver_whose_table_is_older_waits_for_it() {
    let endpoint = named("web").await;
    let before = World::new().service("web", &[]);
    let after = from_n1(before.clone()).on("n2", "web", &[endpoint]);
    let (_wires, [n1, n2]) = nodes(&before, ["n1", "n2"]).await;
    let address = listen(&n1, "web").await;
    n2.set_table(before.table_at(1));
    n1.set_table(after.table_at(2));
    let late = tokio::spawn({
        let table = after.table_at(2);
        async move {
            sleep(Duration::from_millis(200)).await;
            n2.set_table(table);
            n2
        }
    });
    // Neither the caller nor the container is known there yet.
    let mut client = Client::connect(address).await;
    let request = Request::post("/").header("host", "web").body("body".to_owned()).expect("a request");
    assert_eq!(client.send(request).await.expect("a response"), (200, "web".to_owned()));
    let n2 = late.await.expect("no panic");
    assert_eq!(n2.peers()[0].received_refused, 0);
}

#[tokio::test]
async fn a_request_for_a_container_that_is_gone_goes_to_another() {
    let endpoint = echo().await;
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint]).on("n3", "web", &[endpoint]);
    let (_wires, [n1, n2, n3]) = nodes(&world, ["n1", "n2", "n3"]).await;
    let address = listen(&n1, "web").await;
    // n2 knows already that its container has gone.
    n2.set_table(from_n1(World::new().service("web", &[])).on("n3", "web", &[endpoint]).table());
    let mut client = Client::connect(address).await;
    for at in 0..60 {
        let body = "x".repeat(at * 100);
        let request = Request::post("/").header("host", "web").body(body.clone()).expect("a request");
        assert_eq!(client.send(request).await.expect("a response"), (200, body), "a body is sent again, too");
    }
    let refused = n2.peers()[0].received_refused;
    assert!(refused > 5, "{refused}");
    assert_eq!(n3.peers()[0].received, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_share_one_connection() {
    const REQUESTS: usize = 2_000;
    // Each takes a connection to the endpoint, both of whose ends are in this process.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most.min(16_384), most).expect("up to the hard limit");
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = Arc::clone(&gate);
    let endpoint = http_server(move |request: Request<hyper::body::Incoming>| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.expect("it is open").forget();
            Response::new(request.uri().path().to_owned())
        }
    });
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint.await.0]);
    for (streams_max, connections) in [(4_096, 1..=1), (700, 3..=4)] {
        let options = Options { peer_streams_max: streams_max, connect_wait_ms_max: 60_000, ..Options::default() };
        let (wires, [n1, n2]) = nodes_with(&world, ["n1", "n2"], options).await;
        let mut calls = JoinSet::new();
        for number in 0..REQUESTS {
            let n1 = n1.clone();
            calls.spawn(async move {
                let request = Request::get(format!("/{number}")).body(Body::empty()).expect("a request");
                let answer = n1.call(&Caller::External, &key("web"), None, request).await.expect("a response");
                let body = answer.response.into_body().collect().await.expect("it reads").to_bytes();
                assert_eq!(body, format!("/{number}"));
            });
        }
        let received = async {
            while n2.peers().first().is_none_or(|peer| peer.received < REQUESTS as u64) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, received).await.expect("all arrive");
        assert_eq!(n1.peers()[0].active, REQUESTS, "all are in progress at once");
        gate.add_permits(REQUESTS);
        while let Some(done) = calls.join_next().await {
            done.expect("a response");
        }
        let made = wires.made.load(Relaxed);
        assert!(connections.contains(&made), "{made}");
        assert_eq!(n1.peers()[0].active, 0);
    }
}
