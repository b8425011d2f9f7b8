//! The keys of the rows in the state store. Nothing else builds or takes apart a key.

use bytes::Bytes;
use heptad_api::{Kind, Resource};
use heptad_model::{ContainerId, Namespace, NodeName, ServiceKey, SettingsRef};
use heptad_state::KeyRange;

/// Changed together with every new service address, so that two services never get the same.
pub(crate) const ADDRESSES: &str = "/addresses";
/// Changed together with every host that a service takes, so that two services never have the same.
pub(crate) const HOSTS: &str = "/hosts";
/// Who leads now; renewed by the leader.
pub(crate) const LEASE: &str = "/leader/lease";
/// Changed at every takeover, compared by every write of a leader.
pub(crate) const GENERATION: &str = "/leader/generation";
/// The prefix of the rows that say which servers there are.
pub(crate) const SERVERS: &str = "/servers/";
/// The prefix of the rows that say what nodes gave.
pub(crate) const ALLOCATIONS: &str = "/allocations/";
/// The prefix of the rows that are changed with every new set of containers of a service.
const REPLICAS: &str = "/replicas/";

/// The row with the sealed values of a secret, apart from what is listed and watched.
pub(crate) fn vault(namespace: &Namespace, name: &str) -> String {
    format!("/vault/{namespace}/{name}")
}
/// Changed with every binding that looks at more than its own node, so that no two such are decided side by side.
pub(crate) const PLACEMENTS: &str = "/placements/guard";
/// The prefix of the rows that are changed with whatever takes a part of a namespace's quotas, and with the quotas.
const QUOTA_GUARDS: &str = "/quota-guards/";

/// The row of an object.
pub(crate) fn object(kind: Kind, namespace: &Namespace, name: &str) -> String {
    if kind.is_namespaced() { format!("/{kind}/{namespace}/{name}") } else { format!("/{kind}/{name}") }
}

/// The row of this object.
pub(crate) fn of<T: Resource>(value: &T) -> String {
    match value.namespace() {
        Some(namespace) => object(T::KIND, namespace, value.name()),
        None => format!("/{}/{}", T::KIND, value.name()),
    }
}

/// The prefix of all rows of a kind, or of those in a namespace.
pub(crate) fn prefix(kind: Kind, namespace: Option<&Namespace>) -> String {
    match namespace.filter(|_| kind.is_namespaced()) {
        Some(namespace) => format!("/{kind}/{namespace}/"),
        None => format!("/{kind}/"),
    }
}

/// What is remembered of a service from one look to the next.
pub(crate) fn rollout(service: &ServiceKey) -> String {
    format!("/rollouts/{service}")
}

/// The prefix of the rows of a service's revisions.
pub(crate) fn revisions(service: &ServiceKey) -> String {
    format!("/revisions/{service}/")
}

/// The row of one revision; rows are in the order of their numbers.
pub(crate) fn revision(service: &ServiceKey, number: u64) -> String {
    format!("{}{number:020}", revisions(service))
}

/// The row of the digest that the containers of a revision run.
pub(crate) fn image(service: &ServiceKey, number: u64) -> String {
    format!("/images/{service}/{number:020}")
}

pub(crate) fn service(key: &ServiceKey) -> String {
    object(Kind::Services, &key.namespace, &key.name)
}

pub(crate) fn node(name: &NodeName) -> String {
    format!("/{}/{name}", Kind::Nodes)
}

pub(crate) fn container(id: &ContainerId) -> String {
    format!("/{}/{id}", Kind::Containers)
}

pub(crate) fn allocation(node: &NodeName) -> String {
    format!("{ALLOCATIONS}{node}")
}

/// The row that every commit of a service's containers compares and changes.
pub(crate) fn replicas(service: &ServiceKey) -> String {
    format!("{REPLICAS}{service}")
}

/// The row that is compared by whoever takes a part of the namespace's quotas.
pub(crate) fn quota_guard(namespace: &Namespace) -> String {
    format!("{QUOTA_GUARDS}{namespace}")
}

/// Everything that the reconcilers look at: from the first to behind the last of their prefixes.
pub(crate) fn cluster() -> KeyRange {
    KeyRange::span(ALLOCATIONS, "/services0")
}

/// Everything that proxies route by, and what lies between.
pub(crate) fn mesh() -> KeyRange {
    KeyRange::span("/containers/", "/services0")
}

/// What a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row<'a> {
    Object(Kind, ObjectKey<'a>),
    Allocation(NodeName),
    Replicas(ServiceKey),
    Rollout(ServiceKey),
    Revision(ServiceKey, u64),
    Placements,
    QuotaGuard(Namespace),
    Other,
}

/// Which object of its kind a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectKey<'a> {
    /// Empty if the kind has no namespaces.
    namespace: &'a str,
    pub(crate) name: &'a str,
}

impl ObjectKey<'_> {
    pub(crate) fn service(self) -> ServiceKey {
        ServiceKey::new(self.namespace, self.name)
    }

    pub(crate) fn named(self) -> (Namespace, String) {
        (self.namespace.into(), self.name.to_owned())
    }

    /// A config or a secret, as services of its namespace name it.
    pub(crate) fn settings(self, of_name: fn(String) -> SettingsRef) -> (Namespace, SettingsRef) {
        (self.namespace.into(), of_name(self.name.to_owned()))
    }
}

pub(crate) fn row(key: &[u8]) -> Row<'_> {
    let Ok(key) = std::str::from_utf8(key) else { return Row::Other };
    let Some((word, rest)) = key.strip_prefix('/').and_then(|key| key.split_once('/')) else { return Row::Other };
    if let Some(kind) = Kind::of_plural(word) {
        let parts = if kind.is_namespaced() { rest.split_once('/') } else { Some(("", rest)) };
        return parts.map_or(Row::Other, |(namespace, name)| Row::Object(kind, ObjectKey { namespace, name }));
    }
    match word {
        "placements" => Row::Placements,
        "quota-guards" => Row::QuotaGuard(rest.into()),
        "allocations" => Row::Allocation(rest.into()),
        "replicas" => rest.split_once('/').map_or(Row::Other, |(ns, name)| Row::Replicas(ServiceKey::new(ns, name))),
        "rollouts" => rest.split_once('/').map_or(Row::Other, |(ns, name)| Row::Rollout(ServiceKey::new(ns, name))),
        "revisions" => revision_row(rest).unwrap_or(Row::Other),
        _ => Row::Other,
    }
}

fn revision_row(rest: &str) -> Option<Row<'_>> {
    let (service, number) = rest.rsplit_once('/')?;
    let (namespace, name) = service.split_once('/')?;
    Some(Row::Revision(ServiceKey::new(namespace, name), number.parse().ok()?))
}

/// A key for messages.
pub(crate) fn shown(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{NetworkPolicy, Service};

    #[test]
    fn every_key_that_the_reconcilers_need_is_in_their_range() {
        let range = cluster();
        let service = Service::new("web", "host");
        for key in [
            of(&service),
            node(&"n1".into()),
            container(&"web-1".into()),
            allocation(&"n1".into()),
            replicas(&service.key()),
            rollout(&service.key()),
            revision(&service.key(), 7),
            object(Kind::Quotas, &Namespace::default(), "team"),
            quota_guard(&Namespace::default()),
            PLACEMENTS.to_owned(),
        ] {
            assert!(range.contains(key.as_bytes()), "{key}");
            assert_ne!(row(key.as_bytes()), Row::Other, "{key}");
        }
        assert!(!range.contains(b"/storage/x") && !range.contains(ADDRESSES.as_bytes()));
        assert_eq!(row(HOSTS.as_bytes()), Row::Other);
        assert_eq!(row(replicas(&service.key()).as_bytes()), Row::Replicas(service.key()));
        assert_eq!(row(revision(&service.key(), 7).as_bytes()), Row::Revision(service.key(), 7));
        assert_eq!(prefix(NetworkPolicy::KIND, Some(&Namespace::default())), "/policies/default/");
    }
}
