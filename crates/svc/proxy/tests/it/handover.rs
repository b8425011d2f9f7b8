//! A proxy hands its listeners to the next one under load: no connection is refused, no request fails.

use crate::support::*;
use heptad_proxy::{Options, Parts, Proxy};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Sends one request on `stream` and says whether the connection may be used again.
async fn get(stream: &mut tokio::net::TcpStream, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nhost: web.example.com\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the proxy reads");
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nweb") {
        let count = stream.read_buf(&mut text).await.expect("a response");
        assert!(count > 0, "no end before the response: {:?}", String::from_utf8_lossy(&text));
    }
    assert!(text.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&text));
    !String::from_utf8_lossy(&text).contains("connection: close")
}

/// A proxy with the listeners of the previous one.
async fn next(world: &World, before: &Proxy, service: SocketAddr, ingress: Option<SocketAddr>) -> Proxy {
    let listeners = before.listeners().await.expect("descriptors can be copied");
    let inherited = listeners.into_iter().map(|(name, fd)| (name, fd.into())).collect();
    let options = Options { ingress, ..Options::default() };
    let parts = Parts { inherited, ..Parts::new(resolver()) };
    let proxy = Proxy::start_with(options, parts).await.expect("the proxy starts");
    let wanted = BTreeMap::from([(service, (key("web"), 80))]);
    assert!(proxy.set_service_listeners(wanted).await.is_empty(), "the inherited listener is used");
    // Until there is a table, connections wait.
    sleep(Duration::from_millis(20)).await;
    proxy.set_table(world.table());
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_change_hands_under_load() {
    let mut world = World::new().service("web", &[named("web").await]);
    let expose = heptad_model::Expose { host: "web.example.com".to_owned(), port: None };
    world.services.iter_mut().filter(|service| service.name == "web").for_each(|s| s.expose = Some(expose.clone()));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut proxy = world.start(Options { ingress: Some(any), ..Options::default() }).await;
    let ingress = proxy.ingress_address().expect("it listens");
    let service = listen(&proxy, "web").await;
    let running = Arc::new(AtomicBool::new(true));
    let mut clients = JoinSet::new();
    for number in 0..12 {
        let running = Arc::clone(&running);
        let address = if number % 2 == 0 { ingress } else { service };
        clients.spawn(async move {
            let (mut done, mut connections) = (0_usize, 0_usize);
            while running.load(Relaxed) {
                connections += 1;
                let mut stream = timeout(PATIENCE, connect_from("127.0.0.1", address)).await.expect("it is accepted");
                let requests_max = if number % 3 == 0 { 1 } else { 1_000 };
                for at in 0..requests_max {
                    let kept = timeout(PATIENCE, get(&mut stream, &format!("/{at}"))).await.expect("an answer");
                    done += 1;
                    if !kept || !running.load(Relaxed) {
                        break;
                    }
                }
            }
            (done, connections)
        });
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(100)).await;
        let listeners = proxy.listeners().await.expect("descriptors can be copied");
        assert_eq!(
            listeners.keys().map(String::as_str).collect::<Vec<_>>(),
            ["ingress", &format!("service/{service}")]
        );
        assert!(proxy.drain(10_000).await, "everything ended");
        // Nobody accepts for as long as it takes to start a process.
        sleep(Duration::from_millis(150)).await;
        let following = next(&world, &proxy, service, Some(ingress)).await;
        proxy.shutdown(0).await;
        proxy = following;
    }
    running.store(false, Relaxed);
    let all = clients.join_all().await;
    println!("requests and connections of each client: {all:?}");
    assert!(all.iter().all(|(done, connections)| *done > 10 && *connections > 5), "{all:?}");
}

#[tokio::test]
async fn a_kept_connection_is_told_before_it_ends() {
    let world = World::new().service("web", &[named("web").await]);
    let (proxy, address) = world.serve("web").await;
    let (mut used, mut idle) = (connect_from("127.0.0.1", address).await, connect_from("127.0.0.1", address).await);
    assert!(get(&mut used, "/").await && get(&mut idle, "/").await);
    let draining = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.drain(4_000).await }
    });
    let last = async { while get(&mut used, "/").await {} };
    timeout(PATIENCE, last).await.expect("it is served, and told that this was the last");
    assert_eq!(used.read(&mut [0]).await.expect("it ends in order"), 0);
    assert_eq!(timeout(PATIENCE, idle.read(&mut [0])).await.expect("it ends").expect("in order"), 0);
    assert!(draining.await.expect("no panic"));
    // New connections are not refused; they wait for whoever has the listener next.
    let mut waiting = connect_from("127.0.0.1", address).await;
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.expect("the kernel takes it");
    let before = proxy.counts();
    let following = next(&world, &proxy, address, None).await;
    assert!(waiting.read(&mut [0]).await.is_ok_and(|count| count == 1), "it is served by the next");
    assert_eq!(proxy.counts(), before);
    proxy.shutdown(0).await;
    following.shutdown(0).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "after the end the listener is closed");
}

#[tokio::test]
async fn without_a_table_connections_wait() {
    let world = World::new().service("web", &[named("web").await]);
    let proxy = Proxy::start_with(Options::default(), Parts::new(resolver())).await.expect("the proxy starts");
    let address = listen(&proxy, "web").await;
    let getting = tokio::spawn(async move { Client::connect(address).await.get("/").await });
    // Enough time to be refused, if that were to happen.
    sleep(Duration::from_millis(200)).await;
    assert!(!getting.is_finished());
    proxy.set_table(world.table());
    assert_eq!(getting.await.expect("no panic"), (200, "web".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_from_outside_that_needs_another_service_ends_while_draining() {
    let (calls, next_call) = tokio::sync::watch::channel(SocketAddr::from(([127, 0, 0, 1], 1)));
    let (reached, is_reached) = tokio::sync::oneshot::channel::<()>();
    let reached = Arc::new(std::sync::Mutex::new(Some(reached)));
    // The endpoint of `web` calls `back` through the proxy, some time after it was called itself.
    let front = http_server(move |_| {
        let (back, reached) = (*next_call.borrow(), reached.clone());
        async move {
            if let Some(reached) = reached.lock().expect("no panic").take() {
                let _ = reached.send(());
            }
            sleep(Duration::from_millis(300)).await;
            let (_, text) = Client::connect(back).await.get("/").await;
            hyper::Response::new(text)
        }
    });
    let (front, back) = (front.await.0, named("web").await);
    let mut world = World::new().service("web", &[front]).service("back", &[back]);
    let expose = heptad_model::Expose { host: "web.example.com".to_owned(), port: None };
    world.services.iter_mut().filter(|service| service.name == "web").for_each(|s| s.expose = Some(expose.clone()));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let proxy = world.start(Options { ingress: Some(any), ..Options::default() }).await;
    calls.send_replace(listen(&proxy, "back").await);
    let ingress = proxy.ingress_address().expect("it listens");
    let asking = tokio::spawn(async move {
        let mut stream = connect_from("127.0.0.1", ingress).await;
        timeout(PATIENCE, get(&mut stream, "/")).await.expect("an answer")
    });
    is_reached.await.expect("it is asked");
    assert!(proxy.drain(10_000).await, "everything ended by itself");
    asking.await.expect("it was answered by both services");
}
