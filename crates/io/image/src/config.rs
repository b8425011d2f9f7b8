//! The part of an OCI image configuration that a runtime needs. Knows no file and no registry.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

/// What an image says about the process to run in it. Absent fields are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// The fixed part of the command line.
    pub entrypoint: Vec<String>,
    /// The part of the command line that a service may replace.
    pub cmd: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// `user[:group]`, names or numbers.
    pub user: String,
    /// The directory that the process starts in.
    pub working_dir: String,
    /// `80/tcp` each.
    pub exposed_ports: BTreeSet<String>,
    /// The signal that asks the process to end.
    pub stop_signal: Option<String>,
}

/// The image configuration document, as far as it is read.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigDocument {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    config: ConfigSection,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigSection {
    #[serde(deserialize_with = "null_as_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    user: String,
    #[serde(deserialize_with = "null_as_default")]
    working_dir: String,
    #[serde(deserialize_with = "null_as_default")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    stop_signal: Option<String>,
}

impl ConfigDocument {
    pub(crate) fn into_config(self) -> ImageConfig {
        let section = self.config;
        ImageConfig {
            entrypoint: section.entrypoint,
            cmd: section.cmd,
            env: section.env,
            user: section.user,
            working_dir: section.working_dir,
            exposed_ports: section.exposed_ports.into_keys().collect(),
            stop_signal: section.stop_signal.filter(|s| !s.is_empty()),
        }
    }
}

/// Builders write `null` where they mean "nothing".
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_writes() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Entrypoint":null,"Cmd":["sh","-c","x"],
            "Env":["A=1"],"User":"app","WorkingDir":"/srv","ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT",
            "Labels":{"run":"rm -rf /"}},"rootfs":{"type":"layers","diff_ids":["sha256:x"]},"history":[]}"#;
        let document: ConfigDocument = serde_json::from_str(text).expect("valid");
        assert_eq!(document.rootfs.diff_ids, ["sha256:x"]);
        let config = document.into_config();
        assert_eq!((config.entrypoint.len(), config.cmd.len(), config.user.as_str()), (0, 3, "app"));
        assert_eq!(config.exposed_ports.iter().collect::<Vec<_>>(), ["80/tcp"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
    }

    #[test]
    fn a_configuration_may_be_almost_empty() {
        let document: ConfigDocument =
            serde_json::from_str(r#"{"config":null,"rootfs":{"diff_ids":null}}"#).expect("valid");
        assert_eq!(document.into_config(), ImageConfig::default());
    }
}
