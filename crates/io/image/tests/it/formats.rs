//! The same image from every kind of source and with every kind of layer.

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use heptad_image::{Digest, Image, ImageError, ImageStore, ProcessRequest, Violation};
use serde_json::json;

use super::build::{Archive, BUSYBOX_NAMES, Handmade, blob, busybox, here};
use super::mount::Mounted;
use super::registry::Registry;
use super::{World, options, run, text};

fn check_busybox(image: &Image) {
    let mounted = Mounted::new(image);
    assert_eq!(mounted.names(), BUSYBOX_NAMES);
    assert_eq!(text(&mounted.path("d/changed")), "after");
    assert_eq!(text(&mounted.path("opaque/high")), "high");
    let inode = |p: &str| std::os::unix::fs::MetadataExt::ino(&mounted.path(p).metadata().expect("file"));
    assert_eq!(inode("bin/sh"), inode("bin/busybox"), "the hard link is one");
    assert_eq!(std::fs::read_link(mounted.path("bin/cat")).expect("symlink"), Path::new("busybox"));
    assert_eq!(mounted.run(&["/bin/cat", "/d/new"]), "new");
    assert_eq!(mounted.run(&["/bin/sh", "-c", "echo $((6 * 7)) > /d/old; cat /d/old"]), "42\n");
}

fn check_process(image: &Image) {
    let plan = image.process(&ProcessRequest::default()).expect("plan");
    assert_eq!(plan.args, ["/bin/sh", "-c", "id"]);
    assert_eq!((plan.uid, plan.gid, plan.additional_gids), (1000, 1000, vec![77]));
    assert_eq!((plan.cwd.as_path(), plan.stop_signal), (Path::new("/srv"), 10));
    assert_eq!((plan.env["MODE"].as_str(), plan.env["HOME"].as_str()), ("test", "/srv"));
    let request = ProcessRequest {
        args: Some(vec!["true".to_owned()]),
        user: Some("root:extra".to_owned()),
        env: BTreeMap::from([("MODE".to_owned(), "own".to_owned())]),
        ..ProcessRequest::default()
    };
    let plan = image.process(&request).expect("plan");
    assert_eq!((plan.args.join(" "), plan.uid, plan.gid), ("/bin/sh -c true".to_owned(), 0, 77));
    assert_eq!(plan.env["MODE"], "own");
    assert_eq!(image.config.exposed_ports.iter().collect::<Vec<_>>(), ["8080/tcp"]);
}

#[test]
fn registry_image() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = busybox(&w, "oci");
    let name = registry.push(&format!("oci:{}", layout.tag("app")), "team/app:1", &[]);
    let store = w.store(options(&registry.address));
    let image = w.pull(&store, &format!("docker://{name}")).expect("pull");
    assert_eq!(image.layers.len(), 3);
    check_busybox(&image);
    check_process(&image);
    let digest = image.digest.clone().expect("digest");
    let pinned = w.pull(&store, &format!("{}/team/app@{digest}", registry.address)).expect("by digest");
    assert_eq!(pinned.layers, image.layers);
    // Docker's own manifest format.
    let name = registry.push(&format!("oci:{}", layout.tag("app")), "team/docker:1", &["--format", "v2s2"]);
    assert_eq!(w.pull(&store, &name).expect("pull").layers, image.layers);
    assert_eq!(w.names("tmp"), Vec::<String>::new());
}

#[test]
fn zstd_layers() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = busybox(&w, "oci");
    let args = ["--format", "oci", "--dest-compress-format", "zstd"];
    let name = registry.push(&format!("oci:{}", layout.tag("app")), "z:1", &args);
    let source = format!("docker://{name}");
    let manifest = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &source]);
    assert!(manifest.contains("tar+zstd"), "skopeo recompressed: {manifest}");
    let store = w.store(options(&registry.address));
    check_busybox(&w.pull(&store, &name).expect("pull"));
}

#[test]
fn oci_layouts() {
    let w = World::new();
    let layout = busybox(&w, "oci");
    let store = w.store(options(""));
    let image = w.pull(&store, &format!("oci:{}", layout.tag("app"))).expect("pull");
    check_busybox(&image);
    check_process(&image);
    let error = w.pull(&store, &format!("oci:{}", layout.tag("none"))).expect_err("no such tag").to_string();
    assert!(error.contains("base") && error.contains("app"), "it lists what there is: {error}");
    let error = w.pull(&store, "oci:/nonexistent-layout").expect_err("no such layout");
    assert!(matches!(error, ImageError::Source { .. }), "{error}");
}

#[test]
fn docker_archives() {
    let w = World::new();
    let layout = busybox(&w, "oci");
    let file = w.path("app.tar").display().to_string();
    let target = format!("docker-archive:{file}:example.org/app:1");
    run("skopeo", &["copy", "--quiet", "--insecure-policy", &format!("oci:{}", layout.tag("app")), &target]);
    let store = w.store(options(""));
    let image = w.pull(&store, &target).expect("by name");
    check_busybox(&image);
    check_process(&image);
    let alone = w.pull(&store, &format!("docker-archive:{file}")).expect("without a name");
    assert_eq!((alone.digest, alone.layers), (image.digest, image.layers));
    let error = w.pull(&store, &format!("docker-archive:{file}:other:1")).expect_err("no such name").to_string();
    assert!(error.contains("example.org/app:1"), "it lists what there is: {error}");

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&std::fs::read(&file).expect("archive")).expect("memory");
    std::fs::write(w.path("app.tar.gz"), encoder.finish().expect("memory")).expect("file");
    w.pull(&store, &format!("docker-archive:{file}.gz")).expect("compressed");

    // One byte of a layer changed: the archive has no digest of it, but the configuration has.
    let mut bytes = std::fs::read(&file).expect("archive");
    let at = bytes.windows(6).position(|w| w == b"before").expect("the file's content");
    bytes[at] = b'B';
    std::fs::write(w.path("bad.tar"), bytes).expect("file");
    drop(store);
    let store = ImageStore::open(w.path("fresh"), options("")).expect("store");
    let error = w.pull(&store, &format!("docker-archive:{}", w.path("bad.tar").display())).expect_err("changed");
    assert!(matches!(error, ImageError::Unpack { source: Violation::DiffId { .. }, .. }), "{error}");
}

#[test]
fn indexes() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = Handmade::simple(w.path("multi"), here());
    let ours = layout.write_index();
    let theirs = Handmade::simple(w.path("multi"), "other").write_index();
    let entry = |at: &(Digest, usize), architecture: &str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": at.0, "size": at.1,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&theirs, "other"), entry(&ours, here())]});
    let at = blob(&layout.dir, &serde_json::to_vec(&index).expect("json"));
    layout.write_entries(&[
        json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": at.0, "size": at.1}),
    ]);
    let name = registry.push(&layout.reference(), "multi:1", &["--multi-arch", "all"]);
    let store = w.store(options(&registry.address));
    for reference in [layout.reference(), name] {
        let image = w.pull(&store, &reference).expect("pull");
        // skopeo compresses the layer on its way, so only the layout's own digest is known.
        assert!(!reference.starts_with("oci:") || image.digest.as_ref() == Some(&ours.0));
        assert_eq!(text(&image.layers[0].join("f")), here());
    }
    let only_other = Handmade::simple(w.path("other"), "other");
    let error = w.pull(&store, &only_other.reference()).expect_err("not for this machine");
    assert!(matches!(&error, ImageError::Platform { offered, .. } if offered == "linux/other"), "{error}");
}

/// The same layer, with a file whose parent only lower layers have, above two different ones.
#[test]
fn leaning_layers() {
    let w = World::new();
    let leaning = Archive::default().file("lib/new", b"new").link("copy", "usr/lib/old").done();
    let real = Archive::default().dir("lib").dir("usr").dir("usr/lib").file("usr/lib/old", b"1").done();
    let linked =
        Archive::default().symlink("lib", "usr/lib").dir("usr").dir("usr/lib").file("usr/lib/old", b"2").done();
    let store = w.store(options(""));
    let ids = |layers: &[Vec<u8>]| layers.iter().map(|l| Digest::sha256(l)).collect::<Vec<_>>();
    let mut pulled = Vec::new();
    for (name, low) in [("real", real), ("linked", linked)] {
        let layers = [low, leaning.clone()];
        let layout = Handmade::new(w.path(name), &layers, &ids(&layers), here());
        pulled.push(w.pull(&store, &layout.reference()).expect("pull"));
    }
    assert_ne!(pulled[0].layers[0], pulled[1].layers[0], "not shared: it differs");
    let (real, linked) = (Mounted::new(&pulled[0]), Mounted::new(&pulled[1]));
    assert_eq!(text(&real.path("lib/new")), "new");
    assert!(!real.path("usr/lib/new").exists());
    assert_eq!(text(&linked.path("usr/lib/new")), "new");
    assert!(linked.path("lib").is_symlink());
    assert_eq!((text(&real.path("copy")), text(&linked.path("copy"))), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn host() {
    let w = World::new();
    let store = w.store(options(""));
    let image = w.pull(&store, "host").expect("host");
    assert!(image.is_host() && image.layers == [Path::new("/")]);
    w.assert_store_is_empty();
    let request = ProcessRequest {
        command: Some(vec!["/bin/true".to_owned()]),
        user: Some("nobody".to_owned()),
        ..ProcessRequest::default()
    };
    assert_eq!(image.process(&request).expect("plan").uid, 65534);
}

#[test]
fn sparse_files_of_gnu_tar() {
    let w = World::new();
    let from = w.path("from");
    std::fs::create_dir_all(from.join("d")).expect("directory");
    let mut file = std::fs::File::create(from.join("d/s")).expect("file");
    for i in 1..40_u64 {
        file.seek(SeekFrom::Start(i * 300_000)).expect("hole");
        file.write_all(format!("piece {i}\n").as_bytes()).expect("piece");
    }
    file.set_len(20 << 20).expect("hole at the end");
    std::fs::hard_link(from.join("d/s"), from.join("d/t")).expect("link");
    std::fs::write(from.join("d/u"), "plain").expect("file");
    let content = std::fs::read(from.join("d/s")).expect("file");
    let store = w.store(options(""));
    let formats: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for (i, format) in formats.into_iter().enumerate() {
        let (archive, shown) = (w.path(&format!("{i}.tar")), from.display().to_string());
        let archive_text = archive.display().to_string();
        run("tar", &[format, &["--sparse", "-C", &shown, "-cf", &archive_text, "d"]].concat());
        let bytes = std::fs::read(&archive).expect("archive");
        assert!(bytes.len() < 1 << 20, "{format:?} wrote no holes: {}", bytes.len());
        let layout = Handmade::new(
            w.path(&format!("layout{i}")),
            std::slice::from_ref(&bytes),
            &[Digest::sha256(&bytes)],
            here(),
        );
        let image = w.pull(&store, &layout.reference()).unwrap_or_else(|e| panic!("{format:?}: {e:?}"));
        let root = &image.layers[0];
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                std::fs::read_dir(dir).expect("directory").map(|e| e.expect("entry").file_name()).collect();
            names.sort();
            names
        };
        assert_eq!((names(root), names(&root.join("d"))), (vec!["d".into()], vec!["s".into(), "t".into(), "u".into()]));
        for name in ["d/s", "d/t"] {
            assert!(std::fs::read(root.join(name)).expect("file") == content, "{format:?} {name}");
        }
        assert_eq!(root.join("d/s").metadata().expect("file").nlink(), 2, "{format:?}");
    }
}
