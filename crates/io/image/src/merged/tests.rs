//! The merged view against hand-made layers (whiteouts and opaque directories need root).

use super::*;

struct Layers {
    dir: tempfile::TempDir,
}

impl Layers {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes whiteouts: run it as root");
        Self { dir: tempfile::tempdir().expect("temporary directory") }
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("parents");
        path
    }

    fn file(&self, path: &str, content: &str) {
        std::fs::write(self.path(path), content).expect("file");
    }

    fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).expect("symlink");
    }

    fn whiteout(&self, path: &str) {
        let path = self.path(path);
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, Mode::empty(), 0).expect("mknod");
    }

    fn merged(&self, top_first: &[&str]) -> Merged {
        let dirs: Vec<PathBuf> =
            top_first.iter().map(|l| self.path(&format!("{l}/.")).components().collect()).collect();
        Merged::open(&dirs).expect("layers")
    }
}

fn read(merged: &Merged, path: &str) -> Option<String> {
    merged.read(path, 100).expect("readable").map(|b| String::from_utf8(b).expect("text"))
}

#[test]
fn upper_layers_hide_lower_ones() {
    let l = Layers::new();
    l.file("low/etc/a", "low");
    l.file("low/etc/gone", "low");
    l.file("low/etc/deep/x", "low");
    l.file("up/etc/b", "up");
    l.whiteout("up/etc/gone");
    l.file("up/etc/deep/y", "up");
    let opaque = l.path("up/etc/deep");
    rustix::fs::setxattr(opaque, OPAQUE_XATTR, b"y", rustix::fs::XattrFlags::empty()).expect("xattr");
    let merged = l.merged(&["up", "low"]);
    assert_eq!(read(&merged, "/etc/a").as_deref(), Some("low"));
    assert_eq!(read(&merged, "/etc/b").as_deref(), Some("up"));
    assert_eq!(read(&merged, "/etc/gone"), None);
    assert_eq!(read(&merged, "/etc/deep/x"), None);
    assert_eq!(read(&merged, "/etc/deep/y").as_deref(), Some("up"));
}

#[test]
fn links_stay_inside_and_cross_layers() {
    let l = Layers::new();
    l.file("low/usr/etc/passwd", "image");
    l.link("up/etc", "/../../usr/etc");
    l.link("up/away", "/etc/passwd");
    l.link("up/loop", "loop");
    l.link("up/host", "../../../../../../../../etc/hostname");
    let merged = l.merged(&["up", "low"]);
    assert_eq!(read(&merged, "etc/passwd").as_deref(), Some("image"));
    assert_eq!(read(&merged, "away").as_deref(), Some("image"));
    assert_eq!(read(&merged, "host"), None);
    assert_eq!(merged.read("loop", 10).expect_err("a loop").raw_os_error(), Some(libc::ELOOP));
    let found = merged.resolve(Path::new("etc/new/dir"), true).expect("resolves");
    assert_eq!(found.dirs, ["usr", "etc"]);
    assert!(matches!(found.node, Node::Missing(rest) if rest == ["new", "dir"]));
}

#[test]
fn only_regular_files_are_read_and_only_so_much() {
    let l = Layers::new();
    l.file("low/big", &"x".repeat(200));
    rustix::fs::mknodat(rustix::fs::CWD, l.path("low/fifo"), FileType::Fifo, Mode::RUSR, 0).expect("fifo");
    let merged = l.merged(&["low"]);
    assert_eq!(merged.read("big", 100).expect_err("too big").raw_os_error(), Some(libc::EFBIG));
    assert!(merged.read("fifo", 100).is_err());
    assert!(merged.read("/", 100).is_err());
}
