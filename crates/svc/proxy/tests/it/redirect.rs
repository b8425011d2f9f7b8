//! Redirection by the kernel: in a network namespace of its own, nft sends connections to service addresses to the
//! proxy, which reads from the kernel where they were going. Needs root, `nft` and `ip`.

use crate::support::*;
use heptad_proxy::{Options, Proxy};
use nix::sched::{CloneFlags, unshare};
use std::{
    io::Write,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVICES: &str = "10.96.0.0/16";
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const DB: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);
/// An address of the namespace itself, on which no rule is needed.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

fn run(program: &str, args: &[&str], input: &str) {
    let child = Command::new(program).args(args).stdin(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program} is needed by this test: {error}"));
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{program} {args:?} failed; this test needs root");
}

/// The namespace belongs to the calling thread alone and vanishes with it.
fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace can be made; this test needs root");
    run("ip", &["link", "set", "lo", "up"], "");
    run("ip", &["route", "add", SERVICES, "dev", "lo"], "");
    run("ip", &["address", "add", &OWN.to_string(), "dev", "lo"], "");
}

fn redirect_to(port: u16) {
    let rules = format!(
        "table ip heptad_test {{ chain output {{ type nat hook output priority -100; \
         ip daddr {SERVICES} meta l4proto tcp redirect to :{port}; }}; }}"
    );
    run("nft", &["-f", "-"], &rules);
}

async fn redirected() {
    let mut world = World::new().service("web", &[mirror().await]).service("db", &[echo_lines().await]);
    world = world.service("own", &[named("own").await]);
    for (name, address) in [("web", WEB), ("db", DB), ("own", OWN)] {
        world.services.iter_mut().find(|s| s.name == name).expect("a service").address = Some(address);
    }
    let world = world.allow("db", &["client"]);
    let options = Options { transparent: Some(([0, 0, 0, 0], 0).into()), ..Options::default() };
    let proxy = Proxy::start(options, resolver(), world.table()).await.expect("the proxy starts");
    redirect_to(proxy.transparent_address().expect("it listens").port());

    let (status, text) = Client::connect((WEB, 80).into()).await.get("/a").await;
    assert_eq!(status, 200, "{text}");
    assert!(text.starts_with("GET /a\n"), "{text}");
    // A port that the service does not have.
    let (status, text) = Client::connect((WEB, 81).into()).await.get("/a").await;
    assert_eq!((status, text.contains("has no TCP port 81")), (503, true), "{text}");

    let mut stream = connect_from("127.0.0.1", (DB, 80).into()).await;
    stream.write_all(b"\x01ping").await.expect("it reads");
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).await.expect("an echo");
    assert_eq!(&reply, b"\x01ping");

    let (status, _) = Client::connect_from("127.0.0.2", (DB, 80).into()).await.get("/").await;
    assert_eq!(status, 403);
    let listener = std::net::TcpListener::bind((OWN, 80)).expect("the address is there");
    let stop = proxy.adopt_transparent(listener).expect("it is taken over");
    assert_eq!(Client::connect((OWN, 80).into()).await.get("/").await, (200, "own".to_owned()));
    stop.cancel();
    // An address of no service.
    let mut stream = connect_from("127.0.0.1", (Ipv4Addr::new(10, 96, 9, 9), 80).into()).await;
    stream.write_all(b"\x01").await.expect("it is accepted");
    assert!(stream.read(&mut [0; 1]).await.is_err(), "it is reset");
    // A table with another address applies to the next connection.
    let mut moved = world.clone();
    moved.services.iter_mut().for_each(|s| s.address = if s.name == "web" { Some(DB) } else { None });
    proxy.set_table(Arc::new(heptad_route::Table::build(&heptad_route::Inputs {
        services: &moved.services,
        containers: &moved.containers,
        ..Default::default()
    })));
    assert_eq!(Client::connect((DB, 80).into()).await.get("/b").await.0, 200);
    proxy.shutdown(100).await;
    assert_eq!(proxy.status().connections_open, 0);
}

async fn echo_lines() -> std::net::SocketAddr {
    let (address, _server) = tcp_server(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    address
}

#[test]
fn redirected_connections_reach_the_service_they_were_addressed_to() {
    let thread = std::thread::spawn(|| {
        enter_namespace();
        // One thread, so that every socket is in its namespace.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, redirected()).await.expect("it ends") });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
