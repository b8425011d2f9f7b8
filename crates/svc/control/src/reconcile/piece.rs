//! A part of a plan as one transaction: which bindings it takes, which rows it compares and changes. Sends nothing.

use super::{flight::Room, gang::together};
use crate::{error::Result, keys, objects::Pending, rows::Rows};
use heptad_capacity::{NodesView, Request};
use heptad_model::{Container, DeviceIndices, Namespace, NodeName, ServiceKey};
use heptad_sched::Cluster;
use heptad_state::Revision;
use std::collections::{BTreeMap, BTreeSet};

/// How many rows one binding may compare or change: the container, its node's two, an event, its service, three guards.
const ROWS_OF_BINDING_MAX: usize = 8;
/// How many rows one more binding on the same node may compare or change: the container, its service, a guard.
const ROWS_OF_NEXT_BINDING_MAX: usize = 3;

/// A transaction under construction.
#[derive(Default)]
pub(super) struct Piece<'a> {
    pub(super) pending: Pending,
    /// How many containers of each service it binds.
    pub(super) services: BTreeMap<&'a ServiceKey, usize>,
    nodes: BTreeSet<&'a NodeName>,
    namespaces: BTreeSet<&'a Namespace>,
    /// Those of them that have quotas: it changes their guards.
    guarded: BTreeSet<&'a Namespace>,
    looks_around: bool,
}

impl<'a> Piece<'a> {
    /// Stages bindings as long as there is room, at least one; all of one node together if possible, so that pieces
    /// have no node in common. Returns how many.
    pub(super) fn take(
        &mut self,
        bindings: &[(&'a Request, &'a NodeName)],
        room: Room,
        mut stage: impl FnMut(&mut Self, &'a Request, &'a NodeName) -> Result<()>,
    ) -> Result<usize> {
        let mut taken = 0;
        while taken < bindings.len() {
            let rest = &bindings[taken..];
            // A gang is committed in one transaction or not at all.
            let unit = together(rest);
            let is_first = taken == 0 || bindings[taken - 1].1 != rest[0].1;
            let on_node = || rest.iter().take_while(|(_, other)| *other == rest[0].1).count();
            let more = if is_first { ROWS_OF_NEXT_BINDING_MAX * on_node() } else { 0 };
            let more = more.max(unit * ROWS_OF_BINDING_MAX);
            if taken > 0 && room.is_full(self.rows(), more, self.pending.bytes()) {
                break;
            }
            for (request, node) in &rest[..unit] {
                stage(self, request, node)?;
            }
            taken += unit;
        }
        Ok(taken)
    }

    /// The most rows that it will compare or change, including those that are staged when it is complete.
    fn rows(&self) -> usize {
        self.pending.len() + self.nodes.len() + self.namespaces.len() + 1
    }

    /// Whether it shares rows with another piece of the same plan that both change.
    pub(super) fn builds_on(&self, other: &Self) -> bool {
        (self.looks_around && other.looks_around)
            || !self.guarded.is_disjoint(&other.guarded)
            || !self.nodes.is_disjoint(&other.nodes)
    }
}

/// The revisions of the rows on which a plan is based, advanced only by its own transactions.
pub(super) struct ReadAt<'r> {
    rows: &'r Rows,
    view: &'r NodesView,
    with_quotas: BTreeSet<&'r Namespace>,
    allocations: BTreeMap<NodeName, Revision>,
    guards: BTreeMap<Namespace, Revision>,
    placements: Revision,
}

impl<'r> ReadAt<'r> {
    pub(super) fn new(rows: &'r Rows, view: &'r NodesView) -> Self {
        Self {
            rows,
            view,
            with_quotas: rows.quotas.values().map(|item| &item.object.namespace).collect(),
            allocations: BTreeMap::new(),
            guards: BTreeMap::new(),
            placements: rows.placements,
        }
    }

    /// Stages one binding, except for the rows that all bindings of the piece change together.
    pub(super) fn stage<'a>(
        &self,
        piece: &mut Piece<'a>,
        request: &'a Request,
        node: &'a NodeName,
        devices: DeviceIndices,
    ) {
        let Some(item) = self.rows.containers.get(&request.container) else { return };
        let key = keys::container(&request.container);
        piece.pending.expect(&key, item.revision);
        let (reason, message) = (String::new(), String::new());
        let node_of = Some(node.clone());
        let bound = Container { node: node_of, devices, reservation: None, reason, message, ..item.object.clone() };
        piece.pending.put(&key, &bound);
        if piece.nodes.insert(node) {
            piece.pending.expect(&keys::node(node), self.rows.nodes.get(node).map_or(0, |item| item.revision));
        }
        // What a service requires of nodes is part of the basis of the decision.
        let count = piece.services.entry(&request.service).or_default();
        *count += 1;
        if *count == 1 && self.view.asks_something(&request.service) {
            let revision = self.rows.services.get(&request.service).map_or(0, |item| item.revision);
            piece.pending.expect(&keys::service(&request.service), revision);
        }
        let namespace = &request.service.namespace;
        if piece.namespaces.insert(namespace) && self.with_quotas.contains(namespace) {
            piece.guarded.insert(namespace);
        }
        piece.looks_around |= self.view.looks_around(&request.service);
    }

    /// Stages the rows that all bindings of a piece change together, when those on which it builds are committed.
    pub(super) fn stage_rows(&self, piece: &mut Piece<'_>, cluster: &Cluster<'_>) {
        let Piece { pending, nodes, namespaces, guarded, looks_around, .. } = piece;
        for node in nodes.iter() {
            let key = keys::allocation(node);
            let read_at = || self.rows.allocations.get(*node).map_or(0, |item| item.revision);
            pending.expect(&key, self.allocations.get(*node).copied().unwrap_or_else(read_at));
            if let Some(index) = self.view.index(node) {
                pending.put(&key, cluster.allocation(index));
            }
        }
        for namespace in namespaces.iter() {
            let key = keys::quota_guard(namespace);
            let revision = self.guards.get(*namespace).or_else(|| self.rows.quota_guards.get(*namespace));
            pending.expect(&key, revision.copied().unwrap_or(0));
            if guarded.contains(namespace) {
                pending.put(&key, namespace);
            }
        }
        if *looks_around {
            pending.expect(keys::PLACEMENTS, self.placements);
            pending.put(keys::PLACEMENTS, &true);
        }
    }

    /// A piece is committed: what builds on it compares its revision.
    pub(super) fn moved_on(&mut self, revision: Revision, piece: &Piece<'_>) {
        self.allocations.extend(piece.nodes.iter().map(|node| ((*node).clone(), revision)));
        self.guards.extend(piece.guarded.iter().map(|namespace| ((*namespace).clone(), revision)));
        if piece.looks_around {
            self.placements = revision;
        }
    }
}
