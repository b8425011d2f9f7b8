//! The API does what its document says, as somebody else's tool sees it: what the document allows is accepted, what it does
//! not allow is refused, answers are as they are described, and what an operation made is found by those that it links to.
//! What differs is listed with its reason in `schemathesis/listed.py`.

use heptad_e2e::{Platform, wait_until};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const DIR: &str = env!("CARGO_MANIFEST_DIR");
/// A bound beyond which something hangs.
const SECONDS_MAX: &str = "600";

/// The tool, where `cargo xtask test --prepare` installs it.
fn schemathesis() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let target = test.ancestors().nth(3).expect("tests are in target/PROFILE/deps");
    let tool = target.join("schemathesis/bin/schemathesis");
    assert!(tool.is_file(), "{} is not there: run `cargo xtask test --prepare` as root", tool.display());
    tool
}

#[test]
fn the_server_does_what_the_document_says() {
    let platform = Platform::start(&[]);
    // Created services must not run: there are many requests, and what they contain is random.
    let cordoned = || platform.run(&["node", "cordon", "n1"]).code == 0;
    wait_until("the node is there, and cordoned", Duration::from_secs(60), cordoned);
    let token = fs::read_to_string(platform.data_dir().join("token")).expect("there is a token");
    let own = Path::new(DIR).join("schemathesis");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", SECONDS_MAX]).arg(schemathesis());
    command.arg("--config-file").arg(own.join("schemathesis.toml")).args(["run", "--no-color"]);
    command.arg(Path::new(DIR).join("../../docs/openapi.json"));
    command.args(["--url", &format!("http://{}", platform.api)]);
    command.args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
    command.env("SCHEMATHESIS_HOOKS", own.join("listed.py")).current_dir(platform.dir());
    let output = command.output().expect("timeout(1) runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
}
