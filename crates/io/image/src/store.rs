//! The images of a node: a directory that one process owns, with unpacked layers stored once, a record per
//! image and a record per reference. Temporary files live in one place and are removed when it is opened.

mod collect;
mod layers;
mod pull;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::fs::FlockOperation;
use tokio::sync::{Semaphore, watch};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::options::{Options, PullPolicy};
use crate::progress::PullProgress;
use crate::reference::Reference;
use crate::source::{self, Source};
pub use collect::Removed;

/// An image that is present and complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The full name it was asked for by.
    pub reference: String,
    /// The digest of its manifest (of its configuration if it came from a docker archive); `None` for `host`.
    pub digest: Option<Digest>,
    /// Directories, topmost first, ready to be lower directories of overlayfs. For `host`, only `/`.
    pub layers: Vec<PathBuf>,
    /// What to run in it.
    pub config: ImageConfig,
}

impl Image {
    /// The host's own root filesystem.
    pub fn host() -> Self {
        Self {
            reference: "host".to_owned(),
            digest: None,
            layers: vec![PathBuf::from("/")],
            config: ImageConfig::default(),
        }
    }

    /// Whether this is the host's own root filesystem.
    pub fn is_host(&self) -> bool {
        self.digest.is_none()
    }

    /// The value of overlayfs's `lowerdir` option. A mount call's options hold at most one page (4,095 bytes);
    /// images with more layers than fit need one `lowerdir+` per layer through `fsconfig`.
    pub fn overlay_lowerdir(&self) -> String {
        let escaped = self.layers.iter().map(|dir| {
            let text = dir.to_string_lossy();
            text.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
        });
        escaped.collect::<Vec<_>>().join(":")
    }
}

/// One line of the list of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image.
    pub digest: Digest,
    /// The references that lead to it.
    pub references: Vec<String>,
    /// Number of layers.
    pub layers: usize,
    /// Bytes that its layers unpacked to; shared layers count in each image.
    pub bytes: u64,
}

/// A node's images. Cheap to clone; all clones are the same store.
#[derive(Clone, Debug)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    options: Options,
    client: OnceLock<Client>,
    downloads: Semaphore,
    unpacks: Semaphore,
    state: Mutex<State>,
    /// Held as long as the store is open.
    _lock: File,
}

struct Client(oci_client::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

#[derive(Debug, Default)]
struct State {
    /// Layer directories on which running pulls rely.
    pinned: BTreeMap<String, usize>,
    /// One lock per layer that is being fetched, by the name of its directory.
    fetching: BTreeMap<String, Arc<tokio::sync::Mutex<()>>>,
    last_used: BTreeMap<Digest, Instant>,
}

impl ImageStore {
    /// Opens or creates the store in `root`, locks it for this process, and removes what an earlier process left
    /// unfinished.
    pub fn open(root: impl Into<PathBuf>, options: Options) -> Result<Self, ImageError> {
        let root = root.into();
        let lock = prepare(&root)?;
        let inner = Inner {
            downloads: Semaphore::new(options.downloads_max.max(1)),
            unpacks: Semaphore::new(options.unpacks_max.max(1)),
            client: OnceLock::new(),
            state: Mutex::default(),
            root,
            options,
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The image, pulled if `policy` asks for it.
    pub async fn ensure(
        &self,
        reference: &Reference,
        policy: PullPolicy,
        progress: Option<watch::Sender<PullProgress>>,
    ) -> Result<Image, ImageError> {
        if policy != PullPolicy::Always {
            if let Some(image) = self.get(reference)? {
                return Ok(image);
            }
            if policy == PullPolicy::Never {
                return Err(ImageError::Absent { image: reference.to_string() });
            }
        }
        self.pull(reference, progress).await
    }

    /// What the source that the reference names currently has under it. Fetches no layer.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, ImageError> {
        let (inner, image) = (&self.inner, reference.to_string());
        Source::open(reference, &inner.options, || inner.client(&image), inner.temp_dir()).await?.digest().await
    }

    /// The image as the store has it under this reference, without asking any source.
    pub fn get(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        if *reference == Reference::Host {
            return Ok(Some(Image::host()));
        }
        let image = self.inner.recorded(reference)?;
        if let Some(digest) = image.as_ref().and_then(|i| i.digest.as_ref()) {
            self.inner.touch(digest);
        }
        Ok(image)
    }

    /// Asks the image's source what it is now and fetches the layers that are missing. Needs root. Dropping
    /// the future stops the pull; nothing half-made stays.
    pub async fn pull(
        &self,
        reference: &Reference,
        progress: Option<watch::Sender<PullProgress>>,
    ) -> Result<Image, ImageError> {
        if *reference == Reference::Host {
            return Ok(Image::host());
        }
        if !rustix::process::geteuid().is_root() {
            return Err(ImageError::NeedsRoot { image: reference.to_string() });
        }
        pull::pull(&self.inner, reference, progress).await
    }

    /// All images.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        self.inner.list()
    }

    /// Removes the images that are not in `keep` (nor pulled or handed out a moment ago, see
    /// [`Options::unused_age_ms_min`]), their references, and the layers that no image needs. Blocking.
    pub fn remove_unused(&self, keep: &BTreeSet<Digest>) -> Result<Removed, ImageError> {
        self.inner.remove_unused(keep)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self, digest: &Digest) {
        self.state().last_used.insert(digest.clone(), Instant::now());
    }

    fn temp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Made at the first pull: it reads the system's certificates.
    fn client(&self, image: &str) -> Result<oci_client::Client, ImageError> {
        if let Some(client) = self.client.get() {
            return Ok(client.0.clone());
        }
        let made = source::client(&self.options).map_err(|source| ImageError::Registry {
            operation: "prepare the download".to_owned(),
            image: image.to_owned(),
            hint: "; the system's certificates may be missing (package ca-certificates)",
            source: Box::new(source),
        })?;
        Ok(self.client.get_or_init(|| Client(made)).0.clone())
    }
}

/// Creates the directories, takes the lock, empties the temporary directory.
fn prepare(root: &Path) -> Result<File, ImageError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let fail = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Store { operation, path, source }
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(root).map_err(fail("create directory", root))?;
    // Layers contain set-id programs and images' secrets; nobody else on the host may reach them.
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(root, private).map_err(fail("protect directory", root))?;
    let path = root.join("lock");
    let lock = File::create(&path).map_err(fail("create file", &path))?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ImageError::StoreBusy { path: root.to_owned() })?;
    let temp = root.join("tmp");
    match std::fs::remove_dir_all(&temp) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail("clear directory", &temp)(e)),
        _ => {}
    }
    for name in ["tmp", "layers", "images", "references"] {
        let dir = root.join(name);
        builder.create(&dir).map_err(fail("create directory", &dir))?;
    }
    Ok(lock)
}
