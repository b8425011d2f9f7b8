//! Configs and secrets: named values that services take as environment variables or files. The values of a secret are
//! never part of the object that is kept and shown: there they read `<redacted>`. Knows no encryption.

use crate::{
    ids::{Namespace, is_label},
    schema::{Name, each_given},
    validate::{ITEMS_MAX, Problem, TEXT_BYTES_MAX, Validate},
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The placeholder for a secret value wherever it is shown; written back, it means "unchanged".
pub const REDACTED: &str = "<redacted>";
/// The most bytes of all values of one config or secret.
pub const SETTINGS_BYTES_MAX: usize = 512 << 10;

/// The longest path of a file.
pub(crate) const PATH_BYTES_MAX: usize = 4_096;
/// An absolute path below the root without `.` and `..`.
pub(crate) const PATH_PATTERN: &str = r"^(/+([^./\x00][^/\x00]*|\.[^./\x00][^/\x00]*|\.\.[^/\x00]+))+/*$";
/// The longest key of a value.
const KEY_BYTES_MAX: usize = 253;

/// The schema of keys: [`is_key`].
fn key_schema() -> Schema {
    json_schema!({ "pattern": "^[-._A-Za-z0-9]+$", "maxLength": KEY_BYTES_MAX, "not": { "enum": [".", ".."] } })
}

/// Named values that are no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "config")]
    #[schemars(with = "Name")]
    pub name: String,
    /// The namespace.
    #[serde(default)]
    pub namespace: Namespace,
    /// The values.
    #[serde(default)]
    #[schemars(extend("maxProperties" = ITEMS_MAX, "propertyNames" = key_schema()))]
    pub data: BTreeMap<String, String>,
    /// Counts the changes of the values, kept by the server.
    #[serde(default)]
    pub generation: u64,
}

/// Named values that only the containers which use them get to see.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// The identifier, given by the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name, unique in the namespace.
    #[serde(alias = "secret")]
    #[schemars(with = "Name")]
    pub name: String,
    /// The namespace.
    #[serde(default)]
    pub namespace: Namespace,
    /// The values as they are written; `<redacted>` as they are shown.
    #[serde(default)]
    #[schemars(extend("maxProperties" = ITEMS_MAX, "propertyNames" = key_schema()))]
    pub data: BTreeMap<String, String>,
    /// Counts the changes of the values, kept by the server.
    #[serde(default)]
    pub generation: u64,
}

/// Values never reach a log through this.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, namespace, data, generation } = self;
        let keys: Vec<&String> = data.keys().collect();
        write!(f, "Secret {{ id: {id:?}, {namespace}/{name}, keys: {keys:?}, generation: {generation} }}")
    }
}

impl Secret {
    /// Takes the values out and leaves what may be shown. A value that reads `<redacted>` keeps its value from
    /// `before`.
    pub fn take_values(&mut self, before: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let shown = self.data.keys().map(|key| (key.clone(), REDACTED.to_owned())).collect();
        let mut values = std::mem::replace(&mut self.data, shown);
        for (key, value) in values.iter_mut().filter(|(_, value)| *value == REDACTED) {
            if let Some(old) = before.get(key) {
                value.clone_from(old);
            }
        }
        values
    }
}

/// A config or a secret, as services name it: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = each_given(&["config", "secret"])))]
pub struct EnvironmentSource {
    /// The config of this name in the service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The secret of this name in the service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// What is put before every key; the rest of the variable's name is the key with `-` and `.` as `_`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = TEXT_BYTES_MAX), regex(pattern = r"^[^=\x00]*$"))]
    pub prefix: String,
}

/// A config or a secret as files inside of the containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = each_given(&["config", "secret"])))]
pub struct FileSource {
    /// The config of this name in the service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The secret of this name in the service's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Only this key, as the file `path`; without it every key is a file in the directory `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Where in the container.
    #[schemars(length(min = 2, max = PATH_BYTES_MAX), regex(pattern = PATH_PATTERN))]
    pub path: String,
    /// The files' mode in octal; `0444` for configs and `0400` for secrets if absent. They belong to the container's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^0*[0-7]{1,3}$"))]
    pub mode: Option<String>,
}

/// What a service names: a kind, and a name in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingsRef {
    /// A config.
    Config(String),
    /// A secret.
    Secret(String),
}

impl fmt::Display for SettingsRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(name) => write!(f, "config/{name}"),
            Self::Secret(name) => write!(f, "secret/{name}"),
        }
    }
}

fn reference(config: Option<&String>, secret: Option<&String>) -> Option<SettingsRef> {
    match (config, secret) {
        (Some(config), None) => Some(SettingsRef::Config(config.clone())),
        (None, Some(secret)) => Some(SettingsRef::Secret(secret.clone())),
        _ => None,
    }
}

impl EnvironmentSource {
    /// What it names; `None` if it names both or neither, which validation refuses.
    pub fn reference(&self) -> Option<SettingsRef> {
        reference(self.config.as_ref(), self.secret.as_ref())
    }

    /// The variable of a key.
    pub fn variable(&self, key: &str) -> String {
        format!("{}{}", self.prefix, key.replace(['-', '.'], "_"))
    }
}

impl FileSource {
    /// What it names; `None` if it names both or neither, which validation refuses.
    pub fn reference(&self) -> Option<SettingsRef> {
        reference(self.config.as_ref(), self.secret.as_ref())
    }

    /// The mode of its files.
    pub fn mode(&self) -> u32 {
        let usual = if self.secret.is_some() { 0o400 } else { 0o444 };
        self.mode.as_ref().and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(usual)
    }
}

/// Whether `key` can be a file's name and, with `-` and `.` replaced, a variable's.
fn is_key(key: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(inner) && key != "." && key != ".."
}

/// Whether it is an absolute path below the root without `.` and `..`.
pub(crate) fn is_path(path: &str) -> bool {
    let is_plain = path.starts_with('/') && path.contains(|c| c != '/') && path.len() <= PATH_BYTES_MAX;
    is_plain && !path.contains('\0') && !path.split('/').any(|part| matches!(part, "." | ".."))
}

fn data(data: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    let mut complain = |path: String, message: String| problems.push(Problem { path, message });
    if data.len() > ITEMS_MAX {
        complain("data".into(), format!("{} entries; at most {ITEMS_MAX} are possible", data.len()));
    }
    let bytes: usize = data.values().map(String::len).sum();
    if bytes > SETTINGS_BYTES_MAX {
        complain("data".into(), format!("{bytes} bytes; at most {SETTINGS_BYTES_MAX} are possible"));
    }
    for key in data.keys().filter(|key| !is_key(key)) {
        let message = "a key has 1 to 253 letters, digits, `_`, `-` and `.`".to_owned();
        complain(format!("data.{key}"), message);
    }
}

fn names(name: &str, namespace: &Namespace, problems: &mut Vec<Problem>) {
    for (path, text) in [("name", name), ("namespace", namespace.as_str())] {
        if !is_label(text) {
            let message = format!("`{text}` is not a name; use 1 to 63 lower-case letters, digits and `-`");
            problems.push(Problem { path: path.into(), message });
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        names(&self.name, &self.namespace, &mut problems);
        data(&self.data, &mut problems);
        problems
    }
}

impl Validate for Secret {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        names(&self.name, &self.namespace, &mut problems);
        data(&self.data, &mut problems);
        problems
    }
}

/// What is wrong with the sources of a service.
pub(crate) fn validate_sources(environment_from: &[EnvironmentSource], files: &[FileSource]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut unless = |good: bool, path: String, message: &str| {
        if !good {
            problems.push(Problem { path, message: message.to_owned() });
        }
    };
    let one = "name exactly one: `config` or `secret`";
    unless(
        environment_from.len() <= ITEMS_MAX,
        "environment_from".into(),
        "too many entries; at most 256 are possible",
    );
    for (i, source) in environment_from.iter().enumerate() {
        unless(source.reference().is_some(), format!("environment_from[{i}]"), one);
        let good = source.prefix.len() <= TEXT_BYTES_MAX && !source.prefix.contains(['=', '\0']);
        unless(good, format!("environment_from[{i}].prefix"), "a variable's name has no `=`");
    }
    unless(files.len() <= ITEMS_MAX, "files".into(), "too many entries; at most 256 are possible");
    for (i, source) in files.iter().enumerate() {
        unless(source.reference().is_some(), format!("files[{i}]"), one);
        let message = "it must be an absolute path without `.` and `..`, and not `/`";
        unless(is_path(&source.path), format!("files[{i}].path"), message);
        let is_mode = |mode: &String| u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o777);
        unless(
            source.mode.as_ref().is_none_or(is_mode),
            format!("files[{i}].mode"),
            "write it in octal, as in \"0440\"",
        );
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_leave_a_secret_and_what_is_shown_means_as_it_was() {
        let text = r#"{"secret":"db","data":{"user":"<redacted>","password":"new"}}"#;
        let mut secret: Secret = serde_json::from_str(text).expect("a secret");
        let values = secret.take_values(&map(&[("user", "app"), ("password", "old"), ("gone", "x")]));
        assert_eq!(values, map(&[("user", "app"), ("password", "new")]));
        assert_eq!(secret.data, map(&[("user", REDACTED), ("password", REDACTED)]));
        assert!(!format!("{:?}", Secret { data: values, ..secret }).contains("new"));
    }

    #[test]
    fn keys_become_variables_and_files() {
        let source = EnvironmentSource { prefix: "DB_".into(), ..EnvironmentSource::default() };
        assert_eq!(source.variable("tls.key-file"), "DB_tls_key_file");
        let mut file: FileSource = serde_json::from_str(r#"{"secret":"tls","path":"/etc/tls"}"#).expect("a source");
        assert_eq!((file.mode(), file.reference()), (0o400, Some(SettingsRef::Secret("tls".into()))));
        file.mode = Some("0440".into());
        assert_eq!(file.mode(), 0o440);
    }

    #[test]
    fn what_cannot_be_a_key_a_path_or_a_mode_is_said() {
        let config = Config {
            id: String::new(),
            name: "App".into(),
            namespace: Namespace::default(),
            data: map(&[("a/b", ""), ("..", ""), ("good.key", "")]),
            generation: 0,
        };
        let paths: Vec<String> = config.validate().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["name", "data...", "data.a/b"]);
        let file = |path: &str, mode: &str| FileSource {
            config: Some("app".into()),
            path: path.into(),
            mode: Some(mode.into()),
            ..FileSource::default()
        };
        let bad = [file("/etc/../x", "0444"), file("relative", "0444"), file("/etc/x", "9"), file("/", "0444")];
        let paths: Vec<String> =
            validate_sources(&[EnvironmentSource::default()], &bad).into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["environment_from[0]", "files[0].path", "files[1].path", "files[2].mode", "files[3].path"]);
        assert_eq!(validate_sources(&[], &[file("/etc/x", "0600")]), []);
    }
}
