//! Damaged and torn files, and directories that go away while the engine runs.

use crate::support::{Random, memory_dir, open, segments};
use heptad_blob::{Blob, BlobError};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
};

fn flip(path: &Path, random: &mut Random) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    if length > 0 {
        let (at, mut byte) = (random.below(length), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).unwrap();
    }
}

/// G11: whatever bits flip, in data, headers or summaries, running or closed: the right bytes or an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_never_change_what_is_read() {
    let mut random = Random::seeded("flips");
    for _ in 0..15 {
        let dir = memory_dir();
        let mut store = open(dir.path());
        let blobs: Vec<Blob> = (0..60).map(|_| random.blob(6_000)).collect();
        for blob in &blobs {
            store.put(blob.clone()).await.unwrap();
        }
        for reopened in [false, true] {
            for _ in 0..5 {
                let mut files: Vec<_> =
                    fs::read_dir(dir.path().join("segments")).unwrap().map(|f| f.unwrap().path()).collect();
                files.sort();
                flip(&files[random.below(files.len() as u64) as usize], &mut random);
            }
            if reopened {
                drop(store);
                store = open(dir.path());
            }
            let bad: Vec<&Blob> = blobs.iter().filter(|blob| store.verify(blob.id()).is_err()).collect();
            assert!(bad.len() <= 30, "{} bad", bad.len());
            for blob in &blobs {
                match store.get(blob.id()) {
                    Ok(read) => assert_eq!(&read, blob),
                    Err(error) => assert!(error.wants_repair(), "{error}"),
                }
            }
            let scrubbed = store.scrub(None, u64::MAX).unwrap();
            assert!(scrubbed.corrupt.iter().all(|id| bad.iter().any(|blob| blob.id() == *id)));
            for blob in &blobs {
                assert_eq!(
                    store.contains(&blob.id()).unwrap(),
                    !bad.contains(&blob),
                    "whoever asks must hear what was found"
                );
            }
            for blob in bad {
                store.put(blob.clone()).await.unwrap();
                store.verify(blob.id()).unwrap();
                assert!(store.contains(&blob.id()).unwrap());
            }
            assert_eq!(store.scrub(None, u64::MAX).unwrap().corrupt, []);
        }
        drop(store);
        let store = open(dir.path());
        blobs.iter().for_each(|blob| assert_eq!(&store.get(blob.id()).unwrap(), blob));
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_and_what_was_before_stays() {
    let mut random = Random::seeded("torn");
    for cut in [1, 30, 64, 65, 500] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let blobs: Vec<Blob> = (0..5).map(|_| random.blob(2_000)).collect();
        for blob in &blobs {
            store.put(blob.clone()).await.unwrap();
        }
        drop(store);
        let segment = segments(dir.path()).pop().unwrap();
        let whole = fs::read(&segment).unwrap();
        // Part of another record, as an interrupted write leaves it.
        OpenOptions::new().append(true).open(&segment).unwrap().write_all(&whole[..cut.min(whole.len())]).unwrap();
        let store = open(dir.path());
        assert_eq!(fs::metadata(&segment).unwrap().len(), whole.len() as u64);
        blobs.iter().for_each(|blob| assert_eq!(&store.get(blob.id()).unwrap(), blob));
        store.put(random.blob(100)).await.unwrap();
    }
}

#[tokio::test]
async fn a_removed_directory_is_unavailable_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node");
    let store = open(&path);
    let blob = Random(1).blob(5_000);
    store.put(blob.clone()).await.unwrap();
    fs::remove_dir_all(&path).unwrap();
    let refused = store.put(Random(2).blob(100)).await;
    assert!(matches!(refused, Err(BlobError::Unavailable { .. })), "{refused:?}");
    assert!(matches!(store.get(blob.id()), Err(BlobError::Unavailable { .. })));
    assert!(matches!(store.usage(), Err(BlobError::Unavailable { .. })));
    let again = open(&path);
    assert!(matches!(again.get(blob.id()), Err(BlobError::NotFound { .. })));
    again.put(blob.clone()).await.unwrap();
    drop(store);
    assert_eq!(again.get(blob.id()).unwrap(), blob);
}

#[tokio::test]
async fn a_read_notices_a_removed_directory_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blob = Random(1).blob(5_000);
    store.put(blob.clone()).await.unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(matches!(store.get(blob.id()), Err(BlobError::Unavailable { .. })));
}

#[tokio::test]
async fn a_removed_segment_gives_the_directory_up_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut random = Random(3);
    let blobs: Vec<Blob> = (0..40).map(|_| random.blob(9_000)).collect();
    for blob in &blobs {
        store.put(blob.clone()).await.unwrap();
    }
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    assert!(matches!(store.scrub(None, u64::MAX), Err(BlobError::Unavailable { .. })));
    drop(store);
    let store = open(dir.path());
    let lost: Vec<&Blob> = blobs.iter().filter(|blob| !store.contains(&blob.id()).unwrap()).collect();
    assert!(!lost.is_empty());
    for blob in lost {
        store.put(blob.clone()).await.unwrap();
    }
    blobs.iter().for_each(|blob| assert_eq!(&store.get(blob.id()).unwrap(), blob));
}
