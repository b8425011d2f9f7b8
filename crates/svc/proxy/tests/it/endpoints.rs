//! Endpoints that die, refuse, or close kept connections at the worst moment.

use crate::support::*;
use http::Request;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROLE: &str = "endpoint_process";

/// Not a test but the process that others kill: serves until its input ends.
#[test]
#[ignore = "it is the endpoint process of other tests"]
fn endpoint_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = named("alive").await;
        // The runner keeps standard output for itself, and a path would have to be cleaned up: standard error is free.
        use std::io::{Read, Write};
        writeln!(std::io::stderr(), "listening {address}").expect("the parent reads");
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1])).await;
    });
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn endpoint() -> (Process, std::net::SocketAddr) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(program)
        .args(["--ignored", "--exact", &format!("endpoints::{ROLE}"), "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program runs again");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let process = Process(child);
    let address = lines.find_map(|line| line.ok()?.strip_prefix("listening ")?.parse().ok());
    (process, address.expect("the endpoint says where it listens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_after_an_endpoint_was_killed_are_served_by_another() {
    let (victim, first) = endpoint();
    let (_other, second) = endpoint();
    let (proxy, address) = World::new().service("web", &[first, second]).serve("web").await;
    let mut client = Client::connect(address).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await, (200, "alive".to_owned()));
    }
    // The table still lists the victim, and the pool holds connections to it.
    drop(victim);
    for at in 0..200 {
        assert_eq!(client.get("/").await, (200, "alive".to_owned()), "request {at}");
        let request = Request::post("/").header("host", "web").body("x".to_owned()).expect("a request");
        assert_eq!(client.send(request).await.expect("a response").0, 200, "request {at} with a body");
    }
    assert_eq!(proxy.counts().iter().map(|count| count.failed).sum::<u64>(), 0);
}

#[tokio::test]
async fn when_no_endpoint_accepts_the_caller_is_told() {
    let (_proxy, address) = World::new().service("web", &[free_address(), free_address()]).serve("web").await;
    let (status, text) = Client::connect(address).await.get("/").await;
    assert_eq!(status, 503);
    assert!(text.contains("none of 2 endpoints of default/web accepts connections"), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_plain_connection_is_made_to_an_endpoint_that_accepts() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let mut byte = [0; 1];
        let _ = stream.read_exact(&mut byte).await;
        let _ = stream.write_all(&byte).await;
    })
    .await;
    let world = World::new().service("db", &[free_address(), endpoint, free_address()]);
    let (_proxy, address) = world.serve("db").await;
    for _ in 0..20 {
        let mut stream = connect_from("127.0.0.1", address).await;
        stream.write_all(b"\x07").await.expect("it reads");
        let mut reply = [0; 1];
        stream.read_exact(&mut reply).await.expect("an echo");
    }
}

/// Answers one request per connection as if the connection stayed open, then closes it after `pause`.
async fn closing_after(pause: Duration) -> std::net::SocketAddr {
    let (address, _server) = tcp_server(move |mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(1..) => {}
                _ => return,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        tokio::time::sleep(pause).await;
    })
    .await;
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_that_the_endpoint_closes_meanwhile_fail_no_request() {
    for pause_us in [0, 50, 200, 1_000] {
        let endpoint = closing_after(Duration::from_micros(pause_us)).await;
        let (_proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
        let mut client = Client::connect(address).await;
        for at in 0..200 {
            assert_eq!(client.get("/").await, (200, "ok".to_owned()), "request {at}, pause {pause_us} us");
            tokio::time::sleep(Duration::from_micros(at * 10 % 500)).await;
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_is_a_bad_gateway_and_not_asked_again() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        if matches!(stream.read(&mut [0; 4096]).await, Ok(1..)) {
            ASKED.fetch_add(1, Relaxed);
        }
    })
    .await;
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let request = Request::post("/").header("host", "web").body("once".to_owned()).expect("a request");
    let (status, text) = Client::connect(address).await.send(request).await.expect("a response");
    assert_eq!(status, 502);
    assert!(text.contains("broke off before its response"), "{text}");
    assert_eq!(ASKED.load(Relaxed), 1);
}
