//! Garbage collection: images that nobody keeps, dangling references, layers that no image needs.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Inner;
use super::layers::LayerRecord;
use super::records::{self, store_error, sync_parent};
use crate::digest::Digest;
use crate::error::ImageError;

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Images.
    pub images: Vec<Digest>,
    /// Layer directories.
    pub layers: usize,
    /// Bytes that they took when unpacked.
    pub bytes: u64,
}

impl Inner {
    /// Records go first, then layers are renamed away and deleted: a crash in between leaves unneeded layers
    /// for the next collection, never an image that lacks one.
    pub(super) fn remove_unused(&self, keep: &BTreeSet<Digest>) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        let graves = {
            // A pull pins its layers and writes its record around this lock.
            let state = self.state();
            let recent = Duration::from_millis(self.options.unused_age_ms_min);
            let is_kept = |digest: &Digest| {
                keep.contains(digest) || state.last_used.get(digest).is_some_and(|at| at.elapsed() < recent)
            };
            let needed = self.remove_images(is_kept, &mut removed)?;
            self.bury_layers(&needed, |name| state.pinned.contains_key(name), &mut removed)?
        };
        for grave in graves {
            std::fs::remove_dir_all(&grave).map_err(store_error("remove directory", &grave))?;
        }
        let mut state = self.state();
        for digest in &removed.images {
            state.last_used.remove(digest);
        }
        Ok(removed)
    }

    /// Returns the names of the layers that the remaining images need.
    fn remove_images(
        &self,
        is_kept: impl Fn(&Digest) -> bool,
        removed: &mut Removed,
    ) -> Result<BTreeSet<String>, ImageError> {
        for (path, reference) in self.reference_records()? {
            if !is_kept(&reference.digest) {
                std::fs::remove_file(&path).map_err(store_error("remove file", &path))?;
            }
        }
        let mut needed = BTreeSet::new();
        for (path, image) in self.image_records()? {
            if is_kept(&image.digest) {
                needed.extend(image.layers.iter().map(super::layers::LayerKey::name));
            } else {
                std::fs::remove_file(&path).map_err(store_error("remove file", &path))?;
                removed.images.push(image.digest);
            }
        }
        let images = self.root.join("images");
        sync_parent(&images.join("any")).map_err(store_error("sync directory", &images))?;
        Ok(needed)
    }

    /// Moves unneeded layers to where nothing finds them.
    fn bury_layers(
        &self,
        needed: &BTreeSet<String>,
        is_pinned: impl Fn(&str) -> bool,
        removed: &mut Removed,
    ) -> Result<Vec<PathBuf>, ImageError> {
        let dir = self.layers_dir();
        let fail = || store_error("list directory", &dir);
        let mut graves = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(fail())? {
            let entry = entry.map_err(fail())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if needed.contains(&name) || is_pinned(&name) {
                continue;
            }
            let record: Option<LayerRecord> = records::read(&entry.path().join("layer.json"))?;
            let grave = self.grave(&entry.path()).map_err(store_error("move directory", &entry.path()))?;
            removed.layers += 1;
            removed.bytes += record.map_or(0, |r| r.bytes);
            graves.push(grave);
        }
        Ok(graves)
    }

    fn grave(&self, layer: &std::path::Path) -> io::Result<PathBuf> {
        let grave = tempfile::tempdir_in(self.temp_dir())?.keep();
        // Renaming over an empty directory is allowed.
        std::fs::rename(layer, &grave)?;
        Ok(grave)
    }
}
