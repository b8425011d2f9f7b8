//! TOML files as trees with places. A file is one object, or has `[[service]]` tables and the like for the other kinds.

use crate::tree::{Entry, Node, Place, Tree};
use heptad_api::Kind;
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The objects of a file, or the place and text of what is wrong with it.
pub(crate) fn documents(text: &str) -> Result<Vec<Tree>, (Place, String)> {
    let parsed = DeTable::parse(text).map_err(|error| {
        let place = Place::of_offset(text, error.span().map_or(0, |span| span.start));
        (place, error.message().to_owned())
    })?;
    let root = table(text, Place { line: 1, column: 1 }, parsed.get_ref());
    Ok(split(root))
}

/// A file of table arrays holds one object per table; the table's header stands for the key that names the object.
fn split(root: Tree) -> Vec<Tree> {
    let Node::Map(entries) = &root.node else { return vec![root] };
    let is_array_of_tables = |entry: &Entry| match &entry.value.node {
        Node::List(items) => items.iter().all(|item| matches!(item.node, Node::Map(_))),
        _ => false,
    };
    let is_head = |word: &str| Kind::ALL.into_iter().any(|kind| kind.head() == Some(word));
    if entries.is_empty() || !entries.iter().all(|entry| is_head(&entry.key) && is_array_of_tables(entry)) {
        return vec![root];
    }
    let mut out = Vec::new();
    for entry in entries {
        let Node::List(items) = &entry.value.node else { continue };
        out.extend(items.iter().cloned().map(|mut item| {
            if let Node::Map(fields) = &mut item.node {
                for field in fields.iter_mut().filter(|field| field.key == "name") {
                    field.key.clone_from(&entry.key);
                }
            }
            item
        }));
    }
    out.sort_by_key(|tree| tree.place.line);
    out
}

fn table(text: &str, place: Place, table: &DeTable<'_>) -> Tree {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            place: Place::of_offset(text, key.span().start),
            value: tree(text, value),
        })
        .collect();
    entries.sort_by_key(|entry| (entry.place.line, entry.place.column));
    Tree { place, node: Node::Map(entries) }
}

fn tree(text: &str, value: &Spanned<DeValue<'_>>) -> Tree {
    let place = Place::of_offset(text, value.span().start);
    let node = match value.get_ref() {
        DeValue::Table(inner) => return table(text, place, inner),
        DeValue::Array(items) => Node::List(items.iter().map(|item| tree(text, item)).collect()),
        DeValue::Boolean(flag) => Node::Scalar((*flag).into()),
        DeValue::String(string) => Node::Scalar(string.as_ref().into()),
        DeValue::Integer(number) => Node::Scalar(
            i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| number.as_str().into(), Value::from),
        ),
        DeValue::Float(number) => {
            Node::Scalar(number.as_str().parse::<f64>().map_or_else(|_| number.as_str().into(), Value::from))
        }
        DeValue::Datetime(time) => Node::Scalar(time.to_string().into()),
    };
    Tree { place, node }
}
