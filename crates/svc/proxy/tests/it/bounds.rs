//! Bad and slow clients are bounded and reach no endpoint; a stopping proxy lets what is in progress end.

use crate::support::*;
use heptad_proxy::Options;
use http::Response;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

#[tokio::test]
async fn malformed_requests_are_refused_and_reach_no_endpoint() {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let (endpoint, _server) = http_server(|_| async {
        REQUESTS.fetch_add(1, Relaxed);
        Response::new(String::new())
    })
    .await;
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let long = format!("GET / HTTP/1.1\r\nHost: web\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: web\r\n{}\r\n", "X-Many: 1\r\n".repeat(1_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost web\r\n\r\n", "400"),
        ("GET / HTTP/9.1\r\nHost: web\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: web\r\nX-Bad: \x01\r\n\r\n", "400"),
        ("GET /a b HTTP/1.1\r\nHost: web\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: -1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: web\r\nHost: api\r\nConnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: web\r\nhost: web\r\nConnection: close\r\n\r\n", "400"),
        ("GET http://web/ HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n", "400"),
        ("POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n", "400"),
        (&long, "431"),
        (&many, "431"),
    ] {
        let text = raw(address, request.as_bytes(), PATIENCE).await;
        let head: String = request.chars().take(60).collect();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?} was answered by {text:?}");
    }
    assert_eq!(REQUESTS.load(Relaxed), 0);
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off() {
    let options = Options { header_wait_ms_max: 300, ..Options::default() };
    let (_proxy, address) = World::new().service("web", &[named("web").await]).serve_with("web", options).await;
    // Once as the first request, once after another.
    for first in ["", "GET / HTTP/1.1\r\nHost: web\r\n\r\n"] {
        let mut stream = connect_from("127.0.0.1", address).await;
        stream.write_all(first.as_bytes()).await.expect("it reads");
        let started = Instant::now();
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("it reads");
        let mut received = Vec::new();
        let ended = loop {
            assert!(started.elapsed() < PATIENCE, "the connection is still open");
            if stream.write_all(b"X-A: 1\r\n").await.is_err() {
                break true;
            }
            let read = tokio::time::timeout(Duration::from_millis(50), stream.read_buf(&mut received)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                break true;
            }
        };
        assert!(ended);
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_order() {
    let options = Options { client_idle_ms_max: 300, ..Options::default() };
    let options = Options { header_wait_ms_max: 200, ..options };
    let (_proxy, address) = World::new().service("web", &[named("web").await]).serve_with("web", options).await;
    let mut stream = connect_from("127.0.0.1", address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.expect("it reads");
    let mut text = String::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("it ends soon");
    assert!(ended.is_ok() && text.starts_with("HTTP/1.1 200"), "{ended:?} {text}");
}

#[tokio::test]
async fn a_slow_response_is_not_taken_for_an_idle_connection() {
    let (endpoint, _server) = http_server(|_| async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Response::new("late".to_owned())
    })
    .await;
    let options = Options { client_idle_ms_max: 100, header_wait_ms_max: 100, ..Options::default() };
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve_with("web", options).await;
    assert_eq!(Client::connect(address).await.get("/").await, (200, "late".to_owned()));
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    })
    .await;
    let options = Options { response_wait_ms_max: 200, ..Options::default() };
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve_with("web", options).await;
    let (status, text) = Client::connect(address).await.get("/").await;
    assert_eq!(status, 504);
    assert!(text.contains("within 200 ms"), "{text}");
}

#[tokio::test]
async fn idle_connections_of_one_caller_keep_nobody_out() {
    let any = Some(([127, 0, 0, 1], 0).into());
    let options = Options { connections_max: 16, ingress_connections_max: 16, ingress: any, ..Options::default() };
    let mut world = World::new().service("web", &[named("web").await]).allow("web", &["stranger"]);
    world.policies[0].ingress.as_mut().expect("it has peers").push(external());
    let exposed = world.services.iter_mut().find(|service| service.name == "web").expect("a service");
    exposed.expose = Some(heptad_model::Expose { host: "web".to_owned(), port: None });
    let (proxy, address) = world.serve_with("web", options).await;
    let ingress = proxy.ingress_address().expect("it listens");
    let (mut flood, mut denied) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        // Two callers: one that is denied, some of whose connections were told so, and one outside.
        let mut client = Client::connect(address).await;
        assert_eq!(client.get("/").await.0, 403);
        denied.push(client);
        flood.push(connect_from("127.0.0.1", address).await);
        flood.push(connect_from("127.0.0.1", ingress).await);
    }
    let mut callers = Vec::new();
    for _ in 0..4 {
        for (from, to) in [("127.0.0.2", address), ("127.0.0.3", ingress)] {
            let mut client = Client::connect_from(from, to).await;
            assert_eq!(client.get("/").await.0, 200);
            callers.push(client);
        }
    }
    // And whoever uses all of its own slots can still call.
    assert_eq!(Client::connect_from("127.0.0.1", ingress).await.get("/").await.0, 200);
    for client in &mut callers {
        assert_eq!(client.get("/").await.0, 200, "those that have less stay");
    }
    assert!(proxy.status().connections_open <= 32);
}

fn external() -> heptad_model::PolicyPeer {
    heptad_model::PolicyPeer { external: true, ..Default::default() }
}

#[tokio::test]
async fn busy_connections_of_one_caller_keep_nobody_out() {
    let options = Options { connections_max: 8, ..Options::default() };
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let mut byte = [0; 1];
        while let Ok(1..) = stream.read(&mut byte).await {
            let _ = stream.write_all(&byte).await;
        }
    })
    .await;
    let (_proxy, address) = World::new().service("db", &[endpoint]).serve_with("db", options).await;
    let flow = async |from: &str| {
        let mut stream = connect_from(from, address).await;
        stream.write_all(b"\x01").await.expect("it is open");
        let served = tokio::time::timeout(PATIENCE, stream.read_exact(&mut [0; 1])).await.expect("no wait");
        (stream, served.is_ok())
    };
    let mut many = Vec::new();
    for _ in 0..8 {
        let (stream, served) = flow("127.0.0.1").await;
        assert!(served);
        many.push(stream);
    }
    assert!(!flow("127.0.0.1").await.1, "nobody else gives way to who has all");
    for _ in 0..3 {
        let (stream, served) = flow("127.0.0.2").await;
        assert!(served, "who has most gives way");
        many.push(stream);
    }
}

/// An endpoint that switches to another protocol, and how many bytes it got until its client ended, after the endpoint
/// ended its half.
async fn upgrading() -> (std::net::SocketAddr, tokio::sync::mpsc::Receiver<usize>) {
    let (told, counts) = tokio::sync::mpsc::channel(8);
    let (endpoint, _server) = tcp_server(move |mut stream| {
        let told = told.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.expect("a request") > 0);
            }
            let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbye";
            stream.write_all(agreed).await.expect("it reads");
            stream.shutdown().await.expect("it is open");
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = told.send(all.len()).await;
        }
    })
    .await;
    (endpoint, counts)
}

/// A connection in another protocol whose endpoint says nothing more.
async fn upgraded(address: std::net::SocketAddr) -> tokio::net::TcpStream {
    let mut stream = connect_from("127.0.0.1", address).await;
    let head = b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head).await.expect("it reads");
    let mut text = String::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("the half ends");
    assert!(ended.is_ok() && text.starts_with("HTTP/1.1 101") && text.ends_with("bye"), "{ended:?} {text}");
    stream
}

#[tokio::test]
async fn what_a_client_sends_after_its_endpoint_ended_in_another_protocol_arrives() {
    const SIZE: usize = 8 << 20;
    let (endpoint, mut counts) = upgrading().await;
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let mut stream = upgraded(address).await;
    stream.write_all(&vec![7; SIZE]).await.expect("it reads");
    stream.shutdown().await.expect("it is open");
    assert_eq!(tokio::time::timeout(PATIENCE, counts.recv()).await.expect("it ends"), Some(SIZE));
}

#[tokio::test]
async fn a_connection_in_another_protocol_is_in_use() {
    let (endpoint, mut counts) = upgrading().await;
    let world = World::new().service("web", &[endpoint]).service("idle", &[named("idle").await]);
    let (proxy, address) = world.serve_with("web", Options { connections_max: 4, ..Options::default() }).await;
    let mut chat = upgraded(address).await;
    chat.write_all(b"hello").await.expect("it reads");
    let idle = listen(&proxy, "idle").await;
    let mut clients = Vec::new();
    for from in ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"] {
        let mut client = Client::connect_from(from, idle).await;
        assert_eq!(client.get("/").await.0, 200);
        clients.push(client);
    }
    chat.write_all(b"there").await.expect("it reads");
    chat.shutdown().await.expect("it is open");
    assert_eq!(tokio::time::timeout(PATIENCE, counts.recv()).await.expect("it ends"), Some(10));
}

#[tokio::test]
async fn shutdown_lets_requests_in_progress_end_and_takes_no_more() {
    static ARRIVED: Notify = Notify::const_new();
    let (endpoint, _server) = http_server(|_| async {
        ARRIVED.notify_one();
        tokio::time::sleep(Duration::from_millis(500)).await;
        Response::new("done".to_owned())
    })
    .await;
    let (proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let mut client = Client::connect(address).await;
    let request = tokio::spawn(async move { client.get("/").await });
    ARRIVED.notified().await;
    assert!(proxy.shutdown(PATIENCE.as_millis() as u64).await, "it drained");
    assert_eq!(request.await.expect("no panic"), (200, "done".to_owned()));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
