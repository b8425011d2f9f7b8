//! Manifests: files of services, policies and traffic rules become objects; all that is wrong is said at once, with
//! file, line, column and a suggestion. Knows no server.

mod toml_file;
mod tree;
mod words;
mod written;
mod yaml;

use heptad_api::Manifest;
use heptad_model::{Config, NetworkPolicy, Quota, Secret, Service, TrafficRule, Validate};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt, path::Path};
use tree::{Place, Tree};

pub use written::document;

/// Largest manifest file.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Most wrong fields of one object that are told at once.
const COMPLAINTS_MAX: usize = 20;

/// What is wrong at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file.
    pub file: String,
    /// Where.
    pub place: Place,
    /// What, and what would be right.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.place.line, self.place.column, self.message)
    }
}

/// The objects of a file and what was let pass.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects, in the order of the file.
    pub objects: Vec<Manifest>,
    /// Unknown fields that were ignored on request.
    pub warnings: Vec<Complaint>,
}

/// Everything that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints(pub Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Complaints {}

/// The objects in `text`. `file` is its name, whose ending `.toml` chooses TOML; everything else is YAML, of which
/// JSON is a part. With `lenient`, unknown fields are ignored with a warning.
pub fn parse(file: &str, text: &str, lenient: bool) -> Result<Parsed, Complaints> {
    let complaint = |place, message| Complaint { file: file.to_owned(), place, message };
    let is_toml = Path::new(file).extension().is_some_and(|ending| ending == "toml");
    let documents = if is_toml { toml_file::documents(text) } else { yaml::documents(text) };
    let documents = documents.map_err(|(place, message)| Complaints(vec![complaint(place, message)]))?;
    let mut reader = Reader { file, lenient, parsed: Parsed::default(), complaints: Vec::new() };
    let mut seen = BTreeMap::new();
    for document in documents.into_iter().filter(|document| !document.to_value().is_null()) {
        let place = document.place;
        if let Some(object) = reader.document(document) {
            let key = (object.kind(), object.namespace().clone(), object.name().to_owned());
            if let Some(first) = seen.insert(key, place.line) {
                let message =
                    format!("{} `{}` stands in line {first} already", object.kind().singular(), object.name());
                reader.complaints.push(complaint(place, message));
            }
            reader.parsed.objects.push(object);
        }
    }
    if reader.parsed.objects.is_empty() && reader.complaints.is_empty() {
        let message = "the file describes nothing; begin with `service: NAME`".to_owned();
        reader.complaints.push(complaint(Place { line: 1, column: 1 }, message));
    }
    if reader.complaints.is_empty() { Ok(reader.parsed) } else { Err(Complaints(reader.complaints)) }
}

struct Reader<'a> {
    file: &'a str,
    lenient: bool,
    parsed: Parsed,
    complaints: Vec<Complaint>,
}

impl Reader<'_> {
    fn complain(&mut self, place: Place, message: impl Into<String>) {
        self.complaints.push(Complaint { file: self.file.to_owned(), place, message: message.into() });
    }

    fn document(&mut self, tree: Tree) -> Option<Manifest> {
        if let Some(twice) = tree.duplicate() {
            let (place, message) = (twice.place, format!("`{}` stands twice in the same map", twice.key));
            self.complain(place, message);
            return None;
        }
        // A rule also has a field `service`, so the more telling keys come first.
        if tree.get("policy").is_some() {
            self.object::<NetworkPolicy>(tree).map(Manifest::Policy)
        } else if tree.get("traffic").is_some() {
            self.object::<TrafficRule>(tree).map(Manifest::Rule)
        } else if tree.get("quota").is_some() {
            self.object::<Quota>(tree).map(Manifest::Quota)
        } else if tree.get("service").is_some() {
            self.object::<Service>(tree).map(Manifest::Service)
        } else if tree.get("config").is_some() {
            self.object::<Config>(tree).map(Manifest::Config)
        } else if tree.get("secret").is_some() {
            self.object::<Secret>(tree).map(Manifest::Secret)
        } else {
            self.unknown_document(&tree);
            None
        }
    }

    fn unknown_document(&mut self, tree: &Tree) {
        let words = ["service", "policy", "traffic", "config", "secret", "quota"];
        if let Some(kind) = tree.get("apiVersion").and(tree.get("kind")) {
            let kind_name = kind.value.to_value();
            let message = format!(
                "Kubernetes manifests (here of kind {kind_name}) cannot be read yet; write `service: NAME` with `image`, \
                 `replicas` and `ports`"
            );
            return self.complain(kind.place, message);
        }
        if let Some(services) = tree.get("services").filter(|entry| !entry.value.entries().is_empty()) {
            let message = "Compose files cannot be read yet; write each service as a document of its own: \
                           `service: NAME` with `image`, `replicas` and `ports`";
            return self.complain(services.place, message);
        }
        let near = tree.entries().iter().find_map(|e| Some((e.place, words::nearest(&e.key, &words)?)));
        match near {
            Some((place, word)) => self.complain(place, format!("unknown key; did you mean `{word}`?")),
            None => self.complain(
                tree.place,
                "this is no known object; begin with `service: NAME`, `policy: NAME`, `traffic: NAME`, `config: NAME`, \
                 `secret: NAME` or `quota: NAME`",
            ),
        }
    }

    /// Reads one object. What is wrong is taken out, so that what is wrong beside it is told too.
    fn object<T: DeserializeOwned + Validate>(&mut self, tree: Tree) -> Option<T> {
        let mut rest = tree.clone();
        let mut wrong: Vec<String> = Vec::new();
        let object = loop {
            let error = match serde_path_to_error::deserialize::<_, T>(rest.to_value()) {
                Ok(object) => break object,
                Err(error) => error,
            };
            let path = error.path().to_string();
            let text = error.inner().to_string();
            // What was taken out is missed only by us.
            let missed = words::missing_field(&text).map(|field| format!("{path}.{field}"));
            if missed.is_some_and(|missed| wrong.iter().any(|path| words::is_same_field(path, &missed))) {
                return None;
            }
            let place = tree.place_of(&path);
            if self.lenient && text.starts_with("unknown field") && rest.remove(&path) {
                let message = format!("unknown field `{path}` is ignored");
                self.parsed.warnings.push(Complaint { file: self.file.to_owned(), place, message });
                continue;
            }
            // What holds something that was taken out may be wrong by that alone.
            if !wrong.iter().any(|inner| words::is_inside(inner, &path)) {
                self.complain(place, words::explain(&path, &text));
            }
            if wrong.len() == COMPLAINTS_MAX || !rest.remove_around(&path) {
                return None;
            }
            wrong.push(path);
        };
        let problems = object.validate();
        for problem in &problems {
            self.complain(tree.place_of(&problem.path), problem.to_string());
        }
        (problems.is_empty() && wrong.is_empty()).then_some(object)
    }
}

#[cfg(test)]
mod tests;
