//! What passed only when repeated, kept in a directory, because each test program is run by a process of its own.

use super::baseline::{self, Known};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

/// Names the directory to the processes that run test programs.
pub(super) const VARIABLE: &str = "HEPTAD_TEST_REPEATS_DIR";
const LIST: &str = "passed-only-when-repeated";

/// The directory of one run of all tests.
#[derive(Clone, Debug)]
pub(super) struct Repeats {
    dir: PathBuf,
}

impl Repeats {
    /// An empty one.
    pub(super) fn begin(dir: PathBuf) -> Result<Self> {
        let making = || format!("cannot make {}", dir.display());
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(making)?;
        }
        fs::create_dir_all(&dir).with_context(making)?;
        Ok(Self { dir })
    }

    pub(super) fn from_environment() -> Option<Self> {
        Some(Self { dir: PathBuf::from(std::env::var_os(VARIABLE)?) })
    }

    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// The output of a package's integration tests the first time.
    pub(super) fn output(&self, package: &str) -> PathBuf {
        self.dir.join(format!("{package}.txt"))
    }

    /// The output of one of them the second time.
    pub(super) fn output_again(&self, package: &str) -> PathBuf {
        self.dir.join(format!("{package}.again.txt"))
    }

    pub(super) fn record(&self, package: &str, tests: &[String]) -> Result<()> {
        let path = self.dir.join(LIST);
        let writing = || format!("cannot write {}", path.display());
        let mut list = File::options().create(true).append(true).open(&path).with_context(writing)?;
        for test in tests {
            writeln!(list, "{package} {test}").with_context(writing)?;
        }
        Ok(())
    }

    pub(super) fn listed(&self) -> Result<Known> {
        let path = self.dir.join(LIST);
        if !path.exists() {
            return Ok(Known::new());
        }
        baseline::parse(&fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?)
    }
}
