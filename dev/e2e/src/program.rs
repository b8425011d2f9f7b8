//! The program under test: where it is, and one call of it with what it said.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// The built program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
}

/// The output of a call, and its exit code (-1 if a signal ended it).
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Program {
    /// The program named by `HEPTAD_BIN`; without it, the one of this build, built first.
    pub fn find() -> Self {
        static FOUND: OnceLock<PathBuf> = OnceLock::new();
        let path = FOUND.get_or_init(|| match std::env::var_os("HEPTAD_BIN") {
            Some(path) => PathBuf::from(path),
            None => build(),
        });
        assert!(path.is_file(), "{} is not there: run `cargo build -p heptad`, or set HEPTAD_BIN", path.display());
        Self { path: path.clone() }
    }

    /// A call that has not started yet, without anything from the caller's environment that would change it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        let of_ours = std::env::vars_os().map(|(name, _)| name).filter(|n| n.to_string_lossy().starts_with("HEPTAD_"));
        of_ours.for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Said {
        finish(self.command().args(args), "")
    }
}

/// Runs a command to its end with that text as input.
pub(crate) fn finish(command: &mut Command, input: &str) -> Said {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.spawn().expect("the program starts");
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).expect("the program reads its input");
    }
    child.wait_with_output().expect("the program ends").into()
}

/// Builds the program with the cargo that built this test, into the same target directory.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile_dir = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let target_dir = profile_dir.parent().expect("profiles are in the target directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "heptad", "--target-dir"])
        .arg(target_dir)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "`cargo build -p heptad` failed");
    target_dir.join("debug/heptad")
}
