//! One test program, as cargo starts it through us: whole systems one at a time, and failed tests on real parts once
//! more, so that the report distinguishes a race from a defect. The run fails all the same unless the test is known for
//! it. Knows nothing about what is tested.

use super::{
    promised::{Promised, STATEMENTS},
    repeats::Repeats,
};
use crate::workspace;
use anyhow::{Context, Result};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

/// The packages whose integration tests run processes, containers, kernel networks and connections, which share the
/// machine's time with everything else. Nothing that only computes is here: a second run of that would tell nothing.
pub(super) const ON_REAL_PARTS: [&str; 7] =
    ["heptad-agent", "heptad-control", "heptad-e2e", "heptad-exec", "heptad-image", "heptad-net", "heptad-proxy"];
/// Packages whose every test is a platform or more: a second one beside it is load for which the first was not made.
pub(super) const WHOLE_SYSTEMS: [&str; 1] = ["heptad-e2e"];
/// How many tests of one program are repeated; more are broken.
const REPEATED_MAX: usize = 4;

/// What is to be done with a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Care {
    alone: bool,
    repeated: bool,
}

/// By the package and the file of the program; each package has one program of integration tests, named `it`.
fn care(package: &str, program: &Path) -> Care {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with("it-") {
        return Care::default();
    }
    Care { alone: WHOLE_SYSTEMS.contains(&package), repeated: ON_REAL_PARTS.contains(&package) }
}

/// Runs a test program with its arguments; its exit code.
pub(crate) fn run(program: &Path, args: &[String]) -> Result<i32> {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    let Care { alone, repeated } = care(&package, program);
    let mut command = Command::new(program);
    command.args(args);
    let is_set = args.iter().any(|arg| arg.starts_with("--test-threads"));
    if alone && !is_set && std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.arg("--test-threads=1");
    }
    match Repeats::from_environment().filter(|_| repeated) {
        Some(repeats) => run_with(command, program, &package, &repeats, &promised()?),
        None => Err(command.exec()).with_context(|| format!("cannot run {}", program.display())),
    }
}

fn promised() -> Result<Promised> {
    let path = workspace::root()?.join(STATEMENTS);
    Ok(Promised::read(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?))
}

fn run_with(command: Command, program: &Path, package: &str, repeats: &Repeats, promised: &Promised) -> Result<i32> {
    let output = repeats.output(package);
    let code = run_copied(command, &output)?;
    if code == 0 {
        let _ = std::fs::remove_file(&output);
        return Ok(0);
    }
    let reading = || format!("cannot read {}", output.display());
    let failed = failures(BufReader::new(File::open(&output).with_context(reading)?)).with_context(reading)?;
    if failed.is_empty() || failed.len() > REPEATED_MAX {
        return Ok(code);
    }
    let of_guarantees: Vec<&str> =
        failed.iter().map(String::as_str).filter(|test| promised.has(package, test)).collect();
    if !of_guarantees.is_empty() {
        println!("== {package}: not repeated, since these are tests of guarantees: {}", of_guarantees.join(", "));
        return Ok(code);
    }
    println!("== {package}: once more, alone: {}", failed.join(", "));
    // Not `--exact` with all at once: each must run by itself, and must be seen to have run.
    for test in &failed {
        let mut again = Command::new(program);
        again.args(["--exact", test, "--test-threads=1"]);
        let second = repeats.output_again(package);
        let status = run_copied(again, &second)?;
        if status != 0 || !ran_one(&second)? {
            return Ok(code);
        }
        let _ = std::fs::remove_file(&second);
    }
    repeats.record(package, &failed)?;
    Ok(0)
}

/// Runs it and copies what it says to a file; its exit code, or that of a shell for a signal.
fn run_copied(mut command: Command, file: &Path) -> Result<i32> {
    let writing = || format!("cannot write {}", file.display());
    let mut copy = File::create(file).with_context(writing)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run a test program")?;
    let mut said = child.stdout.take().context("the output of a test program is a pipe")?;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = said.read(&mut buffer).context("cannot read what a test program says")?;
        if count == 0 {
            break;
        }
        copy.write_all(&buffer[..count]).with_context(writing)?;
        // Nobody may listen.
        let mut out = std::io::stdout();
        let _ = out.write_all(&buffer[..count]).and_then(|()| out.flush());
    }
    let status = child.wait().context("cannot wait for a test program")?;
    Ok(status.code().unwrap_or(101))
}

/// The names in the list that a test program ends with.
fn failures(output: impl BufRead) -> std::io::Result<Vec<String>> {
    let mut names: Option<Vec<String>> = None;
    for line in output.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        match (line.as_str(), &mut names) {
            ("failures:", _) => names = Some(Vec::new()),
            (line, Some(list)) => match line.strip_prefix("    ").filter(|name| !name.contains(' ')) {
                Some(name) if !name.is_empty() => list.push(name.to_owned()),
                _ if line.is_empty() || line.starts_with("test result:") => {}
                // It was the other section under this heading: the tests' output.
                _ => names = None,
            },
            _ => {}
        }
    }
    Ok(names.unwrap_or_default())
}

fn ran_one(output: &Path) -> Result<bool> {
    let text = std::fs::read(output).with_context(|| format!("cannot read {}", output.display()))?;
    Ok(String::from_utf8_lossy(&text).contains("test result: ok. 1 passed; 0 failed"))
}

#[cfg(test)]
mod tests {
    use super::{super::baseline::Known, *};

    fn none() -> Promised {
        Promised::default()
    }

    const SAID: &str = "running 3 tests\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n---- b::c stdout ----\n\
        failures:\n    not::a::test\nit panicked\n    at src/x.rs\n\n\nfailures:\n    b::c\n    d\n\n\
        test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\n";

    #[test]
    fn the_list_at_the_end_names_the_failed_tests() {
        assert_eq!(failures(SAID.as_bytes()).expect("it is read"), ["b::c", "d"]);
        let crashed = "running 1 test\n\nfailures:\n\n---- a stdout ----\nthread panicked\n";
        for nothing in ["", "test result: ok. 1 passed; 0 failed", crashed] {
            assert!(failures(nothing.as_bytes()).expect("it is read").is_empty(), "{nothing}");
        }
    }

    #[test]
    fn only_integration_tests_on_real_parts_are_repeated() {
        let it = Path::new("/target/debug/deps/it-0123456789abcdef");
        assert_eq!(care("heptad-e2e", it), Care { alone: true, repeated: true });
        assert_eq!(care("heptad-exec", it), Care { alone: false, repeated: true });
        for package in ["heptad-sched", "heptad-state", "heptad-model", "heptad-sim", ""] {
            assert_eq!(care(package, it), Care::default(), "{package}");
        }
        assert_eq!(care("heptad-e2e", Path::new("/target/debug/deps/heptad_e2e-0123456789abcdef")), Care::default());
    }

    /// A program that answers as test programs do: `b` passes from the second time on, `d` never.
    fn program(dir: &Path, failing: &[&str]) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("it-program");
        let list = failing.iter().map(|name| format!("    {name}\n")).collect::<String>();
        let text = format!(
            "#!/bin/sh\ncase \"$2\" in\nb) echo 'test result: ok. 1 passed; 0 failed; 0 ignored';;\n\
             d) echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored'; exit 101;;\n\
             nobody) echo 'test result: ok. 0 passed; 0 failed; 0 ignored';;\n\
             *) printf 'why it failed\\n\\nfailures:\\n{list}\\ntest result: FAILED.\\n'; exit 101;;\nesac\n",
            list = list.replace('\n', "\\n"),
        );
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        path
    }

    #[test]
    fn what_passes_when_repeated_passes_and_is_listed_with_its_first_failure() {
        let dir = tempfile::tempdir().expect("a directory");
        let repeats = Repeats::begin(dir.path().join("r")).expect("it begins");
        let program = program(dir.path(), &["b"]);
        assert_eq!(run_with(Command::new(&program), &program, "heptad-e2e", &repeats, &none()).expect("it runs"), 0);
        let listed = repeats.listed().expect("it is read");
        assert_eq!(listed, [("heptad-e2e".to_owned(), "b".to_owned())].into());
        let first = std::fs::read_to_string(repeats.output("heptad-e2e")).expect("it is kept");
        assert!(first.starts_with("why it failed\n"), "{first}");
    }

    #[test]
    fn what_fails_twice_or_did_not_run_or_is_too_much_fails() {
        for failing in [&["b", "d"][..], &["d"], &["nobody"], &["b"; REPEATED_MAX + 1], &[]] {
            let dir = tempfile::tempdir().expect("a directory");
            let repeats = Repeats::begin(dir.path().join("r")).expect("it begins");
            let program = program(dir.path(), failing);
            let code = run_with(Command::new(&program), &program, "heptad-e2e", &repeats, &none()).expect("it runs");
            assert_eq!((code, repeats.listed().expect("it is read")), (101, Known::new()), "{failing:?}");
        }
    }

    #[test]
    fn a_test_of_a_guarantee_is_not_repeated() {
        let dir = tempfile::tempdir().expect("a directory");
        let repeats = Repeats::begin(dir.path().join("r")).expect("it begins");
        let program = program(dir.path(), &["b", "kept_promise"]);
        let promised = Promised::read("Tests: `kept_promise`.");
        let code = run_with(Command::new(&program), &program, "heptad-e2e", &repeats, &promised).expect("it runs");
        assert_eq!((code, repeats.listed().expect("it is read")), (101, Known::new()));
        assert!(!repeats.output_again("heptad-e2e").exists());
    }
}
