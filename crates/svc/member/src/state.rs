//! Where the state of a server is: in its data directory, or in an etcd cluster that several servers share.

use crate::MemberFiles;
use heptad_api::operations::APPLY_OBJECTS_MAX;
use heptad_pki::{read_private, write_private};
use heptad_state::{EmbeddedStore, Store, migration};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinError;

const FILE: &str = "state.json";

/// Why the state of a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The state store.
    #[error("cannot open the state store")]
    Store(#[from] heptad_state::Error),
    /// The record of where it is cannot be read or written.
    #[error("cannot read or write {}; restore it, or remove the data directory to begin anew", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A private file.
    #[error(transparent)]
    Private(#[from] heptad_pki::Error),
    /// Opening it broke off.
    #[error("opening the state store broke off")]
    Task(#[source] JoinError),
    /// The data directory of a server does not allow the operation in its present state.
    #[error("{} {reason}", dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// Why not, and what to do.
        reason: &'static str,
    },
}

/// Where the state of a cluster is. Sent to servers that join, so it names no file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StateSettings {
    /// In the data directory of the one server.
    #[default]
    Embedded,
    /// In etcd.
    Etcd(EtcdSettings),
}

/// How etcd is reached.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSettings {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// The certificates that its members are checked with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The certificate that is shown to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_pem: Option<String>,
    /// The key of that certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_pem: Option<String>,
    /// The user, if it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdSettings").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl StateSettings {
    fn file(data_dir: &Path) -> PathBuf {
        MemberFiles::of_server(data_dir).dir().join(FILE)
    }

    /// Where the state of the server in `data_dir` is.
    pub fn load(data_dir: &Path) -> Result<Self, StateError> {
        let file = Self::file(data_dir);
        let bytes = read_private(&file)?;
        serde_json::from_slice(&bytes).map_err(|source| StateError::File { file, source: source.into() })
    }

    /// Records in `data_dir` that the state of its server is there.
    pub fn save(&self, data_dir: &Path) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(self).expect("lists and texts serialize");
        Ok(write_private(&Self::file(data_dir), &text)?)
    }

    /// Whether several servers can share it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }

    /// The place, for messages.
    pub fn place(&self, data_dir: &Path) -> String {
        match self {
            Self::Embedded => {
                let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
                format!("the data directory {} of {}", data_dir.display(), host.unwrap_or_default())
            }
            Self::Etcd(settings) => format!("etcd at {}", settings.endpoints.join(",")),
        }
    }

    /// Opens it for a server; refuses a store that no longer counts, or does not count yet.
    pub async fn open(&self, data_dir: &Path) -> Result<Arc<dyn Store>, StateError> {
        let store = self.open_as_it_is(data_dir).await?;
        migration::take(&*store).await?;
        // Others may move a shared store while this server runs.
        Ok(if self.is_shared() { Arc::new(migration::guarded(store)) } else { store })
    }

    /// Opens it, whether it counts or not.
    pub async fn open_as_it_is(&self, data_dir: &Path) -> Result<Arc<dyn Store>, StateError> {
        match self {
            Self::Embedded => Ok(Arc::new(open_embedded(data_dir).await?)),
            Self::Etcd(settings) => Ok(Arc::new(open_etcd(settings, data_dir).await?)),
        }
    }
}

async fn open_etcd(settings: &EtcdSettings, data_dir: &Path) -> Result<heptad_state::EtcdStore, StateError> {
    let file = |name: &str, pem: &Option<String>| match pem {
        None => Ok(None),
        Some(pem) => {
            let path = MemberFiles::of_server(data_dir).dir().join(name);
            write_private(&path, pem.as_bytes()).map(|()| Some(path))
        }
    };
    let user = settings
        .user
        .clone()
        .map(|name| heptad_state::EtcdUser { name, password: settings.password.clone().unwrap_or_default() });
    let options = heptad_state::EtcdOptions {
        endpoints: settings.endpoints.clone(),
        ca_file: file("etcd-ca.pem", &settings.ca_pem)?,
        cert_file: file("etcd-cert.pem", &settings.cert_pem)?,
        key_file: file("etcd-key.pem", &settings.key_pem)?,
        user,
        ..Default::default()
    };
    Ok(heptad_state::EtcdStore::open(options).await?)
}

/// Opens the store in the data directory.
async fn open_embedded(data_dir: &Path) -> Result<EmbeddedStore, StateError> {
    let dir = data_dir.join("state");
    let mut options = heptad_state::Options::default();
    // An apply of the largest size is one transaction.
    options.limits.txn_ops_max = options.limits.txn_ops_max.max(4 * APPLY_OBJECTS_MAX);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(dir, options)).await;
    Ok(opened.map_err(StateError::Task)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_etcd_travels_whole_and_shows_no_secret() {
        let settings = EtcdSettings {
            endpoints: vec!["https://10.0.0.1:2379".to_owned()],
            key_pem: Some("KEY".to_owned()),
            password: Some("PASSWORD".to_owned()),
            ..EtcdSettings::default()
        };
        let state = StateSettings::Etcd(settings);
        let text = serde_json::to_string(&state).expect("it is JSON");
        assert_eq!(serde_json::from_str::<StateSettings>(&text).expect("read"), state);
        assert!(!format!("{state:?}").contains("KEY") && !format!("{state:?}").contains("PASSWORD"));
    }
}
