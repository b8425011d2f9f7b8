//! `test`: installs what the tests need, builds everything once, and runs all tests. Reports what does not run.

mod baseline;
mod packages;
mod program;
mod promised;
mod repeats;
mod runs;
mod schemathesis;

pub(crate) use program::run as run_program;

use crate::{
    metadata::{self, Metadata},
    workspace,
};
use anyhow::{Context, Result, bail, ensure};
use repeats::Repeats;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// As many seeds as CI has time for, and a bound beyond which something hangs.
const SIMULATION_ARGUMENTS: [&str; 4] = ["--seeds", "0..500", "--time-limit-s", "600"];

/// The chore by which cargo runs each test program.
pub(crate) const PROGRAM_CHORE: &str = "test-program";

pub(crate) fn run(prepare_only: bool, args: &[String]) -> Result<()> {
    // Before anything is built: then this program may have been replaced by a newer one.
    let own = std::env::current_exe().context("this program does not know its own file")?;
    let is_root = effective_user()? == 0;
    packages::provide(is_root)?;
    let root = workspace::root()?;
    let metadata = metadata::load(&root)?;
    // Its test makes containers.
    if is_root {
        schemathesis::provide(&root, &metadata.target_directory)?;
    }
    if prepare_only {
        return Ok(());
    }
    // One selection of packages for both steps, so that nothing is built twice with different features.
    let cargo = Cargo {
        repeats: Repeats::begin(metadata.target_directory.join("failed-tests"))?,
        bin: metadata.target_directory.join("debug/heptad"),
        root,
    };
    cargo.run(&["build", "--workspace", "--bins", "--tests"])?;
    let mut failed = Vec::new();
    let runner = runner(&own)?;
    for run in &runs::runs(is_root) {
        println!("\n== {}", run.title);
        let own = ["--config", runner.as_str()].into_iter().chain(run.arguments.iter().copied());
        let arguments: Vec<&str> = own.chain(args.iter().map(String::as_str)).collect();
        if let Err(error) = cargo.run(&arguments) {
            eprintln!("error: {error:#}");
            failed.push(run.title);
        }
    }
    // A filter is for the test programs.
    if args.is_empty()
        && let Err(error) = simulate(&cargo.root, &metadata)
    {
        eprintln!("error: {error:#}");
        failed.push("simulation");
    }
    if !is_root {
        println!("\nNot run, because they need root:");
        runs::NEEDS_ROOT.iter().for_each(|what| println!("  {}: {}", what.package, what.tests));
        println!("Run `cargo xtask test` as root to run these too.");
    }
    say_repeated(&cargo.repeats)?;
    if let Err(error) = baseline::check(&baseline::load(&cargo.root)?, &cargo.repeats.listed()?) {
        eprintln!("error: {error:#}");
        failed.push("repeated tests");
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The setting of cargo by which it runs test programs through this program.
fn runner(own: &Path) -> Result<String> {
    let own = serde_json::to_string(own).context("the path of this program is no text")?;
    Ok(format!("target.'cfg(unix)'.runner=[{own}, \"{PROGRAM_CHORE}\"]"))
}

/// A test that passed by luck must not count as sound.
fn say_repeated(repeats: &Repeats) -> Result<()> {
    let listed = repeats.listed()?;
    if !listed.is_empty() {
        println!("\n!! PASSED ONLY WHEN REPEATED: {} of the tests above failed first.", listed.len());
        for (package, test) in &listed {
            println!("!!   {package} {test} (first failure: {})", repeats.output(package).display());
        }
        println!("!! Each is a race in the test or in the product: look at what it said.");
    }
    Ok(())
}

/// The user that we act as, from the system's own program, so that no unsafe call is needed.
fn effective_user() -> Result<u32> {
    let output = Command::new("id").arg("-u").output().context("cannot run `id -u`")?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("`id -u` says no number")
}

/// Many seeds of the simulated world; its program was built with the tests.
fn simulate(root: &Path, metadata: &Metadata) -> Result<()> {
    println!("\n== simulation: {SIMULATION_ARGUMENTS:?}");
    let status = Command::new(metadata.target_directory.join("debug/heptad-sim"))
        .args(SIMULATION_ARGUMENTS)
        .current_dir(root)
        .stdin(Stdio::null())
        .status()
        .context("cannot run the simulation")?;
    ensure!(status.success(), "the simulation failed ({status})");
    Ok(())
}

/// The cargo that runs us, and the arguments for its test programs.
struct Cargo {
    root: PathBuf,
    bin: PathBuf,
    repeats: Repeats,
}

impl Cargo {
    fn run(&self, arguments: &[&str]) -> Result<()> {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let begun = Instant::now();
        let status = Command::new(program)
            .args(arguments)
            .current_dir(&self.root)
            // Tests of other crates than the binary's own find it by this.
            .env("HEPTAD_BIN", &self.bin)
            .env(repeats::VARIABLE, self.repeats.dir())
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")?;
        let line = format!("cargo {}", arguments.join(" "));
        println!("== {line}: {} s", begun.elapsed().as_secs());
        if !status.success() {
            bail!("`{line}` failed ({status})");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_to_run_test_programs_through_this_one() {
        let text = runner(Path::new("/a \"b\"/xtask")).expect("a path");
        assert_eq!(text, r#"target.'cfg(unix)'.runner=["/a \"b\"/xtask", "test-program"]"#);
    }
}
