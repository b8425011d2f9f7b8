//! YAML documents as trees with places.

use crate::tree::{Entry, Node, Place, Tree};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Spanned};
use std::fmt;

struct Located(Spanned<Content>);

enum Content {
    Scalar(Value),
    List(Vec<Located>),
    Map(Vec<(Spanned<String>, Located)>),
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }
    fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }
    fn visit_none<E: de::Error>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element()? {
            out.push(item);
        }
        Ok(Content::List(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut out = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            out.push(entry);
        }
        Ok(Content::Map(out))
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    let at = spanned.referenced;
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Place { line: number(at.line()), column: number(at.column()) }
}

fn tree(located: Located) -> Tree {
    let place_here = place(&located.0);
    let node = match located.0.value {
        Content::Scalar(value) => Node::Scalar(value),
        Content::List(items) => Node::List(items.into_iter().map(tree).collect()),
        Content::Map(entries) => Node::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry { place: place(&key), key: key.value, value: tree(value) })
                .collect(),
        ),
    };
    Tree { place: place_here, node }
}

/// The first tab in the indentation of a line, from line `first` on: the scanner blames the value before it.
fn tab(text: &str, first: usize) -> Option<Place> {
    let lines = text.lines().enumerate().skip(first.saturating_sub(1));
    let mut tabs = lines.filter_map(|(at, line)| {
        let indentation = &line[..line.len() - line.trim_start().len()];
        Some(Place { line: at + 1, column: indentation.find('\t')? + 1 })
    });
    tabs.next()
}

/// The documents of a file, or the place and text of what is wrong with it.
pub(crate) fn documents(text: &str) -> Result<Vec<Tree>, (Place, String)> {
    // A service may be called `n` or `on`: only `true` and `false` are booleans, as in YAML 1.2.
    // A key that stands twice is found in the tree, where its place is known.
    let options = serde_saphyr::options! { strict_booleans: true, duplicate_keys: DuplicateKeyPolicy::LastWins };
    let parsed: Result<Vec<Located>, _> = serde_saphyr::from_multiple_with_options(text, options);
    match parsed {
        Ok(documents) => Ok(documents.into_iter().map(tree).collect()),
        Err(error) => {
            let at = error.location().map_or(Place { line: 1, column: 1 }, |l| Place {
                line: usize::try_from(l.line()).unwrap_or(usize::MAX),
                column: usize::try_from(l.column()).unwrap_or(usize::MAX),
            });
            let plain = error.without_snippet().to_string();
            match tab(text, at.line).filter(|_| plain.contains("tab")) {
                Some(tab) => Err((tab, "a tab stands where the line is indented; YAML takes spaces there".to_owned())),
                // The place stands before the message already.
                None => Err((
                    at,
                    plain.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default().to_owned(),
                )),
            }
        }
    }
}
