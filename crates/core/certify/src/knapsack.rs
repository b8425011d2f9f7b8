//! The most that fits into knapsacks of several sizes, computed exactly by a table over the sizes. Knows no prices and
//! no nodes.

use std::collections::BTreeMap;

use crate::CertificateError;

/// The steps that the tables may take; larger tables are refused.
pub const KNAPSACK_STEPS_MAX: u64 = 1 << 28;

/// A number of equal things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thing {
    pub(crate) size: u64,
    pub(crate) value: u128,
    pub(crate) count: u64,
}

/// The best value of a selection of things, for each capacity.
pub(crate) fn best_values(things: &[Thing], capacities: &[u64]) -> Result<Vec<u128>, CertificateError> {
    let merged = merge(things)?;
    let unit = merged.keys().fold(0, |unit, size| gcd(unit, *size));
    let free = merged.get(&0).map_or(Some(0), |_| weightless(things)).ok_or(CertificateError::Overflow)?;
    let Some(unit) = std::num::NonZeroU64::new(unit) else {
        return Ok(vec![free; capacities.len()]);
    };
    let largest = capacities.iter().max().copied().unwrap_or(0) / unit;
    let parts = parts(&merged, unit.get(), largest);
    let steps =
        (parts.len() as u64).checked_mul(largest.saturating_add(1)).filter(|steps| *steps <= KNAPSACK_STEPS_MAX);
    if steps.is_none() || largest > KNAPSACK_STEPS_MAX {
        return Err(CertificateError::TooLarge);
    }
    let table = table(&parts, usize::try_from(largest).map_err(|_| CertificateError::TooLarge)?);
    let at = |capacity: &u64| usize::try_from(*capacity / unit).ok().and_then(|at| table.get(at)).copied();
    capacities
        .iter()
        .map(|capacity| at(capacity).and_then(|value| value.checked_add(free)))
        .collect::<Option<_>>()
        .ok_or(CertificateError::Overflow)
}

/// The things by size, the most valuable first. The sum of all values is shown to fit, so no sum in a table can
/// overflow.
fn merge(things: &[Thing]) -> Result<BTreeMap<u64, Vec<Thing>>, CertificateError> {
    let mut merged: BTreeMap<u64, Vec<Thing>> = BTreeMap::new();
    let mut sum = 0_u128;
    for thing in things.iter().filter(|thing| thing.value > 0 && thing.count > 0) {
        let all = thing.value.checked_mul(thing.count.into()).ok_or(CertificateError::Overflow)?;
        sum = sum.checked_add(all).ok_or(CertificateError::Overflow)?;
        merged.entry(thing.size).or_default().push(*thing);
    }
    for things in merged.values_mut() {
        things.sort_by_key(|thing| std::cmp::Reverse(thing.value));
    }
    Ok(merged)
}

fn weightless(things: &[Thing]) -> Option<u128> {
    things
        .iter()
        .filter(|thing| thing.size == 0)
        .try_fold(0_u128, |sum, thing| sum.checked_add(thing.value.checked_mul(thing.count.into())?))
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The things in packets of 1, 2, 4, ..., no more of them than a knapsack can hold.
fn parts(merged: &BTreeMap<u64, Vec<Thing>>, unit: u64, largest: u64) -> Vec<(usize, u128)> {
    let mut parts = Vec::new();
    for (size, things) in merged.range(1..) {
        let size = size / unit;
        let mut room = largest / size;
        for thing in things {
            let mut left = thing.count.min(room);
            room -= left;
            let mut packet = 1;
            while left > 0 {
                let number = packet.min(left);
                parts.push((usize::try_from(size * number).unwrap_or(usize::MAX), thing.value * u128::from(number)));
                left -= number;
                packet *= 2;
            }
        }
    }
    parts
}

fn table(parts: &[(usize, u128)], largest: usize) -> Vec<u128> {
    let mut table = vec![0_u128; largest + 1];
    for &(size, value) in parts.iter().filter(|(size, _)| *size <= largest) {
        for at in (size..=largest).rev() {
            table[at] = table[at].max(table[at - size] + value);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_hand(things: &[Thing], capacity: u64) -> u128 {
        let Some((thing, rest)) = things.split_first() else { return 0 };
        (0..=thing.count)
            .take_while(|number| number * thing.size <= capacity)
            .map(|number| thing.value * u128::from(number) + by_hand(rest, capacity - number * thing.size))
            .max()
            .unwrap_or(0)
    }

    proptest! {
        #[test]
        fn the_table_finds_the_best(
            things in prop::collection::vec((0_u64..9, 0_u128..9, 0_u64..4), 0..5),
            unit in 1_u64..4,
            capacities in prop::collection::vec(0_u64..50, 1..4),
        ) {
            let things: Vec<Thing> =
                things.into_iter().map(|(size, value, count)| Thing { size: size * unit, value, count }).collect();
            let found = best_values(&things, &capacities).unwrap();
            let expected: Vec<u128> = capacities.iter().map(|capacity| by_hand(&things, *capacity)).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let thing = |size, value| Thing { size, value, count: 1 };
        assert_eq!(best_values(&[thing(1 << 40, 1), thing(3, 1)], &[1 << 41]), Err(CertificateError::TooLarge));
        assert_eq!(best_values(&[thing(1, u128::MAX), thing(1, 1)], &[1]), Err(CertificateError::Overflow));
    }
}
