//! Planted instances: an index that names files, the capacity of the nodes (all equal) and the optimal number of them; each
//! file has one item a line, one column a resource, in the order of the capacities.

use super::{
    openb::AMOUNT_MAX,
    table::{LoadError, Row, Table, heading},
};
use crate::instance::{Item, Planted};
use std::path::Path;

pub(super) const INDEX_COLUMNS: [&str; 5] = ["file", "dims", "items", "optimal_nodes", "cap0"];
const DIMENSIONS_MAX: usize = 4;
const ITEMS_MAX: u64 = 10_000_000;

pub(super) fn instances(index: &Path) -> Result<Vec<Planted>, LoadError> {
    let table = Table::read(index, &INDEX_COLUMNS)?;
    let directory = index.parent().unwrap_or(Path::new("."));
    table.rows().map(|row| instance(&row, directory)).collect()
}

fn instance(row: &Row<'_>, directory: &Path) -> Result<Planted, LoadError> {
    let file = row.text("file");
    if file.is_empty() || file.contains('/') {
        return Err(row.wrong("file", "the name of a file beside the index"));
    }
    let dimensions = row.number("dims", 1..=DIMENSIONS_MAX as u64)? as usize;
    let mut capacity = [0; DIMENSIONS_MAX];
    for (index, amount) in capacity.iter_mut().enumerate().take(dimensions) {
        *amount = row.number(&format!("cap{index}"), 1..=AMOUNT_MAX)?;
    }
    let count = row.number("items", 1..=ITEMS_MAX)?;
    let optimum = row.number("optimal_nodes", 1..=count)? as usize;
    let items = items(&directory.join(file), &capacity[..dimensions], count as usize)?;
    let name = file.strip_suffix(".csv").unwrap_or(file).to_owned();
    Ok(Planted { name, dimensions, capacity, optimum, items })
}

fn items(path: &Path, capacity: &[u64], count: usize) -> Result<Vec<Item>, LoadError> {
    let names = heading(path)?.unwrap_or_default();
    let table = Table::read(path, &[])?;
    if names.len() != capacity.len() {
        return Err(table.wrong(format_args!("{} columns; the index says {} resources", names.len(), capacity.len())));
    }
    if table.len() != count {
        return Err(table.wrong(format_args!("{} items; the index says {count}", table.len())));
    }
    let item = |row: Row<'_>| {
        let mut amounts = [0; DIMENSIONS_MAX];
        for ((amount, name), room) in amounts.iter_mut().zip(&names).zip(capacity) {
            *amount = row.number(name, 0..=*room)?;
        }
        Ok(Item { amounts, devices: None })
    };
    table.rows().map(item).collect()
}
