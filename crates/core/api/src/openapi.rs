//! The OpenAPI 3.1 document, made from the endpoint table and the types' schemas.

use crate::{PAGE_ITEMS_MAX, ProblemDetails, endpoints, endpoints::Endpoint};
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
    json!({
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
    })
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
    let status = if endpoint.empty { "204" } else { "200" };
    operation["responses"][status] = match endpoint.response {
        Some(response) => {
            let schema = response(generator);
            json!({ "description": "Done", "content": { "application/json": { "schema": schema } } })
        }
        None => json!({ "description": "Done" }),
    };
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let parameter = |name: &str, place: &str, meaning: &str| {
        let in_path = place == "path";
        // Who deletes a container says for which node.
        let required = in_path || (name, endpoint.method) == ("node", "DELETE");
        let schema = if in_path { json!({ "type": "string", "minLength": 1 }) } else { value_of(name) };
        json!({ "name": name, "in": place, "required": required, "description": meaning, "schema": schema })
    };
    let in_path = endpoint.path.split('{').skip(1).filter_map(|part| part.split_once('}'));
    let in_path = in_path.map(|(name, _)| parameter(name, "path", name));
    let in_query = endpoint.query.iter().map(|(name, meaning)| parameter(name, "query", meaning));
    in_path.chain(in_query).collect()
}

/// What a parameter of a query may be; the same name means the same everywhere.
fn value_of(name: &str) -> Value {
    match name {
        "watch" | "follow" | "optimal" => json!({ "type": "boolean" }),
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": PAGE_ITEMS_MAX }),
        "revision" | "tail" | "moves_max" => json!({ "type": "integer", "minimum": 0 }),
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
