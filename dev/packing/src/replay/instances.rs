//! Each instance under each policy: the packing, its record, and what its picture shows.

use super::{
    arrival,
    online::{self, Packing},
    optimised::{Task, optimised},
};
use crate::{
    bound::{volume, volume_of_equal},
    instance::{DEVICE_MILLIS, Instances, Item, NodeShape, Planted, Recorded},
    picture::{self, Columns, Gpus},
    report::{Kind, Record, digest, ratio, rounded},
};
use anyhow::{Context, Result, bail};
use heptad_capacity::engine::Policy;
use std::path::PathBuf;

/// A picture has columns for at most this many resources.
const NAMES: [&str; 4] = ["CPU", "memory", "storage", "network"];

/// How instances are replayed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policies, in the order in which they are shown.
    pub policies: Vec<Policy>,
    /// CPU seconds of optimisation per instance; none if 0.
    pub optimise_cpu_seconds: f64,
    /// The first seed.
    pub seed: u64,
    /// How many orders of a list are tried for its GPUs.
    pub seeds: u64,
    /// Only instances whose names have this in them.
    pub only: String,
    /// Where pictures are written.
    pub pictures: Option<PathBuf>,
}

/// The name of a policy.
pub fn name(policy: Policy) -> &'static str {
    match policy {
        Policy::Pack => "pack",
        Policy::Spread => "spread",
        Policy::Fragmentation => "fragmentation",
    }
}

/// All instances; `tell` gets each record as soon as it is complete.
pub fn replay(found: &Instances, options: &Options, tell: &mut dyn FnMut(&Record) -> Result<()>) -> Result<()> {
    let wanted = |name: &str| name.contains(&options.only);
    for instance in found.planted.iter().filter(|instance| wanted(&instance.name)) {
        Nodes::planted(instance).replay(options, tell)?;
    }
    for list in found.recorded.iter().filter(|list| wanted(&list.name)) {
        Nodes::equal(list)?.replay(options, tell)?;
        Nodes::recorded(list)?.replay(options, tell)?;
        gpus(list, options, tell)?;
    }
    Ok(())
}

/// An instance that asks for few nodes.
struct Nodes<'a> {
    name: &'a str,
    kind: Kind,
    dimensions: usize,
    /// All that exist, or as many as are certainly needed.
    nodes: Vec<NodeShape>,
    items: Vec<Item>,
    left_out: usize,
    bound: usize,
    optimum: Option<usize>,
}

impl<'a> Nodes<'a> {
    fn planted(instance: &'a Planted) -> Self {
        let demands: Vec<[u64; 4]> = instance.items.iter().map(|item| item.amounts).collect();
        Self {
            name: &instance.name,
            kind: Kind::Planted,
            dimensions: instance.dimensions,
            nodes: vec![shape(instance.capacity); instance.items.len()],
            items: instance.items.clone(),
            left_out: 0,
            bound: volume_of_equal(&instance.capacity, &demands).unwrap_or(0),
            optimum: Some(instance.optimum),
        }
    }

    /// CPU and memory on nodes of the commonest capacity. What is larger than one is left out.
    fn equal(list: &'a Recorded) -> Result<Self> {
        let capacity = list.common_capacity();
        let items: Vec<Item> = list.items.iter().filter(|item| item.fits(&capacity)).map(Item::plain).collect();
        let demands: Vec<[u64; 4]> = items.iter().map(|item| item.amounts).collect();
        let bound = volume_of_equal(&capacity, &demands).context("requests ask for what nodes do not have")?;
        Ok(Self {
            name: &list.name,
            kind: Kind::EqualNodes,
            dimensions: 2,
            nodes: vec![shape(capacity); items.len().min(3 * bound + 64)],
            left_out: list.items.len() - items.len(),
            items,
            bound,
            optimum: None,
        })
    }

    /// CPU and memory on the recorded nodes. What is larger than each of them is left out.
    fn recorded(list: &'a Recorded) -> Result<Self> {
        let nodes: Vec<NodeShape> = list.nodes.iter().map(NodeShape::plain).collect();
        let fits = |item: &&Item| nodes.iter().any(|node| item.fits(&node.amounts));
        let items: Vec<Item> = list.items.iter().filter(fits).map(Item::plain).collect();
        let demands: Vec<[u64; 4]> = items.iter().map(|item| item.amounts).collect();
        let capacities: Vec<[u64; 4]> = nodes.iter().map(|node| node.amounts).collect();
        let Some(bound) = volume(&capacities, &demands) else {
            bail!("{}: the requests ask for more CPU or memory than all nodes have", list.name);
        };
        Ok(Self {
            name: &list.name,
            kind: Kind::NodeList,
            dimensions: 2,
            nodes,
            left_out: list.items.len() - items.len(),
            items,
            bound,
            optimum: None,
        })
    }

    fn replay(&self, options: &Options, tell: &mut dyn FnMut(&Record) -> Result<()>) -> Result<()> {
        let mut panels = Vec::new();
        // Without GPUs to break up, the policy that looks at fragments packs.
        let is_other = |policy: &Policy| *policy != Policy::Fragmentation || options.policies.len() == 1;
        for (index, policy) in options.policies.iter().copied().filter(is_other).enumerate() {
            let packed = online::pack(&self.nodes, &self.items, policy);
            let mut record = self.record(policy, &packed);
            panels.push(self.panel(&format!("{}, one by one", name(policy)), &packed.nodes));
            if index == 0 && options.optimise_cpu_seconds > 0.0 {
                panels.extend(self.optimise(&packed, options, &mut record));
            }
            tell(&record)?;
        }
        let kind = match self.kind {
            Kind::EqualNodes => "-equal-nodes",
            _ => "",
        };
        let title = format!("{}{kind}", self.name);
        let least = self.optimum.unwrap_or(self.bound);
        write(options, &title, || picture::columns(&title, &NAMES[..self.dimensions], least, &panels))
    }

    /// Packs all at once; if that finds nothing, the record says why.
    fn optimise(&self, packed: &Packing, options: &Options, record: &mut Record) -> Option<Columns> {
        // If the number of nodes is unlimited, there need not be more than were enough.
        let nodes = if self.kind == Kind::NodeList { self.nodes.len() } else { packed.nodes_used };
        let task = Task {
            nodes: &self.nodes[..nodes],
            items: &self.items,
            dimensions: self.dimensions,
            least: self.optimum.unwrap_or(self.bound),
        };
        match optimised(&task, options) {
            Ok((found, nodes)) => {
                record.optimised = Some(found);
                Some(self.panel("after optimisation", &nodes))
            }
            Err(error) => {
                record.optimise_error = Some(format!("{error:#}"));
                None
            }
        }
    }

    /// A bound for only what was placed.
    fn bound_of_placed(&self, packed: &Packing) -> usize {
        let placed = self.items.iter().zip(&packed.nodes).filter(|(_, node)| node.is_some());
        let demands: Vec<[u64; 4]> = placed.map(|(item, _)| item.amounts).collect();
        let capacities: Vec<[u64; 4]> = self.nodes.iter().map(|node| node.amounts).collect();
        volume(&capacities, &demands).unwrap_or(self.bound)
    }

    fn record(&self, policy: Policy, packed: &Packing) -> Record {
        let bound = if packed.unplaced() > 0 { self.bound_of_placed(packed) } else { self.bound };
        Record {
            name: self.name.into(),
            kind: self.kind,
            policy: name(policy),
            nodes: (self.kind == Kind::NodeList).then_some(self.nodes.len()),
            items: self.items.len() + self.left_out,
            left_out: self.left_out,
            unplaced: packed.unplaced() as u64,
            nodes_used: packed.nodes_used,
            bound: Some(bound),
            optimum: self.optimum,
            ratio: Some(ratio(packed.nodes_used, self.optimum.unwrap_or(bound))),
            gpu_allocated_percent: None,
            gpu_allocated_percent_by_seed: Vec::new(),
            decisions: packed.decisions,
            cpu_seconds: packed.cpu_seconds,
            digest: digest(&packed.nodes),
            optimised: None,
            optimise_error: None,
        }
    }

    fn panel(&self, title: &str, nodes: &[Option<usize>]) -> Columns {
        let mut columns: Vec<([u64; 4], Vec<[u64; 4]>)> =
            self.nodes.iter().map(|node| (node.amounts, Vec::new())).collect();
        for (item, node) in self.items.iter().zip(nodes) {
            if let Some(node) = node {
                columns[*node].1.push(item.amounts);
            }
        }
        columns.retain(|(_, items)| !items.is_empty());
        Columns { title: title.into(), nodes: columns }
    }
}

fn shape(amounts: [u64; 4]) -> NodeShape {
    NodeShape { amounts, devices: 0, model: String::new() }
}

/// The GPUs of a list, in several orders of its requests.
fn gpus(list: &Recorded, options: &Options, tell: &mut dyn FnMut(&Record) -> Result<()>) -> Result<()> {
    let nodes = arrival::nodes(list);
    if nodes.is_empty() || list.items.iter().all(|item| item.devices.is_none()) {
        return Ok(());
    }
    let mut panels = Vec::new();
    for policy in options.policies.iter().copied() {
        let seeds = options.seed..options.seed.saturating_add(options.seeds.max(1));
        let runs: Vec<_> = seeds.map(|seed| arrival::replay(&nodes, &list.items, policy, seed)).collect();
        let by_seed: Vec<f64> = runs.iter().map(|run| rounded(run.given_percent)).collect();
        let first = &runs[0];
        let gave = |free: &Vec<u32>| free.iter().map(|free| DEVICE_MILLIS - free).collect();
        let cells = nodes.iter().zip(&first.free).map(|(node, free)| (node.model.clone(), gave(free))).collect();
        panels.push(Gpus { title: name(policy).into(), nodes: cells });
        tell(&Record {
            name: list.name.clone(),
            kind: Kind::GpuArrival,
            policy: name(policy),
            nodes: Some(nodes.len()),
            items: list.items.len(),
            left_out: 0,
            unplaced: runs.iter().map(|run| run.unplaced).sum(),
            nodes_used: first.nodes_used,
            bound: None,
            optimum: None,
            ratio: None,
            gpu_allocated_percent: Some(rounded(by_seed.iter().sum::<f64>() / by_seed.len() as f64)),
            gpu_allocated_percent_by_seed: by_seed,
            decisions: runs.iter().map(|run| run.decisions).sum(),
            cpu_seconds: runs.iter().map(|run| run.cpu_seconds).sum(),
            digest: digest(runs.iter().flat_map(|run| &run.chosen)),
            optimised: None,
            optimise_error: None,
        })?;
    }
    let title = format!("{}-gpus", list.name);
    write(options, &title, || picture::gpus(&format!("{}: GPUs when requests for all have come", list.name), &panels))
}

fn write(options: &Options, title: &str, draw: impl FnOnce() -> String) -> Result<()> {
    let Some(directory) = &options.pictures else { return Ok(()) };
    let path = directory.join(format!("{title}.svg"));
    std::fs::write(&path, draw()).with_context(|| format!("cannot write {}", path.display()))
}
