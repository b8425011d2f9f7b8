//! How much of the GPUs can be given when requests for all of them have arrived: the protocol of Weng et al., "Beware
//! of Fragmentation", USENIX ATC 2023, as their simulator implements it (docs/packing.md).

use crate::{
    cpu::CpuStart,
    draw::Draws,
    instance::{DEVICE_MILLIS, Item, NodeShape, Recorded},
    placer::{Opening, Placer},
};
use heptad_capacity::{NodeIndex, engine::Policy};

/// Requests arrive until they amount to this share of all GPUs.
const ARRIVED_PERCENT: u64 = 130;
/// The given share is read where the arrived share, rounded to whole percents, is this.
const READ_AT_PERCENT: u64 = 100;

/// The outcome of one order of requests.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The mean share of the GPUs that was given over the arrivals at which it is read.
    pub given_percent: f64,
    /// Nodes that have something then.
    pub nodes_used: usize,
    /// Requests that had found no node by then.
    pub unplaced: u64,
    /// Searches for a node.
    pub decisions: u64,
    /// CPU time of the searches.
    pub cpu_seconds: f64,
    /// The node of each request by then.
    pub chosen: Vec<Option<NodeIndex>>,
    /// What each GPU then has free, node by node.
    pub free: Vec<Vec<u32>>,
}

/// The nodes of a list that have GPUs.
pub fn nodes(list: &Recorded) -> Vec<NodeShape> {
    list.nodes.iter().filter(|node| node.devices > 0).cloned().collect()
}

/// The list in a random order, followed by requests drawn from it, until the requested GPUs are `ARRIVED_PERCENT` of
/// `total_millis`.
pub fn order(list: &[Item], total_millis: u64, seed: u64) -> Vec<Item> {
    let mut draws = Draws::new(seed);
    let mut items = list.to_vec();
    draws.shuffle(&mut items);
    let most = total_millis * ARRIVED_PERCENT / 100;
    let mut asked: u64 = items.iter().map(Item::device_millis).sum();
    if list.iter().all(|item| item.device_millis() == 0) {
        return items;
    }
    while asked > most {
        let gone = items.swap_remove(draws.below(items.len()));
        asked -= gone.device_millis();
    }
    loop {
        let item = &list[draws.below(list.len())];
        asked += item.device_millis();
        if asked > most {
            return items;
        }
        items.push(item.clone());
    }
}

/// All requests until the last arrival at which the share is read.
pub fn replay(nodes: &[NodeShape], list: &[Item], policy: Policy, seed: u64) -> Arrival {
    let total: u64 = nodes.iter().map(|node| node.devices as u64 * u64::from(DEVICE_MILLIS)).sum();
    let items = order(list, total, seed);
    let mut placer = Placer::new(nodes, policy, Opening::Free);
    placer.expect(list);
    let classes: Vec<_> = items.iter().map(|item| placer.class(item)).collect();
    let percent = |millis: u64| millis as f64 * 100.0 / total.max(1) as f64;
    let (mut arrived, mut given, mut unplaced) = (0, 0, 0);
    let (mut readings, mut chosen) = (Vec::new(), Vec::new());
    let start = CpuStart::now();
    for (item, class) in items.iter().zip(classes) {
        let asked = item.device_millis();
        if percent(arrived + asked).round() as u64 > READ_AT_PERCENT {
            break;
        }
        arrived += asked;
        let choice = placer.place(class);
        chosen.push(choice.map(|choice| choice.node));
        match choice {
            Some(_) => given += asked,
            None => unplaced += 1,
        }
        if percent(arrived).round() as u64 == READ_AT_PERCENT {
            readings.push(percent(given));
        }
    }
    let cpu_seconds = start.seconds();
    let mean = readings.iter().sum::<f64>() / readings.len() as f64;
    Arrival {
        given_percent: if readings.is_empty() { percent(given) } else { mean },
        nodes_used: placer.nodes_used(),
        unplaced,
        decisions: placer.decisions(),
        cpu_seconds,
        chosen,
        free: nodes.iter().enumerate().map(|(index, node)| placer.devices_free(index, node.devices)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Devices;

    fn item(cpu: u64, millis: u32) -> Item {
        let devices = (millis > 0).then(|| Devices { millis, models: Vec::new() });
        Item { amounts: [cpu, 0, 0, 0], devices }
    }

    fn node(cpu: u64, devices: usize) -> NodeShape {
        NodeShape { amounts: [cpu, 0, 0, 0], devices, model: "M".into() }
    }

    #[test]
    fn the_order_is_the_list_and_then_draws_from_it() {
        let list: Vec<Item> = (1..=6).map(|cpu| item(cpu, if cpu == 6 { 0 } else { 1000 })).collect();
        let items = order(&list, 10_000, 4);
        assert_eq!(items, order(&list, 10_000, 4));
        assert_ne!(items, order(&list, 10_000, 5));
        let mut first = items[..6].to_vec();
        first.sort();
        assert_eq!(first, list);
        assert_eq!(items.iter().map(Item::device_millis).sum::<u64>(), 13_000);
        // A list that asks for too much is cut.
        assert!(order(&list, 3000, 4).iter().map(Item::device_millis).sum::<u64>() <= 3900);
        assert_eq!(order(&[item(1, 0)], 3000, 4).len(), 1);
    }

    #[test]
    fn what_cannot_be_given_is_seen() {
        // Four GPUs, CPU for two of them.
        let nodes = [node(2, 4)];
        let replayed = replay(&nodes, &[item(1, 1000)], Policy::Fragmentation, 1);
        assert_eq!((replayed.given_percent, replayed.unplaced, replayed.decisions), (50.0, 2, 4));
        assert_eq!(replayed.free, [[0, 0, 1000, 1000]]);
        // A node that gave all its GPUs still has them.
        let replayed = replay(&[node(4, 4)], &[item(1, 1000)], Policy::Pack, 1);
        assert_eq!(replayed.free, [[0, 0, 0, 0]]);
    }
}
