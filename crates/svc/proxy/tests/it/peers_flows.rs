//! Flows to containers of other nodes: opaque TCP, upgrades, slow readers beside fast ones.

use crate::{nodes::*, support::*};
use heptad_proxy::Body;
use heptad_route::Caller;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

#[tokio::test]
async fn bytes_pass_both_ways_and_a_half_closed_end_is_passed_on() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("it ends");
        all.reverse();
        stream.write_all(&all).await.expect("the other half is open");
    })
    .await;
    let (_wires, [n1, n2], address) = pair(endpoint).await;
    for size in [0_usize, 1, 3_000_000] {
        let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let (mut read, mut write) = connect_from("127.0.0.1", address).await.into_split();
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            write.write_all(&copy).await.expect("it reads");
            write.shutdown().await.expect("it is open");
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.expect("it ends in order");
        sending.await.expect("it was sent");
        received.reverse();
        assert!(received == sent, "{} of {size} bytes", received.len());
    }
    assert_eq!((n1.peers()[0].streams, n2.peers()[0].received), (3, 3));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("it reads");
        let mut command = [0; 6];
        stream.read_exact(&mut command).await.expect("a command");
        stream.write_all(b"221 bye\r\n").await.expect("it reads");
    })
    .await;
    let (_wires, _nodes, address) = pair(endpoint).await;
    let mut stream = connect_from("127.0.0.1", address).await;
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.expect("a greeting");
    assert_eq!(&greeting, b"220 ready\r\n");
    stream.write_all(b"QUIT\r\n").await.expect("it reads");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("it ends");
    assert_eq!(rest, "221 bye\r\n");
}

#[tokio::test]
async fn a_client_that_is_silent_first_may_speak_http_after_all() {
    let (_wires, _nodes, address) = pair(named("web").await).await;
    let mut stream = connect_from("127.0.0.1", address).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await.expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it ends");
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("web"), "{text}");
}

#[tokio::test]
async fn an_upgrade_passes() {
    let endpoint = http_server(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.expect("the upgrade passes"));
            let mut bytes = [0; 4];
            io.read_exact(&mut bytes).await.expect("four bytes");
            bytes.reverse();
            io.write_all(&bytes).await.expect("it reads");
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        response.body(String::new()).expect("a response")
    });
    let (_wires, [n1, _n2], address) = pair(endpoint.await.0).await;
    let mut stream = connect_from("127.0.0.1", address).await;
    let head = b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nabcd";
    stream.write_all(head).await.expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("it ends");
    assert!(text.starts_with("HTTP/1.1 101") && text.ends_with("dcba"), "{text}");
    assert_eq!((n1.peers()[0].streams, n1.peers()[0].requests), (1, 0));
    // A refused upgrade is an ordinary response.
    let (_wires, _nodes, address) = pair(named("no").await).await;
    let mut stream = connect_from("127.0.0.1", address).await;
    stream.write_all(&head[..head.len() - 4]).await.expect("it reads");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("a response");
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_do_not_hold_up_the_others() {
    let endpoint = http_server(|request: Request<hyper::body::Incoming>| async move {
        let size = if request.uri().path() == "/big" { 4 << 20 } else { 3 };
        Response::new(Full::new(bytes::Bytes::from(vec![7; size])))
    });
    let (wires, [n1, _n2], _) = pair(endpoint.await.0).await;
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        n1.call(&Caller::External, &key("web"), None, request).await.expect("a response").response.into_body()
    };
    let mut slow = Vec::new();
    for _ in 0..200 {
        slow.push(get("/big").await);
    }
    for _ in 0..20 {
        let body = timeout(PATIENCE, async { get("/small").await.collect().await.expect("it reads") });
        assert_eq!(body.await.expect("nothing holds it up").to_bytes().len(), 3);
    }
    assert_eq!(wires.made.load(std::sync::atomic::Ordering::Relaxed), 1);
    // Nothing of what waited is lost, and abandoned ones do no harm.
    for body in slow.drain(..).take(20) {
        assert_eq!(body.collect().await.expect("it reads").to_bytes().len(), 4 << 20);
    }
    for _ in 0..20 {
        assert_eq!(get("/small").await.collect().await.expect("it reads").to_bytes().len(), 3);
    }
    assert_eq!(wires.made.load(std::sync::atomic::Ordering::Relaxed), 1);
}
