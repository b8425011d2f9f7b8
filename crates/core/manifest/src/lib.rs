//! Manifests: files become objects of whatever kind; all that is wrong is said at once, with
//! file, line, column and a suggestion. Knows no server and reads no file: it gets the text.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod advice;
mod toml_file;
mod tree;
mod written;
mod yaml;

use heptad_api::{Kind, Manifest, fields_of, with_desired, with_kind};
use heptad_model::{Problem, Validate};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt, path::Path};
use tree::Tree;

pub use tree::Place;
pub use written::document;

/// The largest manifest file.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// The most wrong fields of one object that are reported at once.
const COMPLAINTS_MAX: usize = 20;

/// A mistake at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The file.
    pub file: String,
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.place.line, self.place.column, self.message)
    }
}

/// The objects of a file and the warnings about it.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The objects, in the order of the file.
    pub objects: Vec<Manifest>,
    /// Unknown fields that were ignored on request.
    pub warnings: Vec<Complaint>,
}

/// All mistakes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints(pub Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Complaints {}

/// The objects in `text`. `file` is its name: the ending `.toml` selects TOML; everything else is YAML, which includes
/// JSON. With `lenient`, unknown fields are ignored with a warning.
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
            let key = (object.kind(), object.namespace().cloned(), object.name().to_owned());
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
        let Some(kind) =
            Kind::ALL.into_iter().rev().find(|kind| kind.head().is_some_and(|word| tree.get(word).is_some()))
        else {
            self.unknown_document(&tree);
            return None;
        };
        let told = self.complaints.len();
        let meant = tree.clone();
        let object = with_desired!(kind, T => self.object::<T>(tree).map(Manifest::from)).flatten();
        if let (None, Some((place, word))) = (&object, misspelt(&meant, kind)) {
            self.complaints.truncate(told);
            self.complain(place, format!("unknown key; did you mean `{word}`?"));
        }
        object
    }

    fn unknown_document(&mut self, tree: &Tree) {
        let words: Vec<&str> = Kind::ALL.into_iter().filter_map(Kind::head).collect();
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
        let near = tree.entries().iter().find_map(|e| Some((e.place, advice::nearest(&e.key, &words)?)));
        match near {
            Some((place, word)) => self.complain(place, format!("unknown key; did you mean `{word}`?")),
            None => {
                let heads: Vec<String> = words.iter().map(|word| format!("`{word}: NAME`")).collect();
                self.complain(tree.place, format!("this is no known object; begin with one of {}", heads.join(", ")));
            }
        }
    }

    /// Reads one object. A wrong part is removed, so that mistakes beside it are reported too.
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
            let missed = advice::missing_field(&text).map(|field| format!("{path}.{field}"));
            if missed.is_some_and(|missed| wrong.iter().any(|path| is_same(path, &missed))) {
                return None;
            }
            let place = tree.place_of(&path);
            if self.lenient && text.starts_with("unknown field") && rest.remove(&path) {
                let message = format!("unknown field `{path}` is ignored");
                self.parsed.warnings.push(Complaint { file: self.file.to_owned(), place, message });
                continue;
            }
            // What holds something that was taken out may be wrong by that alone.
            if !wrong.iter().any(|inner| advice::is_inside(inner, &path)) {
                self.complain(place, advice::explain(&path, &text));
            }
            if wrong.len() == COMPLAINTS_MAX || !rest.remove_around(&path) {
                return None;
            }
            wrong.push(path);
        };
        let problems = object.validate();
        // What was taken out may be what the others lack.
        let untaken = |problem: &&Problem| !wrong.iter().any(|path| problem.follows_from(path));
        for problem in problems.iter().filter(untaken) {
            self.complain(tree.place_of(&problem.path), problem.to_string());
        }
        (problems.is_empty() && wrong.is_empty()).then_some(object)
    }
}

/// Whether both lead to one field; the name of an object also stands behind the word of its kind.
fn is_same(path: &str, missed: &str) -> bool {
    let is_head = |path: &str| Kind::ALL.into_iter().any(|kind| kind.head() == Some(path.trim_start_matches('.')));
    advice::is_same_field(path, missed) || (advice::is_same_field(missed, "name") && is_head(path))
}

/// The word that an unknown key was meant to be, in a document that was taken for one of `kind` since the kind that was meant
/// has a field of that name: `trafic: x` above `service: y`.
fn misspelt(tree: &Tree, kind: Kind) -> Option<(Place, &'static str)> {
    let fields = |kind: Kind| with_kind!(kind, T => fields_of::<T>());
    let (head, own) = (kind.head()?, fields(kind));
    let has_it_as_field = |other: &Kind| *other != kind && fields(*other).iter().any(|field| field == head);
    let meant: Vec<&str> = Kind::ALL.into_iter().filter(has_it_as_field).filter_map(Kind::head).collect();
    let unknown = tree.entries().iter().filter(|entry| entry.key != head && !own.contains(&entry.key));
    unknown.into_iter().find_map(|entry| Some((entry.place, advice::nearest(&entry.key, &meant)?)))
}

#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod tests;
