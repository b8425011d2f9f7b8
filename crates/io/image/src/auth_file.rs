//! User names and passwords of registries, from a file as `docker login`, `podman login` and `skopeo login` write it.
//! It is read at each pull, because short-lived passwords are renewed. Runs no credential helper.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::options::Credentials;

const DOCKER_HUB: &str = "docker.io";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    /// `USER:PASSWORD` as base64.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

/// The file's entry for a registry (`host[:port]`).
pub(crate) fn credentials(file: &Path, registry: &str) -> io::Result<Option<Credentials>> {
    of(&std::fs::read(file)?, registry).map_err(io::Error::other)
}

fn of(text: &[u8], registry: &str) -> Result<Option<Credentials>, String> {
    let file: AuthFile = serde_json::from_slice(text).map_err(|error| {
        // Neither the text nor any value in it: they may be secret.
        format!("it is not a docker configuration: line {}, column {}", error.line(), error.column())
    })?;
    let found = file.auths.iter().find(|(name, _)| host(name) == registry).map(|(_, entry)| entry);
    let helper = file.cred_helpers.iter().find(|(name, _)| host(name) == registry).map(|(_, helper)| helper);
    let is_empty = |entry: &Entry| entry.auth.is_empty() && entry.username.is_empty();
    match (found, helper.or(file.creds_store.as_ref())) {
        (Some(entry), None) if is_empty(entry) && !entry.identitytoken.is_empty() => Err(format!(
            "it has only an identity token for {registry}, which is not supported; write a user name and password"
        )),
        (Some(entry), _) if !is_empty(entry) => entry.credentials(registry).map(Some),
        // A store for all registries has nothing for one that the file does not name.
        (entry, Some(name)) if entry.is_some() || helper.is_some() => Err(format!(
            "it leaves the password of {registry} to the credential helper `{name}`, which is not run here; log in without a helper"
        )),
        _ => Ok(None),
    }
}

impl Entry {
    fn credentials(&self, registry: &str) -> Result<Credentials, String> {
        if self.auth.is_empty() {
            return Ok(Credentials { username: self.username.clone(), password: self.password.clone() });
        }
        let decoded = STANDARD.decode(self.auth.trim_end_matches('\0')).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        let (username, password) =
            pair.ok_or_else(|| format!("`auth` of {registry} is not USER:PASSWORD as base64"))?;
        Ok(Credentials { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
    }
}

/// Names in the file may be addresses; that of Docker Hub is an old one.
fn host(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    match name.split('/').next().unwrap_or(name) {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6c2VjOnJldA=="},
            "r.example.com:5000": {"username": "you", "password": "word"},
            "token.example.com": {"auth": "", "identitytoken": "x"},
            "odd.example.com": {"auth": "c2VjcmV0"}
        },
        "credHelpers": {"ecr.example.com": "ecr-login"}
    }"#;

    fn user(text: &str, registry: &str) -> Result<Option<(String, String)>, String> {
        of(text.as_bytes(), registry).map(|found| found.map(|c| (c.username, c.password)))
    }

    #[test]
    fn entries_are_found_by_host() {
        let pair = |user: &str, password: &str| Ok(Some((user.to_owned(), password.to_owned())));
        assert_eq!(user(FILE, "docker.io"), pair("me", "sec:ret"));
        assert_eq!(user(FILE, "r.example.com:5000"), pair("you", "word"));
        assert_eq!(user(FILE, "r.example.com"), Ok(None));
    }

    #[test]
    fn what_cannot_be_used_is_said_without_its_secret() {
        for (text, registry, word) in [
            (FILE, "ecr.example.com", "ecr-login"),
            (FILE, "token.example.com", "identity token"),
            (FILE, "odd.example.com", "USER:PASSWORD"),
            (r#"{"auths": {"a": {}}, "credsStore": "desktop"}"#, "a", "desktop"),
            (r#"{"auths": {"a": "secret"}}"#, "a", "not a docker configuration"),
        ] {
            let said = user(text, registry).expect_err(registry);
            assert!(said.contains(word) && !said.contains("secret"), "{said}");
        }
        let text = r#"{"auths": {}, "credsStore": "desktop", "credHelpers": {"b": "desktop"}}"#;
        assert_eq!(user(text, "a"), Ok(None), "no entry: anonymous");
    }
}
