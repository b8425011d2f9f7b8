//! Where an image comes from: a registry, an OCI layout or a docker archive, behind one interface that yields a
//! manifest, a configuration and layer blobs, each checked against its digest. Unpacks nothing.

mod archive;
mod documents;
mod layout;
mod registry;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Take};
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::options::Options;
use crate::progress::LayerReporter;
use crate::reference::Reference;

pub(crate) use documents::{architecture, wrong_platform};
pub(crate) use registry::client;

/// An image, found but not fetched.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// The digest that identifies the image.
    pub(crate) digest: Digest,
    pub(crate) config: Digest,
    /// Lowest first.
    pub(crate) layers: Vec<LayerAt>,
}

/// Where a layer's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum LayerAt {
    /// Under a digest.
    Blob { digest: Digest, size: u64 },
    /// Inside an archive file.
    Slice { offset: u64, size: u64 },
}

impl LayerAt {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Blob { size, .. } | Self::Slice { size, .. } => *size,
        }
    }
}

/// The bytes of a layer as they arrived, in a file.
#[derive(Debug)]
pub(crate) struct Blob {
    file: File,
    offset: u64,
    pub(crate) size: u64,
}

impl Blob {
    pub(crate) fn reader(&mut self) -> io::Result<Take<&mut File>> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        Ok(self.file.by_ref().take(self.size))
    }
}

/// One image at its source.
#[derive(Clone)]
pub(crate) enum Source {
    Registry(Arc<registry::RegistrySource>),
    Layout(Arc<layout::LayoutSource>),
    Archive(Arc<archive::ArchiveSource>),
}

impl Source {
    /// `client` is only used for registries; `temp_dir` is for files that vanish when they are closed.
    pub(crate) async fn open(
        reference: &Reference,
        options: &Options,
        client: impl FnOnce() -> Result<oci_client::Client, ImageError>,
        temp_dir: PathBuf,
    ) -> Result<Self, ImageError> {
        let image = reference.to_string();
        match reference {
            Reference::Host => {
                Err(ImageError::NotFound { image, problem: "it is this host and has no source".to_owned() })
            }
            Reference::Registry { .. } => {
                let source = registry::RegistrySource::new(reference, client()?, options, temp_dir)?;
                Ok(Self::Registry(Arc::new(source)))
            }
            Reference::OciLayout { dir, tag, digest } => {
                let source = layout::LayoutSource::new(image, dir.clone(), tag.clone(), digest.clone(), options);
                Ok(Self::Layout(Arc::new(source)))
            }
            Reference::DockerArchive { file, name, digest } => {
                let (file, name, options) = (file.clone(), name.clone(), options.clone());
                let open = move || archive::ArchiveSource::open(image, file, name, &options, &temp_dir);
                let source = blocking(reference.to_string(), open).await?;
                let found = source.manifest().digest;
                if let Some(wanted) = digest.as_ref().filter(|wanted| **wanted != found) {
                    let (image, problem) = (reference.to_string(), format!("the archive holds {found}, not {wanted}"));
                    return Err(ImageError::NotFound { image, problem });
                }
                Ok(Self::Archive(Arc::new(source)))
            }
        }
    }

    /// What the source currently has under the reference: the digest of its manifest, or of the index of several.
    pub(crate) async fn digest(&self) -> Result<Digest, ImageError> {
        match self {
            Self::Registry(source) => source.digest().await,
            Self::Layout(source) => {
                let source = Arc::clone(source);
                blocking(source.image.clone(), move || source.digest()).await
            }
            Self::Archive(source) => Ok(source.manifest().digest),
        }
    }

    pub(crate) async fn manifest(&self) -> Result<Manifest, ImageError> {
        match self {
            Self::Registry(source) => source.manifest().await,
            Self::Layout(source) => {
                let source = Arc::clone(source);
                blocking(source.image.clone(), move || source.manifest()).await
            }
            Self::Archive(source) => Ok(source.manifest()),
        }
    }

    /// The bytes of the image configuration.
    pub(crate) async fn config(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::Registry(source) => source.config(digest).await,
            Self::Layout(source) => {
                let (source, digest) = (Arc::clone(source), digest.clone());
                blocking(source.image.clone(), move || source.config(&digest)).await
            }
            Self::Archive(source) => Ok(source.config()),
        }
    }

    pub(crate) async fn fetch(&self, layer: &LayerAt, report: &LayerReporter) -> Result<Blob, ImageError> {
        match (self, layer) {
            (Self::Registry(source), LayerAt::Blob { digest, size }) => source.fetch(digest, *size, report).await,
            (Self::Layout(source), LayerAt::Blob { digest, size }) => {
                let (source, digest, size) = (Arc::clone(source), digest.clone(), *size);
                blocking(source.image.clone(), move || source.fetch(&digest, size)).await
            }
            (Self::Archive(source), LayerAt::Slice { offset, size }) => source.fetch(*offset, *size),
            _ => unreachable!("a source gives layers of its own kind"),
        }
    }
}

/// Runs file work off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    image: String,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(ImageError::Stopped { image }),
    }
}

/// Requires `bytes` to match `expected`.
fn verify(image: &str, subject: &'static str, expected: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
    mismatch(image, subject, expected, expected.same_algorithm_of(bytes))
}

fn mismatch(image: &str, subject: &'static str, expected: &Digest, actual: Digest) -> Result<(), ImageError> {
    if actual == *expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        image: image.to_owned(),
        subject,
        expected: Box::new(expected.clone()),
        actual: actual.to_string(),
    })
}
