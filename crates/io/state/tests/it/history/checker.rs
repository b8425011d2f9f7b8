//! Whether a history is linearizable: is there an order of all operations that respects which ended before another
//! began, and in which each answer is right? The search of Wing and Gong with Lowe's memory of states that led
//! nowhere; key by key, since a history is linearizable if it is so for each key.

use super::{Action, Operation, Outcome};
use std::collections::{BTreeMap, HashSet};

type Value = Option<u64>;

/// The value after the operation, if its outcome is right for the value before it.
fn step(value: Value, operation: &Operation) -> Option<Value> {
    match (operation.action, operation.outcome) {
        (Action::Read, Outcome::Read(seen)) => (seen == value).then_some(value),
        (Action::Write(new), Outcome::Done | Outcome::Unknown) => Some(Some(new)),
        (Action::Swap(old, new), Outcome::Done) => (old == value).then_some(Some(new)),
        (Action::Swap(old, _), Outcome::Refused) => (old != value).then_some(value),
        (Action::Swap(old, new), Outcome::Unknown) => Some(if old == value { Some(new) } else { value }),
        (Action::Delete, Outcome::Done) => value.map(|_| None),
        (Action::Delete, Outcome::Refused) => value.is_none().then_some(None),
        (Action::Delete, Outcome::Unknown) => Some(None),
        _ => None,
    }
}

/// The keys whose history has no right order.
pub(crate) fn check(operations: &[Operation]) -> Result<(), Vec<u64>> {
    let mut by_key: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(operation.key).or_default().push(operation);
    }
    let wrong: Vec<u64> = by_key.iter().filter(|(_, own)| !is_linearizable(own)).map(|(key, _)| *key).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// The calls and returns in their order, as a list from which operations are lifted and into which they are put back.
struct Moments {
    /// Of each entry: which operation, and whether it is the call.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where the call and the return of each operation are.
    places: Vec<[usize; 2]>,
}

impl Moments {
    /// Entry 0 stands before the first one; the list ends where `next` is 0.
    fn new(operations: &[&Operation]) -> Self {
        let mut order: Vec<(u64, usize, bool)> = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            order.push((operation.called, index, true));
            order.push((operation.returned, index, false));
        }
        order.sort_unstable();
        let mut entries = vec![(usize::MAX, false)];
        let mut places = vec![[0; 2]; operations.len()];
        for (place, (_, index, is_call)) in (1..).zip(&order) {
            entries.push((*index, *is_call));
            places[*index][usize::from(!is_call)] = place;
        }
        let count = entries.len();
        let next = (0..count).map(|place| (place + 1) % count).collect();
        let previous = (0..count).map(|place| (place + count - 1) % count).collect();
        Self { entries, next, previous, places }
    }

    fn lift(&mut self, operation: usize) {
        for place in self.places[operation] {
            let (before, behind) = (self.previous[place], self.next[place]);
            self.next[before] = behind;
            self.previous[behind] = before;
        }
    }

    /// In the reverse order of `lift`.
    fn put_back(&mut self, operation: usize) {
        for place in self.places[operation].into_iter().rev() {
            let (before, behind) = (self.previous[place], self.next[place]);
            self.next[before] = place;
            self.previous[behind] = place;
        }
    }
}

fn is_linearizable(operations: &[&Operation]) -> bool {
    let mut moments = Moments::new(operations);
    let mut value: Value = None;
    let mut taken = vec![0u64; operations.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, Value)> = HashSet::new();
    let mut path: Vec<(usize, Value)> = Vec::new();
    let mut place = moments.next[0];
    while place != 0 {
        let (operation, is_call) = moments.entries[place];
        if is_call {
            let after = step(value, operations[operation]).filter(|after| {
                let mut with = taken.clone();
                with[operation / 64] |= 1 << (operation % 64);
                tried.insert((with, *after))
            });
            match after {
                Some(after) => {
                    path.push((operation, value));
                    taken[operation / 64] |= 1 << (operation % 64);
                    value = after;
                    moments.lift(operation);
                    place = moments.next[0];
                }
                None => place = moments.next[place],
            }
            continue;
        }
        // All that is left never returned: none of it needs to have happened.
        if operations[operation].returned == u64::MAX {
            return true;
        }
        // It returned and is in no order yet: the last choice was wrong.
        let Some((last, before)) = path.pop() else { return false };
        taken[last / 64] &= !(1 << (last % 64));
        value = before;
        moments.put_back(last);
        place = moments.next[moments.places[last][0]];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(called: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
        Operation { key: 0, action, outcome, called, returned }
    }

    fn read(called: u64, returned: u64, value: Value) -> Operation {
        operation(called, returned, Action::Read, Outcome::Read(value))
    }

    fn write(called: u64, returned: u64, value: u64) -> Operation {
        operation(called, returned, Action::Write(value), Outcome::Done)
    }

    #[test]
    fn right_histories_are_accepted() {
        let right = [
            vec![write(0, 1, 1), read(2, 3, Some(1))],
            // While a write is under way, either value is right, but not back again.
            vec![write(0, 1, 1), write(2, 9, 2), read(3, 4, Some(1)), read(5, 6, Some(2))],
            // What was never answered may happen late, or never.
            vec![operation(0, u64::MAX, Action::Write(1), Outcome::Unknown), read(5, 6, None), read(7, 8, Some(1))],
            vec![operation(0, u64::MAX, Action::Write(1), Outcome::Unknown), read(5, 6, None)],
            vec![
                operation(0, 5, Action::Swap(None, 1), Outcome::Done),
                operation(1, 6, Action::Swap(None, 2), Outcome::Refused),
                operation(7, 8, Action::Delete, Outcome::Done),
                read(9, 10, None),
            ],
        ];
        for history in right {
            assert_eq!(check(&history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn wrong_histories_are_refused() {
        let wrong = [
            // Stale: the write had ended before.
            vec![write(0, 1, 1), read(2, 3, None)],
            // Lost: acknowledged and gone.
            vec![write(0, 1, 1), write(2, 3, 2), read(4, 5, Some(1))],
            // From nowhere.
            vec![write(0, 1, 1), read(2, 3, Some(7))],
            // Before it was written.
            vec![read(0, 1, Some(1)), write(2, 3, 1)],
            // Back again.
            vec![write(0, 1, 1), write(2, 9, 2), read(3, 4, Some(2)), read(5, 6, Some(1))],
            // Two winners.
            vec![
                operation(0, 5, Action::Swap(None, 1), Outcome::Done),
                operation(1, 6, Action::Swap(None, 2), Outcome::Done),
            ],
            // What was never answered was seen, and then not.
            vec![operation(0, u64::MAX, Action::Write(1), Outcome::Unknown), read(1, 2, Some(1)), read(3, 4, None)],
            vec![write(0, 1, 1), operation(2, 3, Action::Delete, Outcome::Refused)],
        ];
        for history in wrong {
            assert_eq!(check(&history), Err(vec![0]), "{history:?}");
        }
    }
}
