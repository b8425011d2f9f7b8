//! An image mounted as a container's root would be, unmounted when dropped.

use std::path::{Path, PathBuf};

use heptad_image::Image;
use nix::mount::{MntFlags, MsFlags};

use super::run;

pub(super) struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    pub(super) fn new(image: &Image) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(dir.path().join(name)).expect("directory");
        }
        let mounted = Self { dir };
        let at = |name: &str| mounted.path_of(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", image.overlay_lowerdir(), at("upper"), at("work"));
        nix::mount::mount(
            Some("overlay"),
            &mounted.path_of("root"),
            Some("overlay"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .expect("overlayfs mounts");
        mounted
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.path_of("root").join(path)
    }

    /// Runs a program of the image with the image as its root.
    pub(super) fn run(&self, args: &[&str]) -> String {
        let root = self.path_of("root").display().to_string();
        run("chroot", &[&[root.as_str()], args].concat())
    }

    /// Every name below the root, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let root = self.path_of("root");
        let mut names = Vec::new();
        walk(&root, &root, &mut names);
        names.sort();
        names
    }
}

fn walk(root: &Path, dir: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("directory").map(|e| e.expect("entry")) {
        let path = entry.path();
        names.push(path.strip_prefix(root).expect("below").display().to_string());
        if entry.file_type().expect("kind").is_dir() {
            walk(root, &path, names);
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path_of("root"), MntFlags::MNT_DETACH);
    }
}
