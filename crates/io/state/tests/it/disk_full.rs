//! A disk that fills up: nothing acknowledged is lost, the store says that it is read-only, and a restart with room
//! goes on. Needs root and mount(8), and fails without them.

use heptad_state::{EmbeddedStore, Error, Options, Store, StoreExt};
use std::{path::Path, process::Command};

/// A small file system in memory, unmounted at the end whatever happens.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "heptad-state-test"], dir.path());
        Self(dir)
    }

    fn resize(&self, mib: u32) {
        run("mount", &["-o", &format!("remount,size={mib}m")], self.0.path());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run("umount", &[], self.0.path());
    }
}

fn run(program: &str, args: &[&str], dir: &Path) {
    let status = Command::new(program).args(args).arg(dir).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "`{program} {} {}` failed; this test needs root and mount(8)",
        args.join(" "),
        dir.display()
    );
}

#[tokio::test]
async fn a_full_disk_makes_the_store_read_only_and_loses_nothing() {
    let disk = SmallDisk::mount(6);
    let dir = disk.0.path().join("state");
    let store = EmbeddedStore::open(&dir, Options::default()).unwrap();
    let mut acknowledged = 0;
    let error = loop {
        match store.put(format!("k{acknowledged}"), vec![b'x'; 20_000 + acknowledged]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "6 MiB do not hold 200 MB");
    };
    assert!(matches!(&error, Error::Commit { dir: named, .. } if *named == dir), "{error}");
    assert!(acknowledged > 10, "{acknowledged}");
    assert!(matches!(store.put("later", "").await, Err(Error::ReadOnly { .. })));
    assert!(matches!(store.compact(2).await, Err(Error::ReadOnly { .. })));
    let readable = store.list("k").await.unwrap().0.len();
    assert_eq!(readable, acknowledged, "what was acknowledged can still be read");
    let revision = store.current_revision().await.unwrap();
    drop(store);

    disk.resize(200);
    let store = EmbeddedStore::open(&dir, Options::default()).unwrap();
    for key in 0..acknowledged {
        let kv = store.get(format!("k{key}")).await.unwrap();
        assert_eq!(kv.map(|kv| kv.value.len()), Some(20_000 + key));
    }
    assert!(store.current_revision().await.unwrap() >= revision);
    store.put("later", "").await.unwrap();
}
