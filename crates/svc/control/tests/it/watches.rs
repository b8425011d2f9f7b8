//! Watches: every change once and in order, resumed over lost connections and compactions.

use crate::common::{World, node, options, service, until};
use heptad_api::{ErrorCode, Manifest, WatchChange, operations::ApplyRequest};
use heptad_client::{Client, watch_state};
use heptad_control::{Control, Options, ServerParts};
use heptad_model::{Namespace, NetworkPolicy, Selector, Service};
use heptad_state::{MemoryStore, Store};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_every_change_and_how_far_it_is() {
    let world = World::new().await;
    let client = &world.client;
    let first = client.create(&service("a", 0)).await.expect("created");
    let mut watch = client.watch::<Service>(Some(first.revision)).await.expect("a watch");
    client.delete::<Service>(&Namespace::default(), "a", None).await.expect("deleted");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let batch = watch.next().await.expect("no error").expect("no end");
        seen.extend(batch.events.into_iter().map(|event| (batch.revision, event.change, event.object)));
    }
    assert_eq!((seen[0].0, seen[0].1), (first.revision, WatchChange::Put));
    assert_eq!((seen[1].1, &seen[1].2), (WatchChange::Delete, &first.object));
    let idle = watch.next().await.expect("no error").expect("no end");
    assert!(idle.events.is_empty() && idle.revision >= seen[1].0, "an idle watch says how far it is");
    // Other namespaces are not seen.
    let other = Namespace("other".into());
    let mut elsewhere = client.watch_in::<Service>(Some(&other), Some(1)).await.expect("a watch");
    assert!(elsewhere.next().await.expect("no error").expect("no end").events.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_follows_over_a_restart_of_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let start = async || Control::start(options(&dir), store.clone(), ServerParts::default()).await.expect("it starts");
    let control = start().await;
    let client = Client::unix(dir.path().join("api.sock"));
    client.create(&service("a", 0)).await.expect("created");
    let mut state = watch_state::<Service>(&client);
    assert_eq!(state.synced().await.objects.len(), 1);
    control.shutdown().await;
    let control = start().await;
    client.create(&service("b", 0)).await.expect("created");
    client.delete::<Service>(&Namespace::default(), "a", None).await.expect("deleted");
    let only_b = |view: &heptad_client::View<Service>| view.objects.keys().eq(["default/b"]);
    until("the view has b only", async || only_b(&state.view())).await;

    // While nobody serves, the store advances and forgets: the view lists again.
    control.shutdown().await;
    let objects = heptad_control::Objects::new(store.clone(), heptad_control::Options::default().service_cidr, 100);
    objects.create(service("c", 0)).await.expect("created");
    objects.delete::<Service>(&Namespace::default(), "b", None).await.expect("deleted");
    let revision = store.current_revision().await.expect("a revision");
    store.compact(revision).await.expect("compacted");
    let _control = start().await;
    let only_c = |view: &heptad_client::View<Service>| view.objects.keys().eq(["default/c"]);
    until("the view has c only", async || only_c(&state.view())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_forgotten_history_is_told_so() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = World::with(store.clone(), |_| {}, ServerParts::default()).await;
    for i in 0..5 {
        world.client.create(&service(&format!("s{i}"), 0)).await.expect("created");
    }
    store.compact(store.current_revision().await.expect("a revision")).await.expect("compacted");
    let told = async {
        let mut watch = world.client.watch::<Service>(Some(2)).await?;
        watch.next().await.map(|_| ())
    };
    let error = told.await.expect_err("compacted");
    assert_eq!(error.code(), Some(ErrorCode::Compacted));
    assert!(error.is_compacted());
    // A list that was begun earlier is told so too.
    let page = world.client.page::<Service>(None, 2, Some("2.default/s1".into())).await;
    assert_eq!(page.expect_err("compacted").code(), Some(ErrorCode::Compacted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_of_one_revision() {
    let world = World::new().await;
    for i in 0..5 {
        world.client.create(&service(&format!("s{i}"), 0)).await.expect("created");
    }
    let first = world.client.page::<Service>(None, 2, None).await.expect("a page");
    world.client.create(&service("s9", 0)).await.expect("created");
    let (mut names, mut next) = (Vec::new(), first.next.clone());
    names.extend(first.items.into_iter().map(|item| item.object.name));
    while let Some(token) = next {
        let page = world.client.page::<Service>(None, 2, Some(token)).await.expect("a page");
        assert_eq!(page.revision, first.revision);
        names.extend(page.items.into_iter().map(|item| item.object.name));
        next = page.next;
    }
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_watches_and_a_client_that_does_not_read_hurt_nobody() {
    let store = Arc::new(MemoryStore::new());
    let world = World::with(store, |options| options.streams_max = 2, ServerParts::default()).await;
    // A client that sends a request and never reads.
    let socket = world.control.socket().expect("it has a socket");
    let mut deaf = tokio::net::UnixStream::connect(socket).await.expect("connected");
    let ask = b"GET /v1/services?watch=true&revision=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    deaf.write_all(ask).await.expect("asked");
    // Its watch has begun; from here on it reads nothing.
    let mut head = [0; 12];
    deaf.read_exact(&mut head).await.expect("answered");
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut watch = world.client.watch::<Service>(Some(1)).await.expect("a watch");
    let busy = async {
        loop {
            // The deaf client's watch may not have begun yet.
            match world.client.watch::<Service>(None).await {
                Err(error) => return error,
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    assert_eq!(busy.await.code(), Some(ErrorCode::Busy));
    let text = "x".repeat(30_000);
    for i in 0..100 {
        let mut large = service("large", 0);
        large.environment.insert("TEXT".into(), format!("{i}{text}"));
        world.client.replace(&large, None).await.expect("written");
    }
    let mut seen = 0;
    while seen < 100 {
        seen += watch.next().await.expect("no error").expect("no end").events.len();
    }
    // When it reads at last, it gets everything from the store's history.
    let mut read = Vec::new();
    while read.windows(2).filter(|w| w == b"99").count() < 1 || read.len() < 100 * 30_000 {
        let mut buffer = vec![0; 64 << 10];
        let bytes = deaf.read(&mut buffer).await.expect("it reads");
        assert_ne!(bytes, 0);
        read.extend_from_slice(&buffer[..bytes]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_together_is_seen_together_by_proxies() {
    // Nobody reports for the node.
    let patient = |options: &mut Options| (options.node_unknown_ms, options.node_not_ready_ms) = (600_000, 900_000);
    let world = World::with(Arc::new(MemoryStore::new()), patient, ServerParts::default()).await;
    world.client.replace(&node("n1", 16_000, 16_384), None).await.expect("registered");
    let mut mesh = world.client.follow_mesh();
    mesh.changed().await;
    assert!(mesh.view().services.is_empty());
    let applier = world.client.clone();
    let applying = tokio::spawn(async move {
        for number in 0..50 {
            let service = service(&format!("s{number}"), 1);
            let policy = NetworkPolicy {
                id: String::new(),
                name: format!("p{number}"),
                namespace: Namespace::default(),
                selector: Selector { services: vec![service.name.clone()], ..Selector::default() },
                ingress: Some(Vec::new()),
                egress: None,
            };
            // The service comes first, the policy with it.
            let objects = vec![Manifest::Service(service), Manifest::Policy(policy)];
            applier.apply(&ApplyRequest { objects }).await.expect("applied");
        }
    });
    let mut views = 0;
    while mesh.view().services.len() < 50 || mesh.view().containers.len() < 50 {
        mesh.changed().await;
        views += 1;
        let (services, policies) = (mesh.view().services.keys(), mesh.view().policies.keys());
        let (services, policies) = (services.map(|k| &k.name[1..]), policies.map(|k| &k.name[1..]));
        assert!(services.eq(policies), "a service is there without its policy");
        let own = |c: &heptad_model::Container| mesh.view().services.contains_key(&c.service);
        assert!(mesh.view().containers.values().all(own), "a container is there without its service");
        assert!(mesh.view().containers.values().all(|c| c.template.image.is_empty()), "what it is made of stays");
    }
    applying.await.expect("applied");
    assert!(views > 3, "{views}");
    // The same is read at once, and a change of a container alone says so.
    let read = heptad_client::MeshView::from(world.client.mesh_state().await.expect("read"));
    assert_eq!((&read.services, &read.policies), (&mesh.view().services, &mesh.view().policies));
    assert_eq!(read.containers, mesh.view().containers);
    assert!(read.containers.values().all(|c| c.node.is_some()), "only those that have a node");
    world.client.delete::<Service>(&Namespace::default(), "s0", None).await.expect("deleted");
    while mesh.view().services.len() == 50 {
        assert!(mesh.changed().await.only_containers == (mesh.view().services.len() == 50));
    }
}
