//! Runs `nft -f -`: one process, one transaction, text through stdin, never a shell. Knows no rule.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{Error, Result};

/// Tried when the program is not in PATH: root's PATH often lacks the sbin directories.
const FALLBACK_PATHS: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];
/// nft waits for the kernel's lock; on a machine that is not broken it answers within a second.
const TRANSACTION_MS_MAX: u64 = 30_000;
const STDERR_BYTES_MAX: usize = 600;

/// Applies the whole transaction or nothing.
pub(crate) async fn apply(operation: &'static str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let work = run(&["-f", "-"], text.as_bytes());
    let output = match timeout(Duration::from_millis(TRANSACTION_MS_MAX), work).await {
        Ok(output) => output?,
        Err(_) => return Err(Error::Nft { operation, stderr: format!("no answer in {TRANSACTION_MS_MAX} ms") }),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Nft { operation, stderr: shorten(&output.stderr) })
}

/// Version line of the program, for the node's facts.
pub(crate) async fn version() -> Result<String> {
    let output = run(&["--version"], b"").await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The base chains of the host, for the node's facts.
pub(crate) async fn chains() -> Result<String> {
    let output = run(&["list", "chains"], b"").await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn run(args: &[&str], input: &[u8]) -> Result<Output> {
    for program in std::iter::once("nft").chain(FALLBACK_PATHS) {
        match run_program(program, args, input).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return other.map_err(Error::io("run", PathBuf::from(program))),
        }
    }
    Err(Error::NftMissing)
}

async fn run_program(program: &str, args: &[&str], input: &[u8]) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A program that rejects early closes its input; its exit status and message say why.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    output
}

fn shorten(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.trim().chars().take(STDERR_BYTES_MAX).collect()
}
