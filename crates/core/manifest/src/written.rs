//! Objects as they would be written in a file: without the server's own fields, so that they can be applied again.

use heptad_api::Kind;
use serde_json::{Map, Value};

/// The fields that the server sets and keeps, in any kind of object.
const KEPT_BY_SERVER: [&str; 6] = ["id", "address", "created_revision", "generation", "restarts_asked", "split"];

/// The document that describes `object`; none if objects of the kind are not written in files.
pub fn document(kind: Kind, object: Value) -> Option<Value> {
    let (word, Value::Object(mut fields)) = (kind.head()?, object) else { return None };
    let mut out = Map::new();
    out.insert(word.to_owned(), fields.remove("name")?);
    out.extend(fields.into_iter().filter(|(key, value)| !KEPT_BY_SERVER.contains(&key.as_str()) && !value.is_null()));
    Some(Value::Object(out))
}
