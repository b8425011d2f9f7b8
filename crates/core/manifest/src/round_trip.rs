//! Every kind of object, with each of its fields absent, null, empty, full and at its bounds, comes back unchanged:
//! from a file, from its own serialization, and from a server with its store. The API's document says which fields
//! there are; the examples must have them all.

mod examples;

use crate::{document, parse};
use examples::Examples;
use heptad_api::{Kind, Manifest, Writers, openapi, with_kind, with_manifest};
use heptad_control::{Control, ControlHandle, Options, ServerParts};
use heptad_model::{Validate, settings::REDACTED};
use heptad_pki::Keyring;
use heptad_state::MemoryStore;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
};

/// A test cannot plan more containers than this.
const REPLICAS_MAX: u64 = 3;

/// The fields of a node that the server sets, whatever is written.
const OF_SERVER: [&str; 12] = [
    "id",
    "allocated",
    "allocated_devices",
    "containers",
    "draining",
    "removing",
    "fenced",
    "key_sha256",
    "admitted",
    "offered",
    "set_by_person",
    "status",
];

/// Where a field is in an example, and its schema.
type Fields = BTreeMap<String, (String, Value)>;

/// The schemas of the API's document.
struct Schemas(Value);

impl Schemas {
    fn new() -> Self {
        Self(openapi::document()["components"]["schemas"].take())
    }

    /// The fields of a schema by their paths; if there is a `value`, only those that it has.
    fn walk(&self, schema: &Value, value: Option<&Value>, path: &str, at: &str, out: &mut Fields) {
        if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            return self.walk(&self.0[name], value, path, at, out);
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let inside = value.map(|value| &value[name]);
            if inside.is_some_and(Value::is_null) {
                continue;
            }
            let (path, at) = (format!("{path}.{name}"), format!("{at}/{name}"));
            out.entry(path.clone()).or_insert((at.clone(), inner.clone()));
            self.walk(inner, inside, &path, &at, out);
        }
        let items = &schema["items"];
        match value {
            _ if items.is_null() => {}
            None => self.walk(items, None, &format!("{path}[]"), at, out),
            Some(value) if value[0].is_null() => {}
            Some(value) => self.walk(items, Some(&value[0]), &format!("{path}[]"), &format!("{at}/0"), out),
        }
        let values = &schema["additionalProperties"];
        match value {
            _ if !values.is_object() => {}
            None => self.walk(values, None, &format!("{path}.*"), at, out),
            Some(value) => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    self.walk(values, Some(inner), &format!("{path}.*"), &at, out);
                }
            }
        }
        for part in ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| schema[*word].as_array()).flatten() {
            self.walk(part, value, path, at, out);
        }
    }

    fn fields(&self, name: &str, value: Option<&Value>) -> Fields {
        let mut out = Fields::new();
        self.walk(&self.0[name], value, "", "", &mut out);
        out
    }
}

/// The example, and variants with each field in turn absent, null, empty, and at its bounds.
fn cases(example: &Value, fields: &Fields) -> Vec<Value> {
    let mut out = vec![example.clone()];
    for (at, schema) in fields.values() {
        let (parent, name) = at.rsplit_once('/').expect("a field has a name");
        let mut absent = example.clone();
        if let Some(map) = absent.pointer_mut(parent).and_then(Value::as_object_mut) {
            map.remove(name);
        }
        out.push(absent);
        let empty = match example.pointer(at).expect("it is there") {
            Value::String(_) => json!(""),
            Value::Array(_) => json!([]),
            Value::Object(_) => json!({}),
            Value::Number(_) => json!(0),
            Value::Bool(_) | Value::Null => json!(false),
        };
        for value in [&Value::Null, &empty, &schema["minimum"], &schema["maximum"]] {
            let mut case = example.clone();
            *case.pointer_mut(at).expect("it is there") = value.clone();
            out.push(case);
        }
    }
    out
}

/// The object that a file's document describes.
fn through_file(text: &str) -> Value {
    let parsed = parse("a.yaml", text, false).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let [object] = &parsed.objects[..] else { panic!("{text}") };
    serde_json::to_value(object).expect("plain data")["object"].take()
}

/// Status and answer of a request with exactly this body, whatever a client would have made of it.
fn request(socket: &Path, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("the server listens");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: l\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    // At once: if the head is refused, the body is not read.
    stream.write_all((head + body).as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty();
    assert!(read.as_ref().is_ok() || read.as_ref().is_err_and(is_reset), "{read:?}");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

/// A server with a store, and the directory of its socket.
async fn server() -> (tempfile::TempDir, ControlHandle) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { socket: Some(dir.path().join("api.sock")), ..Options::default() };
    let keyring = Some(Arc::new(Keyring::generate().expect("a keyring")));
    let parts = ServerParts { keyring, ..ServerParts::default() };
    let control = Control::start(options, Arc::new(MemoryStore::new()), parts).await.expect("it starts");
    (dir, control)
}

/// What must be the same before and after the server, which adds its own fields.
fn kept(kind: Kind, object: &Value) -> Value {
    let mut object = object.clone();
    if kind == Kind::Secrets {
        object["data"].as_object_mut().into_iter().flatten().for_each(|(_, value)| *value = json!(REDACTED));
    }
    let written = document(kind, object.clone());
    written.unwrap_or_else(|| {
        let fields = object.as_object_mut().expect("an object");
        fields.retain(|name, _| !OF_SERVER.contains(&name.as_str()));
        object
    })
}

async fn round_trips<T: Examples + PartialEq>() {
    let (kind, schemas) = (T::KIND, Schemas::new());
    let name = std::any::type_name::<T>().rsplit("::").next().expect("a type has a name");
    let mut missing: Vec<String> = schemas.fields(name, None).into_keys().collect();
    let (dir, control) = server().await;
    let mut served = 0;
    for example in &T::examples() {
        let fields = schemas.fields(name, Some(example));
        missing.retain(|path| !fields.contains_key(path));
        let all = cases(example, &fields);
        let readable = all.iter().filter_map(|case| Some((case, T::deserialize(case).ok()?)));
        for (i, (case, object)) in readable.enumerate() {
            let value = serde_json::to_value(&object).expect("plain data");
            assert_eq!(T::deserialize(&value).ok().as_ref(), Some(&object), "{case}");
            let manifest = Manifest::deserialize(json!({ "kind": kind.singular(), "object": value }));
            let problems = manifest.as_ref().ok().map(|it| with_manifest!(it, object => object.validate()));
            let problems = problems.unwrap_or_default();
            assert!(i > 0 || problems.is_empty(), "the full example of {name}: {problems:?}");
            if !problems.is_empty() || value["replicas"].as_u64() > Some(REPLICAS_MAX) {
                continue;
            }
            if let Some(written) = document(kind, value.clone()) {
                let text = serde_saphyr::to_string(&written).expect("YAML");
                assert_eq!(document(kind, through_file(&text)), Some(written), "{case}\n{text}");
            }
            if kind.writers() == Writers::Servers {
                continue;
            }
            let namespace = object.namespace().cloned().unwrap_or_default();
            let path = kind.object_path(&namespace, object.name());
            let socket = dir.path().join("api.sock");
            let (status, answer) = request(&socket, "PUT", &path, &case.to_string());
            // What depends on other objects, is checked by the server alone, or has no path.
            if i > 0 && status != 200 {
                assert!([403, 404, 422].contains(&status), "{case}: {answer}");
                continue;
            }
            assert_eq!(status, 200, "{case}: {answer}");
            assert_eq!(kept(kind, &answer["object"]), kept(kind, &value), "{case}");
            let (_, read) = request(&socket, "GET", &path, "");
            assert_eq!(read["object"], answer["object"], "{case}");
            // The next one starts with an empty store.
            assert_eq!(request(&socket, "DELETE", &path, "").0, 200, "{case}");
            served += 1;
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "no example of {name} has these fields: add them, each with a value");
    assert!(served > 5 || kind.writers() == Writers::Servers, "{served} of {name}");
    control.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_comes_back_as_it_was() {
    for kind in Kind::ALL {
        with_kind!(kind, T => round_trips::<T>().await);
    }
}
