//! The programs that tests use and the Debian packages that have them; installed as root, asked for otherwise.

use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program, its package, and who uses it.
#[derive(Debug)]
struct Tool {
    program: &'static str,
    package: &'static str,
    use_of_it: &'static str,
}

const fn tool(program: &'static str, package: &'static str, use_of_it: &'static str) -> Tool {
    Tool { program, package, use_of_it }
}

const TOOLS: [Tool; 18] = [
    tool("nft", "nftables", "container networks, and the proxy's redirection"),
    tool("ip", "iproute2", "hosts made of network namespaces"),
    tool("nsenter", "util-linux", "programs inside those hosts"),
    tool("mount", "mount", "small disks that fill up"),
    tool("mkfs.ext4", "e2fsprogs", "disks of those hosts"),
    tool("sysctl", "procps", "forwarding in those hosts"),
    tool("pgrep", "procps", "looking for processes that should be gone"),
    tool("busybox", "busybox-static", "the content of test images"),
    tool("runc", "runc", "the other OCI runtime"),
    tool("umoci", "umoci", "making images"),
    tool("skopeo", "skopeo", "pushing images"),
    tool("docker-registry", "docker-registry", "pulling from a real registry on loopback"),
    tool("etcd", "etcd-server", "state that several servers share"),
    tool("etcdctl", "etcd-client", "looking at that state, and users of it"),
    tool("openssl", "openssl", "certificates and handshakes with somebody else's TLS"),
    tool("python3", "python3-venv", "the tool that tests the API by its document"),
    tool("coqc", "coq", "the proofs of the guarantees"),
    tool("curl", "curl", "calling the API and the proxy with somebody else's client"),
];

/// Where Debian puts programs, also those that are not in every user's PATH.
const PROGRAM_DIRS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(PROGRAM_DIRS.map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).any(|file| file.is_file())
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !is_there(tool.program)).collect()
}

fn packages(tools: &[&'static Tool]) -> BTreeSet<&'static str> {
    tools.iter().map(|tool| tool.package).collect()
}

/// Makes sure that every tool is there, or says which are not.
pub(super) fn provide(is_root: bool) -> Result<()> {
    let absent = missing(is_there);
    if absent.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = packages(&absent).into_iter().collect();
    if !is_root {
        let lines: Vec<String> =
            absent.iter().map(|t| format!("  {} (package {}): {}", t.program, t.package, t.use_of_it)).collect();
        bail!(
            "programs that the tests use are missing:\n{}\nrun `apt-get install --no-install-recommends {}` as root, or this command as root",
            lines.join("\n"),
            names.join(" ")
        );
    }
    println!("installing {}", names.join(" "));
    install(&names)?;
    let still = missing(is_there);
    ensure!(
        still.is_empty(),
        "after the installation these programs are still missing: {}",
        still.iter().map(|tool| tool.program).collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

fn install(names: &[&str]) -> Result<()> {
    let _no_daemons = NoDaemons::begin(Path::new("/usr/sbin/policy-rc.d"))?;
    apt(&["update", "--quiet"])?;
    let fixed = ["install", "--quiet", "--yes", "--no-install-recommends"];
    apt(&fixed.iter().chain(names).copied().collect::<Vec<_>>())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("cannot run apt-get; this machine is no Debian, so install the packages in its way")?;
    ensure!(status.success(), "apt-get {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// While this lives, packages start no daemons: Debian asks this file before it starts one.
struct NoDaemons<'a> {
    file: &'a Path,
    ours: bool,
}

impl<'a> NoDaemons<'a> {
    fn begin(file: &'a Path) -> Result<Self> {
        let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(file);
        let ours = match open {
            Ok(mut opened) => {
                io::Write::write_all(&mut opened, b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("cannot write {}", file.display()))?;
                true
            }
            // The machine has a policy of its own.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", file.display())),
        };
        Ok(Self { file, ours })
    }
}

impl Drop for NoDaemons<'_> {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(self.file)
        {
            eprintln!("warning: {} cannot be removed: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_name_their_packages_once() {
        let absent = missing(|program| program == "nft");
        assert_eq!(absent.len(), TOOLS.len() - 1);
        assert!(!packages(&absent).contains("nftables"));
        assert_eq!(packages(&absent).iter().filter(|p| **p == "procps").count(), 1);
    }

    #[test]
    fn daemons_are_held_back_and_the_machine_is_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("policy-rc.d");
        drop(NoDaemons::begin(&file).expect("it begins"));
        assert!(!file.exists());
        fs::write(&file, "own").expect("written");
        drop(NoDaemons::begin(&file).expect("it begins"));
        assert_eq!(fs::read_to_string(&file).expect("it stays"), "own");
    }
}
