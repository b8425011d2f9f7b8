//! Policies that arrive while connections are open: what they deny ends, what they allow goes on.

use crate::{nodes::*, support::*};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Echoes what it receives.
async fn endless() -> SocketAddr {
    let serve = |mut stream: TcpStream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    };
    tcp_server(serve).await.0
}

/// Echoes what it receives on WebSockets, and answers `/stream` without end.
async fn websockets_and_streams() -> SocketAddr {
    let (endpoint, _) = http_server(|mut request: Request<Incoming>| async move {
        if request.uri().path() == "/stream" {
            let frames =
                futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"event\n"))));
            return Response::new(StreamBody::new(frames).boxed_unsync());
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(upgrade.await.expect("the upgrade passes"));
            let (mut read, mut write) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let head = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        head.body(String::new().boxed_unsync()).expect("a response")
    })
    .await;
    endpoint
}

/// One byte there and back.
async fn exchanged(stream: &mut TcpStream) {
    stream.write_all(b"\x01").await.expect("it stands");
    let mut echo = [0; 1];
    timeout(PATIENCE, stream.read_exact(&mut echo)).await.expect("in time").expect("an echo");
    assert_eq!(echo, [1]);
}

async fn opaque(from: &str, to: SocketAddr) -> TcpStream {
    let mut stream = connect_from(from, to).await;
    exchanged(&mut stream).await;
    stream
}

async fn websocket(from: &str, to: SocketAddr) -> TcpStream {
    let mut stream = connect_from(from, to).await;
    let head = b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head).await.expect("it reads");
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut text).await.expect("a response"), 0);
    }
    assert!(text.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&text));
    exchanged(&mut stream).await;
    stream
}

async fn response_without_end(from: &str, to: SocketAddr) -> TcpStream {
    let mut stream = connect_from(from, to).await;
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: web\r\n\r\n").await.expect("it reads");
    stream.read_exact(&mut [0; 1_000]).await.expect("it has begun");
    stream
}

async fn has_ended(mut stream: TcpStream) {
    let ended = async { while let Ok(1..) = stream.read(&mut [0; 4_096]).await {} };
    timeout(PATIENCE, ended).await.expect("it ends");
}

#[tokio::test]
async fn open_flows_end_when_a_policy_denies_them() {
    let world = World::new().service("web", &[endless().await]);
    let (proxy, address) = world.serve("web").await;
    let (denied, mut allowed) = (opaque("127.0.0.2", address).await, opaque("127.0.0.1", address).await);
    let world = world.allow("web", &["client"]);
    proxy.set_table(world.table());
    has_ended(denied).await;
    exchanged(&mut allowed).await;
    proxy.set_table(world.endpoints("web", &[]).table());
    exchanged(&mut allowed).await;
}

#[tokio::test]
async fn open_websockets_and_responses_end_when_a_policy_denies_them() {
    let world = World::new().service("web", &[websockets_and_streams().await]);
    let (proxy, address) = world.serve("web").await;
    let denied = websocket("127.0.0.2", address).await;
    let endless = response_without_end("127.0.0.2", address).await;
    let mut allowed = websocket("127.0.0.1", address).await;
    let mut going_on = response_without_end("127.0.0.1", address).await;
    proxy.set_table(world.allow("web", &["client"]).table());
    has_ended(denied).await;
    has_ended(endless).await;
    exchanged(&mut allowed).await;
    going_on.read_exact(&mut vec![0; 1 << 20]).await.expect("it goes on");
}

#[tokio::test]
async fn what_a_rule_chose_is_judged_as_well() {
    let world = World::new().service("web", &[]).service("v2", &[websockets_and_streams().await]);
    let world = world.split("web", "/", &[("v2", 1)]);
    let (proxy, address) = world.serve("web").await;
    let (socket, endless) = (websocket("127.0.0.2", address).await, response_without_end("127.0.0.2", address).await);
    proxy.set_table(world.allow("v2", &["client"]).table());
    has_ended(socket).await;
    has_ended(endless).await;
}

#[tokio::test]
async fn either_node_ends_a_flow_between_them() {
    for denying in [0, 1] {
        let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endless().await]);
        let (_wires, proxies) = nodes(&world, ["n1", "n2"]).await;
        let address = listen(&proxies[0], "web").await;
        let (denied, mut allowed) = (opaque("127.0.0.2", address).await, opaque("127.0.0.1", address).await);
        proxies[denying].set_table(world.allow("web", &["client"]).table());
        has_ended(denied).await;
        exchanged(&mut allowed).await;
    }
}
