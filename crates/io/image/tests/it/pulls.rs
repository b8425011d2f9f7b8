//! How pulls behave: policies, sharing, several at once, broken connections, being dropped.

use std::time::{Duration, Instant};

use heptad_image::{Digest, Image, ImageError, ImageStore, LayerState, Options, PullPolicy, PullProgress, Reference};
use tokio::sync::watch;

use super::build::{Archive, Handmade, Layout, busybox, here};
use super::registry::{Breaker, LOGIN, Registry};
use super::{World, options, run, text};

/// Bytes that do not compress, the same every time.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn big_image(world: &World, registry: &Registry, name: &str) -> String {
    let layer = Archive::default().file("noise", &noise(6 << 20, 7)).done();
    let id = Digest::sha256(&layer);
    let layout = Handmade::new(world.path(name), &[layer], &[id], here());
    registry.push(&layout.reference(), &format!("{name}:1"), &[])
}

#[test]
fn pull_twice() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = busybox(&w, "oci");
    let app = registry.push(&format!("oci:{}", layout.tag("app")), "app:1", &[]);
    let base = registry.push(&format!("oci:{}", layout.tag("base")), "base:1", &[]);
    let store = w.store(options(&registry.address));
    let (sender, receiver) = watch::channel(PullProgress::default());
    let reference: Reference = app.parse().expect("reference");
    let image = w.runtime.block_on(store.pull(&reference, Some(sender))).expect("pull");
    let progress = receiver.borrow().clone();
    assert!(progress.layers.iter().all(|l| l.state == LayerState::Done && l.bytes_done == l.bytes_total));
    assert!(progress.layers.len() == 3 && progress.bytes().1 > 0 && progress.image == reference.to_string());

    assert_eq!(registry.blob_requests("app"), 4, "three layers and a configuration");
    assert_eq!(w.pull(&store, &app).expect("again"), image);
    assert_eq!(registry.blob_requests("app"), 4);

    let (sender, receiver) = watch::channel(PullProgress::default());
    let shared = w.runtime.block_on(store.pull(&base.parse().expect("reference"), Some(sender))).expect("pull");
    assert_eq!(receiver.borrow().layers[0].state, LayerState::Present);
    assert_eq!(registry.blob_requests("base"), 1, "the configuration alone: its layer is shared");
    assert_eq!(shared.layers.last(), image.layers.last());
    assert_eq!(w.names("layers").len(), 3);

    drop(store);
    let store = w.store(options(&registry.address));
    assert_eq!(store.get(&reference).expect("reads"), Some(image), "it is there after a restart");
    assert_eq!(store.list().expect("list").len(), 2);
}

#[test]
fn policies() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = Layout::new(&w, "oci");
    let push = |content: &[u8]| {
        layout.blank("t");
        layout.archive(&w, "t", Archive::default().file("f", content));
        registry.push(&format!("oci:{}", layout.tag("t")), "app:1", &[])
    };
    let reference: Reference = push(b"one").parse().expect("reference");
    let store = w.store(options(&registry.address));
    let ensure = |policy| w.runtime.block_on(store.ensure(&reference, policy, None));
    assert!(matches!(ensure(PullPolicy::Never), Err(ImageError::Absent { .. })));
    let content = |policy| text(&ensure(policy).expect("image").layers[0].join("f"));
    assert_eq!(content(PullPolicy::IfNotPresent), "one");
    push(b"two");
    assert_eq!(content(PullPolicy::IfNotPresent), "one");
    assert_eq!(content(PullPolicy::Never), "one");
    assert_eq!(content(PullPolicy::Always), "two");
    assert_eq!(content(PullPolicy::IfNotPresent), "two");
    drop(registry);
    assert_eq!(content(PullPolicy::IfNotPresent), "two");
    assert!(matches!(ensure(PullPolicy::Always), Err(ImageError::Registry { .. })));
}

#[test]
fn what_a_tag_is_can_be_asked_and_held_on_to() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = Layout::new(&w, "oci");
    let archive = w.path("archive.tar").display().to_string();
    let push = |content: &[u8]| {
        layout.blank("t");
        layout.archive(&w, "t", Archive::default().file("f", content));
        let _ = std::fs::remove_file(&archive);
        let from = format!("oci:{}", layout.tag("t"));
        run("skopeo", &["copy", "--quiet", "--insecure-policy", &from, &format!("docker-archive:{archive}:app:1")]);
        registry.push(&from, "app:1", &[])
    };
    let tag = push(b"one");
    let store = w.store(options(&registry.address));
    let layout_name = format!("oci:{}", layout.tag("t"));
    let all = [tag, layout_name, format!("docker-archive:{archive}:app:1")]
        .map(|text| text.parse::<Reference>().expect("reference"));
    let resolve = |reference: &Reference| w.runtime.block_on(store.resolve(reference)).expect("resolves");
    let content = |reference: &Reference| {
        let image = w.runtime.block_on(store.ensure(reference, PullPolicy::IfNotPresent, None));
        image.map(|image| text(&image.layers[0].join("f")))
    };
    let first = all.clone().map(|reference| (resolve(&reference), reference));
    let pinned = first.clone().map(|(digest, reference)| reference.pinned(digest));
    assert!(pinned.iter().all(Reference::is_pinned) && !all.iter().any(Reference::is_pinned));
    assert_eq!(pinned.each_ref().map(|reference| content(reference).expect("image")), ["one"; 3]);
    push(b"two");
    for (digest, reference) in &first {
        let second = resolve(reference);
        assert_ne!(second, *digest, "{reference}");
        assert_eq!(content(&reference.clone().pinned(second)).expect("image"), "two", "{reference}");
    }
    assert_eq!(pinned.each_ref().map(|reference| content(reference).expect("present")), ["one"; 3]);
    drop(store);

    // A node that comes later gets the very same from whoever still has it; an archive has only one.
    std::fs::remove_dir_all(w.path("store")).expect("store");
    let store = w.store(options(&registry.address));
    let pull = |reference: &Reference| w.runtime.block_on(store.pull(reference, None));
    for reference in &pinned[..2] {
        assert_eq!(text(&pull(reference).expect("by its digest").layers[0].join("f")), "one", "{reference}");
    }
    assert!(matches!(pull(&pinned[2]), Err(ImageError::NotFound { .. })));
}

#[test]
fn a_registry_with_a_password() {
    let (w, registry) = (World::new(), Registry::guarded());
    let layout = Layout::new(&w, "oci");
    layout.blank("t");
    layout.archive(&w, "t", Archive::default().file("f", b"hidden"));
    let name = registry.push(&format!("oci:{}", layout.tag("t")), "app:1", &["--dest-creds", LOGIN]);
    let store = w.store(options(&registry.address));
    let error = w.pull(&store, &name).expect_err("no password").to_string();
    assert!(error.contains("--registry-auth FILE") && error.contains(&name), "{error}");
    drop(store);

    let file = w.path("config.json");
    let store = w.store(Options { auth_file: Some(file.clone()), ..options(&registry.address) });
    assert!(matches!(w.pull(&store, &name), Err(ImageError::AuthFile { .. })), "no such file");
    let (user, password) = LOGIN.split_once(':').expect("a pair");
    let write = |password: &str| {
        let entry = serde_json::json!({ "username": user, "password": password });
        let auths = serde_json::json!({ "auths": { registry.address.clone(): entry } });
        std::fs::write(&file, auths.to_string()).expect("file");
    };
    write("another");
    let error = w.pull(&store, &name).expect_err("wrong password").to_string();
    assert!(
        error.contains("the user name and password that --registry-auth has") && !error.contains("another"),
        "{error}"
    );
    write(password);
    assert_eq!(text(&w.pull(&store, &name).expect("read anew").layers[0].join("f")), "hidden");
}

#[test]
fn at_once() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = busybox(&w, "oci");
    let app = registry.push(&format!("oci:{}", layout.tag("app")), "same/app:1", &[]);
    let store = w.store(options(&registry.address));
    let reference: Reference = app.parse().expect("reference");
    let images = w.runtime.block_on(pull_all(&store, &reference, 6));
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    let layers = registry.blob_requests("same/app") - 6;
    assert!(layers <= 3, "each layer came once, configurations at most once per pull; {layers} layer requests");
    assert_eq!((w.names("layers").len(), w.names("tmp").len()), (3, 0));
}

/// Layers that each need the ones below: several pulls must neither wait for each other for ever nor fetch twice.
#[test]
fn leaning_at_once() {
    let (w, registry) = (World::new(), Registry::start());
    let layers: Vec<Vec<u8>> = (0..8)
        .map(|i| Archive::default().file(&format!("a/b/{i}"), b"x").file("a/shared", &[b'0' + i]).done())
        .collect();
    let ids: Vec<Digest> = layers.iter().map(|l| Digest::sha256(l)).collect();
    let layout = Handmade::new(w.path("oci"), &layers, &ids, here());
    let reference: Reference = registry.push(&layout.reference(), "lean:1", &[]).parse().expect("reference");
    let store = w.store(options(&registry.address));
    let pulls = async { tokio::time::timeout(Duration::from_secs(60), pull_all(&store, &reference, 6)).await };
    let images = w.runtime.block_on(pulls);
    let images = images.expect("no pull waits for ever");
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(text(&images[0].layers[0].join("a/shared")), "7");
    assert_eq!(registry.blob_requests("lean") - 6, 8);
    assert_eq!((w.names("layers").len(), w.names("tmp").len()), (8, 0));
}

async fn pull_all(store: &ImageStore, reference: &Reference, count: usize) -> Vec<Image> {
    let pulls: Vec<_> = (0..count)
        .map(|_| {
            let (store, reference) = (store.clone(), reference.clone());
            tokio::spawn(async move { store.pull(&reference, None).await })
        })
        .collect();
    let mut images = Vec::new();
    for pull in pulls {
        images.push(pull.await.expect("task").expect("pull"));
    }
    images
}

#[test]
fn resumed() {
    let (w, registry) = (World::new(), Registry::start());
    let name = big_image(&w, &registry, "big");
    let breaker = Breaker::before(&registry, 2 << 20);
    let store = w.store(options(&breaker.address));
    let image = w.pull(&store, &name.replace(&registry.address, &breaker.address)).expect("pull");
    assert!(breaker.has_broken(), "the connection broke");
    assert_eq!(std::fs::read(image.layers[0].join("noise")).expect("file"), noise(6 << 20, 7));
    assert_eq!(registry.blob_requests("big"), 3, "a configuration, and the layer in two parts");
}

#[test]
fn dropped() {
    let (w, registry) = (World::new(), Registry::start());
    let reference: Reference = big_image(&w, &registry, "big").parse().expect("reference");
    let store = w.store(options(&registry.address));
    let mut cut = 0;
    for delay_ms in [5, 20, 50, 80, 120, 160] {
        let pull = async { tokio::time::timeout(Duration::from_millis(delay_ms), store.pull(&reference, None)).await };
        if w.runtime.block_on(pull).is_err() {
            cut += 1;
        }
        let until = Instant::now() + Duration::from_secs(60);
        while !w.names("tmp").is_empty() {
            assert!(Instant::now() < until, "temporary files stay: {:?}", w.names("tmp"));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(cut > 0, "at least one pull was dropped on its way");
    let image = w.runtime.block_on(store.pull(&reference, None)).expect("pull");
    assert_eq!(std::fs::read(image.layers[0].join("noise")).expect("file").len(), 6 << 20);
}
