//! A file's content as a tree in which every value knows its place, whatever the format. Knows no schema.

use serde_json::{Map, Value};

/// A place in a file. Lines and columns begin at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Place {
    /// The place of byte `offset` in `text`.
    pub(crate) fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) place: Place,
    pub(crate) node: Node,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Tree,
}

impl Tree {
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.node {
            Node::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The same without places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Node::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_value())).collect::<Map<_, _>>())
            }
        }
    }

    /// The first key that occurs twice in one map.
    pub(crate) fn duplicate(&self) -> Option<&Entry> {
        match &self.node {
            Node::Scalar(_) => None,
            Node::List(items) => items.iter().find_map(Self::duplicate),
            Node::Map(entries) => {
                let twice = |i: usize| entries[..i].iter().any(|e| e.key == entries[i].key);
                let here = (0..entries.len()).find(|i| twice(*i)).map(|i| &entries[i]);
                here.or_else(|| entries.iter().find_map(|e| e.value.duplicate()))
            }
        }
    }

    /// The place of `path` (such as `ports[1].host_port`), or of its nearest ancestor that was written.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let mut tree = self;
        let mut place = self.place;
        let steps = steps(path);
        let mut left = &steps[..];
        while let Some(step) = left.first() {
            match (step, &tree.node) {
                (Step::Index(i), Node::List(items)) if *i < items.len() => {
                    (tree, left) = (&items[*i], &left[1..]);
                    place = tree.place;
                }
                (Step::Key(_), Node::Map(_)) => match tree.entry_at(left) {
                    Some((entry, count)) => (tree, place, left) = (&entry.value, entry.place, &left[count..]),
                    None => return place,
                },
                _ => return place,
            }
        }
        place
    }

    /// The entry to which the first of `steps` lead, and how many they are: keys may contain dots.
    fn entry_at(&self, steps: &[Step]) -> Option<(&Entry, usize)> {
        let (at, count) = self.index_at(steps)?;
        Some((&self.entries()[at], count))
    }

    fn index_at(&self, steps: &[Step]) -> Option<(usize, usize)> {
        let keys = steps.iter().map_while(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let keys: Vec<&str> = keys.collect();
        let index = |key: &str| self.entries().iter().position(|entry| entry.key == key);
        let known = |key: &str| index(key).or_else(|| index(alias_of(key)));
        (1..=keys.len()).find_map(|count| Some((known(&keys[..count].join("."))?, count)))
    }

    /// Removes the entry at `path`; returns whether it was there.
    pub(crate) fn remove(&mut self, path: &str) -> bool {
        self.remove_steps(&steps(path)) == Removed::Exactly
    }

    /// Removes the entry at `path`, or the nearest one around it that was written; returns whether there is any.
    pub(crate) fn remove_around(&mut self, path: &str) -> bool {
        let steps = steps(path);
        (1..=steps.len()).rev().any(|kept| self.remove_steps(&steps[..kept]) == Removed::Exactly)
    }

    fn remove_steps(&mut self, steps: &[Step]) -> Removed {
        match steps.first() {
            None => Removed::Here,
            Some(Step::Index(i)) => match &mut self.node {
                Node::List(items) => items.get_mut(*i).map_or(Removed::Nothing, |item| item.remove_steps(&steps[1..])),
                _ => Removed::Nothing,
            },
            Some(Step::Key(_)) => {
                let Some((at, count)) = self.index_at(steps) else { return Removed::Nothing };
                let Node::Map(entries) = &mut self.node else { return Removed::Nothing };
                match entries[at].value.remove_steps(&steps[count..]) {
                    Removed::Here => {
                        entries.remove(at);
                        Removed::Exactly
                    }
                    other => other,
                }
            }
        }
    }
}

/// The word that users may have written instead of a field's name.
fn alias_of(key: &str) -> &str {
    match key {
        "name" => "service",
        "cpu_millis" => "cpu",
        other => other,
    }
}

/// The result of a removal.
#[derive(Debug, PartialEq, Eq)]
enum Removed {
    Exactly,
    /// The value itself is to be removed: its parent does that.
    Here,
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indexes) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
        if !key.is_empty() {
            out.push(Step::Key(key.to_owned()));
        }
        let numbers = indexes.split(['[', ']']).filter_map(|number| number.parse().ok());
        out.extend(numbers.map(Step::Index));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_in_steps() {
        let key = |k: &str| Step::Key(k.to_owned());
        assert_eq!(steps("ports[1].host_port"), [key("ports"), Step::Index(1), key("host_port")]);
        assert_eq!(steps(""), []);
    }

    #[test]
    fn offsets_become_lines_and_columns() {
        let text = "a\nüb c\n";
        assert_eq!(Place::of_offset(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of_offset(text, 5), Place { line: 2, column: 3 });
    }
}
