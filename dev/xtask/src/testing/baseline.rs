//! The tests that are known to have passed only when repeated. The list only becomes shorter: whoever adds to it states
//! that a race is left in place.

use anyhow::{Context, Result, ensure};
use std::{collections::BTreeSet, path::Path};

/// The list, from the root.
pub(super) const BASELINE: &str = "dev/xtask/repeats-baseline.txt";

/// A package and one of its tests.
pub(super) type Known = BTreeSet<(String, String)>;

pub(super) fn load(root: &Path) -> Result<Known> {
    let path = root.join(BASELINE);
    parse(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?)
}

/// Reads `PACKAGE TEST` per line; `#` begins a comment.
pub(super) fn parse(text: &str) -> Result<Known> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (package, test) = line.split_once(' ').with_context(|| format!("`{line}` is not `PACKAGE TEST`"))?;
        Ok((package.to_owned(), test.trim().to_owned()))
    };
    lines.map(pair).collect()
}

/// Fails on the first run in which an unlisted test had to be repeated.
pub(super) fn check(known: &Known, repeated: &Known) -> Result<()> {
    let new: Vec<String> = repeated.difference(known).map(|(package, test)| format!("{package} {test}")).collect();
    ensure!(
        new.is_empty(),
        "passed only when repeated and not in {BASELINE}: {}; mend the race, in the test or in the product",
        new.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_test_that_is_not_listed_fails_the_run() {
        let known = parse("# why\n\nheptad-net dns::a\nheptad-e2e b\n").expect("it is a list");
        let one = |package: &str, test: &str| Known::from([(package.to_owned(), test.to_owned())]);
        assert!(check(&known, &Known::new()).is_ok() && check(&known, &one("heptad-net", "dns::a")).is_ok());
        let error = check(&known, &one("heptad-net", "b")).expect_err("it is of another package");
        assert!(error.to_string().contains(": heptad-net b;"), "{error}");
        assert!(parse("heptad-net").is_err());
    }

    #[test]
    fn the_list_of_the_repository_is_one() {
        load(&workspace::root().expect("the repository")).expect("it is read");
    }
}
