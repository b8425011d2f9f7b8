//! `tidy`: the house rules that a program can check. Every rule is a function from files to findings; none reads the disk.

mod functions;
mod links;
mod ratchet;
mod rules;
mod source;

use crate::workspace::{self, File};
use anyhow::{Context, Result, bail};
use std::{fmt, fs};

/// The functions that were too long when the rule was introduced, with their lengths.
const BASELINE: &str = "dev/xtask/tidy-baseline.txt";

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 means the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(file: &File, line: usize, message: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

pub(crate) fn run(record: bool) -> Result<()> {
    let root = workspace::root()?;
    let files = workspace::files(&root)?;
    let baseline = fs::read_to_string(root.join(BASELINE)).unwrap_or_default();
    let allowed = ratchet::parse(&baseline).with_context(|| format!("cannot read {BASELINE}"))?;
    let long = ratchet::long_functions(&files);
    if record {
        fs::write(root.join(BASELINE), ratchet::shrunk(&allowed, &long))
            .with_context(|| format!("cannot write {BASELINE}"))?;
        println!("{BASELINE} written");
        return Ok(());
    }
    let mut findings = rules::findings(&files);
    findings.extend(links::findings(&files, &|path| root.join(path).exists()));
    findings.extend(ratchet::findings(&allowed, &long));
    findings.sort();
    if findings.is_empty() {
        println!("tidy: {} files are as they should be", files.len());
        return Ok(());
    }
    findings.iter().for_each(|finding| println!("{finding}"));
    bail!("{} house rules are broken", findings.len())
}
