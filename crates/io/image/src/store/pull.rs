//! One pull: manifest, configuration, then every missing layer, several at a time. The image becomes known only when
//! all of it is on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinSet;

use super::layers::{LayerKey, Unpacked, Work};
use super::records::ImageRecord;
use super::{Image, Inner};
use crate::config::{ConfigDocument, ImageConfig};
use crate::decode::{Budget, Ratio};
use crate::digest::{Digest, DigestError};
use crate::error::{ImageError, Violation};
use crate::progress::{LayerProgress, LayerReporter, LayerState, PullProgress};
use crate::reference::Reference;
use crate::source::{self, Blob, LayerAt, Manifest, Source, blocking};
use crate::unpack::{Limits, Lowers};

/// What all layers of a pull share.
struct Pull {
    store: Arc<Inner>,
    image: String,
    source: Source,
    diff_ids: Vec<Digest>,
    budget: Budget,
    progress: Option<watch::Sender<PullProgress>>,
}

/// A layer, and the lock that keeps other pulls of the same image from fetching it meanwhile.
type Locked = (Unpacked, OwnedMutexGuard<()>);

/// When the pull ends, for whatever reason, its layers are unpinned and its readers stopped.
struct Guard {
    store: Arc<Inner>,
    pinned: Vec<String>,
    pull: Arc<Pull>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.pull.budget.stop();
        let mut state = self.store.state();
        for name in &self.pinned {
            if let Some(count) = state.pinned.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    state.pinned.remove(name);
                }
            }
        }
        // Only the store's map still holds a lock that nobody holds or waits for.
        state.fetching.retain(|_, lock| Arc::strong_count(lock) > 1);
    }
}

pub(super) async fn pull(
    store: &Arc<Inner>,
    reference: &Reference,
    progress: Option<watch::Sender<PullProgress>>,
) -> Result<Image, ImageError> {
    let image = reference.to_string();
    if let Some(progress) = &progress {
        progress.send_replace(PullProgress { image: image.clone(), layers: Vec::new() });
    }
    let source = Source::open(reference, &store.options, || store.client(&image), store.temp_dir()).await?;
    let manifest = source.manifest().await?;
    if let Some(present) = known(store, reference, &manifest).await? {
        return Ok(present);
    }
    let (config, diff_ids) = read_config(&image, &source, &manifest).await?;
    let budget = Budget::new(store.options.unpack_bytes_max, store.options.unpack_entries_max);
    let pull = Arc::new(Pull { store: Arc::clone(store), image, source, diff_ids, budget, progress });
    let _guard = pin(&pull);
    pull.announce(&manifest.layers);
    let (layers, bytes) = pull.layers(&manifest.layers).await?;
    let record = ImageRecord { digest: manifest.digest, layers, bytes, config };
    let (store, reference) = (Arc::clone(store), reference.clone());
    blocking(pull.image.clone(), move || store.record(&reference, record)).await
}

/// The image, if the store has all of it already, perhaps under another name.
async fn known(store: &Arc<Inner>, reference: &Reference, manifest: &Manifest) -> Result<Option<Image>, ImageError> {
    let (store, reference, digest) = (Arc::clone(store), reference.clone(), manifest.digest.clone());
    blocking(reference.to_string(), move || {
        // Marked as used before it is examined, so that it is not collected in between.
        store.touch(&digest);
        let image = store.image(&reference.to_string(), &digest)?;
        if image.is_some() {
            store.record_reference(&reference, &digest)?;
        }
        Ok(image)
    })
    .await
}

async fn read_config(
    image: &str,
    source: &Source,
    manifest: &Manifest,
) -> Result<(ImageConfig, Vec<Digest>), ImageError> {
    let bytes = source.config(&manifest.config).await?;
    let refused = |problem| ImageError::Refused { image: image.to_owned(), document: "configuration", problem };
    let document: ConfigDocument = serde_json::from_slice(&bytes).map_err(|source| ImageError::Document {
        image: image.to_owned(),
        document: "configuration",
        source,
    })?;
    let ids = document.rootfs.diff_ids.iter().map(|id| id.parse());
    let diff_ids: Vec<Digest> = ids.collect::<Result<_, _>>().map_err(|e: DigestError| refused(e.to_string()))?;
    if diff_ids.len() != manifest.layers.len() {
        let (named, there) = (diff_ids.len(), manifest.layers.len());
        return Err(refused(format!("it names {named} layers, and the manifest {there}")));
    }
    let (os, architecture) = (document.os.as_str(), document.architecture.as_str());
    let fits = (os.is_empty() || os == "linux") && (architecture.is_empty() || architecture == source::architecture());
    if !fits {
        return Err(source::wrong_platform(image, &format!("{os}/{architecture}")));
    }
    Ok((document.into_config(), diff_ids))
}

/// From here on, no collection removes the layers of this pull, whether present or yet to come.
fn pin(pull: &Arc<Pull>) -> Guard {
    let ids = &pull.diff_ids;
    let pinned: Vec<String> = (0..ids.len())
        .flat_map(|i| [LayerKey::alone(&ids[i]).name(), LayerKey::on_lowers(&ids[..=i]).name()])
        .collect();
    let mut state = pull.store.state();
    for name in &pinned {
        *state.pinned.entry(name.clone()).or_default() += 1;
    }
    drop(state);
    Guard { store: Arc::clone(&pull.store), pinned, pull: Arc::clone(pull) }
}

impl Pull {
    fn announce(&self, layers: &[LayerAt]) {
        let Some(progress) = &self.progress else { return };
        let of = |(diff_id, layer): (&Digest, &LayerAt)| LayerProgress {
            diff_id: diff_id.clone(),
            state: LayerState::Waiting,
            bytes_done: 0,
            bytes_total: layer.size(),
        };
        let layers = self.diff_ids.iter().zip(layers).map(of).collect();
        progress.send_replace(PullProgress { image: self.image.clone(), layers });
    }

    fn reporter(&self, index: usize) -> LayerReporter {
        LayerReporter::new(self.progress.clone(), index)
    }

    /// All layers, lowest first, and the bytes they unpack to.
    async fn layers(self: &Arc<Self>, layers: &[LayerAt]) -> Result<(Vec<LayerKey>, u64), ImageError> {
        let mut tasks: JoinSet<Result<_, ImageError>> = JoinSet::new();
        for (index, layer) in layers.iter().cloned().enumerate() {
            let pull = Arc::clone(self);
            tasks.spawn(async move { Ok((index, pull.layer(index, &layer, Lowers::Unknown).await?)) });
        }
        let mut keys: BTreeMap<usize, LayerKey> = BTreeMap::new();
        let mut waiting: BTreeMap<usize, (Blob, OwnedMutexGuard<()>)> = BTreeMap::new();
        while let Some(joined) = tasks.join_next().await {
            let (index, (unpacked, lock)) = match joined {
                Ok(result) => result?,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(_) => return Err(ImageError::Stopped { image: self.image.clone() }),
            };
            match unpacked {
                Unpacked::Stored(key) => drop(keys.insert(index, key)),
                Unpacked::NeedsLowers(blob) => drop(waiting.insert(index, (blob, lock))),
            }
            self.unpack_ready(&mut keys, &mut waiting).await?;
        }
        let bytes = self.check_totals(keys.values())?;
        Ok((keys.into_values().collect(), bytes))
    }

    /// Unpacks the layers that waited for lower ones, as soon as these are there: a layer's lock must not be held until
    /// upper layers are done, or two pulls could wait for each other.
    async fn unpack_ready(
        self: &Arc<Self>,
        keys: &mut BTreeMap<usize, LayerKey>,
        waiting: &mut BTreeMap<usize, (Blob, OwnedMutexGuard<()>)>,
    ) -> Result<(), ImageError> {
        while let Some(entry) = waiting.first_entry() {
            let index = *entry.key();
            if keys.range(..index).count() < index {
                break;
            }
            let (blob, lock) = entry.remove();
            let lowers = keys.range(..index).rev().map(|(_, key)| self.store.layer_tree(key)).collect();
            match self.unpack(index, blob, Lowers::Known(lowers), lock).await? {
                Unpacked::Stored(key) => drop(keys.insert(index, key)),
                Unpacked::NeedsLowers(_) => return Err(ImageError::Stopped { image: self.image.clone() }),
            }
        }
        Ok(())
    }

    /// One layer: present, or fetched by one pull at a time and unpacked.
    async fn layer(self: &Arc<Self>, index: usize, layer: &LayerAt, lowers: Lowers) -> Result<Locked, ImageError> {
        let report = self.reporter(index);
        // Two locks, because a layer may turn out to be shared by its digest or by what is below it. Always in
        // this order; whoever holds the first waits only for lower layers, so pulls never wait in a circle.
        let on_lowers = self.lock(LayerKey::on_lowers(&self.diff_ids[..=index])).await;
        let alone = self.lock(LayerKey::alone(&self.diff_ids[index])).await;
        if let Some((key, _)) = self.store.find_layer(&self.diff_ids[..=index])? {
            report.finished(LayerState::Present);
            return Ok((Unpacked::Stored(key), on_lowers));
        }
        let blob = {
            let _permit = self.store.downloads.acquire().await;
            report.state(LayerState::Downloading);
            tracing::debug!(image = %self.image, layer = %self.diff_ids[index], from = ?layer.digest(), "fetching layer");
            self.source.fetch(layer, &report).await?
        };
        // Nothing lies below the lowest layer, so nothing about it is unknown.
        let lowers = if index == 0 { Lowers::Known(Vec::new()) } else { lowers };
        Ok((self.unpack(index, blob, lowers, alone).await?, on_lowers))
    }

    async fn lock(&self, key: LayerKey) -> OwnedMutexGuard<()> {
        let lock = {
            let mut state = self.store.state();
            Arc::clone(state.fetching.entry(key.name()).or_default())
        };
        lock.lock_owned().await
    }

    /// The lock moves into the task, because the work continues for a moment if the pull is dropped.
    async fn unpack(
        self: &Arc<Self>,
        index: usize,
        blob: Blob,
        lowers: Lowers,
        lock: OwnedMutexGuard<()>,
    ) -> Result<Unpacked, ImageError> {
        let _permit = self.store.unpacks.acquire().await;
        let report = self.reporter(index);
        report.state(LayerState::Unpacking);
        let pull = Arc::clone(self);
        let unpacked = blocking(self.image.clone(), move || {
            let _lock = lock;
            let options = &pull.store.options;
            let limits = Limits {
                budget: &pull.budget,
                depth_max: options.unpack_depth_max,
                ratio: Ratio { max: options.compression_ratio_max, free_bytes: options.compression_free_bytes },
            };
            let work = Work { image: &pull.image, diff_ids: &pull.diff_ids[..=index], lowers: &lowers, limits };
            pull.store.unpack(blob, &work)
        })
        .await?;
        match &unpacked {
            Unpacked::Stored(_) => report.finished(LayerState::Done),
            Unpacked::NeedsLowers(_) => report.state(LayerState::Waiting),
        }
        Ok(unpacked)
    }

    /// Layers that were present count as much as fetched ones.
    fn check_totals<'a>(&self, keys: impl Iterator<Item = &'a LayerKey>) -> Result<u64, ImageError> {
        let whole = Budget::new(self.store.options.unpack_bytes_max, self.store.options.unpack_entries_max);
        let mut bytes = 0_u64;
        for (key, diff_id) in keys.zip(&self.diff_ids) {
            let Some(record) = self.store.layer(key)? else {
                return Err(ImageError::Stopped { image: self.image.clone() });
            };
            bytes = bytes.saturating_add(record.bytes);
            let charged = whole.charge_bytes(record.bytes).and_then(|()| whole.charge_entries(record.entries));
            charged.map_err(|violation: Violation| ImageError::Unpack {
                image: self.image.clone(),
                layer: Box::new(diff_id.clone()),
                path: std::path::PathBuf::new(),
                source: violation,
            })?;
        }
        Ok(bytes)
    }
}
