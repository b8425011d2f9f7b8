//! `test`: everything the tests need is there, everything is built once, and all tests run. What does not run is said.

mod packages;
mod runs;

use crate::{
    metadata::{self, Metadata},
    workspace,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// As many seeds as CI has time for, and a bound that means that something hangs.
const SIMULATION_ARGUMENTS: [&str; 4] = ["--seeds", "0..500", "--time-limit-s", "600"];

pub(crate) fn run(prepare_only: bool, args: &[String]) -> Result<()> {
    let is_root = effective_user()? == 0;
    packages::provide(is_root)?;
    if prepare_only {
        return Ok(());
    }
    let root = workspace::root()?;
    let metadata = metadata::load(&root)?;
    // One selection of packages for both steps, so that nothing is built twice with other features.
    cargo(&root, &metadata, &["build", "--workspace", "--bins", "--tests"])?;
    let mut failed = Vec::new();
    let runs = runs::runs(is_root);
    for run in &runs {
        println!("\n== {}", run.title);
        let arguments: Vec<&str> = run.arguments.iter().copied().chain(args.iter().map(String::as_str)).collect();
        if let Err(error) = cargo(&root, &metadata, &arguments) {
            eprintln!("error: {error:#}");
            failed.push(run.title);
        }
    }
    // A filter is for the test programs.
    if args.is_empty()
        && let Err(error) = simulate(&root, &metadata)
    {
        eprintln!("error: {error:#}");
        failed.push("simulation");
    }
    if !is_root {
        println!("\nNot run, because they need root:");
        runs::NEEDS_ROOT.iter().for_each(|what| println!("  {}: {}", what.package, what.tests));
        println!("Run `cargo xtask test` as root to run these too.");
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The user that we act as, asked of the system's own program so that no unsafe call is needed.
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

fn cargo(root: &Path, metadata: &Metadata, arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let begun = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root)
        // Tests of other crates than the binary's own find it by this.
        .env("HEPTAD_BIN", metadata.target_directory.join("debug/heptad"))
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
