//! How many copies each storage node should hold: shares by capacity, at most one copy of a shard per node.
//! Knows nothing of which shards these are.

/// Splits `copies` over nodes in proportion to their capacities; no node gets more than `share_max`, and one without
/// capacity gets none. The caller has made sure that enough nodes have capacity.
pub(crate) fn quotas(capacities: &[u64], copies: u64, share_max: u64) -> Vec<u64> {
    let mut quotas = vec![0; capacities.len()];
    let mut open: Vec<usize> = (0..capacities.len()).filter(|i| capacities[*i] > 0).collect();
    let mut left = copies;
    loop {
        let total: u128 = open.iter().map(|i| u128::from(capacities[*i])).sum();
        let is_full = |i: &usize| u128::from(capacities[*i]) * u128::from(left) >= total * u128::from(share_max);
        let (full, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|i| is_full(i));
        if full.is_empty() || total == 0 {
            share_out(capacities, &open, left, share_max, &mut quotas);
            return quotas;
        }
        for i in full {
            quotas[i] = share_max.min(left);
            left -= quotas[i];
        }
        open = rest;
    }
}

/// Proportional shares of the nodes in `open`, what rounding leaves going to the largest remainders.
fn share_out(capacities: &[u64], open: &[usize], copies: u64, share_max: u64, quotas: &mut [u64]) {
    let total: u128 = open.iter().map(|i| u128::from(capacities[*i])).sum();
    if total == 0 {
        return;
    }
    let mut remainders: Vec<(u128, usize)> = Vec::with_capacity(open.len());
    let mut given = 0;
    for &i in open {
        let product = u128::from(capacities[i]) * u128::from(copies);
        quotas[i] = u64::try_from(product / total).unwrap_or(u64::MAX).min(share_max);
        given += quotas[i];
        remainders.push((product % total, i));
    }
    remainders.sort_by_key(|(remainder, i)| (std::cmp::Reverse(*remainder), *i));
    for (_, i) in remainders {
        if given < copies && quotas[i] < share_max {
            quotas[i] += 1;
            given += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_capacity_and_cap() {
        assert_eq!(quotas(&[5, 5, 5], 3000, 1000), [1000, 1000, 1000]);
        assert_eq!(quotas(&[1, 1, 2, 2], 3000, 1000), [500, 500, 1000, 1000]);
        assert_eq!(quotas(&[100, 1, 1], 2000, 1000), [1000, 500, 500]);
        assert_eq!(quotas(&[0, 1, 1, 1, 1], 10, 4), [0, 3, 3, 2, 2]);
    }

    proptest! {
        #[test]
        fn shares_sum_up(capacities in prop::collection::vec(1u64..=u64::MAX, 1..12), shards in 1u64..2000, factor in 1u64..6) {
            prop_assume!(capacities.len() as u64 >= factor);
            let quotas = quotas(&capacities, shards * factor, shards);
            prop_assert_eq!(quotas.iter().sum::<u64>(), shards * factor);
            prop_assert!(quotas.iter().all(|quota| *quota <= shards));
        }
    }
}
