//! Nodes that die, are cut off, come back or stop in order: what can go elsewhere does.

use crate::{nodes::*, support::*};
use heptad_proxy::{Options, Proxy};
use http::{Request, Response};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// `web` on n2 and n3, called from n1.
async fn three() -> (Arc<Wires>, [Proxy; 3], SocketAddr) {
    let (two, three) = (named("n2").await, named("n3").await);
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[two]).on("n3", "web", &[three]);
    let (wires, proxies) = nodes(&world, ["n1", "n2", "n3"]).await;
    let address = listen(&proxies[0], "web").await;
    (wires, proxies, address)
}

/// Clients that send GETs until told to stop; returns how many responses they got, and the longest wait for one.
struct Load {
    running: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<Duration>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (running, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (running, done) = (Arc::clone(&running), Arc::clone(&done));
            clients.spawn(async move {
                let mut client = Client::connect(address).await;
                let mut longest = Duration::ZERO;
                while running.load(Relaxed) {
                    let started = Instant::now();
                    let (status, text) = client.get("/").await;
                    assert_eq!(status, 200, "{text}");
                    longest = longest.max(started.elapsed());
                    done.fetch_add(1, Relaxed);
                }
                longest
            });
        }
        Self { running, done, clients }
    }

    /// Waits for more responses.
    async fn go_on(&self, count: usize) {
        let wanted = self.done.load(Relaxed) + count;
        while self.done.load(Relaxed) < wanted && !self.clients.is_empty() {
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn end(mut self) -> Duration {
        self.running.store(false, Relaxed);
        let mut longest = Duration::ZERO;
        while let Some(client) = self.clients.join_next().await {
            longest = longest.max(client.expect("no request failed"));
        }
        longest
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_left_out_until_it_is_back() {
    let (wires, [n1, ..], address) = three().await;
    let load = Load::on(address);
    load.go_on(200).await;
    wires.set_fault("n2", Fault::Dead);
    load.go_on(500).await;
    let two = || n1.peers().into_iter().find(|peer| peer.node == "n2").expect("it was called");
    assert!(!two().is_reachable && two().error.is_some(), "{:?}", two());
    let requests = two().requests;
    load.go_on(500).await;
    assert_eq!(two().requests, requests, "nothing is sent there");
    wires.set_fault("n2", Fault::None);
    until("it is used again", || two().is_reachable && two().requests > requests + 50).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_is_noticed_and_gets_are_served_elsewhere() {
    let (wires, [n1, ..], address) = three().await;
    let load = Load::on(address);
    load.go_on(200).await;
    let cut_at = Instant::now();
    wires.set_fault("n2", Fault::Cut);
    let two = || n1.peers().into_iter().find(|peer| peer.node == "n2").expect("it was called");
    until("it is noticed", || !two().is_reachable).await;
    println!("noticed after {:?}", cut_at.elapsed());
    load.go_on(500).await;
    wires.set_fault("n2", Fault::None);
    until("it is used again", || two().is_reachable).await;
    println!("the longest request took {:?}", load.end().await);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_at_first_is_waited_for_only_if_there_is_no_other() {
    let endpoint = named("web").await;
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint]);
    let options = Options { peer_connect_wait_ms_max: 200, ..Options::default() };
    let (wires, [n1, _n2]) = nodes_with(&world, ["n1", "n2"], options).await;
    let address = listen(&n1, "web").await;
    let mut client = Client::connect(address).await;
    wires.set_fault("n2", Fault::Dead);
    let (status, text) = client.get("/").await;
    assert_eq!(status, 503);
    assert!(text.contains("the node n2 cannot be reached"), "{text}");
    // A node that is just restarting is waited for.
    wires.set_fault("n2", Fault::Cut);
    let back = tokio::spawn(async move {
        sleep(Duration::from_millis(600)).await;
        wires.set_fault("n2", Fault::None);
    });
    assert_eq!(client.get("/").await, (200, "web".to_owned()));
    back.await.expect("no panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_proxy_is_replaced_loses_no_request() {
    let endpoint = echo().await;
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint]);
    let (wires, [n1, mut n2]) = nodes(&world, ["n1", "n2"]).await;
    let address = listen(&n1, "web").await;
    let (running, done) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let (running, done) = (Arc::clone(&running), Arc::clone(&done));
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut longest = Duration::ZERO;
            while running.load(Relaxed) {
                let started = Instant::now();
                let body = format!("{number} {}", done.load(Relaxed));
                let request = Request::post("/").header("host", "web").body(body.clone()).expect("a request");
                assert_eq!(client.send(request).await.expect("a response"), (200, body));
                done.fetch_add(1, Relaxed);
                longest = longest.max(started.elapsed());
            }
            longest
        });
    }
    for _ in 0..5 {
        let wanted = done.load(Relaxed) + 50;
        until("requests are answered", || done.load(Relaxed) >= wanted).await;
        // The node port accepts nothing while the process is replaced.
        wires.set_fault("n2", Fault::None);
        let next = node(&wires, "n2", &world, Options::default()).await;
        let started = Instant::now();
        assert!(n2.drain(5_000).await, "everything ended");
        println!("drained after {:?}", started.elapsed());
        n2 = next;
    }
    running.store(false, Relaxed);
    let all = clients.join_all().await;
    println!("{} requests, the longest took {:?}", done.load(Relaxed), all.iter().max());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_progress_at_a_node_whose_proxy_ends_is_sent_once() {
    let served = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&served);
    let endpoint = http_server(move |request: Request<hyper::body::Incoming>| {
        let is_slow = request.method() == http::Method::POST;
        counted.fetch_add(usize::from(is_slow), Relaxed);
        async move {
            if is_slow {
                sleep(Duration::from_millis(1_000)).await;
            }
            Response::new("done".to_owned())
        }
    });
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint.await.0]);
    let (wires, [n1, n2]) = nodes(&world, ["n1", "n2"]).await;
    let address = listen(&n1, "web").await;
    let posting = tokio::spawn(async move {
        let request = Request::post("/").header("host", "web").body("once".to_owned()).expect("a request");
        Client::connect(address).await.send(request).await
    });
    until("it is in progress", || served.load(Relaxed) == 1).await;
    let _next = node(&wires, "n2", &world, Options::default()).await;
    let draining = tokio::spawn(async move { n2.drain(10_000).await });
    // These find the connection closed to new requests, and take another.
    let mut client = Client::connect(address).await;
    while !posting.is_finished() {
        assert_eq!(client.get("/").await, (200, "done".to_owned()));
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(posting.await.expect("no panic").expect("a response"), (200, "done".to_owned()));
    assert_eq!(served.load(Relaxed), 1);
    assert!(timeout(PATIENCE, draining).await.expect("it ends").expect("no panic"), "everything ended by itself");
}
