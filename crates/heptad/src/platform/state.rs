//! Where the state of a server is: in its data directory, or in an etcd cluster that several servers share.

use super::PlatformError;
use crate::cli::Etcd;
#[cfg(feature = "etcd")]
use crate::cluster::MemberFiles;
use anyhow::Context;
use heptad_api::operations::APPLY_OBJECTS_MAX;
#[cfg(feature = "etcd")]
use heptad_pki::write_private;
use heptad_state::{EmbeddedStore, Store, migration};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, sync::Arc};

/// Where the state of a cluster is. Travels to servers that join, so it names no file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum StateSettings {
    /// In the data directory of the one server.
    #[default]
    Embedded,
    /// In etcd.
    Etcd(EtcdSettings),
}

/// How etcd is reached.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EtcdSettings {
    pub(crate) endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_pem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_pem: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
}

impl std::fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdSettings").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl StateSettings {
    /// What the flags say.
    pub(crate) fn of_flags(flags: &Etcd) -> anyhow::Result<Self> {
        if flags.urls.is_empty() {
            return Ok(Self::Embedded);
        }
        let text = |file: &Option<std::path::PathBuf>| match file {
            None => Ok(None),
            Some(file) => fs::read_to_string(file).map(Some).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Self::Etcd(EtcdSettings {
            endpoints: flags.urls.clone(),
            ca_pem: text(&flags.ca)?,
            cert_pem: text(&flags.cert)?,
            key_pem: text(&flags.key)?,
            user: flags.user.clone(),
            password: text(&flags.password_file)?.map(|password| password.trim_end_matches('\n').to_owned()),
        }))
    }

    /// Whether several servers can share it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }

    /// Where that is, for messages.
    pub(crate) fn place(&self, data_dir: &Path) -> String {
        match self {
            Self::Embedded => {
                let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
                format!("the data directory {} of {}", data_dir.display(), host.unwrap_or_default())
            }
            Self::Etcd(settings) => format!("etcd at {}", settings.endpoints.join(",")),
        }
    }

    /// Opens it for a server, which refuses a store that does not count any more, or not yet.
    pub(crate) async fn open(&self, data_dir: &Path) -> Result<Arc<dyn Store>, PlatformError> {
        let store = self.open_as_it_is(data_dir).await?;
        migration::take(&*store).await?;
        // Others may move a shared store while this server runs.
        Ok(if self.is_shared() { Arc::new(migration::guarded(store)) } else { store })
    }

    /// Opens it, whether it counts or not.
    pub(crate) async fn open_as_it_is(&self, data_dir: &Path) -> Result<Arc<dyn Store>, PlatformError> {
        match self {
            Self::Embedded => Ok(Arc::new(open_embedded(data_dir).await?)),
            #[cfg(feature = "etcd")]
            Self::Etcd(settings) => Ok(Arc::new(open_etcd(settings, data_dir).await?)),
            #[cfg(not(feature = "etcd"))]
            Self::Etcd(_) => Err(PlatformError::NoEtcd),
        }
    }
}

#[cfg(feature = "etcd")]
async fn open_etcd(settings: &EtcdSettings, data_dir: &Path) -> Result<heptad_state::EtcdStore, PlatformError> {
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
async fn open_embedded(data_dir: &Path) -> Result<EmbeddedStore, PlatformError> {
    let dir = data_dir.join("state");
    let mut options = heptad_state::Options::default();
    // An apply of the largest size is one transaction.
    options.limits.txn_ops_max = options.limits.txn_ops_max.max(4 * APPLY_OBJECTS_MAX);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(dir, options)).await;
    Ok(opened.map_err(|source| PlatformError::Task { what: "opening the state store", source })??)
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

    #[test]
    fn without_etcd_the_state_is_in_the_data_directory() {
        let state = StateSettings::of_flags(&Etcd::default()).expect("no file is read");
        assert!(state == StateSettings::Embedded && !state.is_shared());
        let flags = Etcd { urls: vec!["https://e:2379".into()], ca: Some("/nowhere/ca".into()), ..Etcd::default() };
        assert!(StateSettings::of_flags(&flags).is_err_and(|error| error.to_string().contains("/nowhere/ca")));
    }
}
