//! Who may ask what of the API: one function over who asks and what is asked. What no rule permits is denied.

mod asked;

pub use asked::{Asked, Verb};

use crate::{Kind, Readers, Writers, trust::Role};

/// Who asks, as far as it decides what is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// The user who owns the server's socket or reads its token file, and so could write the state itself.
    Operator,
    /// A server, which holds the keyring and the state.
    Server,
    /// The node of this name.
    Node(&'a str),
    /// A person with this role.
    Person(&'a Role),
    /// Nobody knows.
    Anonymous,
}

/// Whether a rule permits it.
pub fn permits(who: Who<'_>, asked: &Asked) -> bool {
    is_health(asked)
        || match who {
            Who::Operator | Who::Server | Who::Person(Role::Admin) => true,
            Who::Person(Role::Viewer) => person_may(asked),
            Who::Person(Role::Deployer { namespace }) => person_may(asked) || deployer_may(namespace, asked),
            Who::Node(name) => node_may(name, asked),
            Who::Anonymous => asked.creates("join"),
        }
}

/// Whether a server lives, anybody may see.
fn is_health(asked: &Asked) -> bool {
    asked.verb == Verb::Read
        && asked.kind == "health"
        && matches!(asked.name.as_str(), "" | "live")
        && asked.sub.is_empty()
}

/// What every person may read, and ask without changing anything.
fn person_may(asked: &Asked) -> bool {
    match (asked.verb, asked.kind.as_str()) {
        (Verb::Read, "storage") => asked.name.is_empty(),
        (
            Verb::Read,
            "mesh" | "snapshot" | "verify" | "optimization" | "version" | "cluster" | "trust-bundle" | "authorities"
            | "whoami" | "liveness" | "servers",
        ) => is_overview(asked),
        (Verb::Read, kind) => {
            is_overview(asked) && Kind::of_plural(kind).is_some_and(|kind| kind.readers() == Readers::All)
        }
        (Verb::Create, "plan") => asked.name.is_empty(),
        (Verb::Do, "mesh") => asked.name == "check",
        _ => false,
    }
}

/// Whether it is an object, or what is told about it.
fn is_overview(asked: &Asked) -> bool {
    matches!(asked.sub.as_str(), "" | "why" | "logs" | "rollout" | "revisions" | "drain")
}

/// What a deployer may besides in its namespace.
fn deployer_may(namespace: &str, asked: &Asked) -> bool {
    // Each object of an apply is asked for by itself.
    if asked.creates("apply") {
        return true;
    }
    asked.namespace == namespace
        && match (asked.verb, asked.kind.as_str()) {
            (Verb::Read, kind) => kind == "secrets",
            (Verb::Do, "containers") => asked.sub == "exec",
            (_, kind) => Kind::of_plural(kind).is_some_and(|kind| kind.writers() == Writers::Deployers),
        }
}

/// What the node `name` may: read what its proxy routes by, and write itself and what is bound to it.
fn node_may(name: &str, asked: &Asked) -> bool {
    let (itself, bound) = (asked.name == name, asked.node == name);
    match (asked.verb, asked.kind.as_str(), asked.sub.as_str()) {
        (
            Verb::Read,
            "nodes" | "services" | "containers" | "policies" | "rules" | "mesh" | "version" | "cluster"
            | "trust-bundle" | "whoami",
            "",
        ) => true,
        // The server keeps what people have set on a node.
        (Verb::Update | Verb::Patch, "nodes", "") | (Verb::Do, "nodes", "heartbeat") => itself,
        // The opened secrets of a container, and the digest of its image's tag.
        (Verb::Read, "containers", "settings") | (Verb::Do, "containers", "image") => bound,
        (Verb::Update, "containers", "status") | (Verb::Delete, "containers", "") => bound,
        // Whether an event is about the node is looked at where it is recorded.
        _ => asked.creates("events") || asked.creates("certificates"),
    }
}

#[cfg(test)]
mod tests;
