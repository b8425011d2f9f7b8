//! The store over time: collection of what is unused, leftovers of a killed process, one owner.

use std::collections::BTreeSet;

use heptad_image::{ImageError, ImageStore, Options, Reference};

use super::build::busybox;
use super::mount::Mounted;
use super::{World, options};

#[test]
fn collection() {
    let w = World::new();
    let layout = busybox(&w, "oci");
    let store = w.store(options(""));
    let base = w.pull(&store, &format!("oci:{}", layout.tag("base"))).expect("pull");
    let app = w.pull(&store, &format!("oci:{}", layout.tag("app"))).expect("pull");
    let reference: Reference = format!("oci:{}", layout.tag("app")).parse().expect("reference");
    let digest = |image: &heptad_image::Image| image.digest.clone().expect("digest");
    let both = BTreeSet::from([digest(&base), digest(&app)]);
    assert_eq!(store.remove_unused(&both).expect("nothing to do").layers, 0);

    let removed = store.remove_unused(&BTreeSet::from([digest(&base)])).expect("collect");
    assert_eq!((removed.images, removed.layers), (vec![digest(&app)], 2));
    assert!(removed.bytes > 0);
    assert_eq!(store.get(&reference).expect("reads"), None);
    assert_eq!(store.list().expect("list").len(), 1);
    assert_eq!(Mounted::new(&base).run(&["/bin/cat", "/d/old"]), "old");

    let again = w.pull(&store, &reference.to_string()).expect("pull again");
    assert_eq!(again, app);
    store.remove_unused(&BTreeSet::new()).expect("collect");
    w.assert_store_is_empty();
    drop(store);

    // What was handed out a moment ago stays, though nobody keeps it yet.
    let store = w.store(Options { unused_age_ms_min: 60_000, ..options("") });
    w.pull(&store, &reference.to_string()).expect("pull");
    assert_eq!(store.remove_unused(&BTreeSet::new()).expect("collect").images, []);
    assert!(store.get(&reference).expect("reads").is_some());
}

#[test]
fn opening() {
    let w = World::new();
    let store = w.store(options(""));
    let busy = ImageStore::open(w.path("store"), options("")).expect_err("in use");
    assert!(matches!(busy, ImageError::StoreBusy { .. }), "{busy}");
    drop(store);
    std::fs::create_dir_all(w.path("store/tmp/half/fs/etc")).expect("leftover");
    std::fs::write(w.path("store/tmp/half/fs/etc/passwd"), "x").expect("leftover");
    // A layer without its record was never whole.
    std::fs::create_dir_all(w.path("store/layers/0123/fs")).expect("leftover");
    let store = w.store(options(""));
    assert_eq!(w.names("tmp"), Vec::<String>::new());
    assert_eq!(store.remove_unused(&BTreeSet::new()).expect("collect").layers, 1);
    w.assert_store_is_empty();
    let mode = std::os::unix::fs::PermissionsExt::mode(&w.path("store").metadata().expect("store").permissions());
    assert_eq!(mode & 0o777, 0o700);
}
