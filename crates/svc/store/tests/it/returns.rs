//! What the status may say, and what is repaired by itself: new disks, nodes that come back or stay away, bits that rot,
//! content that is gone.

use crate::{
    remote::{Machine, all, assert_all, fill, is_whole, open, open_on, until},
    support::{Random, options},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use heptad_store::{
    DistributedStorage, GarbageMemory, Maintenance, MemoryMetaStore, MetaStore, NodeState, NodeStatus, Options,
    PutOptions, StorageError, StorageStatus,
};
use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// What is due is done soon; checks that nothing asks for do not come.
fn quick() -> Options {
    Options {
        check_gap_ms_min: 10,
        check_interval_ms: 3_600_000,
        watch_interval_ms: 10,
        scrub_gap_ms_min: 10,
        scrub_bytes_per_second_max: 1 << 30,
        ..options()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_machine_gets_new_disks_in_turn_as_soon_as_all_is_said_to_be_whole() {
    let mut random = Random::seeded("new disks");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let storage = open(&[a, b, c], quick()).await;
    let _maintenance = storage.maintain();
    let objects = fill(&storage, &mut random, 20).await;
    for round in 0..2 {
        for machine in &machines {
            until(&storage, "the copies before", is_whole).await;
            machine.replace_disks().await;
            // The machine answers as soon as it is asked again; what it lacks is not whole.
            let back =
                until(&storage, "it is back", |status| status.nodes.iter().all(|node| node.state == NodeState::Ready));
            let status = back.await;
            let new = status.nodes.iter().filter(|node| node.name.as_str().starts_with(&machine.name));
            let blobs: u64 = new.map(|node| node.blobs).sum();
            assert!(!is_whole(&status) || blobs >= 20, "round {round}: {blobs} blobs are not everything");
        }
    }
    assert_all(&storage, &objects).await;
    let status = until(&storage, "the last", is_whole).await;
    assert_eq!(status.blobs_lost, 0);
    assert!(status.nodes.iter().all(|node| node.checked && node.reason.is_none()), "{:?}", status.nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_coordinator_says_what_the_maintaining_one_knows() {
    let mut random = Random::seeded("followers");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let meta = Arc::new(MemoryMetaStore::default());
    let leader = open_on(&[a, b, c], meta.clone(), quick()).await;
    fill(&leader, &mut random, 5).await;
    let join = DistributedStorage::join(all(&[a, b, c]), meta, quick());
    let follower = join.await.expect("metadata").expect("it is laid out");
    let status = follower.status().await;
    assert_eq!((status.shards_whole, status.checked_unix_ms), (0, None), "nobody has looked yet");
    let _maintenance = leader.maintain();
    until(&follower, "it hears of the check", is_whole).await;
    // Nobody maintains any more: what the new disks hold is known by nobody.
    drop(_maintenance);
    b.replace_disks().await;
    let back = until(&follower, "it is back", |status| status.nodes.iter().all(|node| node.state == NodeState::Ready));
    let status = back.await;
    assert!(!is_whole(&status) && status.shards_unchecked > 0, "{status:?}");
    let said = status.nodes.iter().filter_map(|node| node.reason.clone()).collect::<Vec<_>>();
    assert_eq!(said, ["a new disk: its copies are being made"; 3]);
}

/// Another coordinator on the same metadata and machines, which does not get to the last of them while that is barred.
async fn follow(
    machines: &[Arc<Machine>; 3],
    meta: &Arc<MemoryMetaStore>,
    is_barred: &Arc<AtomicBool>,
) -> DistributedStorage {
    let [a, b, c] = machines;
    let nodes = [all(&[a, b]), c.nodes_by(is_barred)].concat();
    DistributedStorage::join(nodes, meta.clone(), quick()).await.expect("metadata").expect("it is laid out")
}

fn blobs(status: &StorageStatus, machine: &Machine) -> u64 {
    let disks = status.nodes.iter().filter(|node| node.name.as_str().split('/').next() == Some(&machine.name));
    disks.map(|node| node.blobs).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_coordinator_misses_none_calls_whole() {
    let mut random = Random::seeded("hand over");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let (meta, is_barred) = (Arc::new(MemoryMetaStore::default()), Arc::new(AtomicBool::new(true)));
    let leader = open_on(&[a, b, c], meta.clone(), quick()).await;
    let follower = follow(&machines, &meta, &is_barred).await;
    leader.repair_once(&mut GarbageMemory::default()).await.expect("counted");
    assert!(is_whole(&leader.status().await), "nothing is stored");
    // Nobody maintains, so nothing is repaired while it is looked at.
    let objects = fill(&follower, &mut random, 10).await;
    is_barred.store(false, SeqCst);
    until(&leader, "it hears what the other has missed", |status| !is_whole(status)).await;
    assert!(!is_whole(&follower.status().await));
    let third = follow(&machines, &meta, &is_barred).await;
    assert!(!is_whole(&third.status().await), "whoever comes later hears it too");
    // Whoever leads next repairs it, and then all hear that.
    drop(follower);
    let _maintenance = third.maintain();
    until(&leader, "it has got what it missed", is_whole).await;
    a.cut();
    b.cut();
    assert_all(&leader, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_coordinator_misses_is_made_without_waiting_for_the_next_count() {
    let mut random = Random::seeded("another misses");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let (meta, is_barred) = (Arc::new(MemoryMetaStore::default()), Arc::new(AtomicBool::new(true)));
    let leader = open_on(&[a, b, c], meta.clone(), quick()).await;
    let _maintenance = leader.maintain();
    until(&leader, "nothing is stored", is_whole).await;
    let follower = follow(&machines, &meta, &is_barred).await;
    let objects = fill(&follower, &mut random, 10).await;
    until(&leader, "all copies are made", |status| is_whole(status) && blobs(status, a) == blobs(status, c)).await;
    a.cut();
    b.cut();
    assert_all(&leader, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_by_a_placement_of_before_is_not_called_whole() {
    let mut random = Random::seeded("stale placement");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let (meta, is_barred) = (Arc::new(MemoryMetaStore::default()), Arc::new(AtomicBool::new(false)));
    let leader = open_on(&[a, b, c], meta.clone(), quick()).await;
    let follower = follow(&machines, &meta, &is_barred).await;
    let new = Machine::new("d");
    let four = || all(&[a, b, c, &new]);
    assert!(leader.set_nodes(four()).await.expect("laid out"));
    leader.repair_once(&mut GarbageMemory::default()).await.expect("counted");
    assert!(is_whole(&leader.status().await));
    fill(&follower, &mut random, 10).await;
    follower.follow_nodes(four()).await.expect("followed");
    until(&leader, "it hears of the other's placement", |status| !is_whole(status)).await;
    let _maintenance = leader.maintain();
    until(&follower, "all is where it belongs", is_whole).await;
    assert!(blobs(&follower.status().await, &new) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_without_knowing_a_new_machine_is_not_called_whole() {
    let mut random = Random::seeded("unknown machine");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let (meta, new) = (Arc::new(MemoryMetaStore::default()), Machine::new("d"));
    let leader = open_on(&[a, b, c, &new], meta.clone(), quick()).await;
    leader.repair_once(&mut GarbageMemory::default()).await.expect("counted");
    assert!(is_whole(&leader.status().await));
    // It knows the placement, and not yet the machine.
    let follower = follow(&machines, &meta, &Arc::default()).await;
    let objects = fill(&follower, &mut random, 10).await;
    until(&leader, "it hears what the new machine lacks", |status| !is_whole(status)).await;
    let _maintenance = leader.maintain();
    until(&leader, "the new machine has got it", is_whole).await;
    assert_all(&leader, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_under_way_when_the_placement_changes_is_not_called_whole() {
    let mut random = Random::seeded("under way");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let storage = open(&[a, b, c], quick()).await;
    let (first, (end, rest)) = (vec![random.next() as u8; 200_000], tokio::sync::oneshot::channel::<Bytes>());
    let body = stream::iter([Ok(Bytes::from(first))]).chain(stream::once(rest));
    let uploading = storage.clone();
    let upload = tokio::spawn(async move { uploading.put("data", "long", body.boxed(), PutOptions::default()).await });
    until(&storage, "its first chunks are there", |status| [a, b, c].iter().all(|m| blobs(status, m) >= 20)).await;
    assert!(storage.set_nodes(all(&[a, b, c, &Machine::new("d")])).await.expect("laid out"));
    storage.repair_once(&mut GarbageMemory::default()).await.expect("counted");
    assert!(is_whole(&storage.status().await), "nothing is committed");
    end.send("the end".into()).expect("it waits");
    upload.await.expect("no panic").expect("stored");
    assert!(!is_whole(&storage.status().await));
    let _maintenance = storage.maintain();
    until(&storage, "its chunks are where they belong", is_whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_whole_while_nobody_can_tell_what_an_object_is_made_of() {
    let mut random = Random::seeded("unreadable");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let meta = Arc::new(MemoryMetaStore::default());
    let storage = open_on(&[a, b, c], meta.clone(), quick()).await;
    fill(&storage, &mut random, 3).await;
    let row = meta.list("objects/data/".into(), None, 1).await.expect("listed").remove(0);
    meta.put_if(row.key, "of another version".into(), row.version).await.expect("written").expect("unchanged");
    let memory = &mut GarbageMemory::default();
    for _ in 0..2 {
        let report = storage.repair_once(memory).await.expect("the others are checked");
        assert_eq!((report.objects_checked, report.garbage_removed), (3, 0));
        let status = storage.status().await;
        assert_eq!((status.shards_whole, status.records_unreadable), (0, 1));
    }
    storage.put_bytes("data", "object-0", "stored again".into()).await.expect("what was there does not matter");
    assert!(storage.delete("data", "object-0").await.expect("deleted"));
    storage.repair_once(memory).await.expect("repaired");
    let status = until(&storage, "all is readable", is_whole).await;
    assert_eq!(status.records_unreadable, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_by_a_machine_that_was_cut_off_is_made_at_its_return() {
    let mut random = Random::seeded("cut off");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let storage = open(&[a, b, c], quick()).await;
    let _maintenance = storage.maintain();
    until(&storage, "nothing is stored", is_whole).await;
    b.cut();
    let objects = fill(&storage, &mut random, 10).await;
    assert!(!is_whole(&storage.status().await));
    b.reach();
    until(&storage, "it has got what it missed", is_whole).await;
    a.cut();
    c.cut();
    assert_all(&storage, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_stays_away_is_given_up_and_taken_back() {
    let mut random = Random::seeded("given up");
    let machines = ["a", "b", "c", "d"].map(Machine::new);
    let [a, b, c, d] = &machines;
    let meta = Arc::new(MemoryMetaStore::default());
    let storage = open_on(&[a, b, c, d], meta.clone(), Options { silence_ms_max: 500, ..quick() }).await;
    let maintenance = storage.maintain();
    let objects = fill(&storage, &mut random, 10).await;
    until(&storage, "all four", is_whole).await;
    d.cut();
    let status = until(&storage, "three hold everything", is_whole).await;
    let gone: Vec<_> = status.nodes.iter().filter(|node| node.shards == 0).collect();
    assert_eq!(gone.len(), 3, "{:?}", status.nodes);
    assert!(gone[0].reason.as_ref().is_some_and(|reason| reason.contains("laid out on other nodes")), "{gone:?}");
    assert_eq!(storage.given_up().await.len(), 3);

    // Another coordinator takes nothing back that is still away.
    drop((maintenance, storage));
    let storage = open_on(&[a, b, c, d], meta, Options { silence_ms_max: 500, ..quick() }).await;
    assert_eq!(storage.status().await.epoch, status.epoch);
    let _maintenance = storage.maintain();
    until(&storage, "the next one has looked", is_whole).await;
    assert_eq!(storage.status().await.epoch, status.epoch);

    // And while two of four are left, two hold everything.
    c.cut();
    until(&storage, "two hold everything", is_whole).await;
    assert_all(&storage, &objects).await;
    c.reach();
    d.reach();
    let taken_back = |status: &_| is_whole(status) && status.nodes.iter().all(|node| node.shards > 0);
    until(&storage, "four again", taken_back).await;
    a.cut();
    b.cut();
    assert_all(&storage, &objects).await;
}

/// All segment files below `dir`.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let disks = std::fs::read_dir(dir).expect("a machine").flatten();
    let files = disks.filter_map(|disk| std::fs::read_dir(disk.path().join("segments")).ok()).flatten().flatten();
    files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "seg")).collect()
}

/// Damages every 2,000th byte of what a machine holds.
fn rot(machine: &Machine) {
    for path in segments(machine.dir.path()) {
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("a segment");
        for at in (100..file.metadata().expect("metadata").len()).step_by(2_000) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            file.write_all_at(&[byte[0] ^ 1], at).expect("written");
        }
    }
}

/// Waits until all copies have been verified again since `unix_ms`.
async fn verified_since(storage: &DistributedStorage, unix_ms: u64) {
    until(storage, "all copies are verified", |status| {
        status.nodes.iter().all(|node| node.verified_unix_ms.is_some_and(|at| at > unix_ms))
    })
    .await;
}

/// A storage with objects on these machines, all of them verified; no pass is due by itself after that.
async fn verified(
    machines: &[Arc<Machine>; 3],
    random: &mut Random,
) -> (DistributedStorage, Vec<(String, Bytes)>, Maintenance) {
    let storage = open(&machines.each_ref(), Options { scrub_interval_ms: 3_600_000, ..quick() }).await;
    let objects = fill(&storage, random, 30).await;
    let maintenance = storage.maintain();
    until(&storage, "all copies", is_whole).await;
    verified_since(&storage, 0).await;
    (storage, objects, maintenance)
}

fn now_unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    now.as_millis() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_copy_that_is_read_has_its_disk_verified_at_once() {
    let mut random = Random::seeded("rot");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let (storage, objects, _maintenance) = verified(&machines, &mut random).await;
    rot(b);
    assert_all(&storage, &objects).await;
    let begun = Instant::now();
    loop {
        a.cut();
        c.cut();
        let mut unread = 0;
        for (key, content) in &objects {
            match storage.get_bytes("data", key, u64::MAX).await {
                Ok(read) => assert_eq!(&read, content),
                Err(_) => unread += 1,
            }
        }
        a.reach();
        c.reach();
        if unread == 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{unread} objects cannot be read from the damaged machine");
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Whatever is still bad is found by reading it from where it is; a machine that just came back may not be asked yet.
        for (key, content) in &objects {
            if let Ok(read) = storage.get_bytes("data", key, u64::MAX).await {
                assert_eq!(&read, content);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_bad_while_nobody_else_answers_is_not_called_whole() {
    let mut random = Random::seeded("rot alone");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let (storage, objects, _maintenance) = verified(&machines, &mut random).await;
    rot(b);
    a.cut();
    c.cut();
    let begun = now_unix_ms();
    for (key, content) in &objects {
        if let Ok(read) = storage.get_bytes("data", key, u64::MAX).await {
            assert_eq!(&read, content);
        }
    }
    // The pass finds all that is bad, and can restore nothing.
    until(&storage, "b is verified", |status| {
        let own = |node: &&NodeStatus| node.name.as_str().starts_with('b');
        status.nodes.iter().filter(own).all(|node| node.verified_unix_ms.is_some_and(|at| at > begun))
    })
    .await;
    a.reach();
    c.reach();
    until(&storage, "b has got good copies", is_whole).await;
    a.cut();
    c.cut();
    assert_all(&storage, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_that_restart_more_often_than_scrubs_come_still_verify() {
    let mut random = Random::seeded("restarts");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let meta = Arc::new(MemoryMetaStore::default());
    let options = Options { scrub_interval_ms: 1_000, ..quick() };
    let storage = open_on(&[a, b, c], meta.clone(), options.clone()).await;
    fill(&storage, &mut random, 10).await;
    let first = storage.maintain();
    verified_since(&storage, 0).await;
    drop((first, storage));
    let (stored, begun) = (now_unix_ms(), Instant::now());
    loop {
        let storage = open_on(&[a, b, c], meta.clone(), options.clone()).await;
        let maintenance = storage.maintain();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let nodes = storage.status().await.nodes;
        drop(maintenance);
        if nodes.iter().all(|node| node.verified_unix_ms.is_some_and(|at| at > stored)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{nodes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_segment_file_is_noticed_and_made_good() {
    let mut random = Random::seeded("segments");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let storage = open(&[a, b, c], Options { scrub_interval_ms: 100, ..quick() }).await;
    let objects = fill(&storage, &mut random, 20).await;
    let _maintenance = storage.maintain();
    until(&storage, "all copies", is_whole).await;
    for path in segments(b.dir.path()) {
        std::fs::remove_file(path).expect("a segment");
    }
    verified_since(&storage, now_unix_ms()).await;
    until(&storage, "all copies again", is_whole).await;
    a.cut();
    c.cut();
    assert_all(&storage, &objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_whose_content_is_gone_are_marked_until_it_is_back() {
    let mut random = Random::seeded("gone");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let meta = Arc::new(MemoryMetaStore::default());
    let storage = open_on(&[a, b, c], meta.clone(), quick()).await;
    let objects = fill(&storage, &mut random, 5).await;
    storage.put_bytes("data", "empty", "".into()).await.expect("stored");
    let marked = async |storage: &DistributedStorage| {
        let listed = storage.list("data", "", None, 100).await.expect("listed").objects;
        listed.iter().filter(|object| object.lost_unix_ms.is_some()).count()
    };
    // The records are restored into a place without the disks.
    drop(storage);
    let empty = ["d", "e", "f"].map(Machine::new);
    let [d, e, f] = &empty;
    let storage = open_on(&[d, e, f], meta, quick()).await;
    let maintenance = storage.maintain();
    until(&storage, "the loss is counted", |status| status.blobs_lost > 0).await;
    assert_eq!(marked(&storage).await, objects.iter().filter(|(_, content)| !content.is_empty()).count());
    let error = storage.get_bytes("data", &objects[0].0, u64::MAX).await.unwrap_err();
    assert!(matches!(error, StorageError::DataLost { .. }), "{error}");
    assert!(storage.head("data", &objects[0].0).await.expect("known").lost_unix_ms.is_some());
    storage.put_bytes("data", &objects[0].0, "stored again".into()).await.expect("stored");
    assert!(storage.head("data", &objects[0].0).await.expect("known").lost_unix_ms.is_none());
    // The disks are found.
    storage.set_nodes(all(&[a, b, c, d, e, f])).await.expect("laid out");
    until(&storage, "all is back", |status| is_whole(status) && status.blobs_lost == 0).await;
    assert_eq!(marked(&storage).await, 0);
    drop(maintenance);
    assert_all(&storage, &objects[1..]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_those_that_answer_goes_while_another_machine_is_away() {
    let mut random = Random::seeded("garbage");
    let machines = ["a", "b", "c"].map(Machine::new);
    let [a, b, c] = &machines;
    let storage = open(&[a, b, c], quick()).await;
    let objects = fill(&storage, &mut random, 10).await;
    let mut memory = heptad_store::GarbageMemory::default();
    for (key, _) in &objects {
        storage.delete("data", key).await.expect("deleted");
    }
    storage.repair_once(&mut memory).await.expect("all is known as garbage");
    // The first in order, so that others could wait for it.
    a.cut();
    let begun = Instant::now();
    loop {
        let _ = storage.repair_once(&mut memory).await;
        let nodes = storage.status().await.nodes;
        if nodes.iter().all(|node| node.blobs == 0 || node.name.as_str().starts_with(&a.name)) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{nodes:?}");
    }
}
