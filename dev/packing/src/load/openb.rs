//! The lists of the 2023 GPU-sharing cluster: one of nodes, one or more of requests. Ignores columns beyond those named
//! here, so that lists with fewer columns are read in the same way.

use super::table::{LoadError, Row, Table};
use crate::instance::{DEVICE_MILLIS, DEVICES_MAX, Devices, Item, NodeShape};
use std::path::Path;

pub(super) const NODE_COLUMNS: [&str; 5] = ["sn", "cpu_milli", "memory_mib", "gpu", "model"];
pub(super) const POD_COLUMNS: [&str; 5] = ["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"];
const MODELS: &str = "gpu_spec";

/// No dimension of a node or a request is larger: sums of all of them stay exact.
pub(super) const AMOUNT_MAX: u64 = 1 << 40;

pub(super) fn nodes(path: &Path) -> Result<Vec<NodeShape>, LoadError> {
    let table = Table::read(path, &NODE_COLUMNS)?;
    let nodes: Vec<NodeShape> = table.rows().map(|row| node(&row)).collect::<Result<_, _>>()?;
    if nodes.is_empty() { Err(table.wrong("no nodes; expected one a line")) } else { Ok(nodes) }
}

fn node(row: &Row<'_>) -> Result<NodeShape, LoadError> {
    let devices = row.number("gpu", 0..=DEVICES_MAX as u64)? as usize;
    let model = row.text("model").to_owned();
    if devices > 0 && model.is_empty() {
        return Err(row.wrong("model", "the model of the node's GPUs"));
    }
    Ok(NodeShape { amounts: amounts(row)?, devices, model })
}

pub(super) fn items(path: &Path) -> Result<Vec<Item>, LoadError> {
    let table = Table::read(path, &POD_COLUMNS)?;
    let items: Vec<Item> = table.rows().map(|row| item(&row)).collect::<Result<_, _>>()?;
    if items.is_empty() { Err(table.wrong("no requests; expected one a line")) } else { Ok(items) }
}

fn item(row: &Row<'_>) -> Result<Item, LoadError> {
    let count = row.number("num_gpu", 0..=DEVICES_MAX as u64)? as u32;
    let millis = match count {
        0 => row.number("gpu_milli", 0..=0)?,
        1 => row.number("gpu_milli", 1..=u64::from(DEVICE_MILLIS))?,
        _ => row.number("gpu_milli", u64::from(DEVICE_MILLIS)..=u64::from(DEVICE_MILLIS))?,
    } as u32;
    let models = row.text(MODELS).split('|').filter(|model| !model.is_empty()).map(str::to_owned).collect();
    let devices = (count > 0).then_some(Devices { millis: count * millis, models });
    Ok(Item { amounts: amounts(row)?, devices })
}

fn amounts(row: &Row<'_>) -> Result<[u64; 4], LoadError> {
    Ok([row.number("cpu_milli", 0..=AMOUNT_MAX)?, row.number("memory_mib", 0..=AMOUNT_MAX)?, 0, 0])
}
