//! The choice of a node by the engine's search: wishes that are not requirements come first, then replicas of one
//! service go to different nodes; then the policy decides, then the name. What may be, only the gate says.

use crate::{cluster::Cluster, feasible::Candidate, gate::Gate};
use heptad_capacity::{
    NodeIndex, Request, Spread,
    engine::{ClassSpec, Cursor, DeviceKind, DeviceNeed, NEEDS_MAX, NodeSet, Policy},
};
use std::cell::Cell;

/// How far the search has come for requests that are alike, each bound where it was chosen before the next is asked.
#[derive(Clone, Debug, Default)]
pub struct Run(Option<Level>);

/// The nodes that have so many replicas of the service.
#[derive(Clone, Debug)]
struct Level {
    replicas: u32,
    /// Those; of none those that have some.
    nodes: NodeSet,
    cursor: Cursor,
}

impl Level {
    fn of(replicas: u32, spread: Option<&Spread>) -> Self {
        let of_level = |count: u32| if replicas == 0 { count > 0 } else { count == replicas };
        let nodes = spread.into_iter().flatten().filter(|(_, count)| of_level(**count)).map(|(node, _)| *node);
        Self { replicas, nodes: nodes.collect(), cursor: Cursor::default() }
    }

    /// The next one that has nodes.
    fn above(&self, spread: Option<&Spread>) -> Option<Self> {
        let counts = spread.into_iter().flat_map(|spread| spread.values());
        let next = counts.filter(|count| **count > self.replicas).min()?;
        Some(Self::of(*next, spread))
    }

    fn has(&self, node: NodeIndex) -> bool {
        self.nodes.contains(node) != (self.replicas == 0)
    }

    /// One of its nodes gets one more.
    fn leaves(&mut self, node: NodeIndex) {
        if self.replicas == 0 {
            self.nodes.insert(node)
        } else {
            self.nodes.remove(node)
        };
    }
}

impl Cluster<'_> {
    /// The node that is to take the request, the rest being decided by `policy`; `None` exactly if no node can.
    pub(crate) fn choose(&self, request: &Request, policy: Policy, run: &mut Run) -> Option<NodeIndex> {
        let gate = Gate::new(self, request);
        if gate.is_over_quota() {
            return None;
        }
        if let Some(name) = &request.pinned {
            return self.view.index(name).filter(|node| gate.is_open(*node));
        }
        match gate.has_wishes() {
            true => self.choose_by_wishes(&gate, request, policy),
            false => self.choose_by_replicas(&gate, request, policy, run),
        }
    }

    fn spec(&self, gate: &Gate<'_>, request: &Request) -> ClassSpec {
        let kinds = self.view.device_kinds();
        // Kinds that no node has, or too many, are left to the gate.
        let known = request.devices.iter().filter_map(|(kind, asked)| {
            let kind = u16::try_from(kinds.binary_search(kind).ok()?).ok()?;
            Some(DeviceNeed { kind: DeviceKind(kind), millis: asked.0 })
        });
        let all = gate.usable().len() == self.nodes().len();
        let eligible = (!all).then(|| gate.usable().clone());
        ClassSpec { amounts: request.resources.amounts(), devices: known.take(NEEDS_MAX).collect(), eligible }
    }

    /// The level with the fewest replicas that has a node for the request. A level is done with once no node of it could
    /// take the request whatever happened elsewhere: what is left only grows less.
    fn choose_by_replicas(
        &self,
        gate: &Gate<'_>,
        request: &Request,
        policy: Policy,
        run: &mut Run,
    ) -> Option<NodeIndex> {
        let class = self.engine.compile(self.spec(gate, request));
        let spread = self.spread_of(&request.service);
        let may_open = gate.may_open();
        let mut ahead: Option<Level> = None;
        let first = run.0.get_or_insert_with(|| Level::of(0, spread));
        loop {
            let level = ahead.as_mut().unwrap_or(&mut *first);
            let may_come = Cell::new(false);
            let mut cursor = if may_open { Cursor::default() } else { level.cursor };
            let found = self.engine.next(&class, policy, &mut cursor, |node| {
                let is_open = level.has(node) && gate.is_open_with_room(node);
                may_come.set(may_come.get() || !is_open && may_open && level.has(node));
                is_open
            });
            if let Some(node) = found {
                level.cursor = cursor;
                level.leaves(node);
                return Some(node);
            }
            let above = level.above(spread)?;
            match may_come.get() || ahead.is_some() {
                true => ahead = Some(above),
                false => *first = above,
            }
        }
    }

    /// Nodes that fulfil all wishes and have no replica come before all others, so these are looked at only without one.
    fn choose_by_wishes(&self, gate: &Gate<'_>, request: &Request, policy: Policy) -> Option<NodeIndex> {
        let class = self.engine.compile(self.spec(gate, request));
        let fresh = Level::of(0, self.spread_of(&request.service));
        let best = self.engine.next(&class, policy, &mut Cursor::default(), |node| {
            fresh.has(node) && gate.is_open_with_room(node) && gate.unwished(node) == 0
        });
        best.or_else(|| {
            let room = |room: u128| if policy == Policy::Spread { u128::MAX - room } else { room };
            let key = |c: &Candidate| (c.unwished, c.replicas, room(c.room), c.node);
            self.candidates(request).min_by_key(key).map(|candidate| candidate.node)
        })
    }
}
