//! `layers`: the arrows between crates are those of the architecture, and the crates that decide reach nothing that
//! touches the world. A pure function of the output of `cargo metadata`.

mod rules;
#[cfg(test)]
mod tests;

use crate::{
    metadata::{self, Metadata},
    workspace,
};
use anyhow::{Result, bail};
use rules::{CORE_EXCEPTIONS, CORE_FORBIDDEN, RULES, Rule, Shelf};
use std::{
    collections::{BTreeMap, VecDeque},
    path::Path,
};

pub(crate) fn run() -> Result<()> {
    let metadata = metadata::load(&workspace::root()?)?;
    let violations = violations(&metadata);
    if violations.is_empty() {
        println!("layers: the arrows between {} crates are as they should be", metadata.workspace_members.len());
        return Ok(());
    }
    violations.iter().for_each(|violation| println!("{violation}"));
    bail!("{} arrows are forbidden; ARCHITECTURE.md says why", violations.len())
}

/// A crate of the workspace.
struct Member<'a> {
    id: &'a str,
    name: &'a str,
    shelf: Shelf,
    rule: Option<&'static Rule>,
}

/// The metadata, by the keys that are needed.
struct Graph<'a> {
    members: BTreeMap<&'a str, Member<'a>>,
    names: BTreeMap<&'a str, &'a str>,
    dependencies: BTreeMap<&'a str, &'a [metadata::Dependency]>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Metadata) -> Self {
        let is_member = |id: &String| metadata.workspace_members.contains(id);
        let members = metadata.packages.iter().filter(|p| is_member(&p.id)).map(|package| {
            let dir = package.manifest_path.parent().unwrap_or(Path::new(""));
            let relative = dir.strip_prefix(&metadata.workspace_root).unwrap_or(dir);
            let rule = RULES.iter().find(|rule| rule.name == package.name);
            (&*package.id, Member { id: &package.id, name: &package.name, shelf: Shelf::of(relative), rule })
        });
        Self {
            members: members.collect(),
            names: metadata.packages.iter().map(|p| (&*p.id, &*p.name)).collect(),
            dependencies: metadata.resolve.nodes.iter().map(|n| (&*n.id, &*n.deps)).collect(),
        }
    }

    fn dependencies(&self, id: &str) -> &'a [metadata::Dependency] {
        self.dependencies.get(id).copied().unwrap_or_default()
    }
}

/// All forbidden arrows, one line each.
fn violations(metadata: &Metadata) -> Vec<String> {
    let graph = Graph::new(metadata);
    let mut out = Vec::new();
    for member in graph.members.values() {
        out.extend(misplaced(member, metadata));
        for dependency in graph.dependencies(member.id) {
            if let Some(target) = graph.members.get(&*dependency.pkg) {
                out.extend(forbidden(member, target, dependency.is_shipped()));
            }
        }
        if member.shelf == Shelf::Core {
            out.extend(touching(&graph, member));
        }
    }
    out.sort();
    out
}

/// Whether the crate is where its name says, and known at all.
fn misplaced(member: &Member<'_>, metadata: &Metadata) -> Option<String> {
    let package = metadata.packages.iter().find(|p| p.id == member.id)?;
    let dir = package.manifest_path.parent()?.file_name()?.to_string_lossy().into_owned();
    match (member.shelf, member.rule) {
        (Shelf::Dev | Shelf::Heptad, _) => None,
        (Shelf::Unknown, _) => Some(format!("{}: it lies on no shelf; put it below crates/ or dev/", member.name)),
        (_, None) => {
            Some(format!("{}: no arrows are known for it; add it to dev/xtask/src/layers/rules.rs", member.name))
        }
        (shelf, Some(rule)) if rule.shelf != shelf => {
            Some(format!("{}: it lies on the shelf {shelf}, not {}", member.name, rule.shelf))
        }
        _ if format!("heptad-{dir}") != member.name => Some(format!("{}: its directory is named {dir}", member.name)),
        _ => None,
    }
}

/// Why the arrow from `from` to `to` is forbidden, if it is.
fn forbidden(from: &Member<'_>, to: &Member<'_>, shipped: bool) -> Option<String> {
    let arrow = |reason: String| Some(format!("{} -> {}: forbidden because {reason}", from.name, to.name));
    if to.shelf == Shelf::Dev && from.shelf != Shelf::Dev {
        return arrow("nothing may know dev/".to_owned());
    }
    let rule = match (from.shelf, from.rule) {
        (Shelf::Dev | Shelf::Heptad, _) => return None,
        // Said by `misplaced`.
        (_, None) => return None,
        (_, Some(rule)) => rule,
    };
    if rule.may_use.contains(&to.name) || (!shipped && rule.tests_may_use.contains(&to.name)) {
        return None;
    }
    if to.shelf == Shelf::Heptad {
        return arrow("only the binary composes the services".to_owned());
    }
    let allowed = if rule.may_use.is_empty() { "no crate of ours".to_owned() } else { rule.may_use.join(", ") };
    let what = if shipped { "it" } else { "a test of it" };
    arrow(format!("{} and {what} may know only {allowed}", rule.shelf.purpose()))
}

/// Every forbidden crate that a core crate reaches, with the shortest way to it.
fn touching(graph: &Graph<'_>, member: &Member<'_>) -> Vec<String> {
    let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::from([(member.id, vec![member.name])]);
    let mut queue = VecDeque::from([member.id]);
    let mut out = Vec::new();
    while let Some(id) = queue.pop_front() {
        let way = ways[id].clone();
        for dependency in graph.dependencies(id).iter().filter(|d| d.is_shipped()) {
            let name = graph.names.get(&*dependency.pkg).copied().unwrap_or_default();
            let arrow = (way.last().copied().unwrap_or_default(), name);
            if ways.contains_key(&*dependency.pkg) || CORE_EXCEPTIONS.contains(&arrow) {
                continue;
            }
            let way: Vec<&str> = way.iter().copied().chain([name]).collect();
            if let Some((_, reason)) = CORE_FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == name) {
                let path = way.join(" -> ");
                out.push(format!("{} -> {name}: forbidden because {reason} (by {path})", member.name));
            }
            ways.insert(&dependency.pkg, way);
            queue.push_back(&dependency.pkg);
        }
    }
    out
}
