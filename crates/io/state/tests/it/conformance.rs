//! What every backend promises, as functions of a fresh store. Revisions are counted from where the store stands,
//! so a backend that others have written to can be tested too.

use crate::support::{next_batch, next_event};
use heptad_state::{
    Bytes, Cmp, Compare, CompareTarget, Error, EventKind, KeyRange, KeyValue, Op, OpResponse, RangeRequest, Revision,
    Store, StoreExt, Txn, TxnResponse, WatchEvent, WatchRequest,
};
use std::sync::Arc;

type S = Arc<dyn Store>;

async fn now(store: &S) -> Revision {
    store.current_revision().await.unwrap()
}

async fn commit(store: &S, txn: Txn) -> TxnResponse {
    store.txn(txn).await.unwrap()
}

async fn keys_at(store: &S, range: KeyRange, revision: Revision) -> Vec<(Bytes, Bytes)> {
    let response = store.range(RangeRequest::new(range).at(revision)).await.unwrap();
    response.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

fn pairs(expected: &[(&'static str, &'static str)]) -> Vec<(Bytes, Bytes)> {
    expected
        .iter()
        .map(|(key, value)| (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes())))
        .collect()
}

pub(crate) async fn revisions_count_changes(store: S) {
    let start = now(&store).await;
    assert!(start >= heptad_state::FIRST_REVISION);
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(store.put("a", "1").await.unwrap(), start + 1);
    assert_eq!(store.put("a", "1").await.unwrap(), start + 2);
    assert!(!store.delete("absent").await.unwrap());
    let nothing = commit(&store, Txn::new().then([Op::delete_prefix("no"), Op::get("a")])).await;
    assert_eq!(nothing.revision, start + 2);
    let refused = commit(&store, Txn::new().when([Compare::absent("a")]).then([Op::put("a", "2")])).await;
    assert_eq!((refused.succeeded, refused.revision), (false, start + 2));
    let two = Txn::new().when([Compare::absent("a")]).or_else([Op::put("b", "1"), Op::put("c", "1")]);
    let two = commit(&store, two).await;
    assert_eq!((two.succeeded, two.revision), (false, start + 3));
    assert!(store.delete("a").await.unwrap());
    assert_eq!(now(&store).await, start + 4);
}

pub(crate) async fn keys_count_their_changes(store: S) {
    let start = now(&store).await;
    let counters =
        |kv: Option<KeyValue>| kv.map(|kv| (kv.create_revision - start, kv.mod_revision - start, kv.version));
    store.put("k", "1").await.unwrap();
    assert_eq!(counters(store.get("k").await.unwrap()), Some((1, 1, 1)));
    store.put("other", "1").await.unwrap();
    store.put("k", "2").await.unwrap();
    assert_eq!(counters(store.get("k").await.unwrap()), Some((1, 3, 2)));
    store.delete("k").await.unwrap();
    assert_eq!(counters(store.get("k").await.unwrap()), None);
    store.put("k", "3").await.unwrap();
    assert_eq!(counters(store.get("k").await.unwrap()), Some((5, 5, 1)));
}

pub(crate) async fn compares_decide_the_branch(store: S) {
    let first = store.put("k", "1").await.unwrap();
    let second = store.put("k", "v").await.unwrap();
    let with = |target| Compare { key: "k".into(), target };
    let absent_with = |target| Compare { key: "absent".into(), target };
    let cases = [
        (Compare::exists("k"), true),
        (Compare::absent("k"), false),
        (Compare::absent("absent"), true),
        (Compare::mod_revision("k", second), true),
        (Compare::mod_revision("k", first), false),
        (Compare::mod_revision("absent", 0), true),
        (Compare::unchanged_since("k", second), true),
        (Compare::unchanged_since("k", first), false),
        (Compare::create_revision("k", first), true),
        (Compare::version("k", 2), true),
        (Compare::version("k", 1), false),
        (Compare::value("k", "v"), true),
        (Compare::value("k", "w"), false),
        (Compare::value("absent", ""), false),
        (with(CompareTarget::Value(Cmp::Less, "w".into())), true),
        (with(CompareTarget::Value(Cmp::NotEqual, "v".into())), false),
        (with(CompareTarget::ModRevision(Cmp::Greater, first)), true),
        (with(CompareTarget::ModRevision(Cmp::Less, second)), false),
        (with(CompareTarget::Version(Cmp::NotEqual, 2)), false),
        (absent_with(CompareTarget::Value(Cmp::NotEqual, "x".into())), false),
        (absent_with(CompareTarget::CreateRevision(Cmp::Less, 1)), true),
    ];
    for (compare, expected) in cases {
        let response = commit(&store, Txn::new().when([compare.clone()])).await;
        assert_eq!(response.succeeded, expected, "{compare:?}");
    }
    let both = Txn::new().when([Compare::exists("k"), Compare::exists("absent")]);
    assert!(!commit(&store, both).await.succeeded);
    assert!(commit(&store, Txn::new()).await.succeeded);
    assert_eq!(store.put_if("k", "w", first).await.unwrap(), None);
    let third = store.put_if("k", "w", second).await.unwrap();
    assert_eq!(third, Some(second + 1));
    assert_eq!(store.delete_if("k", second).await.unwrap(), None);
    assert_eq!(store.delete_if("k", second + 1).await.unwrap(), Some(second + 2));
    assert_eq!(store.put_if("k", "new", 0).await.unwrap(), Some(second + 3));
}

pub(crate) async fn later_operations_see_earlier_ones(store: S) {
    store.put("a/1", "old").await.unwrap();
    let start = store.put("b/1", "old").await.unwrap();
    let txn = Txn::new().then([
        Op::range(KeyRange::all()),
        Op::delete_prefix("a/"),
        Op::put("b/1", "new"),
        Op::put("b/2", "new"),
        Op::range(KeyRange::all()),
        Op::get("a/1"),
    ]);
    let response = commit(&store, txn).await;
    let read = |index: usize| match &response.responses[index] {
        OpResponse::Range(range) => (range.kvs.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), range.revision),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(0), (vec!["a/1".into(), "b/1".into()], start));
    assert_eq!(read(4), (vec!["b/1".into(), "b/2".into()], start + 1));
    assert_eq!(read(5).0, Vec::<Bytes>::new());
    assert!(matches!(&response.responses[1], OpResponse::Delete { prev } if prev.len() == 1 && prev[0].value == "old"));
    assert!(matches!(&response.responses[2], OpResponse::Put { prev: Some(prev) } if prev.mod_revision == start));
    assert!(matches!(&response.responses[3], OpResponse::Put { prev: None }));
    assert_eq!(response.first_range().map(|range| range.kvs.len()), Some(2));
}

/// Two accounts, many transfers at once: every reader at every revision sees the same sum.
pub(crate) async fn transactions_are_whole(store: S) {
    let start = commit(&store, Txn::new().then([Op::put("x", "100"), Op::put("y", "100")])).await.revision;
    let transfers = (0..4).map(|_| tokio::spawn(transfer_many(Arc::clone(&store))));
    for transfer in transfers.collect::<Vec<_>>() {
        transfer.await.unwrap();
    }
    for revision in start..=now(&store).await {
        let both = keys_at(&store, KeyRange::span("x", "z"), revision).await;
        let sum: i64 = both.iter().map(|(_, value)| number(value)).sum();
        assert_eq!((both.len(), sum), (2, 200), "at revision {revision}");
    }
}

fn number(value: &Bytes) -> i64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

async fn transfer_many(store: S) {
    for _ in 0..10 {
        loop {
            let (x, y) = (store.get("x").await.unwrap().unwrap(), store.get("y").await.unwrap().unwrap());
            let (less, more) = (number(&x.value) - 1, number(&y.value) + 1);
            let unchanged = [Compare::mod_revision("x", x.mod_revision), Compare::mod_revision("y", y.mod_revision)];
            let ops = [Op::put("x", less.to_string()), Op::put("y", more.to_string())];
            if store.txn(Txn::new().when(unchanged).then(ops)).await.unwrap().succeeded {
                break;
            }
        }
    }
}

pub(crate) async fn ranges_are_ordered_and_paged(store: S) {
    for key in ["p/3", "p/1", "q", "p/2", "p", "o"] {
        store.put(key, format!("value of {key}")).await.unwrap();
    }
    let keys = async |request: RangeRequest| {
        let response = store.range(request).await.unwrap();
        let text = |kv: &KeyValue| String::from_utf8(kv.key.to_vec()).unwrap();
        (response.kvs.iter().map(text).collect::<Vec<_>>().join(" "), response.more)
    };
    let answer = |keys: &str, more| (keys.to_owned(), more);
    assert_eq!(keys(RangeRequest::new(KeyRange::prefix("p/"))).await, answer("p/1 p/2 p/3", false));
    assert_eq!(keys(RangeRequest::new(KeyRange::prefix("p"))).await, answer("p p/1 p/2 p/3", false));
    assert_eq!(keys(RangeRequest::new(KeyRange::span("p", "p/2"))).await, answer("p p/1", false));
    assert_eq!(keys(RangeRequest::new(KeyRange::span("q", "p"))).await, answer("", false));
    assert_eq!(keys(RangeRequest::new(KeyRange::From("p/3".into()))).await, answer("p/3 q", false));
    assert_eq!(keys(RangeRequest::new(KeyRange::key("p"))).await, answer("p", false));
    assert_eq!(keys(RangeRequest::new(KeyRange::all()).limit(2)).await, answer("o p", true));
    assert_eq!(keys(RangeRequest::new(KeyRange::all()).limit(6)).await, answer("o p p/1 p/2 p/3 q", false));
    let rest = KeyRange::all().after(b"p");
    assert_eq!(keys(RangeRequest::new(rest)).await, answer("p/1 p/2 p/3 q", false));
    let only = store.range(RangeRequest::new(KeyRange::prefix("p/")).keys_only()).await.unwrap();
    assert!(only.kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    let (listed, revision) = store.list("p/").await.unwrap();
    assert_eq!((listed.len(), revision), (3, now(&store).await));
}

pub(crate) async fn ranges_read_the_past(store: S) {
    let start = now(&store).await;
    store.put("a", "1").await.unwrap();
    store.put("b", "1").await.unwrap();
    store.put("a", "2").await.unwrap();
    store.delete("b").await.unwrap();
    commit(&store, Txn::new().then([Op::put("b", "2"), Op::delete("a")])).await;
    let expected = [
        pairs(&[]),
        pairs(&[("a", "1")]),
        pairs(&[("a", "1"), ("b", "1")]),
        pairs(&[("a", "2"), ("b", "1")]),
        pairs(&[("a", "2")]),
        pairs(&[("b", "2")]),
    ];
    for (offset, expected) in (0..).zip(expected) {
        assert_eq!(keys_at(&store, KeyRange::all(), start + offset).await, expected, "revision {offset}");
        let only_b: Vec<_> = expected.into_iter().filter(|(key, _)| key == "b").collect();
        assert_eq!(keys_at(&store, KeyRange::key("b"), start + offset).await, only_b);
    }
    let limited = store.range(RangeRequest::new(KeyRange::all()).at(start + 3).limit(1)).await.unwrap();
    assert_eq!((limited.kvs.len(), limited.more, limited.revision), (1, true, start + 5));
    let future = store.range(RangeRequest::new(KeyRange::all()).at(start + 6)).await;
    assert!(matches!(future, Err(Error::FutureRevision { requested, current }) if requested == current + 1));
}

pub(crate) async fn compaction_ends_the_past(store: S) {
    let start = now(&store).await;
    for round in 0..5 {
        commit(&store, Txn::new().then([Op::put("a", round.to_string()), Op::put("b", "x")])).await;
    }
    store.delete("b").await.unwrap();
    store.put("c", "1").await.unwrap();
    store.compact(start + 6).await.unwrap();
    for revision in start..start + 6 {
        let gone = store.range(RangeRequest::new(KeyRange::all()).at(revision)).await;
        assert!(matches!(gone, Err(Error::Compacted { compact_revision, .. }) if compact_revision == start + 6));
    }
    assert_eq!(keys_at(&store, KeyRange::all(), start + 6).await, pairs(&[("a", "4")]));
    assert_eq!(keys_at(&store, KeyRange::all(), start + 7).await, pairs(&[("a", "4"), ("c", "1")]));
    assert!(matches!(store.compact(start + 8).await, Err(Error::FutureRevision { .. })));
    assert!(matches!(store.compact(start + 5).await, Err(Error::Compacted { .. })));
    store.compact(start + 7).await.unwrap();
    assert_eq!(store.put("d", "1").await.unwrap(), start + 8);
    assert_eq!(keys_at(&store, KeyRange::all(), start + 8).await, pairs(&[("a", "4"), ("c", "1"), ("d", "1")]));
    assert_eq!(store.get("a").await.unwrap().map(|kv| kv.version), Some(5));
}

pub(crate) async fn watches_deliver_whole_revisions(store: S) {
    let start = store.put("w/a", "0").await.unwrap();
    let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("w/")).prev_kv()).await.unwrap();
    assert_eq!(next_event(&mut watch).await, WatchEvent::Progress { revision: start });
    store.put("other", "1").await.unwrap();
    let ops = [Op::put("w/b", "1"), Op::put("w/a", "1"), Op::put("z", "1"), Op::delete_prefix("none")];
    commit(&store, Txn::new().then(ops)).await;
    commit(&store, Txn::new().then([Op::delete_prefix("w/"), Op::put("other", "2")])).await;
    let batch = next_batch(&mut watch).await;
    assert_eq!(batch.revision, start + 2);
    let brief: Vec<_> = batch.events.iter().map(|event| (event.kind, event.kv.key.clone(), event.kv.version)).collect();
    assert_eq!(brief, vec![(EventKind::Put, "w/a".into(), 2), (EventKind::Put, "w/b".into(), 1)]);
    assert_eq!(batch.events[0].prev_kv.as_ref().map(|kv| kv.value.clone()), Some("0".into()));
    assert_eq!(batch.events[1].prev_kv, None);
    let batch = next_batch(&mut watch).await;
    assert_eq!((batch.revision, batch.events.len()), (start + 3, 2));
    for (event, key) in batch.events.iter().zip(["w/a", "w/b"]) {
        let (value, mod_revision) = (Bytes::new(), start + 3);
        let kv = KeyValue { key: key.into(), value, create_revision: 0, mod_revision, version: 0 };
        assert_eq!((event.kind, &event.kv), (EventKind::Delete, &kv));
        assert_eq!(event.prev_kv.as_ref().map(|kv| kv.value.clone()), Some("1".into()));
    }
}

pub(crate) async fn watches_resume_anywhere(store: S) {
    let start = now(&store).await;
    for round in 0..30 {
        store.put(format!("k{}", round % 3), round.to_string()).await.unwrap();
    }
    for from in 1..=30 {
        let mut watch = store.watch(WatchRequest::new(KeyRange::all()).from(start + from)).await.unwrap();
        for expected in from..=30 {
            let batch = next_batch(&mut watch).await;
            assert_eq!(batch.revision, start + expected);
            assert_eq!(batch.events[0].kv.value, (expected - 1).to_string());
            assert_eq!(batch.events[0].prev_kv, None, "nobody asked for it");
        }
        assert_eq!(next_event(&mut watch).await, WatchEvent::Progress { revision: start + 30 });
    }
}

pub(crate) async fn watches_wait_for_the_future(store: S) {
    let start = now(&store).await;
    let mut watch = store.watch(WatchRequest::new(KeyRange::all()).from(start + 3)).await.unwrap();
    assert_eq!(next_event(&mut watch).await, WatchEvent::Progress { revision: start });
    for value in 1..=4 {
        store.put("k", value.to_string()).await.unwrap();
    }
    assert_eq!(next_batch(&mut watch).await.revision, start + 3);
    assert_eq!(next_batch(&mut watch).await.revision, start + 4);
}

pub(crate) async fn watches_say_compacted(store: S) {
    let start = now(&store).await;
    for value in 1..=10 {
        store.put("k", value.to_string()).await.unwrap();
    }
    store.compact(start + 6).await.unwrap();
    // Of the compacted revision itself a backend may have a part, and then it says so.
    let mut kept = store.watch(WatchRequest::new(KeyRange::all()).from(start + 7)).await.unwrap();
    for revision in 7..=10 {
        assert_eq!(next_batch(&mut kept).await.revision, start + revision);
    }
    let big = Bytes::from(vec![b'x'; 100_000]);
    for _ in 0..60 {
        store.put("k", big.clone()).await.unwrap();
    }
    store.compact(start + 70).await.unwrap();
    let mut gone = store.watch(WatchRequest::new(KeyRange::all()).from(start + 5)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(next_event(&mut gone).await, WatchEvent::Compacted { compact_revision: start + 70 });
    }
}

/// A watcher that looks once in a while, while values far beyond any buffer pass by.
pub(crate) async fn slow_watchers_miss_nothing(store: S) {
    let start = now(&store).await;
    let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("slow/"))).await.unwrap();
    let big = Bytes::from(vec![b'x'; 50_000]);
    let mut seen = 0;
    for round in 1..=200 {
        commit(&store, Txn::new().then([Op::put(format!("slow/{}", round % 7), big.clone()), Op::put("n", "")])).await;
        if round % 50 == 0 {
            seen += 1;
            assert_eq!(next_batch(&mut watch).await.revision, start + seen);
        }
    }
    while seen < 200 {
        seen += 1;
        let batch = next_batch(&mut watch).await;
        assert_eq!((batch.revision, batch.events.len()), (start + seen, 1));
        assert_eq!(batch.events[0].kv.key, format!("slow/{}", seen % 7));
        assert_eq!(batch.events[0].kv.value.len(), big.len());
    }
}

/// Watchers that start at different times while many write: ordered, unique, complete, whole revisions.
pub(crate) async fn many_watchers_agree(store: S) {
    let start = now(&store).await;
    let last = start + 8 * 25;
    let mut watchers = Vec::new();
    for from in [1, 1, 20, 100] {
        let watch = store.watch(WatchRequest::new(KeyRange::all()).from(start + from)).await.unwrap();
        watchers.push(tokio::spawn(follow(watch, start + from, last)));
    }
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..25 {
                let stamp = format!("{writer}.{round}");
                let ops = (0..3).map(|part| Op::put(format!("{writer}/{part}"), stamp.clone()));
                store.txn(Txn::new().then(ops)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for watcher in watchers {
        watcher.await.unwrap();
    }
}

async fn follow(mut watch: heptad_state::WatchStream, first: Revision, last: Revision) {
    for expected in first..=last {
        let batch = next_batch(&mut watch).await;
        assert_eq!(batch.revision, expected, "no revision is lost, repeated or out of order");
        let stamps: Vec<&Bytes> = batch.events.iter().map(|event| &event.kv.value).collect();
        assert_eq!(stamps.len(), 3);
        assert!(stamps.iter().all(|stamp| *stamp == stamps[0]), "a revision is whole: {stamps:?}");
    }
}

pub(crate) async fn limits_are_kept(store: S) {
    let start = now(&store).await;
    let limits = store.limits().clone();
    let long_key = vec![b'k'; limits.key_bytes_max + 1];
    let long_value = vec![b'v'; limits.value_bytes_max + 1];
    let put = async |key: Vec<u8>, value: Vec<u8>| store.put(key, value).await;
    assert!(matches!(put(vec![], vec![]).await, Err(Error::KeyEmpty)));
    assert!(matches!(put(long_key.clone(), vec![]).await, Err(Error::KeyTooLong { .. })));
    assert!(matches!(put(vec![1], long_value.clone()).await, Err(Error::ValueTooLong { .. })));
    assert!(matches!(store.get(long_key.clone()).await, Err(Error::KeyTooLong { .. })));
    assert!(matches!(store.get("").await, Err(Error::KeyEmpty)));
    let many = (0..=limits.txn_ops_max).map(|op| Op::put(op.to_string(), ""));
    assert!(matches!(store.txn(Txn::new().then(many)).await, Err(Error::TxnTooLong { .. })));
    let twice = Txn::new().then([Op::put("a", "1"), Op::put("a", "2")]);
    assert!(matches!(store.txn(twice).await, Err(Error::DuplicateKey { .. })));
    let overlap = Txn::new().then([Op::delete_prefix("a"), Op::put("ab", "2")]);
    assert!(matches!(store.txn(overlap).await, Err(Error::DuplicateKey { .. })));
    assert_eq!(now(&store).await, start, "nothing of it happened");
    let revision = put(long_key[1..].to_vec(), long_value[1..].to_vec()).await.unwrap();
    assert_eq!(revision, start + 1, "exactly at the bounds is allowed");
    too_many_deletes(store, &limits).await;
}

async fn too_many_deletes(store: S, limits: &heptad_state::Limits) {
    let keys = limits.txn_keys_max + 1;
    for chunk in (0..keys).collect::<Vec<_>>().chunks(limits.txn_ops_max) {
        store.txn(Txn::new().then(chunk.iter().map(|key| Op::put(format!("d/{key}"), "")))).await.unwrap();
    }
    let before = now(&store).await;
    let all = Txn::new().then([Op::put("marker", "1"), Op::delete_prefix("d/")]);
    assert!(matches!(store.txn(all.clone()).await, Err(Error::TxnTooLarge { .. })));
    assert_eq!((store.get("marker").await.unwrap(), now(&store).await), (None, before), "nothing is half done");
    store.txn(Txn::new().then([Op::delete("d/0"), Op::delete("d/1")])).await.unwrap();
    assert_eq!(store.txn(all).await.unwrap().revision, before + 2);
    assert_eq!(store.list("d/").await.unwrap().0.len(), 0);
}

pub(crate) async fn increments_are_not_lost(store: S) {
    store.put("n", "0").await.unwrap();
    let tasks = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..15 {
                loop {
                    let kv = store.get("n").await.unwrap().unwrap();
                    let next = (number(&kv.value) + 1).to_string();
                    if store.put_if("n", next, kv.mod_revision).await.unwrap().is_some() {
                        break;
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let kv = store.get("n").await.unwrap().unwrap();
    assert_eq!((number(&kv.value), kv.version), (120, 121));
}

pub(crate) async fn odd_keys_are_keys(store: S) {
    let mut keys: Vec<&[u8]> =
        vec![b"\0", b"\0\0", b"\0\xff", b"\0\x01", b"a", b"a\0", b"a\0b", b"a\xff", b"\xff", b"\xff\xff"];
    for _ in 0..2 {
        for key in &keys {
            store.put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(key)).await.unwrap();
        }
    }
    let past = now(&store).await - keys.len() as u64;
    keys.sort_unstable();
    for revision in [past, now(&store).await] {
        let all = keys_at(&store, KeyRange::all(), revision).await;
        let expected: Vec<_> =
            keys.iter().map(|key| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(key))).collect();
        assert_eq!(all, expected);
        let some = keys_at(&store, KeyRange::prefix(&b"a\0"[..]), revision).await;
        assert_eq!(some.len(), 2);
    }
}
