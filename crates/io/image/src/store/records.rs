//! The small files of the store: one per image, one per reference. Written to a temporary file, synced, renamed.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::layers::LayerKey;
use super::{Image, ImageSummary, Inner};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::reference::Reference;

/// What the store knows about an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) digest: Digest,
    /// Lowest first.
    pub(super) layers: Vec<LayerKey>,
    pub(super) bytes: u64,
    pub(super) config: ImageConfig,
}

/// The target of a reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReferenceRecord {
    pub(super) reference: String,
    pub(super) digest: Digest,
}

impl Inner {
    pub(super) fn image_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}-{}.json", digest.algorithm(), digest.hex()))
    }

    fn reference_path(&self, reference: &str) -> PathBuf {
        let name = Digest::sha256(reference.as_bytes());
        self.root.join("references").join(format!("{}.json", name.hex()))
    }

    /// The image under a reference, if all of it is present.
    pub(super) fn recorded(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        let reference_digest = reference.digest();
        let reference = reference.to_string();
        let record: Option<ReferenceRecord> = read(&self.reference_path(&reference))?;
        match record.filter(|r| r.reference == reference) {
            Some(record) => self.image(&reference, &record.digest),
            // Another pull may have fetched the same image under another name.
            None => reference_digest.map_or(Ok(None), |digest| self.image(&reference, digest)),
        }
    }

    /// The image with this digest, if all of it is present.
    pub(super) fn image(&self, reference: &str, digest: &Digest) -> Result<Option<Image>, ImageError> {
        let Some(record) = read::<ImageRecord>(&self.image_path(digest))? else { return Ok(None) };
        for key in &record.layers {
            if self.layer(key)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(self.assemble(reference, record)))
    }

    fn assemble(&self, reference: &str, record: ImageRecord) -> Image {
        let mut layers: Vec<PathBuf> = Vec::with_capacity(record.layers.len());
        for key in record.layers.iter().rev() {
            let dir = self.layer_tree(key);
            // overlayfs rejects a directory that is given twice; the upper one hides all of the lower.
            if !layers.contains(&dir) {
                layers.push(dir);
            }
        }
        Image { reference: reference.to_owned(), digest: Some(record.digest), layers, config: record.config }
    }

    /// Makes the image known: first itself, then its name.
    pub(super) fn record(&self, reference: &Reference, record: ImageRecord) -> Result<Image, ImageError> {
        let reference = reference.to_string();
        write(&self.temp_dir(), &self.image_path(&record.digest), &record)?;
        let named = ReferenceRecord { reference: reference.clone(), digest: record.digest.clone() };
        write(&self.temp_dir(), &self.reference_path(&reference), &named)?;
        self.touch(&record.digest);
        Ok(self.assemble(&reference, record))
    }

    /// Points a reference at an image that is there.
    pub(super) fn record_reference(&self, reference: &Reference, digest: &Digest) -> Result<(), ImageError> {
        let reference = reference.to_string();
        let path = self.reference_path(&reference);
        let named = ReferenceRecord { reference, digest: digest.clone() };
        write(&self.temp_dir(), &path, &named)?;
        self.touch(digest);
        Ok(())
    }

    pub(super) fn image_records(&self) -> Result<Vec<(PathBuf, ImageRecord)>, ImageError> {
        read_all(&self.root.join("images"))
    }

    pub(super) fn reference_records(&self) -> Result<Vec<(PathBuf, ReferenceRecord)>, ImageError> {
        read_all(&self.root.join("references"))
    }

    pub(super) fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let references = self.reference_records()?;
        let names = |digest: &Digest| {
            let of = references.iter().filter(|(_, r)| r.digest == *digest);
            of.map(|(_, r)| r.reference.clone()).collect()
        };
        let images = self.image_records()?.into_iter();
        Ok(images
            .map(|(_, image)| ImageSummary {
                references: names(&image.digest),
                layers: image.layers.len(),
                bytes: image.bytes,
                digest: image.digest,
            })
            .collect())
    }
}

pub(super) fn store_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Store { operation, path, source }
}

/// `None` if there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(source) => Err(ImageError::Record { path: path.to_owned(), source }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(store_error("read file", path)(e)),
    }
}

fn read_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<(PathBuf, T)>, ImageError> {
    let fail = || store_error("list directory", dir);
    let mut records = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail())? {
        let path = entry.map_err(fail())?.path();
        if let Some(record) = read(&path)? {
            records.push((path, record));
        }
    }
    records.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(records)
}

fn write<T: Serialize>(temp_dir: &Path, path: &Path, record: &T) -> Result<(), ImageError> {
    let bytes =
        serde_json::to_vec_pretty(record).map_err(|source| ImageError::Record { path: path.to_owned(), source })?;
    let save = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(temp_dir)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        sync_parent(path)
    };
    save().map_err(store_error("write file", path))
}

/// Makes a rename durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
