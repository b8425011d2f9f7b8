//! Manifests: files of services, policies and traffic rules become objects; all that is wrong is said at once, with
//! file, line, column and a suggestion. Knows no server.

mod toml_file;
mod tree;
mod yaml;

use heptad_api::Manifest;
use heptad_model::{Config, NetworkPolicy, Quota, Secret, Service, TrafficRule, Validate};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt, path::Path};
use tree::{Place, Tree};

/// Largest manifest file.
pub const FILE_BYTES_MAX: usize = 4 << 20;

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
        let near = tree.entries().iter().find_map(|e| Some((e.place, nearest(&e.key, &words)?)));
        match near {
            Some((place, word)) => self.complain(place, format!("unknown key; did you mean `{word}`?")),
            None => self.complain(
                tree.place,
                "this is no known object; begin with `service: NAME`, `policy: NAME`, `traffic: NAME`, `config: NAME`, \
                 `secret: NAME` or `quota: NAME`",
            ),
        }
    }

    fn object<T: DeserializeOwned + Validate>(&mut self, mut tree: Tree) -> Option<T> {
        loop {
            let error = match serde_path_to_error::deserialize::<_, T>(tree.to_value()) {
                Ok(object) => {
                    let problems = object.validate();
                    for problem in &problems {
                        self.complain(tree.place_of(&problem.path), problem.to_string());
                    }
                    return problems.is_empty().then_some(object);
                }
                Err(error) => error,
            };
            let path = error.path().to_string();
            let place = tree.place_of(&path);
            let text = error.inner().to_string();
            let is_unknown = text.starts_with("unknown field");
            if is_unknown && self.lenient && tree.remove(&path) {
                let message = format!("unknown field `{path}` is ignored");
                self.parsed.warnings.push(Complaint { file: self.file.to_owned(), place, message });
                continue;
            }
            self.complain(place, explain(&path, &text));
            return None;
        }
    }
}

/// The error of the deserializer in words for people, with a suggestion.
fn explain(path: &str, text: &str) -> String {
    if text.starts_with("unknown field") {
        let mut names = text.split('`').skip(1).step_by(2);
        let (field, known) = (names.next().unwrap_or_default(), names.collect::<Vec<_>>());
        return match nearest(field, &known) {
            Some(near) => format!("unknown field `{field}`; did you mean `{near}`?"),
            None => format!("unknown field `{field}`; possible here: {}", known.join(", ")),
        };
    }
    if text.starts_with("data did not match any variant of untagged enum PortForm") {
        return format!(
            "{path}: write a port as a number, or with container_port, host_port and protocol (TCP or UDP)"
        );
    }
    let hint =
        if path.starts_with("environment") && text.contains("expected a string") { "; write it in quotes" } else { "" };
    if path.is_empty() || path == "." { format!("{text}{hint}") } else { format!("{path}: {text}{hint}") }
}

/// The known word that `word` was probably meant to be.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate));
    let begins = |candidate: &str| candidate.len() > 2 && (candidate.starts_with(word) || word.starts_with(candidate));
    scored.min().filter(|(distance, candidate)| *distance <= 2.max(word.len() / 3) || begins(candidate)).map(|(_, c)| c)
}

#[cfg(test)]
mod tests;
