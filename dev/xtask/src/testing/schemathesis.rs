//! The tool that tests the API against its document: in an environment of its own below the target directory, in exact
//! versions.

use anyhow::{Context, Result, ensure};
use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Stdio},
};

const REQUIREMENTS: &str = "dev/e2e/schemathesis/requirements.txt";

/// Makes sure that it is there as the requirements say.
pub(super) fn provide(root: &Path, target: &Path) -> Result<()> {
    let (dir, listed) = (target.join("schemathesis"), root.join(REQUIREMENTS));
    let wanted = fs::read(&listed).with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    let installed = dir.join("requirements.txt");
    if fs::read(&installed).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!("installing schemathesis in {}", dir.display());
    let words = ["-m", "venv", "--clear"].map(OsStr::new);
    run(Command::new("python3").args(words).arg(&dir)).context("is the package python3-venv installed?")?;
    let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"].map(OsStr::new);
    run(Command::new(dir.join("bin/python")).args(words).arg(&listed))?;
    // Last: with this file the environment is whole.
    fs::write(&installed, wanted).with_context(|| format!("cannot write {}", installed.display()))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
