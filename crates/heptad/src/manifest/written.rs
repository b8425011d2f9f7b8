//! Objects as they would be written in a file: without what the server keeps, so that what is read can be applied again.

use heptad_api::Kind;
use serde_json::{Map, Value};

/// What the server gives and keeps, in whatever kind of object.
const KEPT_BY_SERVER: [&str; 6] = ["id", "address", "created_revision", "generation", "restarts_asked", "split"];

/// The key that begins a document of the kind; none if objects of it are not written in files.
pub(super) fn word(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Services => "service",
        Kind::Policies => "policy",
        Kind::Rules => "traffic",
        Kind::Configs => "config",
        Kind::Secrets => "secret",
        Kind::Quotas => "quota",
        Kind::Containers | Kind::Nodes | Kind::Events => return None,
    })
}

/// The document that describes `object`; none if objects of the kind are not written in files.
pub fn document(kind: Kind, object: Value) -> Option<Value> {
    let (word, Value::Object(mut fields)) = (word(kind)?, object) else { return None };
    let mut out = Map::new();
    out.insert(word.to_owned(), fields.remove("name")?);
    out.extend(fields.into_iter().filter(|(key, value)| !KEPT_BY_SERVER.contains(&key.as_str()) && !value.is_null()));
    Some(Value::Object(out))
}
