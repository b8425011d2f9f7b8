//! Hostile and ordinary archives against a real directory (whiteouts and owners need root).

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::merged::OPAQUE_XATTR;

/// Creates archives that well-behaved writers would refuse to create.
#[derive(Default)]
struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    fn add(mut self, kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        let padding = content.len().next_multiple_of(512) - content.len();
        self.bytes.extend(vec![0; padding]);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.add(EntryType::Regular, name, "", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.add(EntryType::Directory, name, "", 0o750, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(EntryType::Link, name, target, 0o644, b"")
    }

    fn done(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

const RATIO: Ratio = Ratio { max: 1000, free_bytes: 0 };

struct World {
    dir: tempfile::TempDir,
    budget: Budget,
}

impl World {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test sets owners and makes whiteouts: run it as root");
        Self { dir: tempfile::tempdir().expect("temporary directory"), budget: Budget::new(1 << 30, 1000) }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn unpack(&self, name: &str, layer: Layer, lowers: Lowers) -> Result<Outcome, Violation> {
        let bytes = layer.done();
        std::fs::create_dir(self.path(name)).expect("new layer");
        let limits = Limits { budget: &self.budget, depth_max: 16, ratio: RATIO };
        let (dest, id) = (self.path(name), Digest::sha256(&bytes));
        unpack_layer(&bytes[..], bytes.len() as u64, &dest, &id, &lowers, limits).map_err(|r| r.violation)
    }

    fn alone(&self, name: &str, layer: Layer) -> Result<Outcome, Violation> {
        self.unpack(name, layer, Lowers::Unknown)
    }

    fn above(&self, name: &str, layer: Layer, lowers: &[&str]) -> Result<Outcome, Violation> {
        self.unpack(name, layer, Lowers::Known(lowers.iter().map(|l| self.path(l)).collect()))
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|e| format!("{e}"))
    }
}

fn is_alone(outcome: &Result<Outcome, Violation>) -> bool {
    matches!(outcome, Ok(Outcome::Alone(_)))
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::lgetxattr(path, OPAQUE_XATTR, &mut value), Ok(1))
}

#[test]
fn kinds_owners_modes_and_times() {
    let w = World::new();
    let layer = Layer::default()
        .dir("d")
        .add(EntryType::Regular, "d/suid", "", 0o4755, b"x")
        .symlink("d/s", "../../../etc/shadow")
        .link("d/h", "d/suid")
        .add(EntryType::Fifo, "d/f", "", 0o600, b"")
        .add(EntryType::Char, "d/null", "", 0o666, b"")
        .add(EntryType::Block, "d/sda", "", 0o666, b"");
    assert!(is_alone(&w.alone("l", layer)));
    let dir = w.path("l/d").metadata().expect("d");
    assert_eq!((dir.mode() & 0o7777, dir.uid(), dir.gid(), dir.mtime()), (0o750, 12, 34, 1_000_000));
    let file = w.path("l/d/suid").metadata().expect("file");
    assert_eq!((file.mode() & 0o7777, file.uid(), file.nlink(), file.mtime()), (0o4755, 12, 2, 1_000_000));
    assert_eq!(w.path("l/d/h").metadata().expect("link").ino(), file.ino());
    assert_eq!(std::fs::read_link(w.path("l/d/s")).expect("symlink"), Path::new("../../../etc/shadow"));
    assert!(w.path("l/d/f").symlink_metadata().expect("fifo").file_type().is_fifo());
    assert!(!w.path("l/d/null").exists() && !w.path("l/d/sda").exists(), "no devices");
}

#[test]
fn whiteouts_and_opaque_directories() {
    let w = World::new();
    let layer = Layer::default()
        .dir("d")
        .file("d/.wh.gone", "")
        .file(".wh.was-dir", "")
        .dir("was-dir")
        .dir("o")
        .file("o/.wh..wh..opq", "")
        .dir("own")
        .file(".wh.own", "")
        .file(".wh..wh.plnk", "");
    assert!(is_alone(&w.alone("l", layer)));
    let gone = w.path("l/d/gone").symlink_metadata().expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["l/was-dir", "l/o", "l/own"] {
        assert!(is_opaque(&w.path(opaque)), "{opaque}");
    }
    assert!(!is_opaque(&w.path("l/d")) && !w.path("l/.wh..wh.plnk").exists());
}

#[test]
fn nothing_leaves_the_root() {
    let w = World::new();
    let outside = w.path("outside");
    std::fs::create_dir(&outside).expect("outside");
    std::fs::write(outside.join("victim"), "safe").expect("victim");
    let up = "../../../../../../../../../..";
    let out = outside.to_str().expect("utf-8");

    for (name, layer) in [
        ("dots", Layer::default().file("../outside/new", "x")),
        ("dots2", Layer::default().dir("a").file("a/../../outside/new", "x")),
        ("dotsdir", Layer::default().dir("..")),
        ("dotswh", Layer::default().file("../.wh.outside", "")),
        ("dotsopq", Layer::default().file("../.wh..wh..opq", "")),
    ] {
        assert!(matches!(w.alone(name, layer), Err(Violation::ParentComponent)), "{name}");
    }
    assert!(matches!(w.alone("wh", Layer::default().file(".wh...", "")), Err(Violation::BadName)));
    for (name, target) in [("hl1", "../outside/victim".to_owned()), ("hl2", "a/../../outside/victim".to_owned())] {
        let result = w.alone(name, Layer::default().link("h", &target));
        assert!(matches!(result, Err(Violation::LinkTargetRefused { .. })), "{name}: {result:?}");
    }
    let result = w.above("hl3", Layer::default().link("h", &format!("{out}/victim")), &[]);
    assert!(matches!(result, Err(Violation::LinkTargetMissing { .. })), "{result:?}");

    // Links planted by the same layer are followed inside the root only.
    for (name, target) in [("abs", out.to_owned()), ("rel", format!("{up}{out}"))] {
        let layer = Layer::default()
            .symlink("l", &target)
            .file("l/new", "x")
            .file("l/.wh.victim", "")
            .file("l/.wh..wh..opq", "")
            .symlink("v", &format!("{target}/victim"))
            .file("v", "replaced, not followed");
        assert!(matches!(w.above(name, layer, &[]), Ok(Outcome::OnLowers(_))), "{name}");
        assert_eq!(w.text(&format!("{name}{out}/new")), "x");
        assert_eq!(w.text(&format!("{name}/v")), "replaced, not followed");
    }
    // A hard link through a planted link, and one to a planted link.
    let layer = Layer::default().symlink("l", out).symlink("v", &format!("{out}/victim")).link("h", "v");
    assert!(is_alone(&w.alone("hlv", layer)));
    assert!(w.path("hlv/h").is_symlink());
    let result = w.above("hll", Layer::default().symlink("l", out).link("h", "l/victim"), &[]);
    assert!(matches!(result, Err(Violation::LinkTargetMissing { .. })), "{result:?}");

    assert_eq!(w.text("outside/victim"), "safe");
    assert_eq!(std::fs::read_dir(&outside).expect("outside").count(), 1);
    assert!(!is_opaque(&outside));
}

#[test]
fn a_link_planted_by_a_lower_layer_stays_inside() {
    let w = World::new();
    let outside = w.path("outside");
    std::fs::create_dir(&outside).expect("outside");
    std::fs::write(outside.join("victim"), "safe").expect("victim");
    let out = outside.to_str().expect("utf-8").to_owned();
    assert!(is_alone(&w.alone("low", Layer::default().symlink("l", &out).file("f", "low content"))));
    let upper = || Layer::default().file("l/new", "x").file("l/.wh.victim", "").link("l/copy", "f");
    assert!(matches!(w.alone("first", upper()), Ok(Outcome::NeedsLowers)));
    assert!(matches!(w.above("up", upper(), &["low"]), Ok(Outcome::OnLowers(_))));
    assert_eq!(w.text(&format!("up{out}/new")), "x");
    assert_eq!(w.text(&format!("up{out}/copy")), "low content");
    assert!(!w.path("up/l").exists(), "the link of the lower layer shows through");
    assert_eq!(w.text("outside/victim"), "safe");
    assert_eq!(std::fs::read_dir(&outside).expect("outside").count(), 1);
    let steal = Layer::default().link("h", "l/victim");
    assert!(matches!(w.above("steal", steal, &["low"]), Err(Violation::LinkTargetMissing { .. })));
}

#[test]
fn missing_parents_look_like_those_below() {
    let w = World::new();
    let low = Layer::default()
        .add(EntryType::Directory, "tmp", "", 0o1777, b"")
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib");
    assert!(is_alone(&w.alone("low", low)));
    let up = Layer::default().file("tmp/a/b", "1").file("lib/c.so", "2");
    assert!(matches!(w.above("up", up, &["low"]), Ok(Outcome::OnLowers(_))));
    let tmp = w.path("up/tmp").metadata().expect("tmp");
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o1777, 12));
    assert_eq!(w.path("up/tmp/a").metadata().expect("a").permissions().mode() & 0o7777, 0o755);
    assert_eq!(w.text("up/usr/lib/c.so"), "2");
    assert!(!w.path("up/lib").exists());
    assert_eq!(w.path("up/usr/lib").metadata().expect("lib").mode() & 0o7777, 0o750);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let w = World::new();
    let layer = Layer::default()
        .dir("a")
        .dir("a/b")
        .file("a/b/c", "old")
        .symlink("a", "/etc")
        .dir("x")
        .file("x/y", "kept")
        .dir("x")
        .file("f", "1")
        .link("g", "f")
        .file("f", "2")
        .link("g", "g");
    assert!(is_alone(&w.alone("l", layer)));
    assert!(w.path("l/a").is_symlink());
    assert_eq!((w.text("l/x/y"), w.text("l/f"), w.text("l/g")), ("kept".into(), "2".into(), "1".into()));
}

#[test]
fn limits() {
    let w = World::new();
    let deep = "d/".repeat(17);
    assert!(matches!(w.above("deep", Layer::default().file(&deep, ""), &[]), Err(Violation::TooDeep { max: 16 })));
    let many = (0..1001).fold(Layer::default(), |l, i| l.file(&format!("f{i}"), ""));
    assert!(matches!(w.alone("many", many), Err(Violation::TooManyEntries { max: 1000 })));
    let w = World { budget: Budget::new(10_000, 1000), ..w };
    let big = Layer::default().file("f", &"x".repeat(20_000));
    assert!(matches!(w.alone("big", big), Err(Violation::TooManyBytes { max: 10_000 })));

    let w = World::new();
    let long_name =
        Layer::default().add(EntryType::GNULongName, "././@LongLink", "", 0, &vec![b'n'; 2 << 20]).file("f", "");
    assert!(matches!(w.alone("name", long_name), Err(Violation::HeaderTooLarge { .. })));
    let odd = Layer::default().add(EntryType::new(b'V'), "f", "", 0, b"");
    assert!(matches!(w.alone("odd", odd), Err(Violation::EntryKind { kind: 'V' })));
    let blocked = Layer::default().file("f", "").file("f/x", "");
    assert!(matches!(w.above("blocked", blocked, &[]), Err(Violation::ParentNotDirectory)));
    let circle = Layer::default().symlink("a", "b").symlink("b", "a").file("a/x", "");
    assert!(matches!(w.alone("circle", circle), Err(Violation::ParentNotDirectory)));
}

#[test]
fn a_sparse_file_is_charged_for_what_it_claims() {
    let w = World::new();
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[0] = b's';
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    let gnu = header.as_gnu_mut().expect("gnu header");
    gnu.set_real_size(1 << 40);
    gnu.sparse[0].set_offset(1 << 40);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    let layer = Layer { bytes: header.as_bytes().to_vec() };
    let result = w.alone("l", layer);
    assert!(matches!(result, Err(Violation::TooManyBytes { .. } | Violation::CompressionRatio { .. })), "{result:?}");
}

#[test]
fn wrong_bytes_and_damage_are_refused() {
    let w = World::new();
    std::fs::create_dir(w.path("l")).expect("dir");
    let bytes = Layer::default().file("f", "content").done();
    let limits = Limits { budget: &w.budget, depth_max: 16, ratio: RATIO };
    let refused = |bytes: &[u8]| {
        let id = Digest::sha256(b"something else");
        unpack_layer(bytes, bytes.len() as u64, &w.path("l"), &id, &Lowers::Unknown, limits)
    };
    assert!(matches!(refused(&bytes), Err(Refused { violation: Violation::DiffId { .. }, .. })));
    let cut = refused(&bytes[..515]).expect_err("cut");
    assert!(matches!(cut.violation, Violation::Malformed(_)) && cut.path == Path::new("f"), "{cut:?}");
    assert!(matches!(refused(&[0xff; 600]), Err(Refused { violation: Violation::Malformed(_), .. })));
}

#[test]
fn an_archive_may_lack_its_padding_and_end() {
    let w = World::new();
    let whole = Layer::default().file("a", "first").file("f", "last").bytes;
    for (name, end) in [("unpadded", whole.len() - 508), ("endless", whole.len())] {
        let bytes = &whole[..end];
        std::fs::create_dir(w.path(name)).expect("dir");
        let limits = Limits { budget: &w.budget, depth_max: 16, ratio: RATIO };
        let id = Digest::sha256(bytes);
        unpack_layer(bytes, end as u64, &w.path(name), &id, &Lowers::Unknown, limits).expect("unpacks");
        assert_eq!(w.text(&format!("{name}/f")), "last");
    }
}

#[test]
fn attributes_that_overlayfs_acts_on_are_not_taken_over() {
    let w = World::new();
    let pax = |key: &str, value: &str| {
        let record = |len: usize| format!("{len} {key}={value}\n");
        let len = (0..).map(|n| record(n).len()).zip(0..).find(|(len, n)| len == n).expect("some length fits").0;
        record(len)
    };
    let records = pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
        + &pax("SCHILY.xattr.trusted.overlay.opaque", "y")
        + &pax("mtime", "7.5");
    let layer = Layer::default().add(EntryType::XHeader, "pax", "", 0, records.as_bytes()).dir("d");
    assert!(is_alone(&w.alone("l", layer)));
    let mut names = [0; 1000];
    let length = rustix::fs::llistxattr(w.path("l/d"), &mut names[..]).expect("list");
    assert!(!String::from_utf8_lossy(&names[..length]).contains("trusted"));
    assert_eq!(w.path("l/d").metadata().expect("d").mtime_nsec(), 500_000_000);
}

mod random {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            Just("a"),
            Just("b"),
            Just("c"),
            Just(".."),
            Just("."),
            Just(".wh.a"),
            Just(".wh.b"),
            Just(".wh..wh..opq"),
            Just("")
        ];
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    fn entry() -> impl Strategy<Value = (u8, String, String)> {
        (0_u8..4, name(), prop_oneof![name(), name().prop_map(|n| format!("/{n}")), Just("../outside".to_owned())])
    }

    fn layer(entries: &[(u8, String, String)]) -> Layer {
        entries.iter().fold(Layer::default(), |l, (kind, name, target)| match kind {
            0 => l.file(name, "inside"),
            1 => l.dir(name),
            2 => l.symlink(name, target),
            _ => l.link(name, target),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn no_archive_touches_what_is_outside(
            low in proptest::collection::vec(entry(), 0..8),
            up in proptest::collection::vec(entry(), 0..12),
        ) {
            let w = World::new();
            std::fs::create_dir(w.path("outside")).expect("outside");
            std::fs::write(w.path("outside/a"), "safe").expect("victim");
            let lower_is_good = w.above("low", layer(&low), &[]).is_ok();
            let before = listing(&w.path("low"));
            let _ = w.alone("first", layer(&up));
            let _ = w.above("up", layer(&up), if lower_is_good { &["low"] } else { &[] });
            prop_assert_eq!(listing(&w.path("low")), before);
            prop_assert_eq!(listing(&w.path("outside")), vec!["a safe".to_owned()]);
            prop_assert_eq!(std::fs::read_dir(w.dir.path()).expect("world").count(), 4);
        }
    }

    fn listing(dir: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        for entry in std::fs::read_dir(dir).expect("directory").map(|e| e.expect("entry")) {
            let kind = entry.file_type().expect("kind");
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                lines.push(format!("{name}/ {}", is_opaque(&entry.path())));
                lines.extend(listing(&entry.path()).into_iter().map(|l| format!("{name}/{l}")));
            } else if kind.is_file() {
                lines.push(format!("{name} {}", std::fs::read_to_string(entry.path()).expect("text")));
            }
        }
        lines.sort();
        lines
    }
}
