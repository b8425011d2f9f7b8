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
    // What cannot be opened is said, and the rest is served.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken_address = taken.local_addr().expect("it is bound");
    let failed = set(&[(second, "web"), (taken_address, "api")]).await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].to_string().contains(&format!("cannot listen on {taken_address} for port 80 of default/api")));
    assert_eq!(Client::connect(second).await.get("/").await.1, "web");
}
