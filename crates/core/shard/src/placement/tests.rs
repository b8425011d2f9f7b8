//! Values and properties of the placement map.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn nodes(capacities: &[u64]) -> Vec<StorageNode> {
    capacities.iter().enumerate().map(|(i, capacity)| StorageNode::new(&format!("n{i}"), *capacity)).collect()
}

fn assert_whole(map: &PlacementMap, nodes: &[StorageNode]) {
    let known: BTreeSet<&StorageNodeName> = nodes.iter().map(|node| &node.name).collect();
    for shard in &map.shards {
        let distinct: BTreeSet<&StorageNodeName> = shard.iter().collect();
        assert_eq!((shard.len(), distinct.len()), (map.replication_factor, map.replication_factor));
        assert!(distinct.is_subset(&known));
    }
}

fn shares(map: &PlacementMap, nodes: &[StorageNode]) -> Vec<u64> {
    let load = map.load();
    nodes.iter().map(|node| load.get(&node.name).copied().unwrap_or(0) as u64).collect()
}

#[test]
fn three_nodes_hold_everything() {
    let map = PlacementMap::build(&nodes(&[10, 20, 30]), 3, 1000).unwrap();
    assert_eq!((map.epoch, map.shards.len()), (1, 1000));
    assert_whole(&map, &nodes(&[10, 20, 30]));
    let first = map.shards.iter().filter(|shard| shard[0].as_str() == "n0").count();
    assert!((250..420).contains(&first), "the preferred copy is spread too: {first}");
}

#[test]
fn shards_of_keys_are_fixed_for_ever() {
    let map = PlacementMap::build(&nodes(&[1]), 1, 1000).unwrap();
    assert_eq!(
        ["", "a", "heptad", "photos/2024/1.jpg"].map(|key| map.shard_of(key.as_bytes()).0),
        [936, 510, 551, 967]
    );
}

#[test]
fn keys_spread_evenly() {
    let map = PlacementMap::build(&nodes(&[1]), 1, 100).unwrap();
    let mut count = vec![0; 100];
    (0..100_000).for_each(|i| count[map.shard_of(format!("key-{i}").as_bytes()).0 as usize] += 1);
    assert!(count.iter().all(|n| (850..1150).contains(n)), "{count:?}");
}

#[test]
fn bad_asks_say_why() {
    let error = PlacementMap::build(&nodes(&[1, 1, 0]), 3, 10).unwrap_err();
    assert_eq!(error, PlacementError::TooFewNodes { asked: 3, have: 2 });
    let twice = [StorageNode::new("a", 1), StorageNode::new("a", 1)];
    assert_eq!(PlacementMap::build(&twice, 1, 10), Err(PlacementError::DuplicateNode("a".into())));
    assert!(PlacementMap::build(&nodes(&[1]), 1, 0).is_err());
    assert!(PlacementMap::build(&nodes(&[1]), 0, 1).is_err());
}

#[test]
fn a_map_survives_json() {
    let map = PlacementMap::build(&nodes(&[1, 1, 1, 1]), 3, 16).unwrap();
    let text = serde_json::to_string(&map).unwrap();
    assert_eq!(serde_json::from_str::<PlacementMap>(&text).unwrap(), map);
}

fn capacities(least: usize) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1u64..50, least..9)
}

proptest! {
    #[test]
    fn maps_are_whole_balanced_and_deterministic(capacities in capacities(3), factor in 1usize..4, shards in 1u32..300) {
        let nodes = nodes(&capacities);
        let map = PlacementMap::build(&nodes, factor, shards).unwrap();
        assert_whole(&map, &nodes);
        let quota = quotas(&capacities, u64::from(shards) * factor as u64, u64::from(shards));
        prop_assert_eq!(shares(&map, &nodes), quota);
        let mut shuffled = nodes.clone();
        shuffled.reverse();
        prop_assert_eq!(PlacementMap::build(&shuffled, factor, shards).unwrap(), map);
    }

    #[test]
    fn the_same_nodes_move_nothing(capacities in capacities(3), shards in 1u32..300) {
        let nodes = nodes(&capacities);
        let map = PlacementMap::build(&nodes, 3, shards).unwrap();
        let next = map.rebuild(&nodes).unwrap();
        prop_assert_eq!((next.epoch, map.moves_to(&next).len()), (2, 0));
    }

    /// The least that any map with these shares must move is what nodes gain; swaps may add a little.
    #[test]
    fn changes_move_little(before in capacities(4), after in capacities(3), shards in 50u32..300) {
        let (old_nodes, new_nodes) = (nodes(&before), nodes(&after));
        let old = PlacementMap::build(&old_nodes, 3, shards).unwrap();
        let new = old.rebuild(&new_nodes).unwrap();
        assert_whole(&new, &new_nodes);
        let quota = quotas(&after, u64::from(shards) * 3, u64::from(shards));
        prop_assert_eq!(shares(&new, &new_nodes), quota.clone());
        let held = shares(&old, &new_nodes);
        let least: u64 = quota.iter().zip(held).map(|(quota, held)| quota.saturating_sub(held)).sum();
        let moved = old.moves_to(&new).len() as u64;
        prop_assert!(moved >= least);
        prop_assert!(moved <= least + least / 4 + 8, "{} moved, {} would do", moved, least);
    }

    #[test]
    fn one_node_more_or_less_moves_its_share(count in 4u64..9, shards in 50u32..300) {
        let few = nodes(&vec![10; count as usize]);
        let many = nodes(&vec![10; count as usize + 1]);
        let map = PlacementMap::build(&few, 3, shards).unwrap();
        let grown = map.rebuild(&many).unwrap();
        let share = (u64::from(shards) * 3).div_ceil(count + 1);
        prop_assert!(map.moves_to(&grown).len() as u64 <= share + 1);
        let shrunk = grown.rebuild(&few).unwrap();
        let moved = grown.moves_to(&shrunk).len() as u64;
        prop_assert!(moved <= share + share / 4 + 2, "{} of {}", moved, share);
    }
}

fn machine(name: &str, capacities: &[u64]) -> Vec<StorageNode> {
    let disk = |(i, capacity): (usize, &u64)| StorageNode::new(&format!("{name}/disk{}", i + 1), *capacity).on(name);
    capacities.iter().enumerate().map(disk).collect()
}

fn disks(machines: &[Vec<u64>]) -> Vec<StorageNode> {
    machines.iter().enumerate().flat_map(|(i, capacities)| machine(&format!("m{i}"), capacities)).collect()
}

/// Most copies of one shard on one machine.
fn together(map: &PlacementMap) -> usize {
    let of = |shard: &Vec<StorageNodeName>| {
        let mut count = BTreeMap::<&str, usize>::new();
        shard.iter().for_each(|node| *count.entry(node.as_str().split('/').next().unwrap()).or_default() += 1);
        count.into_values().max().unwrap_or(0)
    };
    map.shards.iter().map(of).max().unwrap_or(0)
}

#[test]
fn every_disk_is_used_and_copies_share_a_machine_only_while_there_are_too_few() {
    for (machines, most) in [(1, 3), (2, 2), (3, 1), (4, 1)] {
        let nodes = disks(&vec![vec![10; 3]; machines]);
        let map = PlacementMap::build(&nodes, 3, 1000).unwrap();
        assert_whole(&map, &nodes);
        assert_eq!(together(&map), most, "{machines} machines");
        let held = shares(&map, &nodes);
        let each = 3000 / nodes.len() as u64;
        // With two machines one part of each has two disks and the other one.
        let slack = if machines == 2 { each } else { 2 };
        assert!(held.iter().all(|held| *held > 0 && held.abs_diff(each) <= slack), "{held:?}");
    }
}

#[test]
fn a_failed_disk_moves_only_what_it_held() {
    let nodes = disks(&vec![vec![10; 3]; 3]);
    let map = PlacementMap::build(&nodes, 3, 999).unwrap();
    let left: Vec<StorageNode> = nodes.iter().filter(|node| node.name.as_str() != "m1/disk2").cloned().collect();
    let next = map.rebuild(&left).unwrap();
    assert_eq!((together(&next), map.moves_to(&next).len()), (1, 333));
}

#[test]
fn a_machine_less_leaves_three_copies_on_disks_of_two() {
    let nodes = disks(&vec![vec![10; 3]; 3]);
    let map = PlacementMap::build(&nodes, 3, 999).unwrap();
    let left: Vec<StorageNode> = nodes.iter().filter(|node| node.machine != "m1").cloned().collect();
    let next = map.rebuild(&left).unwrap();
    assert_whole(&next, &left);
    assert_eq!(together(&next), 2);
    let back = next.rebuild(&nodes).unwrap();
    assert_whole(&back, &nodes);
    assert_eq!(together(&back), 1);
}

proptest! {
    #[test]
    fn machines_are_kept_apart_and_disks_filled_by_capacity(
        machines in prop::collection::vec(prop::collection::vec(1u64..50, 1..5), 1..6),
        later in prop::collection::vec(prop::collection::vec(0u64..50, 1..5), 1..6),
        shards in 1u32..200,
    ) {
        prop_assume!(machines.iter().map(Vec::len).sum::<usize>() >= 3);
        let before = disks(&machines);
        let map = PlacementMap::build(&before, 3, shards).unwrap();
        assert_whole(&map, &before);
        prop_assert_eq!(map.moves_to(&map.rebuild(&before).unwrap()).len(), 0);
        let mut maps = vec![(before, map)];
        let after = disks(&later);
        if let Ok(next) = maps[0].1.rebuild(&after) {
            assert_whole(&next, &after);
            maps.push((after, next));
        }
        for (nodes, map) in maps {
            let usable: BTreeMap<&str, usize> = nodes.iter().filter(|node| node.capacity_bytes > 0).fold(
                BTreeMap::new(), |mut count, node| { *count.entry(node.machine.as_str()).or_default() += 1; count });
            // As few parts per machine as give three domains.
            let parts = (1..).find(|parts| usable.values().map(|disks| disks.min(parts)).sum::<usize>() >= 3).unwrap();
            prop_assert!(together(&map) <= parts);
            let held = shares(&map, &nodes);
            prop_assert!(nodes.iter().zip(held).all(|(node, held)| node.capacity_bytes > 0 || held == 0));
        }
    }
}
