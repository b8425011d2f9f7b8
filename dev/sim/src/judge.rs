//! Checks the promises after every commit: the model's guarantees on the new state, and what may never happen between
//! two states. Sees what was committed, not what anybody claims.

use crate::{
    log::Log,
    mirror::{Change, Mirror},
    store::GENERATION,
};
use heptad_capacity::Allocation;
use heptad_model::{Container, ContainerId, DesiredState, Service, invariants::verify};
use heptad_state::Op;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The state and everything that was ever in it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) mirror: Mirror,
    /// Containers that were deleted: their identifiers never come again.
    buried: BTreeSet<ContainerId>,
    pub(crate) commits: u64,
    /// Commits that were more than the renewal of a lease.
    pub(crate) works: u64,
    /// The server that took over the leadership last.
    leader: String,
}

/// Judges commits. Clones share the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    ledger: Arc<Mutex<Ledger>>,
    log: Log,
}

impl Judge {
    pub(crate) fn new(log: Log) -> Self {
        Self { ledger: Arc::default(), log }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what `who` committed at `revision`. Called in the order of the revisions.
    ///
    /// `fenced`: it is the work of a leader.
    pub(crate) fn commit(&self, who: &str, revision: u64, ops: &[Op], fenced: bool) {
        let mut ledger = self.ledger();
        ledger.mirror.revision = revision;
        ledger.commits += 1;
        let mut findings = Vec::new();
        ledger.take_in_leader(who, ops);
        if fenced && ledger.leader != who {
            findings.push(format!("it is the work of a leader, but {} leads", ledger.leader));
        }
        for op in ops {
            self.write_down(who, revision, op);
            match ledger.mirror.apply(op) {
                Ok(changes) => changes.iter().for_each(|change| ledger.history(change, &mut findings)),
                Err(unread) => findings.push(unread),
            }
        }
        findings.extend(
            verify(&ledger.mirror.snapshot()).iter().map(|finding| {
                format!("{} does not hold: {}: {}", finding.guarantee, finding.subject, finding.message)
            }),
        );
        ledger.allocations(&mut findings);
        if let Some(first) = findings.into_iter().next() {
            self.log.fail(format!("revision {revision} by {who}: {first}"));
        }
    }

    fn write_down(&self, who: &str, revision: u64, op: &Op) {
        match op {
            Op::Put { key, value } => {
                self.log.bytes(value);
                self.log.note(who, format_args!("{revision} put {}", String::from_utf8_lossy(key)));
            }
            Op::Delete { range } => {
                self.log.note(who, format_args!("{revision} delete {}", String::from_utf8_lossy(range.start())));
            }
            Op::Range { .. } => {}
        }
    }
}

impl Ledger {
    fn take_in_leader(&mut self, who: &str, ops: &[Op]) {
        let put = |op: &Op, prefix: &str| matches!(op, Op::Put { key, .. } if key.starts_with(prefix.as_bytes()));
        if ops.iter().any(|op| put(op, GENERATION)) {
            self.leader = who.to_owned();
        }
        self.works += u64::from(!ops.iter().all(|op| put(op, "/leader/")));
    }

    /// What may never happen between two states.
    fn history(&mut self, change: &Change, findings: &mut Vec<String>) {
        match change {
            Change::Container(id, None, Some(_)) if self.buried.contains(id) => {
                findings.push(format!("container {id} was deleted and is back"));
            }
            Change::Container(_, Some(old), Some(new)) => container(old, new, findings),
            Change::Container(id, Some(_), None) => {
                self.buried.insert(id.clone());
            }
            Change::Service(Some(old), Some(new)) => service(old, new, findings),
            _ => {}
        }
    }

    /// Each node's row is the sum of what is bound to it.
    fn allocations(&self, findings: &mut Vec<String>) {
        for name in self.mirror.nodes.keys() {
            let sum = Allocation::of(self.mirror.bound_to(name));
            let row = self.mirror.allocations.get(name).cloned().unwrap_or_default();
            if (sum.resources, &sum.containers) != (row.resources, &row.containers) {
                findings.push(format!("the row of node {name} is not the sum of its containers"));
            }
        }
    }
}

fn container(old: &Container, new: &Container, findings: &mut Vec<String>) {
    let id = &old.id;
    if old.node.is_some() && old.node != new.node {
        findings.push(format!("container {id} was moved from one node to another"));
    }
    if old.desired == DesiredState::Stopped && new.desired == DesiredState::Running {
        findings.push(format!("container {id} was to stop and is wanted again"));
    }
    if new.restarts < old.restarts {
        findings.push(format!("container {id} was restarted {} times and now {}", old.restarts, new.restarts));
    }
    if old.is_finished() && !new.is_finished() {
        findings.push(format!("container {id} was {} and is {}", old.status, new.status));
    }
    if old.template != new.template || old.service_id != new.service_id || old.generation > new.generation {
        findings.push(format!("container {id} became another one"));
    }
}

fn service(old: &Service, new: &Service, findings: &mut Vec<String>) {
    if old.id == new.id && new.generation < old.generation {
        findings.push(format!("service {} went back to generation {}", old.key(), new.generation));
    }
    if old.address.is_some() && old.address != new.address {
        findings.push(format!("service {} lost its address", old.key()));
    }
}
