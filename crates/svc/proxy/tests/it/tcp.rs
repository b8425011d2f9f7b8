//! Plain TCP: whoever speaks first, half-closed ends, resets.

use crate::support::*;
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn bytes_pass_both_ways_and_a_half_closed_end_is_passed_on() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("it ends");
        all.reverse();
        stream.write_all(&all).await.expect("the other half is open");
    })
    .await;
    let (proxy, address) = World::new().service("db", &[endpoint]).serve("db").await;
    for size in [0_usize, 1, 5, 3_000_000] {
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
    assert_eq!(proxy.counts()[0].tunnels, 4);
}

#[tokio::test]
async fn a_server_that_speaks_first_does_not_wait_for_the_client() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.expect("it reads");
        let mut command = [0; 6];
        stream.read_exact(&mut command).await.expect("a command");
        stream.write_all(b"221 bye\r\n").await.expect("it reads");
    })
    .await;
    let (_proxy, address) = World::new().service("mail", &[endpoint]).serve("mail").await;
    let started = Instant::now();
    let mut stream = connect_from("127.0.0.1", address).await;
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.expect("a greeting");
    // The bound is 50 ms; what is excluded here is the stall of many seconds.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    stream.write_all(b"QUIT\r\n").await.expect("it reads");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.expect("it ends");
    assert_eq!(rest, "221 bye\r\n");
}

#[tokio::test]
async fn a_client_that_speaks_late_is_served() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.expect("four bytes");
        stream.write_all(&bytes).await.expect("it reads");
    })
    .await;
    let (_proxy, address) = World::new().service("db", &[endpoint]).serve("db").await;
    let mut stream = connect_from("127.0.0.1", address).await;
    for byte in b"GETx" {
        tokio::time::sleep(Duration::from_millis(120)).await;
        stream.write_all(&[*byte]).await.expect("it reads");
    }
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await.expect("an echo");
    assert_eq!(&reply, b"GETx");
}

#[tokio::test]
async fn a_reset_of_the_endpoint_is_a_reset_for_the_client() {
    let (endpoint, _server) = tcp_server(|mut stream| async move {
        let _ = stream.read(&mut [0; 1]).await;
        stream.set_zero_linger().expect("TCP");
    })
    .await;
    let (_proxy, address) = World::new().service("db", &[endpoint]).serve("db").await;
    let mut stream = connect_from("127.0.0.1", address).await;
    stream.write_all(b"\x01\x02").await.expect("it reads");
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it ends soon");
    assert_eq!(ended.expect_err("it is no regular end").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn without_an_endpoint_a_plain_client_is_reset() {
    let (_proxy, address) = World::new().service("db", &[]).serve("db").await;
    let mut stream = connect_from("127.0.0.1", address).await;
    stream.write_all(b"\x01\x02").await.expect("it is accepted");
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it ends soon");
    assert_eq!(ended.expect_err("it is no regular end").kind(), ErrorKind::ConnectionReset);
}
