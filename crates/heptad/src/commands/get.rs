//! `get`, `describe`, `node list`: objects as tables, JSON or YAML.

use super::{followed, namespace};
use crate::{
    cli::{Get, Listed, Named, Output},
    manifest,
    output::{Table, age, clock, now_ms, paint, print, say, yaml},
};
use anyhow::bail;
use heptad_api::{Kind, List, Object, Resource, work::NodeSilence};
use heptad_client::Client;
use heptad_model::{
    Config, Container, ContainerStatus, Dimension, Event, NetworkPolicy, Node, NodeName, NodeStatus, Quota, Secret,
    Service, TrafficRule,
};
use std::{collections::BTreeMap, process::ExitCode};

/// How objects of a kind look in a table.
pub(super) trait Shown: Resource {
    /// The headings; the last ones only in wide tables.
    fn headings(wide: bool) -> Vec<&'static str>;
    /// The cells.
    fn cells(&self, context: &Context, wide: bool) -> Vec<String>;
}

/// What a row needs beside its object.
pub(super) struct Context {
    containers: Vec<Container>,
    silences: BTreeMap<NodeName, NodeSilence>,
    now_ms: u64,
}

impl Context {
    async fn of(client: &Client, kind: Kind) -> anyhow::Result<Self> {
        let containers = match kind {
            Kind::Services | Kind::Quotas => {
                client.list::<Container>().await?.items.into_iter().map(|item| item.object).collect()
            }
            _ => Vec::new(),
        };
        let silences = match kind {
            Kind::Nodes => client.liveness().await?.into_iter().map(|node| (node.node.clone(), node)).collect(),
            _ => BTreeMap::new(),
        };
        Ok(Self { containers, silences, now_ms: now_ms() })
    }

    fn empty() -> Self {
        Self { containers: Vec::new(), silences: BTreeMap::new(), now_ms: now_ms() }
    }
}

impl Shown for Service {
    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAMESPACE", "NAME", "READY", "IMAGE", "ADDRESS", "PORTS"];
        headings.extend(wide.then_some(["REQUESTS", "EXPOSED", "GENERATION"]).into_iter().flatten());
        headings
    }

    fn cells(&self, context: &Context, wide: bool) -> Vec<String> {
        let own = context.containers.iter().filter(|c| c.service == self.key() && c.is_alive());
        let ready = own.filter(|c| c.ready).count();
        let ready = format!("{ready}/{}", self.replicas);
        let ports: Vec<String> = self.ports.iter().map(|p| p.container_port.to_string()).collect();
        let address = self.address.map(|a| a.to_string()).unwrap_or_default();
        let mut cells =
            vec![self.namespace.to_string(), self.name.clone(), ready, self.image.clone(), address, ports.join(",")];
        if wide {
            let host = self.expose.as_ref().map(|e| e.host.clone()).unwrap_or_default();
            cells.extend([self.resources.to_string(), host, self.generation.to_string()]);
        }
        cells
    }
}

/// A container's state in one or two words.
fn state(container: &Container) -> String {
    match (container.status, container.reason.as_str()) {
        (ContainerStatus::Running, "") => "Running".to_owned(),
        (status, "") => status.to_string(),
        (_, reason) => reason.to_owned(),
    }
}

impl Shown for Container {
    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAME", "SERVICE", "STATUS", "READY", "RESTARTS", "NODE", "AGE"];
        headings.extend(wide.then_some(["ADDRESS", "EXIT", "MESSAGE"]).into_iter().flatten());
        headings
    }

    fn cells(&self, context: &Context, wide: bool) -> Vec<String> {
        let node = self.node.as_ref().map(ToString::to_string).unwrap_or_else(|| "-".to_owned());
        let ready = if self.ready { "yes" } else { "no" }.to_owned();
        let mut cells = vec![
            self.id.to_string(),
            self.service.to_string(),
            state(self),
            ready,
            self.restarts.to_string(),
            node,
            age(self.created_at_ms, context.now_ms),
        ];
        if wide {
            let addresses: Vec<String> = self.addresses.values().map(ToString::to_string).collect();
            let exit = self.exit_code.map(|code| code.to_string()).unwrap_or_default();
            cells.extend([addresses.join(","), exit, self.message.clone()]);
        }
        cells
    }
}

/// `allocated/capacity` of a dimension.
fn share(node: &Node, dimension: Dimension) -> String {
    let show = |amount| dimension.show(amount);
    format!("{}/{}", show(node.allocated.get(dimension)), show(node.capacity.get(dimension)))
}

/// `KIND allocated/count` of each kind of device.
fn devices(node: &Node) -> String {
    let share = |(kind, count): (&String, &u32)| {
        let given = node.allocated_devices.get(kind).copied().unwrap_or_default();
        format!("{kind} {given}/{count}")
    };
    let all: Vec<String> = node.devices.iter().map(share).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// Whether containers come to a node, stay, or go.
fn scheduling(node: &Node) -> &'static str {
    match (node.draining, node.unschedulable, node.fenced) {
        (_, _, true) => "fenced",
        (true, ..) => "draining",
        (false, true, _) => "cordoned",
        (false, false, _) => "yes",
    }
}

impl Shown for Node {
    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings =
            vec!["NAME", "STATUS", "SCHEDULING", "HEARD", "CONTAINERS", "CPU", "MEMORY", "DEVICES", "VERSION"];
        let more = ["DRIVER", "STORAGE", "NETWORK", "ADDRESS", "NOT ENFORCED"];
        headings.extend(wide.then_some(more).into_iter().flatten());
        headings
    }

    fn cells(&self, context: &Context, wide: bool) -> Vec<String> {
        let silence = context.silences.get(&self.name);
        let heard = silence.map_or_else(|| "-".to_owned(), |node| format!("{} ago", age(0, node.silence_ms)));
        // What the silence means may not be recorded yet, or cannot be while the state is read-only.
        let status = silence.filter(|_| self.status == NodeStatus::Ready).map_or(self.status, |node| node.status);
        let mut cells = vec![
            self.name.to_string(),
            status.to_string(),
            scheduling(self).to_owned(),
            heard,
            self.containers.len().to_string(),
            share(self, Dimension::Cpu),
            share(self, Dimension::Memory),
            devices(self),
            self.labels.get("heptad.dev/version").cloned().unwrap_or_else(|| "-".to_owned()),
        ];
        if wide {
            let address = self.address.map(|address| address.to_string()).unwrap_or_default();
            let shares = [share(self, Dimension::Storage), share(self, Dimension::Network)];
            cells.push(self.driver.to_string());
            cells.extend(shares);
            cells.extend([address, self.unenforced.join(",")]);
        }
        cells
    }
}

impl Shown for NetworkPolicy {
    fn headings(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "SELECTS", "INGRESS", "EGRESS"]
    }

    fn cells(&self, _: &Context, _: bool) -> Vec<String> {
        let selects =
            if self.selector.services.is_empty() { "all".to_owned() } else { self.selector.services.join(",") };
        let peers = |peers: &Option<Vec<heptad_model::PolicyPeer>>| match peers {
            None => "any".to_owned(),
            Some(peers) if peers.is_empty() => "none".to_owned(),
            Some(peers) => {
                let name = |p: &heptad_model::PolicyPeer| match (p.external, p.services.is_empty()) {
                    (true, _) => "outside".to_owned(),
                    (false, true) => "selected".to_owned(),
                    (false, false) => p.services.join(","),
                };
                peers.iter().map(name).collect::<Vec<_>>().join(";")
            }
        };
        vec![self.namespace.to_string(), self.name.clone(), selects, peers(&self.ingress), peers(&self.egress)]
    }
}

impl Shown for TrafficRule {
    fn headings(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "SERVICE", "CONDITIONS", "BACKENDS"]
    }

    fn cells(&self, _: &Context, _: bool) -> Vec<String> {
        let conditions = self.conditions.iter().map(|c| format!("{} {:?} {}", c.field, c.operator, c.value));
        let backends = self.backends.iter().map(|b| format!("{}={}", b.service, b.weight));
        let joined = |words: Vec<String>| if words.is_empty() { "-".to_owned() } else { words.join(", ") };
        vec![
            self.namespace.to_string(),
            self.name.clone(),
            self.service.clone(),
            joined(conditions.collect()),
            joined(backends.collect()),
        ]
    }
}

fn settings_cells(namespace: &heptad_model::Namespace, name: &str, keys: Vec<&String>, generation: u64) -> Vec<String> {
    let keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    vec![namespace.to_string(), name.to_owned(), keys.join(", "), generation.to_string()]
}

impl Shown for Config {
    fn headings(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "KEYS", "GENERATION"]
    }

    fn cells(&self, _: &Context, _: bool) -> Vec<String> {
        settings_cells(&self.namespace, &self.name, self.data.keys().collect(), self.generation)
    }
}

impl Shown for Secret {
    fn headings(wide: bool) -> Vec<&'static str> {
        Config::headings(wide)
    }

    fn cells(&self, _: &Context, _: bool) -> Vec<String> {
        settings_cells(&self.namespace, &self.name, self.data.keys().collect(), self.generation)
    }
}

/// `used/limit` of a dimension; nothing if it is not bounded.
fn quota_share(quota: &Quota, containers: &[&Container], dimension: Dimension) -> String {
    let Some(limit) = quota.limit(dimension) else { return "-".to_owned() };
    let used = containers.iter().filter_map(|c| c.bound_request());
    let used = used.map(|(_, resources)| resources.vector().get(dimension)).fold(0, u64::saturating_add);
    format!("{}/{}", dimension.show(used), dimension.show(limit))
}

impl Shown for Quota {
    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAMESPACE", "NAME", "CPU", "MEMORY", "CONTAINERS", "SERVICES"];
        headings.extend(wide.then_some(["STORAGE", "NETWORK"]).into_iter().flatten());
        headings
    }

    fn cells(&self, context: &Context, wide: bool) -> Vec<String> {
        let of_namespace = |c: &&Container| c.service.namespace == self.namespace && c.bound_request().is_some();
        let bound: Vec<&Container> = context.containers.iter().filter(of_namespace).collect();
        let share = |dimension| quota_share(self, &bound, dimension);
        let none = || "-".to_owned();
        let containers = self.containers.map_or_else(none, |limit| format!("{}/{limit}", bound.len()));
        let mut cells = vec![
            self.namespace.to_string(),
            self.name.clone(),
            share(Dimension::Cpu),
            share(Dimension::Memory),
            containers,
            self.services.map_or_else(none, |limit| limit.to_string()),
        ];
        if wide {
            cells.extend([share(Dimension::Storage), share(Dimension::Network)]);
        }
        cells
    }
}

impl Shown for Event {
    fn headings(_: bool) -> Vec<&'static str> {
        vec!["TIME", "KIND", "REASON", "SUBJECT", "MESSAGE"]
    }

    fn cells(&self, _: &Context, _: bool) -> Vec<String> {
        let kind = self.kind.to_string();
        vec![clock(self.at_ms), kind, self.reason.clone(), self.subject.clone(), self.message.clone()]
    }
}

pub(super) async fn get(client: &Client, args: Get) -> anyhow::Result<ExitCode> {
    let kind = match args.kind {
        Listed::Servers => return servers(client, &args).await,
        Listed::Objects(kind) => kind,
    };
    match kind {
        Kind::Nodes => get_kind::<Node>(client, &args).await,
        Kind::Services => get_kind::<Service>(client, &args).await,
        Kind::Containers => get_kind::<Container>(client, &args).await,
        Kind::Policies => get_kind::<NetworkPolicy>(client, &args).await,
        Kind::Rules => get_kind::<TrafficRule>(client, &args).await,
        Kind::Configs => get_kind::<Config>(client, &args).await,
        Kind::Secrets => get_kind::<Secret>(client, &args).await,
        Kind::Quotas => get_kind::<Quota>(client, &args).await,
        Kind::Events => get_kind::<Event>(client, &args).await,
    }
}

/// The servers, and what is in their way.
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
        let item: Object<T> = client.get(&namespace(&args.namespace.namespace), name).await?;
        if let Some(text) = documents(std::slice::from_ref(&item), output)? {
            say(text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let context = Context::of(client, T::KIND).await?;
        print(output, &item, || rows(std::slice::from_ref(&item), &context, output))?;
        return Ok(ExitCode::SUCCESS);
    }
    let list = list::<T>(client, args).await?;
    if let Some(text) = documents(&list.items, output)? {
        say(text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let context = Context::of(client, T::KIND).await?;
    print(output, &list, || {
        if list.items.is_empty() {
            return format!("no {}\n", T::KIND);
        }
        rows(&list.items, &context, output)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The documents that describe the objects, if YAML is asked of a kind that files describe.
fn documents<T: Shown>(items: &[Object<T>], output: Output) -> anyhow::Result<Option<String>> {
    let mut out = String::new();
    for item in items {
        let document = manifest::document(T::KIND, serde_json::to_value(&item.object)?);
        let (Some(document), Output::Yaml) = (document, output) else { return Ok(None) };
        let line = if out.is_empty() { "" } else { "---\n" };
        out += &format!("{line}{}", yaml(&document)?);
    }
    Ok((!out.is_empty()).then_some(out))
}

async fn list<T: Shown>(client: &Client, args: &Get) -> anyhow::Result<List<T>> {
    let list = match T::KIND.is_namespaced() && !args.all_namespaces {
        true => client.list_in(&namespace(&args.namespace.namespace)).await?,
        false => client.list().await?,
    };
    Ok(list)
}

fn rows<T: Shown>(items: &[Object<T>], context: &Context, output: Output) -> String {
    if output == Output::Name {
        return items.iter().map(|item| format!("{}/{}\n", T::KIND.singular(), item.object.name())).collect();
    }
    let wide = output == Output::Wide;
    let mut table = Table::new(&T::headings(wide));
    for item in items {
        table.push(item.object.cells(context, wide));
    }
    table.render()
}

async fn watch<T: Shown>(client: &Client, args: &Get) -> anyhow::Result<ExitCode> {
    let (mut state, mut view) = followed::<T>(client).await?;
    let mut known = BTreeMap::new();
    let in_namespace = namespace(&args.namespace.namespace);
    loop {
        let context = Context::of(client, T::KIND).await?;
        for (key, item) in &view.objects {
            let wanted = args.all_namespaces || item.object.namespace().is_none_or(|n| *n == in_namespace);
            if wanted && known.insert(key.clone(), item.revision) != Some(item.revision) {
                match args.output.output {
                    Output::Json => say(serde_json::to_string(item)? + "\n")?,
                    Output::Yaml => match documents(std::slice::from_ref(item), Output::Yaml)? {
                        Some(text) => say(format!("---\n{text}"))?,
                        None => say(format!("---\n{}", yaml(item)?))?,
                    },
                    output => say(rows(std::slice::from_ref(item), &context, output))?,
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
    let context = Context::of(client, Kind::Nodes).await?;
    print(output, &list, || rows(&list.items, &context, output))?;
    let down = list.items.iter().filter(|item| item.object.status != NodeStatus::Ready).count();
    if down > 0 {
        crate::output::tell(format!("{down} of {} nodes are not ready", list.items.len()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn describe(client: &Client, args: Named) -> anyhow::Result<ExitCode> {
    let text = match args.kind {
        Kind::Services => service(client, &args).await?,
        Kind::Containers => plain::<Container>(client, &args).await?,
        Kind::Nodes => plain::<Node>(client, &args).await?,
        Kind::Policies => plain::<NetworkPolicy>(client, &args).await?,
        Kind::Configs => plain::<Config>(client, &args).await?,
        Kind::Secrets => plain::<Secret>(client, &args).await?,
        Kind::Rules => plain::<TrafficRule>(client, &args).await?,
        Kind::Quotas => plain::<Quota>(client, &args).await?,
        Kind::Events => bail!("events are listed by `heptad events`"),
    };
    say(text)?;
    Ok(ExitCode::SUCCESS)
}

async fn plain<T: Shown>(client: &Client, args: &Named) -> anyhow::Result<String> {
    let item: Object<T> = client.get(&namespace(&args.namespace.namespace), &args.name).await?;
    if args.output.output == Output::Json {
        return Ok(serde_json::to_string_pretty(&item)? + "\n");
    }
    let subject = format!("{}/{}", T::KIND.singular(), args.name);
    Ok(yaml(&item.object)? + &events_of(client, |event| event.subject == subject).await?)
}

async fn service(client: &Client, args: &Named) -> anyhow::Result<String> {
    let item: Object<Service> = client.get(&namespace(&args.namespace.namespace), &args.name).await?;
    if args.output.output == Output::Json {
        return Ok(serde_json::to_string_pretty(&item)? + "\n");
    }
    let key = item.object.key();
    let mut own = client.list::<Container>().await?.items;
    own.retain(|container| container.object.service == key);
    let context = Context::empty();
    let mut out = yaml(&item.object)?;
    out += &format!("\n{}\n{}", paint("Containers", 1), rows(&own, &context, Output::Wide));
    let why = client.why(&key).await?;
    out += &format!("\n{}\n", why.summary);
    let subjects: Vec<String> = own.iter().map(|c| format!("container/{}", c.object.id)).collect();
    let service = format!("service/{key}");
    out += &events_of(client, |event| event.subject == service || subjects.contains(&event.subject)).await?;
    Ok(out)
}

async fn events_of(client: &Client, of: impl Fn(&Event) -> bool) -> anyhow::Result<String> {
    let mut events = client.list::<Event>().await?.items;
    events.retain(|item| of(&item.object));
    events.sort_by_key(|item| item.object.at_ms);
    if events.is_empty() {
        return Ok(String::new());
    }
    let context = Context::empty();
    Ok(format!("\n{}\n{}", paint("Events", 1), rows(&events, &context, Output::Table)))
}

/// Events as a table.
pub(super) fn event_rows(events: &[Object<Event>], output: Output) -> String {
    rows(events, &Context::empty(), output)
}
