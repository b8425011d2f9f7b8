//! What is packed: nodes, requests, and the instances made of them, as plain values. Knows no files.

pub use heptad_capacity::engine::{DEVICE_MILLIS, DEVICES_MAX};
use std::{collections::BTreeMap, sync::Arc};

/// GPUs that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Devices {
    /// Less than a whole one is a share of ONE device, else whole devices.
    pub millis: u32,
    /// The models that will do; any if empty.
    pub models: Vec<String>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What it asks of each resource.
    pub amounts: [u64; 4],
    /// The GPUs that it asks for.
    pub devices: Option<Devices>,
}

impl Item {
    /// Its GPUs in thousandths.
    pub fn device_millis(&self) -> u64 {
        self.devices.as_ref().map_or(0, |devices| devices.millis.into())
    }

    /// The same request without GPUs.
    pub fn plain(&self) -> Self {
        Self { amounts: self.amounts, devices: None }
    }

    /// Whether an empty node of that capacity would have room for its amounts.
    pub fn fits(&self, capacity: &[u64; 4]) -> bool {
        self.amounts.iter().zip(capacity).all(|(asked, room)| asked <= room)
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeShape {
    /// What it can give of each resource.
    pub amounts: [u64; 4],
    /// How many GPUs it has.
    pub devices: usize,
    /// Their model.
    pub model: String,
}

impl NodeShape {
    /// The node without its GPUs.
    pub fn plain(&self) -> Self {
        Self { amounts: self.amounts, devices: 0, model: String::new() }
    }
}

/// Equal nodes that were cut into items, so that the optimum is known.
#[derive(Clone, Debug)]
pub struct Planted {
    /// The name of its file.
    pub name: String,
    /// How many resources count.
    pub dimensions: usize,
    /// What each node can give.
    pub capacity: [u64; 4],
    /// The least number of nodes that hold all items.
    pub optimum: usize,
    /// The items in the order in which they arrive.
    pub items: Vec<Item>,
}

/// A recorded list of requests and the nodes that it is for.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The name of the list.
    pub name: String,
    /// The nodes.
    pub nodes: Arc<Vec<NodeShape>>,
    /// The requests in the order in which they arrive.
    pub items: Arc<Vec<Item>>,
}

impl Recorded {
    /// The capacity, GPUs aside, that most nodes have; the largest of equally frequent ones.
    pub fn common_capacity(&self) -> [u64; 4] {
        let mut counts: BTreeMap<[u64; 4], usize> = BTreeMap::new();
        for node in self.nodes.iter() {
            *counts.entry(node.amounts).or_default() += 1;
        }
        let common = counts.into_iter().max_by_key(|(amounts, count)| (*count, *amounts));
        common.map_or([0; 4], |(amounts, _)| amounts)
    }
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Instances {
    /// Those with a known optimum.
    pub planted: Vec<Planted>,
    /// Those that were recorded.
    pub recorded: Vec<Recorded>,
}
