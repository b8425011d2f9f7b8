//! Refuses options that a command would ignore: whoever writes one expects it to matter. What is set in the environment
//! applies to all commands, and the command line overrides it. Does nothing.

use super::{AskCommand, Cli, Command, Connect, Listed, PersonCommand, RoleCommand};
use crate::kinds::Shown;
use clap::{ArgMatches, CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};
use heptad_api::{Kind, with_kind};
use std::ffi::OsString;

/// The ways to say which platform is asked.
const WHERE: [&str; 3] = ["context", "socket", "server"];

impl Cli {
    /// Parses a command line. It is an error if any part of it cannot be obeyed.
    pub fn read(words: impl IntoIterator<Item: Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let written = Written(&matches);
        if let Some(problem) = written.unused(&cli) {
            return Err(command.error(ErrorKind::ArgumentConflict, problem));
        }
        written.keep_only_named(&mut cli.connect);
        Ok(cli)
    }
}

/// The options on the command line itself.
struct Written<'a>(&'a ArgMatches);

impl Written<'_> {
    fn has(&self, id: &str) -> bool {
        let mut matches = self.0;
        loop {
            let known = matches.try_contains_id(id).is_ok();
            if known && matches.value_source(id) == Some(ValueSource::CommandLine) {
                return true;
            }
            match matches.subcommand() {
                Some((_, inner)) => matches = inner,
                None => return false,
            }
        }
    }

    /// The options that would be parsed and ignored.
    fn unused(&self, cli: &Cli) -> Option<String> {
        let places: Vec<&str> = WHERE.into_iter().filter(|place| self.has(place)).collect();
        if let [first, second, ..] = places[..] {
            return Some(format!("`--{first}` and `--{second}` both say which platform is asked; give one of them"));
        }
        if let Some(place) = places.first().filter(|_| !matches!(cli.command, Command::Ask(_))) {
            return Some(format!("this command asks no platform, so leave `--{place}` out"));
        }
        let takes_token = matches!(
            cli.command,
            Command::Person(PersonCommand::Login(_)) | Command::Role(RoleCommand::Agent(_) | RoleCommand::Server(_))
        );
        if self.has("token_file") && !takes_token && cli.connect.server.is_none() {
            return Some("`--token-file` is for `--server`, `login` and `join`; leave it out".to_owned());
        }
        let namespace = self.has("namespace");
        let Command::Ask(command) = &cli.command else { return None };
        match command {
            AskCommand::Get(get) => match get.kind {
                Listed::Servers if namespace => no_namespace("servers"),
                Listed::Servers if get.watch => Some("servers cannot be watched; leave `--watch` out".to_owned()),
                Listed::Objects(kind) if namespace => outside(kind, get.name.is_some()),
                _ => None,
            },
            AskCommand::Describe(named) if namespace => outside(named.kind, true),
            AskCommand::Delete(delete) if namespace && !delete.files.is_empty() => {
                Some("each object of a file names its namespace; leave `--namespace` out".to_owned())
            }
            AskCommand::Delete(delete) if namespace => delete.kind.and_then(|kind| outside(kind, true)),
            _ => None,
        }
    }

    /// Who names a platform means that one, whatever the environment says.
    fn keep_only_named(&self, connect: &mut Connect) {
        let Some(place) = WHERE.into_iter().find(|place| self.has(place)) else { return };
        let Connect { context, socket, server, token_file: _ } = connect;
        *context = context.take().filter(|_| place == "context");
        *socket = socket.take().filter(|_| place == "socket");
        *server = server.take().filter(|_| place == "server");
    }
}

fn no_namespace(what: &str) -> Option<String> {
    Some(format!("{what} are in no namespace; leave `--namespace` out"))
}

/// Why an object of the kind, or their list, has no namespace to be named. Some are listed with one though they are in none.
fn outside(kind: Kind, one: bool) -> Option<String> {
    match (kind.is_namespaced(), with_kind!(kind, T => T::IN_NAMESPACES)) {
        (false, true) if one => Some(format!(
            "the name of a {} is the only one in all namespaces; leave `--namespace` out",
            kind.singular()
        )),
        (false, false) => no_namespace(kind.plural()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, String> {
        Cli::read(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_command_would_not_look_at_is_refused() {
        for (line, said) in [
            ("heptad dev --socket /s", "leave `--socket` out"),
            ("heptad --context prod demo", "leave `--context` out"),
            ("heptad server --data-dir /d --socket /s", "leave `--socket` out"),
            ("heptad agent --socket /s", "leave `--socket` out"),
            ("heptad context list --context prod", "leave `--context` out"),
            ("heptad backup --socket /s f", "leave `--socket` out"),
            ("heptad completion bash --socket /s", "leave `--socket` out"),
            ("heptad get services --socket /s --context prod", "`--context` and `--socket`"),
            ("heptad get services --token-file f", "`--token-file` is for"),
            ("heptad get nodes -n shop", "nodes are in no namespace"),
            ("heptad get events -n shop", "events are in no namespace"),
            ("heptad get servers -n shop", "servers are in no namespace"),
            ("heptad get servers -w", "cannot be watched"),
            ("heptad get container web-1 -n shop", "leave `--namespace` out"),
            ("heptad describe node n1 -n shop", "nodes are in no namespace"),
            ("heptad delete node n1 -n shop", "nodes are in no namespace"),
            ("heptad delete -f a.yaml -n shop", "leave `--namespace` out"),
            ("heptad get services web -A", "--all-namespaces"),
            ("heptad apply -f a.yaml --timeout 5", "--wait"),
            ("heptad rollout status web --timeout 5", "--wait"),
        ] {
            let error = read(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
        for line in [
            "heptad get containers -n shop",
            "heptad get service web -n shop",
            "heptad get services --socket /s",
            "heptad --server 127.0.0.1:1 --token-file f get nodes",
            "heptad login https://h --token-file - --ca-pin c",
            "heptad apply -f a.yaml --wait --timeout 5",
            "heptad delete service web -n shop",
        ] {
            assert!(read(line).is_ok(), "{line}: {:?}", read(line));
        }
    }

    #[test]
    fn who_names_a_platform_means_that_one() {
        let mut cli = read("heptad get services --context prod").expect("understood");
        // As if the environment had said it.
        cli.connect.socket = Some("/s".into());
        let matches = Cli::command().get_matches_from("heptad get services --context prod".split(' '));
        Written(&matches).keep_only_named(&mut cli.connect);
        assert_eq!((cli.connect.context.as_deref(), cli.connect.socket), (Some("prod"), None));
    }
}
