//! The values of configs and secrets: sealed when a secret is written, opened for the containers that use them. The
//! sealed values have a row of their own, so that no list and no watch carries them.

use super::{Objects, Pending, row_value};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
};
use heptad_api::{
    ErrorCode, Kind, ProblemDetails,
    operations::{ContainerSettings, SettingsFile},
};
use heptad_model::{
    Config, Container, ContainerId, Namespace, Problem, Secret, Service, SettingsRef, settings::REDACTED,
};
use heptad_pki::Keyring;
use heptad_state::{Revision, StoreExt};
use serde::Deserialize;
use std::collections::BTreeMap;

type Values = BTreeMap<String, String>;

/// What determines the version of a config or secret.
#[derive(Debug, Deserialize)]
struct Versioned {
    #[serde(default)]
    id: String,
    #[serde(default)]
    generation: u64,
}

/// What distinguishes one state of a config or secret from all others, including those of a deleted one.
pub(crate) fn version(row: &heptad_state::KeyValue) -> Result<String> {
    let Versioned { id, generation } = row_value(row)?;
    Ok(format!("{id}.{generation}"))
}

fn row_of(namespace: &Namespace, reference: &SettingsRef) -> String {
    match reference {
        SettingsRef::Config(name) => keys::object(Kind::Configs, namespace, name),
        SettingsRef::Secret(name) => keys::object(Kind::Secrets, namespace, name),
    }
}

impl Objects {
    fn keyring(&self) -> Result<&Keyring> {
        let missing = || Error::refused(ErrorCode::Unavailable, "this server has no keyring, so it keeps no secrets");
        self.keyring.as_deref().ok_or_else(missing)
    }

    /// The values of a secret, and the revision of their row (0: there is none).
    async fn opened(&self, namespace: &Namespace, name: &str) -> Result<(Values, Revision)> {
        let key = keys::vault(namespace, name);
        let Some(row) = self.store.get(key.clone()).await.during("read", &key)? else {
            return Ok((Values::new(), 0));
        };
        let unusable = |reason: String| {
            let detail = format!("secret/{namespace}/{name} cannot be opened: {reason}; write its values again");
            Error::refused(ErrorCode::Internal, detail)
        };
        let text = self.keyring()?.open(&key, &row.value).map_err(|error| unusable(error.to_string()))?;
        let values = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
        Ok((values, row.mod_revision))
    }

    /// Takes the values out of a secret that is written, and stages them sealed if they changed.
    pub(crate) async fn seal(&self, secret: &mut Secret, before: Option<&Secret>, pending: &mut Pending) -> Result<()> {
        let key = keys::vault(&secret.namespace, &secret.name);
        let subject = format!("secret/{}/{}", secret.namespace, secret.name);
        let (old, revision) = self.opened(&secret.namespace, &secret.name).await?;
        let values = secret.take_values(&old);
        let unknown = values.iter().filter(|(_, value)| *value == REDACTED).map(|(key, _)| Problem {
            path: format!("data.{key}"),
            message: format!("`{REDACTED}` stands for a value that is there already, and none is; write the value"),
        });
        let unknown: Vec<Problem> = unknown.collect();
        if !unknown.is_empty() {
            return Err(ProblemDetails::invalid(format!("{subject} was not written"), unknown).into());
        }
        pending.expect(&key, revision);
        secret.generation = before.map_or(1, |before| before.generation);
        if before.is_some() && values == old {
            return Ok(());
        }
        secret.generation += u64::from(before.is_some());
        let text = serde_json::to_vec(&values).expect("a map of strings serializes");
        let sealed = self
            .keyring()?
            .seal(&key, &text)
            .map_err(|error| Error::refused(ErrorCode::Internal, format!("{subject} cannot be sealed: {error}")))?;
        pending.put_bytes(&key, sealed);
        Ok(())
    }

    async fn values_of(&self, namespace: &Namespace, reference: &SettingsRef) -> Result<Values> {
        match reference {
            SettingsRef::Config(name) => Ok(self.get::<Config>(namespace, name).await?.object.data),
            SettingsRef::Secret(name) => {
                let secret = self.get::<Secret>(namespace, name).await?.object;
                let (values, _) = self.opened(namespace, name).await?;
                if values.keys().ne(secret.data.keys()) {
                    let detail = format!("secret/{namespace}/{name} is being changed; try again");
                    return Err(Error::refused(ErrorCode::Busy, detail));
                }
                Ok(values)
            }
        }
    }

    /// What a container currently takes from its configs and secrets.
    pub async fn container_settings(&self, id: &ContainerId) -> Result<ContainerSettings> {
        let container = self.get::<Container>(&Namespace::default(), id.as_str()).await?.object;
        let (namespace, template) = (&container.service.namespace, &container.template);
        let mut settings = ContainerSettings::default();
        for source in &template.environment_from {
            let Some(reference) = source.reference() else { continue };
            let values = self.values_of(namespace, &reference).await?;
            settings.environment.extend(values.into_iter().map(|(key, value)| (source.variable(&key), value)));
        }
        for source in &template.files {
            let Some(reference) = source.reference() else { continue };
            let mut values = self.values_of(namespace, &reference).await?;
            let mode = source.mode();
            let file = |path: String, content| SettingsFile { path, mode, content };
            match &source.key {
                Some(key) => {
                    let missing = || {
                        let detail = format!("{reference} in namespace {namespace} has no key `{key}`; add it");
                        Error::refused(ErrorCode::NotFound, detail)
                    };
                    let content = values.remove(key).ok_or_else(missing)?;
                    settings.files.push(file(source.path.clone(), content));
                }
                None => {
                    let path = |key: &String| format!("{}/{key}", source.path.trim_end_matches('/'));
                    settings.files.extend(values.into_iter().map(|(key, value)| file(path(&key), value)));
                }
            }
        }
        Ok(settings)
    }

    /// The current versions of what a service uses; what does not exist is left out.
    pub(crate) async fn with_settings(&self, service: &Service) -> Result<Service> {
        let mut filled = service.clone();
        for reference in service.settings_refs() {
            let key = row_of(&service.namespace, &reference);
            if let Some(row) = self.store.get(key.clone()).await.during("read", &key)? {
                filled.settings.insert(reference.to_string(), version(&row)?);
            }
        }
        Ok(filled)
    }
}
