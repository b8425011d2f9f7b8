//! The embedded store as a target, with its default settings.

use super::load::{Client, Target};
use anyhow::Result;
use heptad_state::{EmbeddedStore, Options, Store, StoreExt};
use std::{path::Path, sync::Arc};
use tempfile::TempDir;

pub(super) struct Embedded {
    // Dropped before its directory.
    store: Arc<dyn Store>,
    _dir: TempDir,
}

impl Embedded {
    pub(super) fn open(parent: &Path) -> Result<Self> {
        let dir = TempDir::with_prefix_in("heptad-bench-embedded-", parent)?;
        let store = Arc::new(EmbeddedStore::open(dir.path(), Options::default())?);
        Ok(Self { store, _dir: dir })
    }
}

impl Target for Embedded {
    type Client = Arc<dyn Store>;

    fn client(&self, _index: usize) -> Self::Client {
        Arc::clone(&self.store)
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

impl Client for Arc<dyn Store> {
    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        StoreExt::put(self.as_ref(), key, value).await?;
        Ok(())
    }
}
