//! What callers may hold at once: each kind of callers has a budget of its own, and each caller a share of it, so that
//! nobody takes what others need. Counts; knows neither HTTP nor what is held.

use crate::authorize::Principal;
use heptad_api::trust::Role;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many heartbeats of one node are processed at once.
const HEARTBEATS_EACH_MAX: usize = 4;
/// One address may have a quarter of what all unidentified callers have.
const STRANGER_PART: usize = 4;

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Nodes that send heartbeats, and nothing else.
    Heartbeat,
    /// The user of this machine.
    Local,
    /// Servers of the cluster.
    Server,
    /// Nodes of the cluster.
    Node,
    /// People who may do everything.
    Admin,
    /// Other people.
    Person,
    /// Unidentified callers, by address.
    Stranger,
}

/// The account to which something is charged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Caller {
    class: Class,
    name: String,
}

impl Caller {
    /// The account of `principal`; that of an unidentified one is that of its address.
    pub(crate) fn of(principal: &Principal, address: &str) -> Self {
        let class = match principal {
            Principal::Operator => Class::Local,
            Principal::Server(_) => Class::Server,
            Principal::Node(_) | Principal::Ended(_) => Class::Node,
            Principal::Person(person) if person.role == Role::Admin => Class::Admin,
            Principal::Person(_) => Class::Person,
            Principal::Anonymous => Class::Stranger,
        };
        let name = if class == Class::Stranger { address.to_owned() } else { principal.to_string() };
        Self { class, name }
    }

    /// The account for heartbeats of `node`, if they come from a machine and not from a person.
    pub(crate) fn for_heartbeat(self, node: &str) -> Self {
        match self.class {
            Class::Local | Class::Server | Class::Node => {
                Self { class: Class::Heartbeat, name: format!("{}:{node}", self.name) }
            }
            _ => self,
        }
    }

    /// Whether the caller is unidentified.
    pub(crate) fn is_stranger(&self) -> bool {
        self.class == Class::Stranger
    }
}

#[derive(Debug, Default)]
struct Held {
    all: HashMap<Class, usize>,
    each: HashMap<Caller, usize>,
}

/// How much of one resource may be held at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    held: Arc<Mutex<Held>>,
    what: &'static str,
    all_max: usize,
    each_max: usize,
    nodes_max: usize,
}

/// A permit for one, returned when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    held: Arc<Mutex<Held>>,
    caller: Caller,
}

/// Why there are no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    what: &'static str,
    count_max: usize,
    own: bool,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, count_max, own } = self;
        match own {
            true => write!(f, "you have {count_max} {what} at once, which is the most for one; end some and try again"),
            false => write!(f, "callers of your kind have {count_max} {what} at once; try again"),
        }
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    /// `all_max` for each kind of callers, of which one caller may hold `each_max`.
    pub(crate) fn new(what: &'static str, all_max: usize, each_max: usize) -> Self {
        Self { held: Arc::default(), what, all_max, each_max: each_max.min(all_max), nodes_max: all_max }
    }

    /// The same for what every node holds all the time: a bound for all nodes together would bound the cluster.
    pub(crate) fn of_each_node(self) -> Self {
        Self { nodes_max: usize::MAX, ..self }
    }

    /// The most for a kind, and for one caller of it.
    fn bounds(&self, class: Class) -> (usize, usize) {
        match class {
            // As many as there are nodes, each of which has few.
            Class::Heartbeat => (usize::MAX, HEARTBEATS_EACH_MAX),
            Class::Local | Class::Server => (self.all_max, self.all_max),
            Class::Node => (self.nodes_max, self.each_max),
            Class::Admin | Class::Person => (self.all_max, self.each_max),
            // All of them together have as much as one identified caller.
            Class::Stranger => (self.each_max, self.each_max.div_ceil(STRANGER_PART)),
        }
    }

    /// One more for `caller`.
    pub(crate) fn take(&self, caller: &Caller) -> Result<Permit, Full> {
        let (all_max, each_max) = self.bounds(caller.class);
        let mut held = lock(&self.held);
        let own = held.each.get(caller).is_some_and(|count| *count >= each_max);
        if own || held.all.get(&caller.class).is_some_and(|count| *count >= all_max) {
            return Err(Full { what: self.what, count_max: if own { each_max } else { all_max }, own });
        }
        *held.all.entry(caller.class).or_default() += 1;
        *held.each.entry(caller.clone()).or_default() += 1;
        Ok(Permit { held: self.held.clone(), caller: caller.clone() })
    }
}

impl Permit {
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(count) = held.all.get_mut(&self.caller.class) {
            *count -= 1;
        }
        if let Some(count) = held.each.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                held.each.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Person;
    use proptest::prelude::*;

    fn callers() -> Vec<Caller> {
        let person = |id: &str, role: &str| {
            Principal::Person(Person { id: id.into(), name: "x".into(), role: role.parse().expect("a role") })
        };
        let principals = [
            Principal::Operator,
            Principal::Server("s1".into()),
            Principal::Node("n1".into()),
            Principal::Node("n2".into()),
            person("a1", "admin"),
            person("a2", "admin"),
            person("v1", "viewer"),
            person("d1", "deployer:shop"),
        ];
        let mut callers: Vec<_> = principals.iter().map(|who| Caller::of(who, "10.0.0.1")).collect();
        callers.extend(["10.0.0.1", "10.0.0.2"].map(|from| Caller::of(&Principal::Anonymous, from)));
        callers.extend(["n1", "n2"].map(|node| Caller::of(&Principal::Node(node.into()), "").for_heartbeat(node)));
        callers
    }

    /// Whatever one party holds, every other still gets something.
    #[test]
    fn no_party_takes_what_another_needs() {
        let all = callers();
        for greedy in &all {
            let budget = Budget::new("things", 128, 32);
            let mut taken = Vec::new();
            while let Ok(permit) = budget.take(greedy) {
                taken.push(permit);
            }
            for other in all.iter().filter(|other| *other != greedy) {
                assert!(budget.take(other).is_ok(), "{greedy:?} took everything from {other:?}");
            }
            taken.pop();
            assert!(budget.take(greedy).is_ok(), "{greedy:?} gave one back");
        }
    }

    #[test]
    fn every_node_of_a_large_cluster_has_its_share_of_what_it_holds_all_the_time() {
        let budget = Budget::new("things", 128, 8).of_each_node();
        let node = |number: usize| Caller::of(&Principal::Node(format!("n{number}").as_str().into()), "");
        let held: Vec<_> = (0..5_000).map(|number| budget.take(&node(number / 5)).expect("its own")).collect();
        let mut more: Vec<_> = std::iter::from_fn(|| budget.take(&node(7)).ok()).collect();
        assert_eq!(more.len(), 3, "one has no more for that");
        more.extend(budget.take(&callers()[6]));
        assert_eq!((held.len(), more.len()), (5_000, 4), "and people have theirs");
    }

    #[test]
    fn a_person_has_no_heartbeats() {
        let admin = callers().remove(4);
        assert_eq!(admin.clone().for_heartbeat("n1"), admin);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_what_is_given_back_is_free(steps in prop::collection::vec((0_usize..12, any::<bool>()), 1..300)) {
            let (all, budget) = (callers(), Budget::new("things", 8, 4));
            let mut held: Vec<(usize, Permit)> = Vec::new();
            for (who, take) in steps {
                let caller = &all[who];
                let (all_max, each_max) = budget.bounds(caller.class);
                if !take {
                    if let Some(at) = held.iter().position(|(holder, _)| *holder == who) {
                        held.swap_remove(at);
                    }
                    continue;
                }
                let own = held.iter().filter(|(holder, _)| *holder == who).count();
                let class = held.iter().filter(|(holder, _)| all[*holder].class == caller.class).count();
                let taken = budget.take(caller);
                prop_assert_eq!(taken.is_ok(), own < each_max && class < all_max);
                held.extend(taken.ok().map(|permit| (who, permit)));
            }
            drop(held);
            prop_assert!(lock(&budget.held).each.is_empty());
        }
    }
}
