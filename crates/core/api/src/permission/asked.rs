//! What a request asks, read from its method and path alone, in the words of the rules. A path of the API is
//! `/v1/KIND/NAME/SUB` or `/v1/namespaces/NAMESPACE/KIND/NAME/SUB`; `namespaces` without a kind behind it is a kind itself.

use crate::{Kind, Manifest};
use percent_encoding::percent_decode_str;
use std::fmt;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// GET and HEAD.
    Read,
    /// POST to a collection or an operation.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// POST below an object, and every other method.
    Do,
}

impl Verb {
    /// Its word in the audit log and in refusals.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Do => "do",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is done.
    pub verb: Verb,
    /// The kind of the path.
    pub kind: String,
    /// Of the path, or of the service whose container it is.
    pub namespace: String,
    /// The object.
    pub name: String,
    /// What lies below the object.
    pub sub: String,
    /// The node that the container is bound to.
    pub node: String,
}

/// The bytes of a segment, as the routes read them.
fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

impl Asked {
    /// What `method` on `path` asks. Paths that the API does not have ask for kinds that no rule names.
    pub fn of(method: &str, path: &str) -> Self {
        let path = path.strip_prefix("/v1/").unwrap_or_default();
        let mut parts = path.split('/').map(decoded);
        let first = parts.next().unwrap_or_default();
        let second = parts.next().unwrap_or_default();
        // A namespace itself, or what is in it.
        let (namespace, kind, name, sub) = match parts.next() {
            Some(kind) if first == "namespaces" => (second, kind, parts.next().unwrap_or_default(), None),
            sub => (String::new(), first, second, sub),
        };
        let sub = sub.into_iter().chain(parts).collect::<Vec<_>>().join("/");
        let verb = match method {
            "GET" | "HEAD" => Verb::Read,
            "PUT" => Verb::Update,
            "PATCH" => Verb::Patch,
            "DELETE" => Verb::Delete,
            "POST" if name.is_empty() => Verb::Create,
            _ => Verb::Do,
        };
        Self { verb, kind, namespace, name, sub, node: String::new() }
    }

    /// The look at an object, or its replacement, that is not named by the path.
    pub fn object(verb: Verb, manifest: &Manifest) -> Self {
        let namespace = manifest.namespace().map(ToString::to_string).unwrap_or_default();
        Self { namespace, ..Self::named(verb, manifest.kind(), manifest.name()) }
    }

    /// The same of an object outside all namespaces.
    pub fn named(verb: Verb, kind: Kind, name: &str) -> Self {
        let (kind, name) = (kind.plural().to_owned(), name.to_owned());
        Self { verb, kind, namespace: String::new(), name, sub: String::new(), node: String::new() }
    }

    /// Whether it is a creation in the whole collection or operation `kind`.
    pub(super) fn creates(&self, kind: &str) -> bool {
        self.verb == Verb::Create && self.kind == kind && self.name.is_empty()
    }

    /// Whether something could be changed. Who only reports to live, or asks what would be, changes nothing.
    pub fn is_mutating(&self) -> bool {
        self.verb != Verb::Read
            && self.sub != "heartbeat"
            && !matches!((self.kind.as_str(), self.name.as_str()), ("plan", _) | ("mesh", "check"))
    }

    /// The object in one word.
    pub fn path(&self) -> String {
        let parts = [&self.kind, &self.namespace, &self.name, &self.sub];
        parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/")
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, kind) = (self.verb.word(), &self.kind);
        let name = if self.name.is_empty() { String::new() } else { format!("/{}", self.name) };
        let of = if self.namespace.is_empty() { String::new() } else { format!(" in namespace {}", self.namespace) };
        match (self.verb, self.sub.is_empty()) {
            (Verb::Do, false) => write!(f, "{} {kind}{name}{of}", self.sub),
            (_, false) => write!(f, "{verb} {} of {kind}{name}{of}", self.sub),
            (Verb::Do, true) => write!(f, "use {kind}{name}{of}"),
            (_, true) => write!(f, "{verb} {kind}{name}{of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, path: &str) -> (Verb, String, bool) {
        let asked = Asked::of(method, path);
        (asked.verb, asked.path(), asked.is_mutating())
    }

    #[test]
    fn paths_become_words() {
        for (method, path, verb, words, mutating) in [
            ("GET", "/v1/nodes", Verb::Read, "nodes", false),
            ("PUT", "/v1/nodes/n1", Verb::Update, "nodes/n1", true),
            ("POST", "/v1/nodes/n1/heartbeat", Verb::Do, "nodes/n1/heartbeat", false),
            ("POST", "/v1/nodes/n1/drain", Verb::Do, "nodes/n1/drain", true),
            ("POST", "/v1/namespaces/shop/services", Verb::Create, "services/shop", true),
            ("PATCH", "/v1/namespaces/shop/services/web", Verb::Patch, "services/shop/web", true),
            ("GET", "/v1/namespaces/shop/services/web/why", Verb::Read, "services/shop/web/why", false),
            ("DELETE", "/v1/containers/w-1", Verb::Delete, "containers/w-1", true),
            ("GET", "/v1/namespaces", Verb::Read, "namespaces", false),
            ("DELETE", "/v1/namespaces/shop", Verb::Delete, "namespaces/shop", true),
            ("DELETE", "/v1/namespaces/shop/", Verb::Delete, "shop", true),
            ("POST", "/v1/apply", Verb::Create, "apply", true),
            ("POST", "/v1/plan", Verb::Create, "plan", false),
            ("POST", "/v1/mesh/check", Verb::Do, "mesh/check", false),
            ("GET", "/v1/storage/b/k/l", Verb::Read, "storage/b/k/l", false),
            ("GET", "/v1/nodes/%6e1", Verb::Read, "nodes/n1", false),
            ("GET", "/v1/nodes/%zz%", Verb::Read, "nodes/%zz%", false),
            ("OPTIONS", "/v1/nodes", Verb::Do, "nodes", true),
            ("GET", "/other", Verb::Read, "", false),
            ("GET", "/v1//nodes", Verb::Read, "nodes", false),
        ] {
            assert_eq!(asked(method, path), (verb, words.to_owned(), mutating), "{path}");
        }
        assert_eq!(Asked::of("GET", "/v1//nodes").kind, "", "no rule names it");
    }

    #[test]
    fn refusals_read_as_sentences() {
        let said = |method, path| Asked::of(method, path).to_string();
        assert_eq!(said("POST", "/v1/containers/w-1/exec"), "exec containers/w-1");
        assert_eq!(said("PUT", "/v1/containers/w-1/status"), "update status of containers/w-1");
        assert_eq!(said("POST", "/v1/namespaces/shop/services"), "create services in namespace shop");
        assert_eq!(said("POST", "/v1/mesh/call"), "use mesh/call");
    }
}
