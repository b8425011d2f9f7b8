//! Which tests belong to guarantees: those that GUARANTEES.md names, by file, by directory or by name. Such a test is
//! never run a second time.

use std::{collections::BTreeSet, path::Path};

/// The file that names them, from the root.
pub(super) const STATEMENTS: &str = "GUARANTEES.md";

/// What the statements name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Promised {
    /// Tests by the last part of their name.
    names: BTreeSet<String>,
    /// Modules of integration tests: the package, and the module or nothing for all of them.
    modules: BTreeSet<(String, String)>,
}

impl Promised {
    /// Reads the words in backticks. A file without a directory is beside the last one that had one.
    pub(super) fn read(statements: &str) -> Self {
        let mut promised = Self::default();
        let mut beside = String::new();
        for word in statements.split('`').skip(1).step_by(2) {
            let is_path = word.ends_with(".rs") || word.ends_with("/tests/it");
            if is_path {
                let path = if word.contains('/') { word.to_owned() } else { format!("{beside}/{word}") };
                if let Some(dir) = Path::new(&path).parent() {
                    beside = dir.display().to_string();
                }
                promised.modules.extend(module(&path));
            } else if is_function(word) {
                promised.names.insert(word.to_owned());
            }
        }
        promised
    }

    /// `test` is its whole name in the package's program of integration tests.
    pub(super) fn has(&self, package: &str, test: &str) -> bool {
        let named = |module: &str| self.modules.contains(&(package.to_owned(), module.to_owned()));
        let name = test.rsplit("::").next().unwrap_or(test);
        self.names.contains(name) || named("") || test.split("::").next().is_some_and(named)
    }
}

/// Crates are named with an underscore too.
fn is_function(word: &str) -> bool {
    let letters = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    letters && word.contains('_') && !word.starts_with("heptad_")
}

/// `crates/io/net/tests/it/isolation.rs` is module `isolation` of `heptad-net`.
fn module(path: &str) -> Option<(String, String)> {
    let (directory, module) = path.split_once("/tests/it")?;
    let package = format!("heptad-{}", directory.rsplit('/').next()?);
    let module = module.trim_start_matches('/').trim_end_matches(".rs");
    Some((package, module.split('/').next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn files_directories_and_names_are_read() {
        let text = "Tests: `crates/io/state/tests/it/kill.rs`, `model.rs` beside it, `crates/svc/store/tests/it` and\n\
            `no_damage_is_read`. Run time: `heptad verify`. Predicate: `capacity`. `crates/core/sched/src/plan_tests.rs`,\n\
            `crates/io/exec/tests/it/restart.rs`.";
        let promised = Promised::read(text);
        for (package, test) in [
            ("heptad-state", "kill::acknowledged"),
            ("heptad-state", "model::on_etcd::etcd_is_the_model"),
            ("heptad-store", "faults::anything"),
            ("heptad-store", "anything"),
            ("heptad-exec", "restart::status"),
            ("heptad-blob", "reading::no_damage_is_read"),
        ] {
            assert!(promised.has(package, test), "{package} {test}");
        }
        for (package, test) in [("heptad-state", "backups::x"), ("heptad-net", "kill::x"), ("heptad-net", "capacity")] {
            assert!(!promised.has(package, test), "{package} {test}");
        }
    }

    #[test]
    fn the_statements_name_what_is_there() {
        let root = workspace::root().expect("the repository");
        let text = std::fs::read_to_string(root.join(STATEMENTS)).expect("it is read");
        let promised = Promised::read(&text);
        assert!(promised.has("heptad-net", "isolation::any") && promised.has("heptad-proxy", "policy::any"));
        let files = workspace::files(&root).expect("listed");
        let has = |text: &str| files.iter().any(|file| file.is_rust() && file.text.contains(text));
        let missing: Vec<&String> = promised.names.iter().filter(|name| !has(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "{STATEMENTS} names functions that are not there: {missing:?}");
    }
}
