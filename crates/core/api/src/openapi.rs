//! The OpenAPI 3.1 document, made from the endpoint table and the types' schemas.

use crate::{Kind, PAGE_ITEMS_MAX, ProblemDetails, STORED_PAGE_ITEMS_MAX, endpoints, endpoints::Endpoint};
use heptad_model::ids::LABEL_PATTERN;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The document. The same version gives the same bytes.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    generator.subschema_for::<ProblemDetails>();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in endpoints::all() {
        let operation = operation(&endpoint, &mut generator);
        let path = paths.entry(endpoint.path.clone()).or_insert_with(|| json!({}));
        path[endpoint.method.to_ascii_lowercase()] = operation;
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Heptad",
            "version": "v1",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            "description": "One API with list and watch for users, agents and the command line.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": generator.take_definitions(true),
        },
    });
    bound_integers(&mut document);
    document
}

/// An integer's format gives its range; readers that know only JSON Schema get the range too.
fn bound_integers(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let bounds = match map.get("format").and_then(Value::as_str) {
                Some("uint32") => Some((json!(0), json!(u32::MAX))),
                Some("uint64" | "uint") => Some((json!(0), json!(u64::MAX))),
                Some("int32") => Some((json!(i32::MIN), json!(i32::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                _ => None,
            };
            if let Some((least, most)) = bounds {
                map.entry("minimum").or_insert(least);
                map.entry("maximum").or_insert(most);
            }
            map.values_mut().for_each(bound_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "parameters": parameters(endpoint),
        "responses": {
            "default": {
                "description": "A problem",
                "content": {
                    "application/problem+json": { "schema": { "$ref": "#/components/schemas/ProblemDetails" } },
                },
            },
        },
    });
    if let Some(request) = endpoint.request {
        let schema = request(generator);
        let required = !endpoint.request_optional;
        operation["requestBody"] =
            json!({ "required": required, "content": { "application/json": { "schema": schema } } });
    }
    if endpoint.takes_bytes {
        operation["requestBody"] = json!({ "content": { "application/octet-stream": {} } });
        operation["responses"]["201"] = json!({ "description": "Stored", "content": { "application/json": {} } });
    }
    let status = if endpoint.empty { "204" } else { "200" };
    operation["responses"][status] = match endpoint.response {
        Some(response) => {
            let schema = response(generator);
            json!({ "description": "Done", "content": { "application/json": { "schema": schema } } })
        }
        None => json!({ "description": "Done" }),
    };
    for (follower, parameters) in &endpoint.followers {
        let at =
            parameters.iter().map(|(name, pointer)| ((*name).to_owned(), format!("$response.body#{pointer}").into()));
        let parameters: Map<String, Value> = at.collect();
        operation["responses"][status]["links"][follower] =
            json!({ "operationId": follower, "parameters": parameters });
    }
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let parameter = |name: &str, place: &str, meaning: &str| {
        let in_path = place == "path";
        // Whoever deletes a container names its node.
        let required = in_path || (name, endpoint.method) == ("node", "DELETE");
        let schema = if in_path { part_of_path(endpoint, name) } else { value_of(endpoint, name) };
        json!({ "name": name, "in": place, "required": required, "description": meaning, "schema": schema })
    };
    let in_path = endpoint.path.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let in_path = in_path.map(|(name, _)| parameter(name, "path", name));
    let in_query = endpoint.query.iter().map(|(name, meaning)| parameter(name, "query", meaning));
    in_path.chain(in_query).collect()
}

/// The schema of a path parameter: a name where objects have names, else any text that is not empty.
fn part_of_path(endpoint: &Endpoint, name: &str) -> Value {
    let of = |kind: &Kind| endpoint.path.contains(&format!("/{kind}/{{name}}"));
    let label = matches!(name, "namespace" | "bucket") || name == "name" && Kind::ALL.iter().any(of);
    if label {
        json!({ "type": "string", "pattern": LABEL_PATTERN })
    } else {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// The schema of a query parameter; the same name means the same everywhere, except that pages of stored objects are
/// smaller.
fn value_of(endpoint: &Endpoint, name: &str) -> Value {
    match name {
        "limit" if endpoint.operation == "list_objects" => {
            json!({ "type": "integer", "minimum": 1, "maximum": STORED_PAGE_ITEMS_MAX })
        }
        "watch" | "follow" | "optimal" => json!({ "type": "boolean" }),
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": PAGE_ITEMS_MAX }),
        "revision" | "tail" | "moves_max" => json!({ "type": "integer", "format": "uint64" }),
        _ => json!({ "type": "string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                out.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|v| references(v, out));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_a_definition() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }

    #[test]
    fn what_is_made_is_read_by_operations_that_take_these_parameters() {
        let all = endpoints::all();
        let makers: Vec<_> = all.iter().filter(|endpoint| !endpoint.followers.is_empty()).collect();
        assert!(makers.len() >= 17, "{}", makers.len());
        for (follower, parameters) in makers.iter().flat_map(|endpoint| &endpoint.followers) {
            let found = all.iter().find(|endpoint| endpoint.operation == *follower).expect(follower);
            let names: Vec<_> = parameters.iter().map(|(name, _)| format!("{{{name}}}")).collect();
            assert!(names.iter().all(|name| found.path.contains(name)), "{follower} {names:?}");
            assert_eq!(found.path.matches('{').count(), names.len(), "{follower}");
        }
    }

    #[test]
    fn operations_have_unique_names() {
        let mut names: Vec<_> = endpoints::all().into_iter().map(|e| e.operation).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_document_is_deterministic() {
        assert_eq!(document().to_string(), document().to_string());
    }
}
