//! The fields that differ between two objects. Knows no kind: it compares JSON.

use heptad_api::operations::FieldChange;
use serde::Serialize;
use serde_json::Value;

/// Fields that the server keeps; they are not changes that anybody requested.
const SERVER_FIELDS: [&str; 3] = ["id", "generation", "address"];

/// The fields that differ, by their paths. Lists are compared as a whole.
pub(crate) fn changes(before: &impl Serialize, after: &impl Serialize) -> Vec<FieldChange> {
    let value = |object: Result<Value, serde_json::Error>| object.expect("the model's types serialize");
    let (before, after) = (value(serde_json::to_value(before)), value(serde_json::to_value(after)));
    let mut out = Vec::new();
    compare("", Some(&before), Some(&after), &mut out);
    out.retain(|change| !SERVER_FIELDS.contains(&change.path.as_str()));
    out
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<FieldChange>) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) {
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, before.get(key), after.get(key), out);
        }
        return;
    }
    let text = |value: Option<&Value>| value.map(ToString::to_string);
    out.push(FieldChange { path: path.to_owned(), before: text(before), after: text(after) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{CpuMillis, Service};

    #[test]
    fn only_what_differs_is_said_with_its_path() {
        let before = Service::new("web", "nginx:1");
        let mut after = Service { generation: 7, image: "nginx:2".into(), ..before.clone() };
        after.resources.cpu_millis = CpuMillis(250);
        after.environment.insert("A".into(), "1".into());
        let shown: Vec<_> = changes(&before, &after).into_iter().map(|c| (c.path, c.before, c.after)).collect();
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(
            shown,
            [
                ("environment".into(), None, text(r#"{"A":"1"}"#)),
                ("image".into(), text("\"nginx:1\""), text("\"nginx:2\"")),
                ("resources.cpu_millis".into(), text("\"0\""), text("\"250m\"")),
            ]
        );
        assert_eq!(changes(&before, &before), []);
    }
}
