//! Random operations against a map; concurrent writers and readers of one key.

use crate::support::{Random, World};
use bytes::Bytes;
use heptad_store::{GarbageMemory, StorageError};
use std::collections::BTreeMap;

const BUCKET: &str = "photos";
type Model = BTreeMap<String, Bytes>;

async fn assert_same(world: &World, model: &Model) {
    let mut listed = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = world.storage.list(BUCKET, "", after.as_deref(), 7).await.unwrap();
        listed.extend(page.objects.into_iter().map(|object| (object.key, object.size_bytes)));
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    let expected: Vec<_> = model.iter().map(|(key, content)| (key.clone(), content.len() as u64)).collect();
    assert_eq!(listed, expected);
    for (key, content) in model {
        assert_eq!(&world.storage.get_bytes(BUCKET, key, u64::MAX).await.unwrap(), content);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_is_a_map_with_faults_all_along() {
    let mut random = Random::seeded("model");
    let (mut world, mut model) = (World::new().await, Model::new());
    let mut memory = GarbageMemory::default();
    for _ in 0..700 {
        let key = format!("{}/ключ {}", random.below(3), random.below(12));
        match random.below(100) {
            0..40 => {
                let content = random.bytes(60_000);
                let info = world.storage.put_bytes(BUCKET, &key, content.clone()).await.unwrap();
                assert_eq!(info.checksum, blake3::hash(&content).to_hex().to_string());
                model.insert(key, content);
            }
            40..60 => {
                let existed = world.storage.delete(BUCKET, &key).await.unwrap();
                assert_eq!(existed, model.remove(&key).is_some());
            }
            60..80 => match world.storage.get_bytes(BUCKET, &key, u64::MAX).await {
                Ok(content) => assert_eq!(Some(&content), model.get(&key)),
                Err(StorageError::NotFound(_)) => assert!(!model.contains_key(&key)),
                Err(error) => panic!("{error}"),
            },
            80..86 => {
                let prefix = format!("{}/", random.below(3));
                let page = world.storage.list(BUCKET, &prefix, None, 100).await.unwrap();
                let listed: Vec<_> = page.objects.into_iter().map(|object| object.key).collect();
                let expected: Vec<_> = model.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                assert_eq!(listed, expected);
            }
            86..94 => {
                // One node is damaged or lost; the others are whole, for every fault ends with a repair.
                let node = random.below(3) as usize;
                if random.below(3) == 0 {
                    world.lose(node);
                } else {
                    (0..10).for_each(|_| world.flip(node, &mut random));
                }
                assert_same(&world, &model).await;
                let report = world.storage.repair_once(&mut memory).await.unwrap();
                assert_eq!(report.blobs_lost, 0, "{report:?}");
            }
            94..98 => {
                world.storage.repair_once(&mut memory).await.unwrap();
            }
            _ => world = world.reopen().await,
        }
    }
    assert_same(&world, &model).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_readers_of_one_key_see_whole_versions() {
    let world = World::new().await;
    let content = |writer: u8, round: u8| Bytes::from([vec![writer; 20_000], vec![round; 20_000]].concat());
    world.storage.put_bytes(BUCKET, "key", content(0, 0)).await.unwrap();
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let storage = world.storage.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..15 {
                storage.put_bytes(BUCKET, "key", content(writer, round)).await.unwrap();
            }
        }));
    }
    for _ in 0..4 {
        let storage = world.storage.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..60 {
                let read = storage.get_bytes(BUCKET, "key", u64::MAX).await.unwrap();
                assert_eq!(read, content(read[0], read[39_999]));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.storage.list(BUCKET, "", None, 10).await.unwrap().objects.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_keeps_its_version_and_garbage_goes_at_last() {
    use futures_util::StreamExt;
    let world = World::new().await;
    let old = Random(1).bytes(0).iter().copied().chain((0..100_000u32).map(|i| i as u8)).collect::<Bytes>();
    world.storage.put_bytes(BUCKET, "key", old.clone()).await.unwrap();
    let mut reader = world.storage.get(BUCKET, "key").await.unwrap();
    let mut memory = GarbageMemory::default();
    world.storage.delete(BUCKET, "key").await.unwrap();
    for _ in 0..3 {
        world.storage.repair_once(&mut memory).await.unwrap();
    }
    let mut read = Vec::new();
    while let Some(part) = reader.next().await {
        read.extend_from_slice(&part.unwrap());
    }
    assert_eq!(read, old);
    drop(reader);
    for _ in 0..100 {
        world.storage.repair_once(&mut memory).await.unwrap();
        if world.storage.status().await.nodes.iter().all(|node| node.blobs == 0) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("data of a deleted object stays: {:?}", world.storage.status().await.nodes);
}
