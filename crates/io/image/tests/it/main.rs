//! Images end to end: made with umoci, pushed with skopeo into a real registry on loopback, pulled over http,
//! mounted with overlayfs and run. Needs root and the Debian packages umoci, skopeo, docker-registry, busybox-static.

mod build;
mod formats;
mod hostile;
mod mount;
mod pulls;
mod registry;
mod upkeep;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use heptad_image::{Image, ImageError, ImageStore, Options, Reference};

/// A directory that vanishes, and a store in it.
struct World {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let id = std::process::Command::new("id").arg("-u").output().expect("id runs");
        assert_eq!(id.stdout, b"0\n", "images are unpacked by root only: run the tests as root");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { dir: tempfile::tempdir().expect("temporary directory"), runtime: runtime.expect("runtime") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A store that was dropped just before is open until the last task of its pulls has ended.
    fn store(&self, options: Options) -> ImageStore {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            match ImageStore::open(self.path("store"), options.clone()) {
                Err(ImageError::StoreBusy { .. }) if Instant::now() < limit => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => return opened.expect("store opens"),
            }
        }
    }

    fn pull(&self, store: &ImageStore, reference: &str) -> Result<Image, ImageError> {
        let reference: Reference = reference.parse()?;
        self.runtime.block_on(store.pull(&reference, None))
    }

    /// Names of what is in a directory of the store.
    fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("store").join(dir)).expect("directory of the store");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Nothing of a refused image may stay.
    fn assert_store_is_empty(&self) {
        for dir in ["tmp", "layers", "images", "references"] {
            assert_eq!(self.names(dir), Vec::<String>::new(), "{dir} after a refused image");
        }
    }
}

/// Options for a registry on loopback and for collections that do not wait.
fn options(registry: &str) -> Options {
    Options { insecure_registries: vec![registry.to_owned()], unused_age_ms_min: 0, ..Options::default() }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| format!("{e}"))
}

/// Runs a tool; if it is missing or fails, so does the test.
fn run(tool: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(tool).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {tool} ({e}): install the Debian package that has it"));
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {args:?} failed: {shown}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
