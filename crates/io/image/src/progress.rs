//! The progress of a pull, as a value in a watch channel. Knows no screen.

use tokio::sync::watch;

use crate::digest::Digest;

/// The state of one pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// The reference that is pulled.
    pub image: String,
    /// Its layers, lowest first; empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
}

/// The state of one layer of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the unpacked layer.
    pub diff_id: Digest,
    /// What happens to it.
    pub state: LayerState,
    /// Compressed bytes that have arrived.
    pub bytes_done: u64,
    /// Compressed bytes in all.
    pub bytes_total: u64,
}

/// What happens to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// Not begun.
    Waiting,
    /// Bytes arrive.
    Downloading,
    /// Verified; being unpacked.
    Unpacking,
    /// Unpacked by this pull.
    Done,
    /// Was in the store already.
    Present,
}

impl PullProgress {
    /// Compressed bytes (done, total) over all layers.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.iter().fold((0, 0), |(done, total), l| (done + l.bytes_done, total + l.bytes_total))
    }
}

/// The writing end of one layer's progress; does nothing when nobody asked for it.
#[derive(Clone, Debug)]
pub(crate) struct LayerReporter {
    sender: Option<watch::Sender<PullProgress>>,
    index: usize,
}

impl LayerReporter {
    pub(crate) fn new(sender: Option<watch::Sender<PullProgress>>, index: usize) -> Self {
        Self { sender, index }
    }

    pub(crate) fn state(&self, state: LayerState) {
        self.update(|layer| layer.state = state);
    }

    pub(crate) fn bytes(&self, done: u64) {
        self.update(|layer| layer.bytes_done = done);
    }

    pub(crate) fn finished(&self, state: LayerState) {
        self.update(|layer| {
            layer.state = state;
            layer.bytes_done = layer.bytes_total;
        });
    }

    fn update(&self, change: impl FnOnce(&mut LayerProgress)) {
        if let Some(sender) = &self.sender {
            sender.send_modify(|progress| {
                if let Some(layer) = progress.layers.get_mut(self.index) {
                    change(layer);
                }
            });
        }
    }
}
