//! Counts per caller, addressed service and backend. One atomic addition per request; the number of cells is bounded.
//! Does not know how counts are exported.

use heptad_model::ServiceKey;
use heptad_route::Caller;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The dimensions of a count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) caller: Caller,
    pub(crate) target: ServiceKey,
    /// The service that served; `None` if the call did not get that far.
    pub(crate) backend: Option<ServiceKey>,
}

impl Key {
    fn is(&self, caller: &Caller, target: &ServiceKey, backend: Option<&ServiceKey>) -> bool {
        self.target == *target && self.backend.as_ref() == backend && self.caller == *caller
    }
}

/// What happened to a request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service responded with that status.
    Response(http::StatusCode),
    /// A plain TCP connection was established.
    Tunnel,
    Denied,
    NoEndpoint,
    /// The connection failed or broke, or the response did not come in time.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Cell {
    key: Option<Key>,
    counts: [AtomicU64; 9],
}

impl Cell {
    fn new(key: Option<Key>) -> Self {
        Self { key, counts: Default::default() }
    }

    pub(crate) fn add(&self, outcome: Outcome) {
        let index = match outcome {
            Outcome::Response(status) => usize::from(status.as_u16() / 100).clamp(1, 5) - 1,
            Outcome::Tunnel => 5,
            Outcome::Denied => 6,
            Outcome::NoEndpoint => 7,
            Outcome::Failed => 8,
        };
        self.counts[index].fetch_add(1, Relaxed);
    }
}

/// The counts of one caller, addressed service and backend since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCount {
    /// Who called; `None` once the bound on combinations is reached and further calls are counted together.
    pub caller: Option<Caller>,
    /// The addressed service.
    pub target: Option<ServiceKey>,
    /// The service that served; not `target` if a traffic rule chose another; `None` if the request did not get there.
    pub backend: Option<ServiceKey>,
    /// Responses by class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 5],
    /// Plain TCP connections.
    pub tunnels: u64,
    /// Denied by policies.
    pub denied: u64,
    /// No endpoint was ready, or no such service.
    pub unavailable: u64,
    /// The connection failed or broke, or no response came in time.
    pub failed: u64,
}

impl From<&Cell> for CallCount {
    fn from(cell: &Cell) -> Self {
        let [a, b, c, d, e, tunnels, denied, unavailable, failed] =
            cell.counts.each_ref().map(|count| count.load(Relaxed));
        Self {
            caller: cell.key.as_ref().map(|key| key.caller.clone()),
            target: cell.key.as_ref().map(|key| key.target.clone()),
            backend: cell.key.as_ref().and_then(|key| key.backend.clone()),
            responses: [a, b, c, d, e],
            tunnels,
            denied,
            unavailable,
            failed,
        }
    }
}

/// All cells.
#[derive(Debug)]
pub(crate) struct Counters {
    cells: RwLock<BTreeMap<Key, Arc<Cell>>>,
    rest: Arc<Cell>,
    cells_max: usize,
}

/// The cell that a connection used last: most connections need no other.
#[derive(Debug, Default)]
pub(crate) struct LastCell(Mutex<Option<Arc<Cell>>>);

impl Counters {
    pub(crate) fn new(cells_max: usize) -> Self {
        Self { cells: RwLock::default(), rest: Arc::new(Cell::new(None)), cells_max }
    }

    pub(crate) fn cell(
        &self,
        last: &LastCell,
        caller: &Caller,
        target: &ServiceKey,
        backend: Option<&ServiceKey>,
    ) -> Arc<Cell> {
        let mut last = last.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last.as_ref() {
            Some(cell) if cell.key.as_ref().is_some_and(|key| key.is(caller, target, backend)) => Arc::clone(cell),
            _ => {
                let key = Key { caller: caller.clone(), target: target.clone(), backend: backend.cloned() };
                let cell = self.find(key);
                *last = Some(Arc::clone(&cell));
                cell
            }
        }
    }

    fn find(&self, key: Key) -> Arc<Cell> {
        if let Some(cell) = self.cells.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(cell);
        }
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        if cells.len() >= self.cells_max && !cells.contains_key(&key) {
            return Arc::clone(&self.rest);
        }
        Arc::clone(cells.entry(key.clone()).or_insert_with(|| Arc::new(Cell::new(Some(key)))))
    }

    pub(crate) fn snapshot(&self) -> Vec<CallCount> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let rest = CallCount::from(&*self.rest);
        let empty = CallCount::from(&Cell::new(None));
        cells.values().map(|cell| CallCount::from(&**cell)).chain((rest != empty).then_some(rest)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_bounded_and_the_rest_is_counted_together() {
        let counters = Counters::new(1);
        let last = LastCell::default();
        for name in ["a", "b", "c", "a"] {
            counters.cell(&last, &Caller::External, &ServiceKey::new("default", name), None).add(Outcome::Denied);
        }
        let counts: Vec<_> = counters.snapshot().into_iter().map(|c| (c.target.map(|t| t.name), c.denied)).collect();
        assert_eq!(counts, [(Some("a".to_owned()), 2), (None, 2)]);
    }
}
