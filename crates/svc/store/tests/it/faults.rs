//! Lost and damaged copies, lost nodes, full disks, broken uploads.

use crate::support::{Random, World, blob_options, options};
use bytes::Bytes;
use futures_util::stream;
use heptad_store::{BlobOptions, BodyError, GarbageMemory, NodeState, PutOptions, StorageError};
use std::time::Duration;

async fn fill(world: &World, random: &mut Random, count: usize) -> Vec<(String, Bytes)> {
    let mut objects = Vec::new();
    for i in 0..count {
        let (key, content) = (format!("object-{i}"), random.bytes(40_000));
        world.storage.put_bytes("data", &key, content.clone()).await.unwrap();
        objects.push((key, content));
    }
    objects
}

async fn assert_all(world: &World, objects: &[(String, Bytes)]) {
    for (key, content) in objects {
        assert_eq!(&world.storage.get_bytes("data", key, u64::MAX).await.unwrap(), content, "{key}");
    }
}

/// Waits for copies that are still being written in the background.
async fn settle(world: &World) {
    for _ in 0..200 {
        let status = world.storage.status().await;
        if status.nodes.windows(2).all(|pair| pair[0].blobs == pair[1].blobs) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Repairs until all is whole: a write that failed late tells of it late.
async fn whole(world: &World) -> heptad_store::StorageStatus {
    for _ in 0..100 {
        let status = world.storage.status().await;
        if status.shards_whole == status.shards_total {
            return status;
        }
        world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    }
    panic!("not whole: {:?}", world.storage.status().await.nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_directory_costs_nothing_and_is_refilled() {
    let mut random = Random::seeded("lost");
    let world = World::new().await;
    let mut objects = fill(&world, &mut random, 30).await;
    settle(&world).await;
    assert_eq!(world.storage.status().await.shards_whole, 0, "nobody has looked yet");
    world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert_eq!(world.storage.status().await.shards_whole, 50);
    world.lose(1);
    assert_all(&world, &objects).await;
    world.storage.put_bytes("data", "later", "written with two nodes".into()).await.unwrap();
    objects.push(("later".to_owned(), "written with two nodes".into()));
    let status = world.storage.status().await;
    assert_eq!(status.nodes[1].state, NodeState::Unavailable);
    assert_eq!((status.shards_whole, status.shards_degraded[0].copies_good), (0, 2));

    let report = world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert_eq!((report.nodes_recovered, report.blobs_lost), (1, 0));
    assert!(report.copies_restored >= report.copies_missing && report.copies_missing > 30, "{report:?}");
    let status = whole(&world).await;
    assert!(status.nodes.windows(2).all(|pair| pair[0].blobs == pair[1].blobs), "{:?}", status.nodes);

    // The refilled node alone has everything.
    world.lose(0);
    world.lose(2);
    assert_all(&world, &objects).await;
    let refused = world.storage.put_bytes("data", "more", "x".into()).await.unwrap_err();
    assert!(matches!(refused, StorageError::NoQuorum { needed: 2, durable: 0..2, .. }), "{refused}");
    assert!(matches!(world.storage.head("data", "more").await, Err(StorageError::NotFound(_))));
    world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    world.lose(1);
    assert_all(&world, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_restores_a_lost_directory_by_itself() {
    let mut random = Random::seeded("maintain");
    let options = heptad_store::Options { check_interval_ms: 50, check_gap_ms_min: 10, ..options() };
    let world = World::with(blob_options(), options).await;
    let objects = fill(&world, &mut random, 10).await;
    settle(&world).await;
    let _maintenance = world.storage.maintain();
    world.lose(2);
    let mut whole = 0;
    for _ in 0..500 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let status = world.storage.status().await;
        whole = status.shards_whole;
        if whole == 50 && status.nodes.windows(2).all(|pair| pair[0].blobs == pair[1].blobs) {
            world.lose(0);
            return assert_all(&world, &objects).await;
        }
    }
    panic!("only {whole} shards are whole");
}

/// G11: two nodes are damaged at random, one is whole: always the right bytes; afterwards everything is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damage_changes_what_is_read() {
    let mut random = Random::seeded("damage");
    for _ in 0..6 {
        let mut world = World::new().await;
        let objects = fill(&world, &mut random, 15).await;
        settle(&world).await;
        let whole = random.below(3) as usize;
        for node in (0..3).filter(|node| *node != whole) {
            (0..30).for_each(|_| world.flip(node, &mut random));
        }
        if random.below(2) == 0 {
            world = world.reopen().await;
        }
        assert_all(&world, &objects).await;
        let mut memory = GarbageMemory::default();
        world.storage.repair_once(&mut memory).await.unwrap();
        let second = world.storage.repair_once(&mut memory).await.unwrap();
        assert_eq!((second.copies_missing, second.copies_corrupt, second.blobs_lost), (0, 0, 0), "{second:?}");
        world.lose(whole);
        assert_all(&world, &objects).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_all_copies_is_an_error_and_never_wrong_bytes() {
    let mut random = Random::seeded("all damaged");
    let world = World::new().await;
    let objects = fill(&world, &mut random, 10).await;
    settle(&world).await;
    for node in 0..3 {
        (0..400).for_each(|_| world.flip(node, &mut random));
    }
    for (key, content) in &objects {
        match world.storage.get_bytes("data", key, u64::MAX).await {
            Ok(read) => assert_eq!(&read, content),
            Err(error) => assert!(matches!(error, StorageError::DataLost { .. }), "{error}"),
        }
    }
    let report = world.storage.repair_once(&mut GarbageMemory::default()).await.unwrap();
    assert!(report.copies_corrupt > 0, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_nodes_refuse_and_nothing_half_is_seen() {
    let mut random = Random::seeded("full");
    let world = World::with(BlobOptions { capacity_bytes: 1 << 20, ..blob_options() }, options()).await;
    let mut stored = Vec::new();
    let refused = loop {
        let (key, content) = (format!("object-{}", stored.len()), random.bytes(80_000));
        match world.storage.put_bytes("data", &key, content.clone()).await {
            Ok(_) => stored.push((key, content)),
            Err(error) => break error,
        }
        assert!(stored.len() < 200);
    };
    assert!(matches!(refused, StorageError::InsufficientSpace { needed: 2, .. }), "{refused}");
    assert_eq!(refused.problem().status, 507);
    assert_eq!(world.storage.list("data", "", None, 1000).await.unwrap().objects.len(), stored.len());
    assert_all(&world, &stored).await;
    for (key, _) in stored.drain(..) {
        world.storage.delete("data", &key).await.unwrap();
    }
    let mut memory = GarbageMemory::default();
    for _ in 0..300 {
        world.storage.repair_once(&mut memory).await.unwrap();
        if world.storage.put_bytes("data", "again", Bytes::from(vec![7; 300_000])).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no room after everything was deleted: {:?}", world.storage.status().await.nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_or_wrong_upload_leaves_the_old_object() {
    let world = World::new().await;
    world.storage.put_bytes("data", "key", "old".into()).await.unwrap();
    let part = Ok(Bytes::from(vec![1; 50_000]));
    let broken = stream::iter([part, Err(BodyError::from("the line was cut"))]);
    let error = world.storage.put("data", "key", broken, PutOptions::default()).await.unwrap_err();
    assert!(matches!(error, StorageError::Body { .. }), "{error}");
    let wrong = PutOptions { checksum: Some("00".repeat(32)), ..PutOptions::default() };
    let body = stream::iter([Ok::<_, BodyError>(Bytes::from_static(b"new"))]);
    let error = world.storage.put("data", "key", body, wrong).await.unwrap_err();
    assert!(matches!(error, StorageError::ChecksumMismatch { .. }), "{error}");
    assert_eq!(world.storage.get_bytes("data", "key", 100).await.unwrap(), "old");
    let huge = stream::iter((0..2_000).map(|_| Ok::<_, BodyError>(Bytes::from(vec![1; 50_000]))));
    let world = World::with(blob_options(), heptad_store::Options { object_bytes_max: 100_000, ..options() }).await;
    let error = world.storage.put("data", "huge", huge, PutOptions::default()).await.unwrap_err();
    assert!(matches!(error, StorageError::TooLarge { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_no_data() {
    use futures_util::StreamExt;
    let world = World::new().await;
    let endless = stream::iter([Ok::<_, BodyError>(Bytes::from(vec![1; 100_000]))]).chain(stream::pending());
    let put = world.storage.put("data", "key", endless, PutOptions::default());
    assert!(tokio::time::timeout(Duration::from_millis(300), put).await.is_err());
    for _ in 0..3_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if world.storage.status().await.nodes.iter().all(|node| node.blobs == 0) {
            return;
        }
    }
    panic!("data of an upload that was given up stays: {:?}", world.storage.status().await.nodes);
}
