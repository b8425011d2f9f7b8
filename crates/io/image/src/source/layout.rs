//! Images in an OCI layout: a directory with `index.json` and `blobs/`. Every blob is checked before use.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::documents::{self, Document, Index, IndexEntry};
use super::{Blob, Manifest, mismatch, verify};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::options::Options;

const INDEX_DEPTH_MAX: usize = 3;
const READ_BUFFER_BYTES: usize = 128 << 10;

pub(crate) struct LayoutSource {
    pub(super) image: String,
    dir: PathBuf,
    tag: Option<String>,
    wanted: Option<Digest>,
    options: Options,
}

impl LayoutSource {
    pub(super) fn new(
        image: String,
        dir: PathBuf,
        tag: Option<String>,
        wanted: Option<Digest>,
        options: &Options,
    ) -> Self {
        Self { image, dir, tag, wanted, options: options.clone() }
    }

    /// The image requested by its digest, else the one that the index has under the name now.
    pub(super) fn digest(&self) -> Result<Digest, ImageError> {
        if let Some(wanted) = &self.wanted {
            return Ok(wanted.clone());
        }
        let index = self.read(&self.dir.join("index.json"))?;
        let index: Index = documents::json(&self.image, "index", &index)?;
        self.choose(&index)
    }

    pub(super) fn manifest(&self) -> Result<Manifest, ImageError> {
        let mut digest = self.digest()?;
        for _ in 0..INDEX_DEPTH_MAX {
            let bytes = self.read(&self.blob_path(&digest))?;
            verify(&self.image, "manifest", &digest, &bytes)?;
            match documents::parse(&self.image, digest, &bytes, self.options.layers_max)? {
                Document::Image(manifest) => return Ok(manifest),
                Document::Index(index) => digest = index.select(&self.image)?,
            }
        }
        Err(documents::refuse(&self.image, "index", "its indexes are nested too deep".to_owned()))
    }

    pub(super) fn config(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let bytes = self.read(&self.blob_path(digest))?;
        verify(&self.image, "configuration", digest, &bytes)?;
        Ok(bytes)
    }

    pub(super) fn fetch(&self, digest: &Digest, size: u64) -> Result<Blob, ImageError> {
        let path = self.blob_path(digest);
        let too_large = |max_bytes| ImageError::TooLarge {
            image: self.image.clone(),
            subject: format!("layer {digest}"),
            max_bytes,
        };
        if size > self.options.layer_download_bytes_max {
            return Err(too_large(self.options.layer_download_bytes_max));
        }
        let mut file = open_regular(&path).map_err(|e| self.error(&path, e))?;
        let mut hasher = digest.hasher();
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut done = 0;
        loop {
            let n = file.read(&mut buffer).map_err(|e| self.error(&path, e))?;
            if n == 0 {
                break;
            }
            done += n as u64;
            if done > size {
                return Err(too_large(size));
            }
            hasher.update(&buffer[..n]);
        }
        mismatch(&self.image, "layer", digest, hasher.finish())?;
        Ok(Blob { file, offset: 0, size })
    }

    /// By its name; without one, the only image, or one for this platform, or `latest`.
    fn choose(&self, index: &Index) -> Result<Digest, ImageError> {
        let named = |name: &str| index.manifests.iter().find(|e| e.name() == Some(name));
        let found = match &self.tag {
            Some(tag) => named(tag),
            None if index.manifests.len() == 1 => index.manifests.first(),
            None => named("latest"),
        };
        match found {
            Some(entry) => entry.digest(&self.image),
            None if self.tag.is_none() && index.manifests.iter().all(|e| e.name().is_none()) => {
                index.select(&self.image)
            }
            None => Err(self.not_found(&index.manifests)),
        }
    }

    fn not_found(&self, entries: &[IndexEntry]) -> ImageError {
        let names: Vec<&str> = entries.iter().filter_map(IndexEntry::name).take(20).collect();
        let problem = format!("the layout has {} images, named: {}", entries.len(), names.join(", "));
        ImageError::NotFound { image: self.image.clone(), problem }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ImageError> {
        let max_bytes = self.options.manifest_bytes_max;
        let mut bytes = Vec::new();
        let file = open_regular(path).map_err(|e| self.error(path, e))?;
        file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| self.error(path, e))?;
        if bytes.len() as u64 > max_bytes {
            let (image, subject) = (self.image.clone(), path.display().to_string());
            return Err(ImageError::TooLarge { image, subject, max_bytes });
        }
        Ok(bytes)
    }

    fn error(&self, path: &Path, source: io::Error) -> ImageError {
        ImageError::Source { image: self.image.clone(), path: path.to_owned(), source }
    }
}

/// Opens a file without waiting for the other end of a fifo.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}
