//! What a request asks, read from its method and path alone, in the words of the policies. A path of the API is
//! `/v1/KIND/NAME/SUB` or `/v1/namespaces/NAMESPACE/KIND/NAME/SUB`.

use http::Method;
use std::fmt;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Read,
    Create,
    Update,
    Patch,
    Delete,
    Do,
}

impl Verb {
    pub(crate) const ALL: [Self; 6] = [Self::Read, Self::Create, Self::Update, Self::Patch, Self::Delete, Self::Do];

    /// The action's word in the policies.
    pub(crate) fn word(self) -> &'static str {
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
pub(crate) struct Asked {
    pub(crate) verb: Verb,
    pub(crate) kind: String,
    /// Of the path, or of the service whose container it is.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) sub: String,
    /// The node that the container is bound to.
    pub(crate) node: String,
}

/// The bytes of a segment, as the routes read them.
fn decoded(segment: &str) -> String {
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let pair = segment.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Asked {
    /// What `method` on `path` asks. Paths that the API does not have ask for kinds that no policy names.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        let path = path.strip_prefix("/v1/").unwrap_or_default();
        let mut parts = path.split('/').map(decoded);
        let first = parts.next().unwrap_or_default();
        let (namespace, kind) = match first.as_str() {
            "namespaces" => (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()),
            _ => (String::new(), first),
        };
        let name = parts.next().unwrap_or_default();
        let sub = parts.collect::<Vec<_>>().join("/");
        let verb = match *method {
            Method::GET | Method::HEAD => Verb::Read,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE => Verb::Delete,
            Method::POST if name.is_empty() => Verb::Create,
            _ => Verb::Do,
        };
        Self { verb, kind, namespace, name, sub, node: String::new() }
    }

    /// The replacement of an object that is not named by the path.
    pub(crate) fn update(kind: &str, namespace: &str, name: &str) -> Self {
        Self::of_object(Verb::Update, kind, namespace, name)
    }

    /// The look at an object that is not named by the path.
    pub(crate) fn read(kind: &str, namespace: &str, name: &str) -> Self {
        Self::of_object(Verb::Read, kind, namespace, name)
    }

    fn of_object(verb: Verb, kind: &str, namespace: &str, name: &str) -> Self {
        let [kind, namespace, name] = [kind, namespace, name].map(str::to_owned);
        Self { verb, kind, namespace, name, sub: String::new(), node: String::new() }
    }

    /// Whether something could be changed. Who only reports to live, or asks what would be, changes nothing.
    pub(crate) fn is_mutating(&self) -> bool {
        self.verb != Verb::Read
            && self.sub != "heartbeat"
            && !matches!((self.kind.as_str(), self.name.as_str()), ("plan", _) | ("mesh", "check"))
    }

    /// The object in one word.
    pub(crate) fn path(&self) -> String {
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

    fn asked(method: Method, path: &str) -> (Verb, String, bool) {
        let asked = Asked::of(&method, path);
        (asked.verb, asked.path(), asked.is_mutating())
    }

    #[test]
    fn paths_become_words() {
        for (method, path, verb, words, mutating) in [
            (Method::GET, "/v1/nodes", Verb::Read, "nodes", false),
            (Method::PUT, "/v1/nodes/n1", Verb::Update, "nodes/n1", true),
            (Method::POST, "/v1/nodes/n1/heartbeat", Verb::Do, "nodes/n1/heartbeat", false),
            (Method::POST, "/v1/nodes/n1/drain", Verb::Do, "nodes/n1/drain", true),
            (Method::POST, "/v1/namespaces/shop/services", Verb::Create, "services/shop", true),
            (Method::PATCH, "/v1/namespaces/shop/services/web", Verb::Patch, "services/shop/web", true),
            (Method::GET, "/v1/namespaces/shop/services/web/why", Verb::Read, "services/shop/web/why", false),
            (Method::DELETE, "/v1/containers/w-1", Verb::Delete, "containers/w-1", true),
            (Method::POST, "/v1/apply", Verb::Create, "apply", true),
            (Method::POST, "/v1/plan", Verb::Create, "plan", false),
            (Method::POST, "/v1/mesh/check", Verb::Do, "mesh/check", false),
            (Method::GET, "/v1/storage/b/k/l", Verb::Read, "storage/b/k/l", false),
            (Method::GET, "/v1/nodes/%6e1", Verb::Read, "nodes/n1", false),
            (Method::GET, "/v1/nodes/%zz%", Verb::Read, "nodes/%zz%", false),
            (Method::OPTIONS, "/v1/nodes", Verb::Do, "nodes", true),
            (Method::GET, "/other", Verb::Read, "", false),
            (Method::GET, "/v1//nodes", Verb::Read, "nodes", false),
        ] {
            assert_eq!(asked(method, path), (verb, words.to_owned(), mutating), "{path}");
        }
        assert_eq!(Asked::of(&Method::GET, "/v1//nodes").kind, "", "no policy names it");
    }

    #[test]
    fn refusals_read_as_sentences() {
        let said = |method, path| Asked::of(&method, path).to_string();
        assert_eq!(said(Method::POST, "/v1/containers/w-1/exec"), "exec containers/w-1");
        assert_eq!(said(Method::PUT, "/v1/containers/w-1/status"), "update status of containers/w-1");
        assert_eq!(said(Method::POST, "/v1/namespaces/shop/services"), "create services in namespace shop");
        assert_eq!(said(Method::POST, "/v1/mesh/call"), "use mesh/call");
    }
}
