//! A packing made better by the optimiser.

use super::{instances::Options, online::Packing};
use crate::{
    instance::{Item, NodeShape},
    report::Optimised,
};
use anyhow::{Result, bail};
use heptad_sched::NodeIndex;

pub(super) fn optimised(
    _nodes: &[NodeShape],
    _items: &[Item],
    _dimensions: usize,
    _least: usize,
    _packed: &Packing,
    _options: &Options,
) -> Result<(Optimised, Vec<Option<NodeIndex>>)> {
    bail!("no optimiser yet")
}
