//! Clients that stop sending and wait for their answer; endpoints that answer before they have read everything.

use crate::{nodes::*, support::*};
use heptad_proxy::Options;
use http::Response;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

/// A request whose client closes its sending half at once, and what that client got until the end.
async fn ask(to: SocketAddr, head: &str) -> String {
    let mut stream = connect_from("127.0.0.1", to).await;
    stream.write_all(head.as_bytes()).await.expect("it is open");
    stream.shutdown().await.expect("it is open");
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an end").expect("in order");
    text
}

#[tokio::test]
async fn a_client_that_closes_its_half_gets_its_answer() {
    let (endpoint, _server) = http_server(|request: http::Request<hyper::body::Incoming>| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_millis(300)).await;
        }
        Response::new("the answer".to_owned())
    })
    .await;
    let (_wires, _nodes, elsewhere) = pair(endpoint).await;
    let mut world = World::new().service("web", &[endpoint]);
    let exposed = world.services.iter_mut().find(|service| service.name == "web").expect("a service");
    exposed.expose = Some(heptad_model::Expose { host: "web".to_owned(), port: None });
    let ingress = Some(([127, 0, 0, 1], 0).into());
    let (proxy, here) = world.serve_with("web", Options { ingress, ..Options::default() }).await;
    for to in [here, proxy.ingress_address().expect("it listens"), elsewhere] {
        for path in ["/fast", "/slow"] {
            for version in ["1.0", "1.1"] {
                let text = ask(to, &format!("GET {path} HTTP/{version}\r\nHost: web\r\n\r\n")).await;
                assert!(text.starts_with(&format!("HTTP/{version} 200")), "{path}: {text:?}");
                assert!(text.contains("the answer"), "{path}: {text:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_has_broken_off_is_noticed_while_nothing_is_sent_to_it() {
    let gone = std::sync::Arc::new(tokio::sync::Notify::new());
    let (told, arrived) = (gone.clone(), std::sync::Arc::new(tokio::sync::Notify::new()));
    let came = arrived.clone();
    let (endpoint, _server) = tcp_server(move |mut stream| {
        let (told, came) = (told.clone(), came.clone());
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            came.notify_one();
            // Returns when the proxy has closed.
            let _ = stream.read(&mut [0; 1024]).await;
            told.notify_one();
        }
    })
    .await;
    let options = Options { header_wait_ms_max: 100, ..Options::default() };
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve_with("web", options).await;
    let mut stream = connect_from("127.0.0.1", address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.expect("it is open");
    timeout(PATIENCE, arrived.notified()).await.expect("the request arrives");
    stream.set_zero_linger().expect("TCP");
    drop(stream);
    timeout(PATIENCE, gone.notified()).await.expect("the request is given up");
}

/// An endpoint that reads the head, refuses, and closes.
async fn refusing() -> SocketAddr {
    tcp_server(|mut stream| async move {
        let _ = stream.read(&mut [0; 512]).await;
        let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    })
    .await
    .0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_the_end_of_the_request_is_passed_on() {
    const BODY_BYTES: usize = 8 << 20;
    let endpoint = refusing().await;
    let (_wires, _nodes, elsewhere) = pair(endpoint).await;
    let (_proxy, here) = World::new().service("web", &[endpoint]).serve("web").await;
    for round in 0..25 {
        for (to, which) in [(here, "here"), (elsewhere, "elsewhere")] {
            let (mut read, mut write) = connect_from("127.0.0.1", to).await.into_split();
            let sending = tokio::spawn(async move {
                let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
                let _ = write.write_all(head.as_bytes()).await;
                let _ = write.write_all(&vec![7; BODY_BYTES]).await;
                // The half stays open until the answer has come.
                write
            });
            let mut text = Vec::new();
            while !text.ends_with(b"no") {
                let count = timeout(PATIENCE, read.read_buf(&mut text)).await.expect("an answer");
                let said = String::from_utf8_lossy(&text);
                assert!(matches!(count, Ok(1..)), "round {round} {which}: {count:?} after {said:?}");
            }
            let said = String::from_utf8_lossy(&text);
            assert!(said.starts_with("HTTP/1.1 401 "), "round {round} {which}: {said:?}");
            drop(read);
            drop(sending.await.expect("no panic"));
        }
    }
}

#[tokio::test]
async fn the_last_words_of_a_plain_connection_are_passed_on() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        let _ = stream.write_all(b"421 go away").await;
    })
    .await;
    for to in [World::new().service("db", &[endpoint]).serve("db").await, {
        let (_wires, [n1, _n2], elsewhere) = pair(endpoint).await;
        (n1, elsewhere)
    }] {
        let (mut read, mut write) = connect_from("127.0.0.1", to.1).await.into_split();
        let sending = tokio::spawn(async move { while write.write_all(&[1; 4096]).await.is_ok() {} });
        let mut said = [0; 11];
        timeout(PATIENCE, read.read_exact(&mut said)).await.expect("no wait").expect("it comes through");
        assert_eq!(&said, b"421 go away");
        drop(read);
        sending.await.expect("no panic");
    }
}
