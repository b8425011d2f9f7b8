//! Builds images: ordinary ones with umoci, odd ones by writing a layout's files directly.

use std::path::{Path, PathBuf};

use heptad_image::Digest;
use serde_json::{Value, json};

use super::{World, run};

/// An OCI layout that umoci works on.
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(super) fn new(world: &World, name: &str) -> Self {
        let layout = Self { dir: world.path(name) };
        run("umoci", &["init", "--layout", &layout.text()]);
        layout
    }

    pub(super) fn text(&self) -> String {
        self.dir.display().to_string()
    }

    pub(super) fn tag(&self, tag: &str) -> String {
        format!("{}:{tag}", self.text())
    }

    pub(super) fn blank(&self, tag: &str) {
        run("umoci", &["new", "--image", &self.tag(tag)]);
    }

    /// One more layer: what `change` does to the root filesystem of `from`, as `to`.
    pub(super) fn layer(&self, world: &World, from: &str, to: &str, change: impl FnOnce(&Path)) {
        let bundle = world.path(&format!("bundle-{from}-{to}"));
        let shown = bundle.display().to_string();
        run("umoci", &["unpack", "--image", &self.tag(from), &shown]);
        change(&bundle.join("rootfs"));
        run("umoci", &["repack", "--image", &self.tag(to), &shown]);
        std::fs::remove_dir_all(bundle).expect("bundle");
    }

    /// One more layer: an archive as it is.
    pub(super) fn archive(&self, world: &World, tag: &str, archive: Archive) {
        let path = world.path("layer.tar");
        std::fs::write(&path, archive.done()).expect("archive");
        run("umoci", &["raw", "add-layer", "--image", &self.tag(tag), &path.display().to_string()]);
    }

    pub(super) fn config(&self, tag: &str, args: &[&str]) {
        run("umoci", &[&["config", "--image", &self.tag(tag)], args].concat());
    }

    pub(super) fn insert(&self, tag: &str, args: &[&str]) {
        run("umoci", &[&["insert", "--image", &self.tag(tag)], args].concat());
    }
}

/// busybox with a user, hard links and symbolic links; a second layer deletes, replaces and hides; a
/// configuration. Tags `base` and `app`.
pub(super) fn busybox(world: &World, name: &str) -> Layout {
    let layout = Layout::new(world, name);
    layout.blank("base");
    layout.layer(world, "base", "base", |root| {
        for dir in ["bin", "etc", "d", "opaque", "srv"] {
            std::fs::create_dir(root.join(dir)).expect("directory");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let busybox = busybox.expect("busybox is there: install the Debian package busybox-static");
        std::fs::copy(busybox, root.join("bin/busybox")).expect("busybox");
        std::fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).expect("hard link");
        std::os::unix::fs::symlink("busybox", root.join("bin/cat")).expect("symlink");
        std::os::unix::fs::symlink("/bin/busybox", root.join("bin/id")).expect("symlink");
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n")
            .expect("file");
        std::fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:77:app\n").expect("file");
        std::fs::write(root.join("d/old"), "old").expect("file");
        std::fs::write(root.join("d/changed"), "before").expect("file");
        std::fs::write(root.join("opaque/low"), "low").expect("file");
    });
    layout.layer(world, "base", "app", |root| {
        std::fs::remove_file(root.join("d/old")).expect("file");
        std::fs::write(root.join("d/changed"), "after").expect("file");
        std::fs::write(root.join("d/new"), "new").expect("file");
    });
    let high = world.path("high");
    std::fs::create_dir_all(&high).expect("directory");
    std::fs::write(high.join("high"), "high").expect("file");
    layout.insert("app", &["--opaque", &high.display().to_string(), "/opaque"]);
    layout.config(
        "app",
        &[
            "--config.entrypoint=/bin/sh",
            "--config.entrypoint=-c",
            "--config.cmd=id",
            "--config.env=MODE=test",
            "--config.user=app",
            "--config.workingdir=/srv",
            "--config.exposedports=8080/tcp",
            "--config.stopsignal=SIGUSR1",
        ],
    );
    layout
}

/// The names of the image `app` of [`busybox`].
pub(super) const BUSYBOX_NAMES: &[&str] = &[
    "bin",
    "bin/busybox",
    "bin/cat",
    "bin/id",
    "bin/sh",
    "d",
    "d/changed",
    "d/new",
    "etc",
    "etc/group",
    "etc/passwd",
    "opaque",
    "opaque/high",
    "srv",
];

/// A tar file whose names are taken literally.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    fn add(mut self, kind: tar::EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, name, "", content)
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.add(tar::EntryType::Directory, name, "", b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(tar::EntryType::Symlink, name, target, b"")
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.add(tar::EntryType::Link, name, target, b"")
    }

    pub(super) fn done(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// An OCI layout with one image, written file by file so that any part can be wrong.
pub(super) struct Handmade {
    pub(super) dir: PathBuf,
    pub(super) manifest: Value,
}

impl Handmade {
    /// `layers` as they are stored, and the configuration's diff ids for them.
    pub(super) fn new(dir: PathBuf, layers: &[Vec<u8>], diff_ids: &[Digest], architecture: &str) -> Self {
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("directory");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("file");
        let config = json!({"os": "linux", "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = blob(&dir, &serde_json::to_vec(&config).expect("json"));
        let layers: Vec<Value> =
            layers.iter().map(|l| descriptor("application/vnd.oci.image.layer.v1.tar", l, &blob(&dir, l))).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
            "layers": layers});
        let layout = Self { dir, manifest };
        layout.write_index();
        layout
    }

    pub(super) fn simple(dir: PathBuf, architecture: &str) -> Self {
        let layer = Archive::default().file("f", architecture.as_bytes()).done();
        let id = Digest::sha256(&layer);
        Self::new(dir, &[layer], &[id], architecture)
    }

    pub(super) fn write_index(&self) -> (Digest, usize) {
        let bytes = serde_json::to_vec(&self.manifest).expect("json");
        let at = blob(&self.dir, &bytes);
        let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": at.0, "size": at.1});
        self.write_entries(&[entry]);
        at
    }

    pub(super) fn write_entries(&self, entries: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        std::fs::write(self.dir.join("index.json"), serde_json::to_vec(&index).expect("json")).expect("file");
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn reference(&self) -> String {
        format!("oci:{}", self.dir.display())
    }
}

pub(super) fn blob(dir: &Path, bytes: &[u8]) -> (Digest, usize) {
    let digest = Digest::sha256(bytes);
    std::fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).expect("blob");
    (digest, bytes.len())
}

fn descriptor(media_type: &str, bytes: &[u8], at: &(Digest, usize)) -> Value {
    json!({"mediaType": media_type, "digest": at.0, "size": bytes.len()})
}

/// This machine's architecture as images name it.
pub(super) fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
