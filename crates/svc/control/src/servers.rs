//! The servers that share a store: where each is reached, and which one leads. Cannot reach them itself.

use crate::{
    election::Generation,
    error::{Error, Result, StoreContext},
    keys,
};
use heptad_api::servers::ServerCondition;
use heptad_state::{KeyValue, Store, StoreExt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A server's own account. Row `/servers/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRow {
    /// Where agents and people reach it.
    pub url: String,
    /// The version that it runs.
    pub version: String,
    /// Its conditions at its last report.
    #[serde(default)]
    pub conditions: Vec<ServerCondition>,
}

/// The rows of the servers.
#[derive(Clone, Debug)]
pub struct Servers {
    store: Arc<dyn Store>,
}

fn decoded<T: for<'de> Deserialize<'de>>(kv: &KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|source| Error::Decode { key: keys::shown(&kv.key), source })
}

impl Servers {
    /// The servers of this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Records a server; writes nothing if the record is unchanged.
    pub async fn register(&self, name: &str, url: &str, version: &str) -> Result<()> {
        let key = format!("{}{name}", keys::SERVERS);
        let row = ServerRow { url: url.to_owned(), version: version.to_owned(), conditions: Vec::new() };
        let found = self.store.get(key.clone()).await.during("read", &key)?;
        if found.as_ref().and_then(|kv| decoded::<ServerRow>(kv).ok()).as_ref() == Some(&row) {
            return Ok(());
        }
        let value = serde_json::to_vec(&row).expect("a row of strings serializes");
        self.store.put(key.clone(), value).await.during("write", key).map(|_| ())
    }

    /// Records a server's conditions.
    pub(crate) async fn tell(&self, name: &str, conditions: Vec<ServerCondition>) -> Result<()> {
        let key = format!("{}{name}", keys::SERVERS);
        let Some(found) = self.store.get(key.clone()).await.during("read", &key)? else { return Ok(()) };
        let row = ServerRow { conditions, ..decoded(&found)? };
        let value = serde_json::to_vec(&row).expect("a row of strings serializes");
        self.store.put_if(key.clone(), value, found.mod_revision).await.during("write", key).map(|_| ())
    }

    /// Forgets a server that does not come back; returns whether it was recorded.
    pub async fn remove(&self, name: &str) -> Result<bool> {
        let key = format!("{}{name}", keys::SERVERS);
        self.store.delete(key.clone()).await.during("delete", key)
    }

    /// All servers by name, whether they run or not.
    pub async fn list(&self) -> Result<Vec<(String, ServerRow)>> {
        let (rows, _) = self.store.list(keys::SERVERS).await.during("list", "servers")?;
        let named = rows.iter().map(|kv| {
            let name = keys::shown(&kv.key);
            Ok((name.strip_prefix(keys::SERVERS).unwrap_or_default().to_owned(), decoded(kv)?))
        });
        named.collect()
    }

    /// The server that last took over the leadership.
    pub async fn leader(&self) -> Result<Option<String>> {
        let row = self.store.get(keys::GENERATION).await.during("read", keys::GENERATION)?;
        row.map(|kv| decoded::<Generation>(&kv).map(|generation| generation.holder)).transpose()
    }
}
