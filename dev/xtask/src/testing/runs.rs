//! Which commands run all tests, and which tests only root can run.

/// Tests that make namespaces, mounts or containers. They fail, and do not skip, where they cannot.
#[derive(Debug)]
pub(super) struct NeedsRoot {
    pub(super) package: &'static str,
    /// Said to people; also the filter that leaves them out if they are one module.
    pub(super) tests: &'static str,
}

/// All tests below `tests/` of the package. Cargo has no one command for unit tests and examples in documentation, so the
/// examples of these packages wait for root too.
const INTEGRATION: &str = "all integration tests, and the examples in the documentation";

pub(super) const NEEDS_ROOT: [NeedsRoot; 6] = [
    NeedsRoot { package: "heptad-e2e", tests: INTEGRATION },
    NeedsRoot { package: "heptad-exec", tests: INTEGRATION },
    NeedsRoot { package: "heptad-image", tests: INTEGRATION },
    NeedsRoot { package: "heptad-net", tests: INTEGRATION },
    NeedsRoot { package: "heptad-proxy", tests: "redirect::" },
    NeedsRoot { package: "heptad-state", tests: "disk_full::" },
];

/// One call of cargo.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) title: &'static str,
    /// Ends within the arguments of the test programs.
    pub(super) arguments: Vec<&'static str>,
}

pub(super) fn runs(is_root: bool) -> Vec<Run> {
    if is_root {
        let arguments = vec!["test", "--workspace", "--no-fail-fast", "--"];
        return vec![Run { title: "all tests", arguments }];
    }
    let whole = || NEEDS_ROOT.iter().filter(|what| what.tests == INTEGRATION);
    let parts = NEEDS_ROOT.iter().filter(|what| what.tests != INTEGRATION);
    let mut others = vec!["test", "--workspace", "--no-fail-fast"];
    others.extend(whole().flat_map(|what| ["--exclude", what.package]));
    others.push("--");
    others.extend(parts.flat_map(|what| ["--skip", what.tests]));
    let mut units = vec!["test", "--no-fail-fast", "--lib", "--bins"];
    units.extend(whole().flat_map(|what| ["--package", what.package]));
    units.push("--");
    vec![
        Run { title: "tests that need no root", arguments: others },
        Run { title: "unit tests of the packages whose integration tests need root", arguments: units },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_runs_everything() {
        let all = runs(true);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].arguments, ["test", "--workspace", "--no-fail-fast", "--"]);
    }

    #[test]
    fn without_root_exactly_the_listed_tests_are_left_out() {
        let all: Vec<String> = runs(false).into_iter().map(|run| run.arguments.join(" ")).collect();
        let words: Vec<&str> = all.iter().flat_map(|line| line.split(' ')).collect();
        for what in &NEEDS_ROOT {
            let wanted = if what.tests == INTEGRATION { what.package } else { what.tests };
            assert!(words.contains(&wanted), "{wanted} in {all:?}");
        }
        assert_eq!(words.iter().filter(|word| **word == "--skip").count(), 2);
    }
}
