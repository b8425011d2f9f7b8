//! All rows that the reconcilers look at, in memory, as of one revision: read whole, then moved on by the watch.
//! Decides nothing and writes nothing.

use crate::{
    error::{Result, with_causes},
    keys::{self, Row},
    objects::{Kept, Objects, row_object, row_value, settings_version},
};
use heptad_api::{Object, with_kind};
use heptad_capacity::{Allocation, NodesView};
use heptad_life::ServiceView;
use heptad_model::{
    Container, ContainerId, DesiredState, Mode, Namespace, NetworkPolicy, Node, NodeName, NodeStatus, Quota, Revision,
    Rollout, Service, ServiceKey, SettingsRef, Snapshot, TrafficRule,
};
use heptad_state::{EventKind, KeyRange, KeyValue, WatchBatch};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

/// The cluster's rows at one revision.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub(crate) revision: heptad_state::Revision,
    pub(crate) nodes: BTreeMap<NodeName, Object<Node>>,
    pub(crate) services: BTreeMap<ServiceKey, Object<Service>>,
    pub(crate) containers: BTreeMap<ContainerId, Object<Container>>,
    pub(crate) allocations: BTreeMap<NodeName, Object<Allocation>>,
    /// The revisions of the rows that guard each service's set of containers.
    pub(crate) replicas: BTreeMap<ServiceKey, heptad_state::Revision>,
    /// What is remembered of each service.
    pub(crate) rollouts: BTreeMap<ServiceKey, Object<Rollout>>,
    pub(crate) revisions: BTreeMap<ServiceKey, BTreeMap<u64, Revision>>,
    /// Services that are to be looked at at that time, in milliseconds since the Unix epoch, changed or not.
    pub(crate) due: BTreeMap<ServiceKey, u64>,
    pub(crate) quotas: BTreeMap<(Namespace, String), Object<Quota>>,
    /// The revisions of the rows that guard the namespaces' quotas.
    pub(crate) quota_guards: BTreeMap<Namespace, heptad_state::Revision>,
    /// The revision of the row that guards placements that look at more than one node.
    pub(crate) placements: heptad_state::Revision,
    pub(crate) policies: BTreeMap<(Namespace, String), NetworkPolicy>,
    pub(crate) rules: BTreeMap<(Namespace, String), TrafficRule>,
    by_service: BTreeMap<ServiceKey, BTreeSet<ContainerId>>,
    /// The versions of configs and secrets.
    settings: BTreeMap<(Namespace, SettingsRef), String>,
    /// Containers that are to run and have no node.
    pub(crate) unbound: BTreeSet<ContainerId>,
    /// Services of which something changed since they were looked at last.
    pub(crate) dirty: BTreeSet<ServiceKey>,
    /// Whether a node changed, came or went.
    pub(crate) nodes_changed: bool,
    /// Whether some service must be looked at because of what happened elsewhere: to a node, or to what nodes gave.
    room_changed: bool,
    /// The view of the nodes, once somebody asked for it, until something changes that it is made of.
    view: OnceLock<Arc<NodesView>>,
}

/// What the view of the nodes is made of, of one container.
fn footprint(container: &Container) -> (Option<&NodeName>, bool, bool, &ServiceKey) {
    (container.node.as_ref(), container.is_alive(), container.is_finished(), &container.service)
}

impl Rows {
    /// Reads everything at one revision. Rows that cannot be read are an error if `strict`, else left out and logged.
    pub(crate) async fn load(objects: &Objects, strict: bool) -> Result<Self> {
        // Everything of the cluster but the events, which are many and decide nothing.
        let (first, revision) = objects.rows_at(KeyRange::span(keys::ALLOCATIONS, "/events/"), None).await?;
        let (second, _) = objects.rows_at(KeyRange::span("/nodes/", "/services0"), Some(revision)).await?;
        let mut rows = Self { revision, ..Self::default() };
        for kv in first.iter().chain(&second) {
            rows.put_or_skip(kv, strict)?;
        }
        rows.everything_is_dirty();
        Ok(rows)
    }

    /// Everything is to be looked at again.
    pub(crate) fn everything_is_dirty(&mut self) {
        self.nodes_changed = true;
        // Also those of which only the memory is left.
        self.dirty = self.services.keys().chain(self.by_service.keys()).chain(self.rollouts.keys()).cloned().collect();
    }

    /// Whether nothing is to be looked at.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && !self.nodes_changed && !self.room_changed
    }

    /// What nodes can take decides the next step of services that wait for room, or whose node is not ready or starts nothing.
    pub(crate) fn spread_dirt(&mut self) {
        if !std::mem::take(&mut self.room_changed) {
            return;
        }
        let is_shut = |node: &Node| node.status != NodeStatus::Ready || node.condition().is_some();
        let lost = self.nodes.values().filter(|item| is_shut(&item.object));
        let on_lost = lost.filter_map(|item| self.allocations.get(&item.object.name));
        let on_lost = on_lost.flat_map(|row| &row.object.containers);
        let waiting = self.unbound.iter().chain(on_lost).filter_map(|id| self.containers.get(id));
        self.dirty.extend(waiting.map(|item| item.object.service.clone()));
        // A service that is on every node follows the nodes; what is on a node that is emptied has to go.
        let daemons = self.services.values().filter(|item| item.object.mode == Mode::Daemon);
        self.dirty.extend(daemons.map(|item| item.object.key()));
        let drained = self.nodes.values().filter(|item| item.object.draining);
        let drained = drained.filter_map(|item| self.allocations.get(&item.object.name));
        let drained = drained.flat_map(|row| &row.object.containers).filter_map(|id| self.containers.get(id));
        self.dirty.extend(drained.map(|item| item.object.service.clone()));
        // Of a node that is removed everything goes, also what has ended and takes nothing of it any more.
        let removed: BTreeSet<&NodeName> =
            self.nodes.values().filter(|item| item.object.removing).map(|item| &item.object.name).collect();
        if !removed.is_empty() {
            let bound =
                |item: &&Object<Container>| item.object.node.as_ref().is_some_and(|node| removed.contains(node));
            self.dirty.extend(self.containers.values().filter(bound).map(|item| item.object.service.clone()));
        }
    }

    fn put_or_skip(&mut self, kv: &KeyValue, strict: bool) -> Result<()> {
        match self.put(kv) {
            Err(error) if !strict => {
                tracing::error!(error = with_causes(&error), "a row is left out");
                Ok(())
            }
            result => result,
        }
    }

    fn put(&mut self, kv: &KeyValue) -> Result<()> {
        match keys::row(&kv.key) {
            Row::Object(kind, key) => with_kind!(kind, T => T::enter(self, key, kv))?,
            Row::Allocation(node) => {
                self.room_is_changed();
                self.allocations.insert(node, row_object(kv)?);
            }
            Row::Replicas(service) => {
                self.replicas.insert(service, kv.mod_revision);
            }
            Row::Rollout(service) => {
                self.dirty.insert(service.clone());
                self.rollouts.insert(service, row_object(kv)?);
            }
            Row::Revision(service, number) => {
                self.revisions.entry(service).or_default().insert(number, row_value(kv)?);
            }
            Row::QuotaGuard(namespace) => {
                self.quota_guards.insert(namespace, kv.mod_revision);
            }
            Row::Placements => self.placements = kv.mod_revision,
            Row::Other => {}
        }
        Ok(())
    }

    /// What nodes can take is another amount.
    pub(crate) fn room_is_changed(&mut self) {
        self.room_changed = true;
        self.view.take();
    }

    pub(crate) fn put_node(&mut self, node: Object<Node>) {
        self.nodes_changed = true;
        self.room_is_changed();
        self.nodes.insert(node.object.name.clone(), node);
    }

    pub(crate) fn delete_node(&mut self, name: &NodeName) {
        self.nodes_changed = true;
        self.room_is_changed();
        self.nodes.remove(name);
    }

    pub(crate) fn put_service(&mut self, service: Object<Service>) {
        self.dirty.insert(service.object.key());
        self.view.take();
        self.services.insert(service.object.key(), service);
    }

    pub(crate) fn delete_service(&mut self, key: ServiceKey) {
        self.view.take();
        self.services.remove(&key);
        self.dirty.insert(key);
    }

    pub(crate) fn put_settings(&mut self, key: (Namespace, SettingsRef), kv: &KeyValue) -> Result<()> {
        self.users_are_dirty(&key.0, &key.1);
        self.view.take();
        self.settings.insert(key, settings_version(kv)?);
        Ok(())
    }

    pub(crate) fn delete_settings(&mut self, key: (Namespace, SettingsRef)) {
        self.users_are_dirty(&key.0, &key.1);
        self.view.take();
        self.settings.remove(&key);
    }

    /// Services that use a config or secret are looked at again.
    fn users_are_dirty(&mut self, namespace: &Namespace, reference: &SettingsRef) {
        let of_space = self.services.iter().filter(|(key, _)| key.namespace == *namespace);
        let users = of_space.filter(|(_, item)| item.object.settings_refs().any(|used| used == *reference));
        self.dirty.extend(users.map(|(key, _)| key.clone()));
    }

    /// A service with the versions of the configs and secrets that it uses.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<Service> {
        let mut service = self.services.get(key)?.object.clone();
        let version = |reference: SettingsRef| {
            let known = self.settings.get(&(key.namespace.clone(), reference.clone()))?;
            Some((reference.to_string(), known.clone()))
        };
        service.settings = service.settings_refs().filter_map(version).collect();
        Some(service)
    }

    pub(crate) fn put_container(&mut self, container: Object<Container>) {
        let (id, service) = (container.object.id.clone(), container.object.service.clone());
        self.by_service.entry(service.clone()).or_default().insert(id.clone());
        self.dirty.insert(service);
        let old = self.containers.get(&id).map(|item| footprint(&item.object));
        if old != Some(footprint(&container.object)) && (old.is_some() || container.object.node.is_some()) {
            self.view.take();
        }
        if container.object.node.is_none() && container.object.desired == DesiredState::Running {
            self.unbound.insert(id.clone());
        } else {
            self.unbound.remove(&id);
        }
        self.containers.insert(id, container);
    }

    fn delete(&mut self, row_key: &[u8]) {
        match keys::row(row_key) {
            Row::Object(kind, key) => with_kind!(kind, T => T::leave(self, key)),
            Row::Allocation(node) => {
                self.room_is_changed();
                self.allocations.remove(&node);
            }
            Row::Replicas(service) => {
                self.replicas.remove(&service);
            }
            Row::Rollout(service) => {
                self.rollouts.remove(&service);
            }
            Row::Revision(service, number) => {
                if let Some(revisions) = self.revisions.get_mut(&service) {
                    revisions.remove(&number);
                    if revisions.is_empty() {
                        self.revisions.remove(&service);
                    }
                }
            }
            Row::QuotaGuard(namespace) => {
                self.quota_guards.remove(&namespace);
            }
            Row::Placements => self.placements = 0,
            Row::Other => {}
        }
    }

    pub(crate) fn delete_container(&mut self, id: &ContainerId) {
        self.unbound.remove(id);
        if let Some(container) = self.containers.remove(id) {
            if container.object.node.is_some() {
                self.view.take();
            }
            let service = container.object.service;
            if let Some(ids) = self.by_service.get_mut(&service) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_service.remove(&service);
                }
            }
            self.dirty.insert(service);
        }
    }

    /// Moves on to the batch's revision. Returns whether something changed that the reconcilers look at.
    pub(crate) fn apply(&mut self, batch: &WatchBatch) -> Result<bool> {
        let mut matters = false;
        for event in &batch.events {
            matters |= match keys::row(&event.kv.key) {
                Row::Object(kind, _) => with_kind!(kind, T => T::RECONCILED),
                Row::Other => false,
                _ => true,
            };
            match event.kind {
                EventKind::Put => self.put_or_skip(&event.kv, false)?,
                EventKind::Delete => self.delete(&event.kv.key),
            }
        }
        self.revision = self.revision.max(batch.revision);
        Ok(matters)
    }

    /// The services whose time has come are to be looked at.
    pub(crate) fn take_due(&mut self, now_ms: u64) {
        let due = self.due.iter().filter(|(_, at_ms)| **at_ms <= now_ms).map(|(key, _)| key.clone());
        for key in due.collect::<Vec<_>>() {
            self.due.remove(&key);
            self.dirty.insert(key);
        }
    }

    /// What is known of a service, as the planner of its steps sees it.
    pub(crate) fn service_view<'a>(
        &'a self,
        key: &ServiceKey,
        service: Option<&'a Service>,
        nodes: &'a NodesView,
        now_ms: u64,
    ) -> ServiceView<'a> {
        ServiceView {
            service,
            containers: self.containers_of(key),
            nodes,
            rollout: self.rollouts.get(key).map(|item| &item.object),
            revisions: self.revisions.get(key).into_iter().flat_map(BTreeMap::values).collect(),
            now_ms,
        }
    }

    /// The containers under a service's key.
    pub(crate) fn containers_of(&self, service: &ServiceKey) -> Vec<&Container> {
        let ids = self.by_service.get(service).into_iter().flatten();
        ids.filter_map(|id| self.containers.get(id)).map(|item| &item.object).collect()
    }

    /// The nodes with their rows, as planners see them.
    pub(crate) fn nodes_view(&self) -> Arc<NodesView> {
        self.view.get_or_init(|| Arc::new(self.new_nodes_view())).clone()
    }

    fn new_nodes_view(&self) -> NodesView {
        let rows = self.allocations.iter().map(|(name, row)| (name.clone(), row.object.clone())).collect();
        let containers = self.containers.values().map(|item| &item.object);
        let even = self.services.values().filter(|item| !item.object.topology_spread.is_empty());
        let even: Vec<Service> = even.filter_map(|item| self.service(&item.object.key())).collect();
        NodesView::with_rows(self.nodes.values().map(|item| &item.object), &rows, containers.clone())
            .with_exchanges(&even, containers.clone())
            .with_services(self.services.values().map(|item| &item.object))
            .with_quotas(self.quotas.values().map(|item| &item.object), containers)
    }

    /// The whole system at this revision.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let node = |item: &Object<Node>| {
            let mut node = item.object.clone();
            if let Some(row) = self.allocations.get(&node.name) {
                node.allocated = row.object.resources;
                node.allocated_devices = row.object.devices.given();
                node.containers = row.object.containers.iter().cloned().collect();
            }
            node
        };
        Snapshot {
            revision: self.revision,
            nodes: self.nodes.values().map(node).collect(),
            services: self.services.values().map(|item| item.object.clone()).collect(),
            containers: self.containers.values().map(|item| item.object.clone()).collect(),
            policies: self.policies.values().cloned().collect(),
            rules: self.rules.values().cloned().collect(),
            ..Snapshot::default()
        }
        .with_derived()
    }
}

impl Objects {
    /// The whole system at one revision. A row that cannot be read is an error that names it.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        Ok(Rows::load(self, true).await?.snapshot())
    }
}
