//! Long functions as a ratchet: none is added, listed ones may only become shorter, and then the list does too.

use super::{BASELINE, Finding, functions::functions};
use crate::workspace::File;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Most lines of a function, from `fn` to the closing brace.
pub(super) const FUNCTION_LINES_MAX: usize = 70;

/// Lines of long functions by `file:name`; of equal names in a file the longest counts.
pub(super) type Lengths = BTreeMap<String, usize>;

/// Reads `FILE:NAME LINES` per line; `#` begins a comment.
pub(super) fn parse(text: &str) -> Result<Lengths> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, lines) = line.rsplit_once(' ').with_context(|| format!("`{line}` is not `FILE:NAME LINES`"))?;
            Ok((key.to_owned(), lines.parse().with_context(|| format!("`{lines}` is not a number"))?))
        })
        .collect()
}

pub(super) fn long_functions(files: &[File]) -> Lengths {
    let mut out = Lengths::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for function in functions(&file.text).into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            let lines = out.entry(format!("{}:{}", file.path, function.name)).or_default();
            *lines = function.lines.max(*lines);
        }
    }
    out
}

pub(super) fn findings(allowed: &Lengths, found: &Lengths) -> Vec<Finding> {
    let mut out = Vec::new();
    for (key, lines) in found {
        match allowed.get(key) {
            None => out.push(finding(key, format!("it has {lines} lines, more than {FUNCTION_LINES_MAX}; divide it"))),
            Some(most) if lines > most => {
                out.push(finding(key, format!("it grew from {most} to {lines} lines; divide it")))
            }
            Some(_) => {}
        }
    }
    for (key, most) in allowed {
        let lines = found.get(key).copied().unwrap_or(0);
        if lines < *most {
            out.push(finding(key, format!("it is shorter than {most} lines now: run `cargo xtask tidy --record`")));
        }
    }
    out
}

fn finding(key: &str, message: String) -> Finding {
    Finding { path: key.to_owned(), line: 0, message }
}

/// The list after shrinking: nothing is added to it and nothing grows.
pub(super) fn shrunk(allowed: &Lengths, found: &Lengths) -> String {
    let head = format!(
        "# {BASELINE}: functions over {FUNCTION_LINES_MAX} lines, as FILE:NAME LINES. It may only become shorter: `cargo xtask tidy --record`.\n"
    );
    let kept = allowed.iter().filter_map(|(key, most)| Some((key, (*found.get(key)?).min(*most))));
    kept.fold(head, |text, (key, lines)| format!("{text}{key} {lines}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(all: &[(&str, usize)]) -> Lengths {
        all.iter().map(|(key, lines)| ((*key).to_owned(), *lines)).collect()
    }

    #[test]
    fn new_and_grown_functions_fail_and_shrunk_ones_must_be_recorded() {
        let allowed = lengths(&[("a.rs:same", 80), ("a.rs:grown", 80), ("a.rs:shorter", 80), ("a.rs:gone", 80)]);
        let found = lengths(&[("a.rs:same", 80), ("a.rs:grown", 81), ("a.rs:shorter", 75), ("a.rs:new", 71)]);
        let broken: Vec<String> = findings(&allowed, &found).into_iter().map(|f| f.path).collect();
        assert_eq!(broken, ["a.rs:grown", "a.rs:new", "a.rs:gone", "a.rs:shorter"]);
    }

    #[test]
    fn recording_only_shrinks() {
        let allowed = lengths(&[("a.rs:grown", 80), ("a.rs:shorter", 80), ("a.rs:gone", 80)]);
        let found = lengths(&[("a.rs:grown", 81), ("a.rs:shorter", 75), ("a.rs:new", 71)]);
        let text = shrunk(&allowed, &found);
        assert_eq!(parse(&text).expect("it is a list"), lengths(&[("a.rs:grown", 80), ("a.rs:shorter", 75)]));
    }

    #[test]
    fn only_functions_over_the_bound_are_long() {
        let body = |lines: usize| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(lines - 2));
        let file = |lines| [File { path: "a.rs".to_owned(), text: body(lines) }];
        assert_eq!(long_functions(&file(FUNCTION_LINES_MAX)), Lengths::new());
        assert_eq!(long_functions(&file(FUNCTION_LINES_MAX + 1)), lengths(&[("a.rs:f", FUNCTION_LINES_MAX + 1)]));
    }

    #[test]
    fn a_broken_list_is_refused() {
        assert!(parse("a.rs:f").is_err() && parse("a.rs:f x").is_err());
    }
}
