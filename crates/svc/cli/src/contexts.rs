//! The clusters that a person has logged in to, in a file that only this person may read. Opens no connection.

use anyhow::{Context as _, bail};
use heptad_pki::{read_private, write_private};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The name that stands for the platform of this machine, reached by its socket.
pub const LOCAL: &str = "local";

/// Access to one cluster as one person.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The cluster's identifier.
    pub cluster: String,
    /// Its servers, as URLs.
    pub servers: Vec<String>,
    /// The person's token.
    pub token: String,
    /// The cluster's roots.
    pub trust_bundle_pem: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("cluster", &self.cluster).field("servers", &self.servers).finish_non_exhaustive()
    }
}

/// All contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The context that commands use; `None`: the platform of this machine.
    #[serde(default)]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Entry>,
}

/// Where the file is.
pub fn path() -> anyhow::Result<PathBuf> {
    if let Some(file) = env::var_os("HEPTAD_CONTEXTS").filter(|file| !file.is_empty()) {
        return Ok(file.into());
    }
    let base = match env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = env::var_os("HOME").filter(|dir| !dir.is_empty());
            PathBuf::from(home.context("HOME is not set; name the file of contexts with HEPTAD_CONTEXTS")?)
                .join(".config")
        }
    };
    Ok(base.join("heptad").join("contexts.json"))
}

impl Contexts {
    /// The contexts in the file; none if there is no file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = read_private(path)?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("cannot read {}; correct it, or remove it and log in again", path.display()))
    }

    /// Writes the file.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(dir) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(write_private(path, &serde_json::to_vec_pretty(self)?)?)
    }

    /// The context of that name.
    pub fn find(&self, name: &str) -> anyhow::Result<&Entry> {
        let Some(entry) = self.contexts.get(name) else {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).chain([LOCAL]).collect();
            bail!("there is no context `{name}`; there are: {}. `heptad login` makes one", known.join(", "));
        };
        Ok(entry)
    }

    /// Adds a context and makes it the current one.
    pub fn add(&mut self, name: &str, entry: Entry) -> anyhow::Result<()> {
        if !heptad_model::ids::is_label(name) || name == LOCAL {
            bail!("`{name}` is not the name of a context; use lower-case letters, digits and `-`, and not `{LOCAL}`");
        }
        self.contexts.insert(name.to_owned(), entry);
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// Makes commands use this context; `local` means the platform of this machine.
    pub fn choose(&mut self, name: &str) -> anyhow::Result<()> {
        self.current = if name == LOCAL { None } else { self.find(name).map(|_| Some(name.to_owned()))? };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn contexts_are_kept_for_their_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new").join("contexts.json");
        let mut contexts = Contexts::load(&path).expect("none yet");
        let entry = Entry {
            cluster: "c1".to_owned(),
            servers: vec!["https://10.0.0.1:7443".to_owned()],
            token: "id.secret".to_owned(),
            trust_bundle_pem: String::new(),
        };
        contexts.add("prod", entry).expect("added");
        assert!(contexts.add(LOCAL, contexts.contexts["prod"].clone()).is_err());
        contexts.save(&path).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let mut read = Contexts::load(&path).expect("read");
        assert_eq!(read, contexts);
        assert_eq!(read.current.as_deref(), Some("prod"));
        assert!(read.choose("other").is_err_and(|error| error.to_string().contains("prod, local")));
        read.choose(LOCAL).expect("chosen");
        assert_eq!(read.current, None);
        assert!(!format!("{read:?}").contains("secret"));
    }
}
