//! Tokens on the command line: read from where the flags say, and not left where other users of the machine see them. A
//! long-running program starts itself anew without the token among its arguments and variables, because `ps` and
//! `/proc` would show it as long as the program lives.

use crate::args::{AgentCommand, Cli, Command, PersonCommand, RoleCommand, ServerCommand};
use anyhow::{Context, bail};
use heptad_member::handover;
use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process,
};

/// Stands for the standard input.
const STDIN: &str = "-";
const FLAG: &str = "--token";
const VARIABLE: &str = "HEPTAD_JOIN_TOKEN";
/// Longer than any token, and less than a pipe holds without a reader.
const TOKEN_BYTES_MAX: u64 = 4_096;

/// Where the command's token is, and whether the program keeps running.
fn slot(command: &mut Command) -> Option<(&mut Option<String>, bool)> {
    match command {
        Command::Role(RoleCommand::Agent(agent)) => match &mut agent.command {
            Some(AgentCommand::Join(join)) => Some((&mut join.joining.token, true)),
            None => None,
        },
        Command::Role(RoleCommand::Server(server)) => match &mut server.command {
            Some(ServerCommand::Join(join)) => Some((&mut join.joining.token, true)),
            _ => None,
        },
        Command::Person(PersonCommand::Login(login)) => Some((&mut login.token, false)),
        _ => None,
    }
}

/// Reads the token of a command that needs one. Does not return if the program begins anew without it.
pub fn read_for(cli: &mut Cli) -> anyhow::Result<()> {
    // A program that took over from itself has joined already.
    let Some((token, stays)) = slot(&mut cli.command).filter(|_| !cli.handover) else { return Ok(()) };
    *token = Some(match (token.take(), &cli.connect.token_file) {
        (Some(text), _) if text == STDIN => read(io::stdin().lock(), "the standard input")?,
        (Some(text), _) if stays => return Err(begin_anew(&text)).context("cannot hide the token from other users"),
        (Some(text), _) => text,
        (None, Some(file)) if file == Path::new(STDIN) => read(io::stdin().lock(), "the standard input")?,
        (None, Some(file)) => {
            let name = file.display().to_string();
            read(std::fs::File::open(file).with_context(|| format!("cannot open {name}"))?, &name)?
        }
        (None, None) => {
            bail!("no token: name its file with --token-file, or send it to the standard input with `--token -`")
        }
    });
    Ok(())
}

fn read(from: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(TOKEN_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read a token from {name}"))?;
    match text.trim() {
        "" => bail!("there is no token in {name}"),
        token => Ok(token.to_owned()),
    }
}

/// The arguments with `-` in place of the token.
fn without_token(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut named = false;
    for arg in args {
        let joined = arg.to_str().and_then(|arg| arg.strip_prefix(FLAG)).is_some_and(|rest| rest.starts_with('='));
        if joined || out.last().is_some_and(|last| last == FLAG) {
            named = true;
            out.push(if joined { format!("{FLAG}={STDIN}").into() } else { STDIN.into() });
        } else {
            out.push(arg);
        }
    }
    if !named {
        out.extend([FLAG, STDIN].map(|word| OsStr::new(word).to_owned()));
    }
    out
}

/// Replaces this process by the same program, with the token in a pipe as its standard input. Returns only on failure.
fn begin_anew(token: &str) -> io::Error {
    let begun = || -> io::Result<io::Error> {
        if token.len() as u64 > TOKEN_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no token: it is too long"));
        }
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(token.as_bytes())?;
        drop(writer);
        let mut program = process::Command::new(handover::program_file()?);
        program.args(without_token(std::env::args_os().skip(1))).env_remove(VARIABLE).stdin(reader);
        Ok(program.exec())
    };
    begun().unwrap_or_else(|error| error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_leaves_the_arguments() {
        let shown = |words: &str| {
            let args = without_token(words.split(' ').map(OsString::from));
            args.join(OsStr::new(" ")).into_string().expect("words")
        };
        let rest = "agent join https://10.0.0.1:7443";
        assert_eq!(shown(&format!("{rest} --token a.b --name n1")), format!("{rest} --token - --name n1"));
        assert_eq!(shown(&format!("{rest} --token=a.b --name n1")), format!("{rest} --token=- --name n1"));
        assert_eq!(shown(rest), format!("{rest} --token -"), "it was in the environment");
        assert_eq!(shown(&format!("{rest} --token-file f")), format!("{rest} --token-file f --token -"));
    }

    #[test]
    fn a_token_is_read_without_its_line_end() {
        assert_eq!(read(&b" a.b\n"[..], "x").expect("a token"), "a.b");
        assert!(read(&b"\n"[..], "x").expect_err("none").to_string().contains("no token in x"));
    }
}
