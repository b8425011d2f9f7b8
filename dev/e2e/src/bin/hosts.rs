//! Hosts for experiments: creates a number of them on this machine, says how to run programs in each, and removes them
//! when its input ends.

use heptad_e2e::{Host, Lan};
use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::PathBuf, process::ExitCode};

const HOSTS_MAX: u8 = 20;

/// A program that runs its arguments in the host.
fn entrance(host: &Host) -> std::io::Result<PathBuf> {
    let command = host.command(&[]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")));
    let path = host.dir().join("enter");
    fs::write(&path, format!("#!/bin/sh\nexec {} \"$@\"\n", words.collect::<Vec<_>>().join(" ")))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[expect(clippy::print_stdout, reason = "a program for people")]
fn main() -> std::io::Result<ExitCode> {
    let count = std::env::args().nth(1).map_or(Ok(3), |word| word.parse::<u8>());
    let Some(count) = count.ok().filter(|count| (1..=HOSTS_MAX).contains(count)) else {
        println!("usage: hosts [COUNT]   COUNT: 1 to {HOSTS_MAX} hosts; they vanish when the input ends (Ctrl-D)");
        return Ok(ExitCode::from(2));
    };
    let lan = Lan::start();
    println!("network {} with this program at {}", lan.dir().display(), lan.address());
    let hosts: Vec<Host> = (1..=count).map(|number| lan.host(&format!("h{number}"))).collect();
    for host in &hosts {
        let data = host.data_dir();
        println!(
            "{} {} data {} run {} COMMAND...",
            host.name(),
            host.address(),
            data.display(),
            entrance(host)?.display()
        );
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(ExitCode::SUCCESS)
}
