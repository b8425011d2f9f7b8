//! Objects through the command line: whole, listed, deleted, and still there after a disk was lost and the server killed.

use heptad_e2e::{Platform, wait_until};
use std::{fs, time::Duration};

#[test]
fn objects_are_kept_listed_and_deleted() {
    let mut platform = Platform::start(&[]);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let file = platform.dir().join("object");
    fs::write(&file, &bytes).expect("a file is written");
    platform.ok(&["storage", "put", "photos/a/1", &file.display().to_string()]);
    platform.run_with(&["storage", "put", "photos/b", "-"], "from a pipe");
    let listed = platform.ok(&["storage", "ls", "photos"]);
    assert!(listed.contains("a/1") && listed.contains("b"), "{listed}");
    assert!(!platform.ok(&["storage", "ls", "photos/a"]).contains("\nb "));
    assert_eq!(platform.ok(&["storage", "get", "photos/b"]), "from a pipe");

    platform.kill();
    fs::remove_dir_all(platform.data_dir().join("storage/disk2")).expect("a disk is lost");
    platform.launch();
    let back = platform.dir().join("back");
    platform.ok(&["storage", "get", "photos/a/1", &back.display().to_string()]);
    assert_eq!(fs::read(&back).expect("it was written"), bytes, "read without a disk");
    wait_until("every copy is repaired", Duration::from_secs(60), || {
        let status = platform.ok(&["storage", "status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status["shards_whole"] == status["shards_total"] && status["shards_total"].as_u64() > Some(0)
    });
    platform.ok(&["storage", "rm", "photos/b"]);
    assert!(platform.refused(&["storage", "get", "photos/b"]).contains("`b` in bucket `photos` does not exist"));
}
