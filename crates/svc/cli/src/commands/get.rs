//! `get`, `describe`, `node list`: objects as tables, JSON or YAML.

use super::{followed, namespace};
use crate::{
    args::{Get, Listed, Named, Output},
    kinds::{Shown, documents, rows, table},
    output::{Table, print, say, yaml},
};
use heptad_api::{List, with_kind};
use heptad_client::Client;
use heptad_model::{Node, NodeStatus};
use std::{collections::BTreeMap, process::ExitCode};

pub(super) async fn get(client: &Client, args: Get) -> anyhow::Result<ExitCode> {
    let kind = match args.kind {
        Listed::Servers => return servers(client, &args).await,
        Listed::Objects(kind) => kind,
    };
    with_kind!(kind, T => get_kind::<T>(client, &args).await)
}

/// The servers, and why any is not ready.
async fn servers(client: &Client, args: &Get) -> anyhow::Result<ExitCode> {
    let mut all = client.servers().await?;
    all.retain(|server| args.name.as_ref().is_none_or(|name| server.name == *name));
    print(args.output.output, &all, || {
        let mut table = Table::new(&["NAME", "READY", "LEADS", "VERSION", "URL", "CONDITIONS"]);
        for server in &all {
            let yes = |holds: bool| if holds { "yes" } else { "no" }.to_owned();
            let ready = server.conditions.iter().all(|condition| !condition.kind.stops_work());
            let words = server.conditions.iter().map(|one| format!("{}: {}", one.kind, one.message));
            let url = server.url.clone().unwrap_or_else(|| "-".to_owned());
            let (version, conditions) = (server.version.clone(), words.collect::<Vec<_>>().join("; "));
            table.row([server.name.clone(), yes(ready), yes(server.leads), version, url, conditions]);
        }
        table.render()
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn get_kind<T: Shown>(client: &Client, args: &Get) -> anyhow::Result<ExitCode> {
    let output = args.output.output;
    if args.watch {
        return watch::<T>(client, args).await;
    }
    if let Some(name) = &args.name {
        let item = T::fetch(client, &namespace(&args.namespace.namespace), name).await?;
        if let Some(text) = documents(std::slice::from_ref(&item), output)? {
            say(text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let beside = beside::<T>(client, output).await?;
        print(output, &item, || rows(std::slice::from_ref(&item), &beside, output))?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = list::<T>(client, args).await?;
    if let Some(text) = documents(&list.items, output)? {
        say(text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let beside = beside::<T>(client, output).await?;
    print(output, &list, || {
        let more = T::more_rows(&list.items, &beside, output == Output::Wide);
        if list.items.is_empty() && more.is_empty() {
            return format!("no {}\n", T::KIND);
        }
        table(&list.items, &beside, output, more)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the table shows beside the objects; other forms show the objects alone.
async fn beside<T: Shown>(client: &Client, output: Output) -> anyhow::Result<T::Beside> {
    if matches!(output, Output::Table | Output::Wide) { T::beside(client).await } else { Ok(T::Beside::default()) }
}

async fn list<T: Shown>(client: &Client, args: &Get) -> anyhow::Result<List<T>> {
    let own = namespace(&args.namespace.namespace);
    if T::KIND.is_namespaced() && !args.all_namespaces {
        return Ok(client.list_in(&own).await?);
    }
    let mut list: List<T> = client.list().await?;
    list.items.retain(|item| args.all_namespaces || item.object.is_of(&own));
    Ok(list)
}

async fn watch<T: Shown>(client: &Client, args: &Get) -> anyhow::Result<ExitCode> {
    let (mut state, mut view) = followed::<T>(client).await?;
    let mut known = BTreeMap::new();
    let in_namespace = namespace(&args.namespace.namespace);
    loop {
        let beside = beside::<T>(client, args.output.output).await?;
        for (key, item) in &view.objects {
            let named = args.name.as_ref().is_none_or(|name| item.object.name() == name);
            let one = args.name.is_some() && !T::KIND.is_namespaced();
            let wanted = named && (one || args.all_namespaces || item.object.is_of(&in_namespace));
            if wanted && known.insert(key.clone(), item.revision) != Some(item.revision) {
                match args.output.output {
                    Output::Json => say(serde_json::to_string(item)? + "\n")?,
                    Output::Yaml => match documents(std::slice::from_ref(item), Output::Yaml)? {
                        Some(text) => say(format!("---\n{text}"))?,
                        None => say(format!("---\n{}", yaml(item)?))?,
                    },
                    output => say(rows(std::slice::from_ref(item), &beside, output))?,
                }
            }
        }
        for key in known.keys().filter(|key| !view.objects.contains_key(*key)) {
            say(format!("{key} deleted\n"))?;
        }
        known.retain(|key, _| view.objects.contains_key(key));
        view = state.changed().await;
    }
}

pub(super) async fn nodes(client: &Client, output: Output) -> anyhow::Result<ExitCode> {
    let list = client.list::<Node>().await?;
    let beside = Node::beside(client).await?;
    print(output, &list, || rows(&list.items, &beside, output))?;
    let down = list.items.iter().filter(|item| item.object.status != NodeStatus::Ready).count();
    if down > 0 {
        crate::output::tell(format!("{down} of {} nodes are not ready", list.items.len()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn describe(client: &Client, args: Named) -> anyhow::Result<ExitCode> {
    say(with_kind!(args.kind, T => T::describe(client, &args).await?))?;
    Ok(ExitCode::SUCCESS)
}
