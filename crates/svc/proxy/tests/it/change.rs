//! Tables and listeners change under load: new requests follow at once, none fails.

use crate::support::*;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_kept_connection_follows_the_endpoints_at_once() {
    let (one, two) = (named("one").await, named("two").await);
    let world = World::new().service("web", &[one]);
    let (proxy, address) = world.serve("web").await;
    let mut client = Client::connect(address).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.1, "one");
        proxy.set_table(world.clone().endpoints("web", &[two]).table());
        assert_eq!(client.get("/").await.1, "two");
        proxy.set_table(world.table());
    }
    proxy.set_table(world.clone().endpoints("web", &[]).table());
    let (status, text) = client.get("/").await;
    assert_eq!(status, 503);
    assert!(text.contains("none of the 1 replicas of default/web is ready"), "{text}");
    assert_eq!(proxy.status().connections_pooled, 0, "connections to endpoints that are gone are closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_during_changes_all_succeed() {
    let endpoints = [echo().await, echo().await, echo().await];
    let world = World::new().service("web", &endpoints);
    let (proxy, address) = world.serve("web").await;
    let running = Arc::new(AtomicBool::new(true));
    let changer = tokio::spawn({
        let (proxy, running, world) = (proxy.clone(), Arc::clone(&running), world.clone());
        async move {
            let mut swaps = 0_usize;
            while running.load(Relaxed) {
                let left_out = swaps % (endpoints.len() + 1);
                let kept = endpoints.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, a)| *a);
                let kept: Vec<_> = kept.collect();
                proxy.set_table(world.clone().endpoints("web", &kept).table());
                swaps += 1;
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            swaps
        }
    });
    let clients: Vec<_> = (0..8)
        .map(|number| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for at in 0..1_250 {
                    let body = format!("{number} {at}");
                    let request = match at % 2 {
                        0 => http::Request::get("/").header("host", "web").body(String::new()),
                        _ => http::Request::post("/").header("host", "web").body(body.clone()),
                    };
                    let (status, text) = client.send(request.expect("a request")).await.expect("a response");
                    assert_eq!(status, 200, "{text}");
                    assert!(at % 2 == 0 || text == body, "{text} is not {body}");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no request failed");
    }
    running.store(false, Relaxed);
    let swaps = changer.await.expect("no panic");
    println!("{swaps} tables");
    let served: u64 = proxy.counts().iter().map(|count| count.responses[1]).sum();
    assert_eq!(served, 10_000);
}

#[tokio::test]
async fn service_listeners_follow_what_is_wanted() {
    let world = World::new().service("web", &[named("web").await]).service("api", &[named("api").await]);
    let proxy = world.start(Default::default()).await;
    let (first, second) = (free_address(), free_address());
    let set = async |wanted: &[(std::net::SocketAddr, &str)]| {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|&(address, name)| (address, (key(name), 80))).collect();
        proxy.set_service_listeners(wanted).await
    };
    assert!(set(&[(first, "web")]).await.is_empty());
    let mut kept = Client::connect(first).await;
    assert_eq!(kept.get("/").await.1, "web");
    assert!(set(&[(first, "api"), (second, "web")]).await.is_empty());
    assert_eq!(Client::connect(first).await.get("/").await.1, "api");
    assert_eq!(Client::connect(second).await.get("/").await.1, "web");
    assert_eq!(kept.get("/").await.1, "web", "connections of a listener that is gone go on");
    assert!(set(&[(second, "web")]).await.is_empty());
    assert!(TcpStream::connect(first).await.is_err());
    // Addresses that cannot be opened are reported, and the rest is served.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().expect("it is bound");
    let failed = set(&[(second, "web"), (taken_address, "api")]).await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].to_string().contains(&format!("cannot listen on {taken_address} for port 80 of default/api")));
    assert_eq!(Client::connect(second).await.get("/").await.1, "web");
}

#[tokio::test]
async fn a_container_that_left_the_table_is_waited_for_until_its_requests_have_ended() {
    let arrived = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (came, held) = (arrived.clone(), gate.clone());
    let (endpoint, _server) = http_server(move |_| {
        let (came, held) = (came.clone(), held.clone());
        async move {
            came.add_permits(1);
            held.acquire().await.expect("it is open").forget();
            http::Response::new("done".to_owned())
        }
    })
    .await;
    // One request comes from this node, one from another.
    let world = crate::nodes::from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint]);
    let (_wires, [n1, n2]) = crate::nodes::nodes(&world, ["n1", "n2"]).await;
    let (near, far) = (listen(&n2, "web").await, listen(&n1, "web").await);
    let requests = [near, far].map(|to| tokio::spawn(async move { Client::connect(to).await.get("/").await }));
    arrived.acquire_many(2).await.expect("it is open").forget();
    let container = world.containers.iter().find(|c| c.service == key("web")).expect("a container").id.clone();
    assert_eq!(n2.in_progress(&container).requests, 2);
    let waiting = tokio::spawn({
        let (n2, container) = (n2.clone(), container.clone());
        async move { n2.requests_ended(&container).await }
    });
    let gone = crate::nodes::from_n1(World::new().service("web", &[]));
    n2.set_table(gone.table());
    gate.add_permits(1);
    while n2.in_progress(&container).requests == 2 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished(), "one is in progress");
    gate.add_permits(1);
    tokio::time::timeout(PATIENCE, waiting).await.expect("it ends").expect("no panic");
    for request in requests {
        assert_eq!(request.await.expect("no panic"), (200, "done".to_owned()));
    }
    assert_eq!(n2.in_progress(&container), heptad_proxy::InProgress::default());
}
