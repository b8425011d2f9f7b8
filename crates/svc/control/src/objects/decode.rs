//! Strict parsing of objects: from rows, where an error names the row, and from clients, where it names the field.

use crate::{
    error::{Error, Result},
    keys,
    objects::Kept,
};
use heptad_api::{ErrorCode, Object, ProblemDetails};
use heptad_model::Problem;
use heptad_state::KeyValue;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The value of a row.
pub(crate) fn row_value<T: DeserializeOwned>(kv: &KeyValue) -> Result<T> {
    serde_json::from_slice(&kv.value).map_err(|source| Error::Decode { key: keys::shown(&kv.key), source })
}

/// The value of a row, borrowing parts of the row.
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

/// A value of a type from a request's body; whatever does not fit the type is a problem of the object.
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

/// An object from a request's body: the object itself, or `{"revision", "object"}` as it was read before. Returns the
/// accompanying revision, if there was one. `complete` adds what the object may omit.
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

/// An object from JSON, with no unknown field.
pub(crate) fn object_of<T: Kept>(value: &Value) -> Result<T> {
    let what = T::KIND.singular();
    let object: T = T::deserialize(value).map_err(|error| invalid(what, error.to_string()))?;
    if let (Some(known), Some(given)) = (T::fields(), value.as_object()) {
        unknown_fields::<T>(known, given)?;
    }
    Ok(object)
}

/// For types that do not refuse unknown fields themselves. A field that is omitted when empty counts as known.
fn unknown_fields<T: Kept>(known: &[String], given: &Map<String, Value>) -> Result<()> {
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

/// The most fields of one map of a patch that are examined as second names.
const SECOND_NAMES_MAX: usize = 8;
/// More keys than any type has fields: such a map is a user's own.
const FIELDS_MAX: usize = 64;

/// Merges `patch` into `object` (RFC 7396), each field under the name by which the object is stored: a second name of a
/// field, such as `cpu` for `cpu_millis`, would otherwise stand beside the first.
pub(crate) fn patched<T: Kept>(object: &T, patch: &Value) -> Result<T> {
    let mut value = serde_json::to_value(object).expect("the model's types serialize");
    let mut patch = patch.clone();
    first_names(object, &value, "", &mut patch);
    merge_patch(&mut value, &patch);
    object_of(&value)
}

/// Renames the fields of `patch`, which belongs at `pointer` of the object, that have another name there.
fn first_names<T: Kept>(object: &T, whole: &Value, pointer: &str, patch: &mut Value) {
    let (Some(here), Some(patch)) = (whole.pointer(pointer).and_then(Value::as_object), patch.as_object_mut()) else {
        return;
    };
    let strange: Vec<String> = patch.keys().filter(|key| !here.contains_key(*key)).cloned().collect();
    if strange.len() <= SECOND_NAMES_MAX && here.len() <= FIELDS_MAX {
        for second in strange {
            // The object with the field under its other name is the same object; with both names it is invalid.
            let mut first = None;
            for (name, value) in here.iter().filter(|(name, _)| !patch.contains_key(*name)) {
                let with = |change: &dyn Fn(&mut Map<String, Value>)| {
                    let mut changed = whole.clone();
                    changed.pointer_mut(pointer).and_then(Value::as_object_mut).map(change);
                    T::deserialize(&changed)
                };
                let both = |fields: &mut Map<String, Value>| _ = fields.insert(second.clone(), value.clone());
                let renamed = |fields: &mut Map<String, Value>| {
                    both(fields);
                    fields.remove(name);
                };
                // What may stand beside one is a name of its own.
                if with(&both).is_ok() {
                    break;
                }
                if with(&renamed).is_ok_and(|read| read == *object) {
                    first = Some(name);
                    break;
                }
            }
            if let Some((first, value)) = first.and_then(|first| Some((first, patch.remove(&second)?))) {
                patch.insert(first.clone(), value);
            }
        }
    }
    for (key, inner) in patch.iter_mut().filter(|(_, inner)| inner.is_object()) {
        let key = key.replace('~', "~0").replace('/', "~1");
        first_names(object, whole, &format!("{pointer}/{key}"), inner);
    }
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
    fn a_patch_may_name_a_field_by_its_second_name() {
        let text = r#"{"service":"web","image":"nginx","resources":{"cpu":1,"memory":"64Mi"},"labels":{"cpu":"a"}}"#;
        let web: Service = serde_json::from_str(text).expect("a service");
        let patch = json!({"resources": {"cpu": "250m"}, "labels": {"cpu_millis": "b"}, "service": "web"});
        let new = patched(&web, &patch).expect("it is read");
        assert_eq!((new.resources.cpu_millis.0, new.resources.memory), (250, web.resources.memory));
        let labels: Vec<_> = new.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["cpu=a", "cpu_millis=b"], "keys of maps are no names of fields");
        let gone = patched(&web, &json!({"resources": {"cpu": null}})).expect("it is read");
        assert_eq!(gone.resources.cpu_millis.0, 0);
        assert!(patched(&web, &json!({"resources": {"cpu": 1, "cpu_millis": 2}})).is_err(), "both");
        assert!(patched(&web, &json!({"resources": {"cpus": 1}})).is_err());
        let node: Node = serde_json::from_str(r#"{"name":"n1","capacity":{"cpu":4}}"#).expect("a node");
        let given = patched(&node, &json!({"disks": [{"name": "n1/disk1", "capacity_bytes": 1}]})).expect("it is read");
        assert_eq!((given.disks.len(), given.taints.len()), (1, 0), "two empty fields are not one");
        let zero: Node = serde_json::from_str(r#"{"name":"n1","capacity":{}}"#).expect("a node");
        assert_eq!(patched(&zero, &json!({"capacity": {"cpu": 0}})).expect("it is read"), zero);
        let grown = patched(&node, &json!({"capacity": {"cpu": 8}})).expect("it is read");
        assert_eq!(grown.capacity.cpu_millis.0, 8_000);
    }

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
        // What is omitted when empty is still known.
        let empty = json!({"name":"n","capacity":{},"disks":[],"allocated_devices":{},"draining":false,"address":null});
        assert_eq!(object::<Node>(empty).expect("all are fields").0.disks, []);
        assert_eq!(body_json(b"{").expect_err("no JSON").code(), ErrorCode::BadRequest);
    }
}
