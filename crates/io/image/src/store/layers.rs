//! Layer directories: how they are named, and how a blob becomes one, completely or not at all.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Inner;
use super::records::{self, store_error, sync_parent};
use crate::decode::Stats;
use crate::digest::Digest;
use crate::error::{ImageError, Violation};
use crate::source::Blob;
use crate::unpack::{self, Limits, Lowers, Outcome, Refused};

/// Hex digits of a layer directory's name: short, because mount options are one page long.
const NAME_DIGITS: usize = 32;

/// What a layer directory is made from. Most layers stand alone and are shared by their digest; one that takes
/// attributes or files from lower layers is right only above these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LayerKey {
    on_lowers: bool,
    /// The layer itself, last, preceded by the layers on which it depends.
    diff_ids: Vec<Digest>,
}

impl LayerKey {
    pub(super) fn alone(diff_id: &Digest) -> Self {
        Self { on_lowers: false, diff_ids: vec![diff_id.clone()] }
    }

    /// `diff_ids` from the lowest up to the layer itself.
    pub(super) fn on_lowers(diff_ids: &[Digest]) -> Self {
        Self { on_lowers: true, diff_ids: diff_ids.to_vec() }
    }

    pub(super) fn name(&self) -> String {
        let digits = |digest: &Digest| digest.hex().chars().take(NAME_DIGITS).collect();
        match &self.diff_ids[..] {
            [alone] if !self.on_lowers => digits(alone),
            chain => {
                let names: Vec<&str> = chain.iter().map(Digest::as_str).collect();
                digits(&Digest::sha256(format!("on lowers\n{}", names.join("\n")).as_bytes()))
            }
        }
    }
}

impl fmt::Display for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Stands beside a layer's tree; written before the layer gets its name, so a layer that has one is complete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    key: LayerKey,
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

/// The outcome of a blob.
pub(super) enum Unpacked {
    Stored(LayerKey),
    NeedsLowers(Blob),
}

/// What is to be unpacked.
pub(super) struct Work<'a> {
    pub(super) image: &'a str,
    /// From the lowest up to the layer itself.
    pub(super) diff_ids: &'a [Digest],
    pub(super) lowers: &'a Lowers,
    pub(super) limits: Limits<'a>,
}

impl Inner {
    pub(super) fn layer_dir(&self, key: &LayerKey) -> PathBuf {
        self.layers_dir().join(key.name())
    }

    /// The directory for overlayfs.
    pub(super) fn layer_tree(&self, key: &LayerKey) -> PathBuf {
        self.layer_dir(key).join("fs")
    }

    /// The record of a complete layer that is present.
    pub(super) fn layer(&self, key: &LayerKey) -> Result<Option<LayerRecord>, ImageError> {
        let record: Option<LayerRecord> = records::read(&self.layer_dir(key).join("layer.json"))?;
        Ok(record.filter(|r| r.key == *key))
    }

    /// The layer in whichever of its two forms is present.
    pub(super) fn find_layer(&self, diff_ids: &[Digest]) -> Result<Option<(LayerKey, LayerRecord)>, ImageError> {
        let Some(diff_id) = diff_ids.last() else { return Ok(None) };
        for key in [LayerKey::alone(diff_id), LayerKey::on_lowers(diff_ids)] {
            if let Some(record) = self.layer(&key)? {
                return Ok(Some((key, record)));
            }
        }
        Ok(None)
    }

    /// Unpacks into a temporary directory, which gets its name when it is complete and on disk.
    pub(super) fn unpack(&self, mut blob: Blob, work: &Work<'_>) -> Result<Unpacked, ImageError> {
        let Some(diff_id) = work.diff_ids.last() else {
            return Err(ImageError::Stopped { image: work.image.to_owned() });
        };
        let refused = |Refused { path, violation }| ImageError::Unpack {
            image: work.image.to_owned(),
            layer: Box::new(diff_id.clone()),
            path,
            source: violation,
        };
        let temp_dir = self.temp_dir();
        let temp = tempfile::tempdir_in(&temp_dir).map_err(store_error("make a directory in", &temp_dir))?;
        let tree = temp.path().join("fs");
        make_tree(&tree).map_err(store_error("create directory", &tree))?;
        let size = blob.size;
        let reader =
            blob.reader().map_err(|e| refused(Refused { path: PathBuf::new(), violation: Violation::Malformed(e) }))?;
        let outcome = unpack::unpack_layer(reader, size, &tree, diff_id, work.lowers, work.limits).map_err(refused)?;
        let (key, stats) = match outcome {
            Outcome::NeedsLowers => return Ok(Unpacked::NeedsLowers(blob)),
            Outcome::Alone(stats) => (LayerKey::alone(diff_id), stats),
            Outcome::OnLowers(stats) => (LayerKey::on_lowers(work.diff_ids), stats),
        };
        self.adopt(temp, &key, stats).map_err(store_error("keep layer in", &self.layers_dir()))?;
        Ok(Unpacked::Stored(key))
    }

    fn adopt(&self, temp: tempfile::TempDir, key: &LayerKey, stats: Stats) -> io::Result<()> {
        let record = LayerRecord { key: key.clone(), bytes: stats.bytes, entries: stats.entries };
        std::fs::write(temp.path().join("layer.json"), serde_json::to_vec_pretty(&record)?)?;
        // One call for all files of the layer, because syncing each would take minutes.
        rustix::fs::syncfs(File::open(temp.path())?)?;
        let target = self.layer_dir(key);
        match std::fs::rename(temp.path(), &target) {
            Ok(()) => {
                let _ = temp.keep();
                sync_parent(&target)
            }
            // Another pull was faster; its layer is as good.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// The root of a layer that says nothing about its root.
fn make_tree(tree: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(tree)?;
    std::fs::set_permissions(tree, std::fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_layer_differ_by_what_is_below() {
        let id = |text: &str| Digest::sha256(text.as_bytes());
        let (a, b, c) = (id("a"), id("b"), id("c"));
        let keys = [
            LayerKey::alone(&a),
            LayerKey::on_lowers(std::slice::from_ref(&a)),
            LayerKey::on_lowers(&[b.clone(), a.clone()]),
            LayerKey::on_lowers(&[c, a.clone()]),
            LayerKey::on_lowers(&[a.clone(), a.clone()]),
            LayerKey::alone(&b),
        ];
        let names: std::collections::BTreeSet<String> = keys.iter().map(LayerKey::name).collect();
        assert_eq!(names.len(), keys.len());
        assert!(names.iter().all(|n| n.len() == NAME_DIGITS));
        assert_eq!(LayerKey::alone(&a).name(), a.hex()[..NAME_DIGITS]);
    }
}
