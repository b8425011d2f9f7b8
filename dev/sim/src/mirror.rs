//! The cluster's rows as they are committed, decoded once each. Knows no promise and decides nothing.

use heptad_capacity::Allocation;
use heptad_model::{Container, ContainerId, Node, NodeName, Rollout, Service, ServiceKey, Snapshot};
use heptad_state::{KeyRange, Op};
use std::collections::BTreeMap;

/// Everything that is committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    pub(crate) revision: u64,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    pub(crate) services: BTreeMap<ServiceKey, Service>,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    pub(crate) allocations: BTreeMap<NodeName, Allocation>,
    /// By the key of the service, as text.
    pub(crate) rollouts: BTreeMap<String, Rollout>,
}

/// What one operation changed, as it was and as it is.
#[derive(Debug)]
pub(crate) enum Change {
    Container(ContainerId, Option<Box<Container>>, Option<Box<Container>>),
    Service(Option<Box<Service>>, Option<Box<Service>>),
    Other,
}

impl Mirror {
    /// Takes in one committed operation. Returns what it changed, or the row that cannot be read.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<Vec<Change>, String> {
        match op {
            Op::Put { key, value } => self.put(&String::from_utf8_lossy(key), value).map(|change| vec![change]),
            Op::Delete { range } => Ok(self.delete(range)),
            Op::Range { .. } => Ok(Vec::new()),
        }
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<Change, String> {
        let unread = |error: serde_json::Error| format!("row {key} cannot be read: {error}");
        if key.starts_with("/containers/") {
            let new: Container = serde_json::from_slice(value).map_err(unread)?;
            let old = self.containers.insert(new.id.clone(), new.clone());
            return Ok(Change::Container(new.id.clone(), old.map(Box::new), Some(Box::new(new))));
        }
        if key.starts_with("/services/") {
            let new: Service = serde_json::from_slice(value).map_err(unread)?;
            let old = self.services.insert(new.key(), new.clone());
            return Ok(Change::Service(old.map(Box::new), Some(Box::new(new))));
        }
        if key.starts_with("/nodes/") {
            let node: Node = serde_json::from_slice(value).map_err(unread)?;
            self.nodes.insert(node.name.clone(), node);
        } else if let Some(node) = key.strip_prefix("/allocations/") {
            self.allocations.insert(node.into(), serde_json::from_slice(value).map_err(unread)?);
        } else if let Some(service) = key.strip_prefix("/rollouts/") {
            self.rollouts.insert(service.to_owned(), serde_json::from_slice(value).map_err(unread)?);
        }
        Ok(Change::Other)
    }

    fn delete(&mut self, range: &KeyRange) -> Vec<Change> {
        let gone = |key: String| range.contains(key.as_bytes());
        let mut changes = Vec::new();
        let containers: Vec<_> =
            self.containers.keys().filter(|id| gone(format!("/containers/{id}"))).cloned().collect();
        for id in containers {
            let old = self.containers.remove(&id).map(Box::new);
            changes.push(Change::Container(id, old, None));
        }
        let services: Vec<_> = self.services.keys().filter(|key| gone(format!("/services/{key}"))).cloned().collect();
        for key in services {
            let old = self.services.remove(&key).map(Box::new);
            changes.push(Change::Service(old, None));
        }
        self.nodes.retain(|name, _| !gone(format!("/nodes/{name}")));
        self.allocations.retain(|name, _| !gone(format!("/allocations/{name}")));
        self.rollouts.retain(|service, _| !gone(format!("/rollouts/{service}")));
        changes
    }

    /// The whole system, as the invariants look at it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            revision: self.revision,
            nodes: self.nodes.values().cloned().collect(),
            services: self.services.values().cloned().collect(),
            containers: self.containers.values().cloned().collect(),
            ..Snapshot::default()
        }
        .with_derived()
    }

    /// The containers that are bound to a node.
    pub(crate) fn bound_to<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a Container> {
        self.containers.values().filter(move |c| c.node.as_ref() == Some(node))
    }
}
