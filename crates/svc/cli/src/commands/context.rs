//! Logging in to clusters, and choosing the one that commands ask.

use crate::{
    args::{ContextCommand, Login},
    contexts::{self, Contexts, Entry, LOCAL},
    output::{announce, tell},
};
use anyhow::Context;
use heptad_client::{Client, Options, local::socket_default};
use heptad_member::{PersonConnector, join::server_url};
use heptad_pki::{CaPin, TrustBundle};
use std::{process::ExitCode, sync::Arc};

/// The client of the context of that name, or of the one in use; none if that is this machine's platform.
pub(super) fn client(name: Option<&str>) -> anyhow::Result<Option<Client>> {
    // Without a home directory there are no contexts.
    let path = match (contexts::path(), name) {
        (Ok(path), _) => path,
        (Err(_), None | Some(LOCAL)) => return Ok(None),
        (Err(error), Some(_)) => return Err(error),
    };
    let contexts = Contexts::load(&path)?;
    match name.or(contexts.current.as_deref()) {
        None | Some(LOCAL) => Ok(None),
        Some(name) => client_of(contexts.find(name)?).map(Some),
    }
}

fn client_of(entry: &Entry) -> anyhow::Result<Client> {
    let bundle = TrustBundle::from_pem(&entry.trust_bundle_pem).context("the context's roots; log in again")?;
    let connector = PersonConnector::new(entry.servers.clone(), entry.token.clone(), &bundle);
    Ok(Client::with_connector(Arc::new(connector), Options::default()))
}

/// `heptad login`.
pub(super) async fn login(args: Login) -> anyhow::Result<ExitCode> {
    let pin: CaPin = args.ca_pin.parse().context("cannot use --ca-pin")?;
    let server = server_url(&args.url)?;
    let token = args.token.context("no token")?;
    let connector = PersonConnector::pinned(&server, Some(token.clone()), &pin);
    let client = Client::with_connector(Arc::new(connector), Options::default());
    let who = client.whoami().await.with_context(|| format!("cannot log in at {server}"))?;
    let roots = client.trust_bundle().await?;
    let info = client.cluster().await?;
    let mut servers: Vec<String> = info.servers.into_iter().map(|server| server.url).collect();
    // The address that was given is reachable from here; others may not be.
    servers.retain(|url| *url != server);
    servers.insert(0, server);
    let entry = Entry { cluster: info.id, servers, token, trust_bundle_pem: roots.trust_bundle_pem };
    let path = contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    contexts.add(&args.name, entry)?;
    contexts.save(&path)?;
    let role = who.role.map_or(String::new(), |role| format!(" ({role})"));
    tell(format!("logged in as {}{role}; context `{}` is in use", who.name.unwrap_or(who.principal), args.name));
    Ok(ExitCode::SUCCESS)
}

/// `heptad context`.
pub(super) fn run(command: ContextCommand) -> anyhow::Result<ExitCode> {
    let path = contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let current = contexts.current.clone().unwrap_or_else(|| LOCAL.to_owned());
    match command {
        ContextCommand::List => {
            let mut lines = format!("{} {LOCAL:<16} the platform of this machine\n", mark(&current, LOCAL));
            for (name, entry) in &contexts.contexts {
                lines += &format!("{} {name:<16} {}\n", mark(&current, name), entry.servers.join(", "));
            }
            announce(lines);
        }
        ContextCommand::Use { name } => {
            contexts.choose(&name)?;
            contexts.save(&path)?;
            tell(format!("context `{name}` is in use"));
        }
        ContextCommand::Show { name } => {
            let name = name.unwrap_or(current);
            announce(match name.as_str() {
                LOCAL => format!("name     {LOCAL}\nsocket   {}\n", socket_default().display()),
                _ => {
                    let entry = contexts.find(&name)?;
                    format!("name     {name}\ncluster  {}\nservers  {}\n", entry.cluster, entry.servers.join(", "))
                }
            });
        }
        ContextCommand::Remove { name } => {
            contexts.find(&name)?;
            contexts.contexts.remove(&name);
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
            contexts.save(&path)?;
            tell(format!("context `{name}` is forgotten"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn mark(current: &str, name: &str) -> char {
    if current == name { '*' } else { ' ' }
}
