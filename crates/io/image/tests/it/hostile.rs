//! Images that are damaged, tampered with or harmful: each is refused by name, and nothing of it stays.

use std::io::Write as _;
use std::path::Path;

use heptad_image::{Digest, ImageError, Options, Violation};

use super::build::{Archive, Handmade, Layout, busybox, here};
use super::mount::Mounted;
use super::registry::Registry;
use super::{World, options, run, text};

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("blob");
}

#[test]
fn flipped_byte() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = busybox(&w, "oci");
    let name = registry.push(&format!("oci:{}", layout.tag("base")), "app:1", &[]);
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).expect("manifest");
    let store = w.store(options(&registry.address));
    for (part, subject) in [(&manifest["layers"][0], "layer"), (&manifest["config"], "configuration")] {
        let digest: Digest = part["digest"].as_str().and_then(|d| d.parse().ok()).expect("digest");
        let path = registry.blob(digest.hex());
        let original = std::fs::read(&path).expect("blob");
        flip(&path);
        let error = w.pull(&store, &name).expect_err("changed");
        match &error {
            ImageError::DigestMismatch { subject: s, expected, .. } => {
                assert_eq!((*s, &**expected), (subject, &digest))
            }
            other => panic!("{other}"),
        }
        w.assert_store_is_empty();
        std::fs::write(&path, original).expect("blob");
    }
    w.pull(&store, &name).expect("whole again");
}

#[test]
fn wrong_digests() {
    let w = World::new();
    let store = w.store(options(""));
    let layer = Archive::default().file("f", b"content").done();
    let wrong = Digest::sha256(b"something else");

    let layout = Handmade::new(w.path("diffid"), std::slice::from_ref(&layer), std::slice::from_ref(&wrong), here());
    let error = w.pull(&store, &layout.reference()).expect_err("diff id");
    assert!(
        matches!(&error, ImageError::Unpack { source: Violation::DiffId { .. }, layer, .. } if **layer == wrong),
        "{error}"
    );

    for (name, subject) in [("manifest", "manifest"), ("config", "configuration"), ("layer", "layer")] {
        let layout = Handmade::simple(w.path(name), here());
        let digest = match name {
            "manifest" => layout.write_index().0,
            "config" => layout.manifest["config"]["digest"].as_str().and_then(|d| d.parse().ok()).expect("digest"),
            _ => layout.manifest["layers"][0]["digest"].as_str().and_then(|d| d.parse().ok()).expect("digest"),
        };
        let blob = layout.blob_path(&digest);
        flip(&blob);
        let error = w.pull(&store, &layout.reference()).expect_err("changed");
        assert!(matches!(&error, ImageError::DigestMismatch { subject: s, .. } if *s == subject), "{name}: {error}");
    }

    // Fewer diff ids than layers, and a layer that is longer than it says.
    let layout = Handmade::new(w.path("count"), std::slice::from_ref(&layer), &[], here());
    let error = w.pull(&store, &layout.reference()).expect_err("count");
    assert!(matches!(error, ImageError::Refused { document: "configuration", .. }), "{error}");
    let mut layout = Handmade::simple(w.path("size"), here());
    layout.manifest["layers"][0]["size"] = 100.into();
    layout.write_index();
    let error = w.pull(&store, &layout.reference()).expect_err("size");
    assert!(matches!(error, ImageError::TooLarge { max_bytes: 100, .. }), "{error}");
    w.assert_store_is_empty();
}

#[test]
fn plain_http() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = Handmade::simple(w.path("oci"), here());
    let name = registry.push(&layout.reference(), "app:1", &[]);
    let store = w.store(Options::default());
    let error = w.pull(&store, &name).expect_err("https is tried");
    assert!(
        matches!(error, ImageError::Registry { .. }) && error.to_string().contains("--insecure-registry HOST"),
        "{error}"
    );
    drop(store);
    let store = w.store(options(&registry.address));
    w.pull(&store, &name).expect("listed");
    let error = w.pull(&store, &format!("{}/nothing:1", registry.address)).expect_err("no such image");
    assert!(matches!(error, ImageError::Registry { .. }), "{error}");
}

#[test]
fn hostile_paths() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = Layout::new(&w, "oci");
    std::fs::create_dir(w.path("outside")).expect("directory");
    std::fs::write(w.path("outside/victim"), "safe").expect("file");
    let victim = w.path("outside/victim").display().to_string();
    let store = w.store(options(&registry.address));
    let cases = [
        ("dots", Archive::default().file("../../../outside/new", b"x"), "../../../outside/new"),
        ("inner", Archive::default().dir("a").file("a/../../x", b"x"), "a/../../x"),
        ("whiteout", Archive::default().file("../.wh.victim", b""), "../.wh.victim"),
        ("absolute", Archive::default().link("stolen", &victim), "stolen"),
        ("relative", Archive::default().link("stolen", "../../outside/victim"), "stolen"),
        (
            "through",
            Archive::default().symlink("l", &w.path("outside").display().to_string()).link("stolen", "l/victim"),
            "stolen",
        ),
    ];
    for (tag, archive, at) in cases {
        layout.blank(tag);
        layout.archive(&w, tag, archive);
        let name = registry.push(&format!("oci:{}", layout.tag(tag)), &format!("{tag}:1"), &[]);
        match w.pull(&store, &name).expect_err(tag) {
            ImageError::Unpack { image, path, source, .. } => {
                assert_eq!((image, path.as_path()), (name, Path::new(at)), "{tag}");
                let expected = matches!(
                    source,
                    Violation::ParentComponent
                        | Violation::LinkTargetMissing { .. }
                        | Violation::LinkTargetRefused { .. }
                );
                assert!(expected, "{tag}: {source}");
            }
            other => panic!("{tag}: {other}"),
        }
        w.assert_store_is_empty();
    }
    assert_eq!(std::fs::read_dir(w.path("outside")).expect("directory").count(), 1);
    assert_eq!(text(&w.path("outside/victim")), "safe");
}

#[test]
fn planted_link() {
    let (w, registry) = (World::new(), Registry::start());
    let outside = w.path("outside");
    std::fs::create_dir(&outside).expect("directory");
    std::fs::write(outside.join("victim"), "safe").expect("file");
    let shown = outside.display().to_string();
    let layout = Layout::new(&w, "oci");
    layout.blank("x");
    layout.archive(
        &w,
        "x",
        Archive::default().symlink("esc", &shown).symlink("up", &format!("../../../../../../..{shown}")),
    );
    let upper = Archive::default().file("esc/new", b"inside").file("up/second", b"inside").file("esc/.wh.victim", b"");
    layout.archive(&w, "x", upper);
    let name = registry.push(&format!("oci:{}", layout.tag("x")), "x:1", &[]);
    let store = w.store(options(&registry.address));
    let image = w.pull(&store, &name).expect("harmless");
    let mounted = Mounted::new(&image);
    assert!(mounted.path("esc").is_symlink() && mounted.path("up").is_symlink());
    let inside = shown.trim_start_matches('/');
    assert_eq!(text(&mounted.path(&format!("{inside}/new"))), "inside");
    assert_eq!(text(&mounted.path(&format!("{inside}/second"))), "inside");
    assert_eq!(std::fs::read_dir(&outside).expect("directory").count(), 1);
    assert_eq!(text(&outside.join("victim")), "safe");
}

#[test]
fn bombs() {
    let (w, registry) = (World::new(), Registry::start());
    let layout = Layout::new(&w, "oci");
    layout.blank("bomb");
    layout.archive(&w, "bomb", Archive::default().file("zeros", &vec![0; 48 << 20]));
    let name = registry.push(&format!("oci:{}", layout.tag("bomb")), "bomb:1", &[]);
    let narrow = Options { compression_ratio_max: 250, compression_free_bytes: 16 << 20, ..options(&registry.address) };
    let store = w.store(narrow);
    let error = w.pull(&store, &name).expect_err("expands a thousand times");
    assert!(
        matches!(&error, ImageError::Unpack { source: Violation::CompressionRatio { .. }, path, .. } if path == Path::new("zeros")),
        "{error}"
    );
    w.assert_store_is_empty();
    drop(store);
    let store = w.store(options(&registry.address));
    w.pull(&store, &name).expect("gzip does that to zeros, and the refusal was not for ever");
    drop(store);
    std::fs::remove_dir_all(w.path("store")).expect("store");

    let store = w.store(Options { unpack_bytes_max: 1 << 20, unpack_entries_max: 100, ..options(&registry.address) });
    let error = w.pull(&store, &name).expect_err("too many bytes");
    assert!(matches!(error, ImageError::Unpack { source: Violation::TooManyBytes { .. }, .. }), "{error}");

    // Each layer is within the limit, but the image is not; one layer is compressed, one is not.
    let layer = |c: char| (0..60).fold(Archive::default(), |a, i| a.file(&format!("{c}{i}"), b"")).done();
    let (plain, packed) = (layer('a'), layer('b'));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&packed).expect("memory");
    let ids = [Digest::sha256(&plain), Digest::sha256(&packed)];
    let flood = Handmade::new(w.path("flood"), &[plain.clone(), encoder.finish().expect("memory")], &ids, here());
    let error = w.pull(&store, &flood.reference()).expect_err("too many entries");
    assert!(matches!(error, ImageError::Unpack { source: Violation::TooManyEntries { max: 100 }, .. }), "{error}");
    // A layer that was already present counts too.
    let first = Handmade::new(w.path("first"), &[plain], &ids[..1], here());
    w.pull(&store, &first.reference()).expect("within limits");
    let error = w.pull(&store, &flood.reference()).expect_err("too many entries");
    assert!(matches!(error, ImageError::Unpack { source: Violation::TooManyEntries { max: 100 }, .. }), "{error}");
    assert_eq!(w.names("images").len(), 1);
}
