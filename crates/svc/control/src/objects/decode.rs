//! Reading objects strictly: from rows, where an error names the row, and from clients, where it names the field.

use crate::{
    error::{Error, Result},
    keys,
    objects::Kept,
};
use heptad_api::{ErrorCode, Object, ProblemDetails, fields_of};
use heptad_model::Problem;
use heptad_state::KeyValue;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The value of a row.
pub(crate) fn row_value<T: DeserializeOwned>(kv: &KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|source| Error::Decode { key: keys::shown(&kv.key), source })
}

/// The value of a row, with parts of the row in it.
pub(crate) fn row_value_in<'a, T: Deserialize<'a>>(kv: &'a KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|source| Error::Decode { key: keys::shown(&kv.key), source })
}

/// The object of a row.
pub(crate) fn row_object<T: DeserializeOwned>(kv: &KeyValue) -> Result<Object<T>> {
    Ok(Object { revision: kv.mod_revision, object: row_value(kv)? })
}

/// The body of a request as JSON.
pub(crate) fn body_json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).map_err(|error| Error::refused(ErrorCode::BadRequest, format!("the body: {error}")))
}

/// A value of a type from a request's body; what does not fit the type is a problem of the object.
pub(crate) fn body_value<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        if error.is_data() {
            invalid(what, error.to_string())
        } else {
            Error::refused(ErrorCode::BadRequest, format!("the body is not JSON: {error}"))
        }
    })
}

fn invalid(what: &str, message: String) -> Error {
    let problems = vec![Problem { path: String::new(), message }];
    ProblemDetails::invalid(format!("the body is no {what}"), problems).into()
}

/// An object from a request's body: the object itself, or `{"revision", "object"}` as it was read before.
/// Returns the revision beside it, if there was one.
/// `complete` adds what the object may leave out.
pub(crate) fn body_object<T: Kept>(body: &mut Value, complete: impl FnOnce(&mut Value)) -> Result<(T, Option<u64>)> {
    let revision = wrapped(body);
    let object = match revision.and_then(|_| body.get_mut("object")) {
        Some(object) => object,
        None => body,
    };
    complete(object);
    Ok((object_of(object)?, revision))
}

/// The revision of an object that comes as it was read.
fn wrapped(body: &Value) -> Option<u64> {
    let map = body.as_object().filter(|map| map.len() == 2 && map.contains_key("object"))?;
    map.get("revision")?.as_u64()
}

/// An object from JSON, no field unknown.
pub(crate) fn object_of<T: Kept>(value: &Value) -> Result<T> {
    let what = T::KIND.singular();
    let object: T = T::deserialize(value).map_err(|error| invalid(what, error.to_string()))?;
    if !T::STRICT
        && let Some(given) = value.as_object()
    {
        unknown_fields::<T>(given)?;
    }
    Ok(object)
}

/// Of types that do not refuse unknown fields themselves. A field that is left out when it is empty is a known one.
fn unknown_fields<T: Kept>(given: &Map<String, Value>) -> Result<()> {
    let known = fields_of::<T>();
    let unknown = given.keys().filter(|key| !known.contains(key));
    let problems: Vec<Problem> = unknown
        .map(|key| {
            let message = format!("unknown field, expected one of {}", known.join(", "));
            Problem { path: key.clone(), message }
        })
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(ProblemDetails::invalid(format!("the body is no {}", T::KIND.singular()), problems).into())
}

/// Merges `patch` into `target` (RFC 7396).
pub(crate) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let map = target.as_object_mut().expect("it was made an object just now");
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_patch(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{Node, Service};
    use serde_json::json;

    #[test]
    fn merge_patches_are_as_in_the_rfc() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (mut target, patch, result) in cases {
            merge_patch(&mut target, &patch);
            assert_eq!(target, result, "{patch}");
        }
    }

    fn object<T: Kept>(mut body: Value) -> Result<(T, Option<u64>)> {
        body_object(&mut body, |_| {})
    }

    #[test]
    fn objects_come_bare_or_with_their_revision_and_never_with_unknown_fields() {
        let bare = json!({"name":"web","image":"host"});
        assert_eq!(object::<Service>(bare.clone()).expect("valid"), (Service::new("web", "host"), None));
        assert_eq!(object::<Service>(json!({"revision":7,"object":bare})).expect("valid").1, Some(7));
        let error = object::<Service>(json!({"name":"web","image":"host","replica":2})).expect_err("unknown");
        assert_eq!(error.code(), ErrorCode::Invalid);
        let error = object::<Node>(json!({"name":"n","capacity":{},"statsu":"Ready"})).expect_err("unknown");
        assert_eq!(error.problem().problems[0].path, "statsu");
        // What is left out when it is empty is known nevertheless.
        let empty = json!({"name":"n","capacity":{},"disks":[],"allocated_devices":{},"draining":false,"address":null});
        assert_eq!(object::<Node>(empty).expect("all are fields").0.disks, []);
        assert_eq!(body_json(b"{").expect_err("no JSON").code(), ErrorCode::BadRequest);
    }
}
