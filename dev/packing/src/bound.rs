//! Volume bounds: how many nodes are certainly needed, whatever the packing. Exact in integers.

/// The least number of nodes, largest first, whose sum covers the demand in every resource, each resource on its own.
/// `None` if all of them together do not.
pub fn volume(capacities: &[[u64; 4]], demands: &[[u64; 4]]) -> Option<usize> {
    (0..4).map(|d| of_one(capacities.iter().map(|c| c[d]), demands.iter().map(|a| a[d]))).try_fold(0, |most, nodes| {
        let nodes = nodes?;
        Some(most.max(nodes))
    })
}

fn of_one(capacities: impl Iterator<Item = u64>, demands: impl Iterator<Item = u64>) -> Option<usize> {
    let mut demand: u128 = demands.map(u128::from).sum();
    let mut capacities: Vec<u64> = capacities.collect();
    capacities.sort_unstable_by(|a, b| b.cmp(a));
    let mut nodes = 0;
    while demand > 0 {
        demand = demand.saturating_sub(u128::from(*capacities.get(nodes)?));
        nodes += 1;
    }
    Some(nodes)
}

/// The same for as many nodes of one capacity as are needed.
pub fn volume_of_equal(capacity: &[u64; 4], demands: &[[u64; 4]]) -> Option<usize> {
    (0..4).try_fold(0, |most: usize, d| {
        let demand: u128 = demands.iter().map(|amounts| u128::from(amounts[d])).sum();
        let nodes = match (demand, capacity[d]) {
            (0, _) => 0,
            (_, 0) => return None,
            (demand, each) => demand.div_ceil(each.into()),
        };
        Some(most.max(usize::try_from(nodes).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::{volume, volume_of_equal};

    #[test]
    fn the_largest_nodes_cover_the_scarcest_resource() {
        let nodes = [[4, 100, 0, 0], [10, 1, 0, 0], [6, 50, 0, 0]];
        assert_eq!(volume(&nodes, &[[10, 1, 0, 0]]), Some(1));
        assert_eq!(volume(&nodes, &[[10, 1, 0, 0], [1, 0, 0, 0]]), Some(2));
        assert_eq!(volume(&nodes, &[[1, 151, 0, 0]]), Some(3));
        assert_eq!(volume(&nodes, &[[1, 0, 1, 0]]), None);
        assert_eq!(volume(&nodes, &[]), Some(0));
    }

    #[test]
    fn equal_nodes_are_as_many_as_needed() {
        assert_eq!(volume_of_equal(&[10, 0, 0, 0], &[[7, 0, 0, 0]; 3]), Some(3));
        assert_eq!(volume_of_equal(&[10, 5, 0, 0], &[[7, 5, 0, 0]; 3]), Some(3));
        assert_eq!(volume_of_equal(&[10, 0, 0, 0], &[[7, 1, 0, 0]]), None);
    }
}
