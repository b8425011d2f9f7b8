//! Traffic rules, compiled: precedence is a total order, weights are exact integers.
//! Knows nothing of endpoints or policies.

use crate::{
    condition::Compiled,
    facts::{Draw, HttpFacts},
};
use heptad_model::{ServiceKey, TrafficRule};
use std::cmp::{Ordering, Reverse};

/// The stream of the draw that chooses the backend.
const STREAM_BACKEND: u64 = 1;

/// A traffic rule, prepared for evaluation.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    priority: i32,
    pub(crate) conditions: Vec<Compiled>,
    pub(crate) backends: Vec<Backend>,
    weight_sum: u64,
}

/// A backend and its weight. The index is that of the service in the table, if it has the service.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) key: ServiceKey,
    pub(crate) index: Option<usize>,
    pub(crate) weight: u32,
}

impl Rule {
    /// Compiles `rule`; `Err` says why it cannot be used.
    pub(crate) fn new(rule: &TrafficRule, index_of: impl Fn(&ServiceKey) -> Option<usize>) -> Result<Self, String> {
        let conditions = rule.conditions.iter().map(Compiled::new).collect::<Result<_, _>>();
        let conditions = conditions.map_err(|error| format!("a regular expression does not compile: {error}"))?;
        let backends: Vec<Backend> = rule
            .backends
            .iter()
            .map(|backend| {
                let key = ServiceKey { namespace: rule.namespace.clone(), name: backend.service.clone() };
                Backend { index: index_of(&key), key, weight: backend.weight }
            })
            .collect();
        let weight_sum = backends.iter().map(|b| u64::from(b.weight)).sum();
        if weight_sum == 0 {
            return Err("no backend has a weight".to_owned());
        }
        Ok(Self { name: rule.name.clone(), priority: rule.priority, conditions, backends, weight_sum })
    }

    /// The order in which rules are tried: higher priority, more conditions, name.
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        let rank = |rule: &Self| (Reverse(rule.priority), Reverse(rule.conditions.len()));
        rank(self).cmp(&rank(other)).then_with(|| self.name.cmp(&other.name))
    }

    pub(crate) fn holds(&self, http: Option<&HttpFacts<'_>>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(http))
    }

    /// The backend on which the draw falls.
    pub(crate) fn backend(&self, draw: Draw) -> &Backend {
        let mut left = draw.below(STREAM_BACKEND, self.weight_sum);
        for backend in &self.backends {
            let weight = u64::from(backend.weight);
            if left < weight {
                return backend;
            }
            left -= weight;
        }
        self.backends.last().expect("a rule whose weights sum to more than 0 has a backend")
    }

    /// The share of a backend in the requests, from 0 to 1.
    pub(crate) fn share(&self, backend: &Backend) -> f64 {
        f64::from(backend.weight) / self.weight_sum as f64
    }
}
