//! How objects look to people, a file for each kind: columns, what stands beside the objects, and what `describe` tells.

mod config;
mod container;
mod event;
mod namespace;
mod node;
mod policy;
mod quota;
mod rule;
mod secret;
mod service;

use crate::{
    args::{Named, Output},
    commands::namespace,
    output::{Table, paint, yaml},
};
use heptad_api::{Object, Resource};
use heptad_client::Client;
use heptad_model::{Container, Event, Namespace};
use std::future::{Future, ready};

/// How objects of a kind look in a table.
pub(crate) trait Shown: Resource {
    /// What its rows show beside the objects.
    type Beside: Default;

    /// Whether its objects, though in no namespace, are listed with one.
    const IN_NAMESPACES: bool = false;

    /// Asks for what stands beside the objects.
    fn beside(_client: &Client) -> impl Future<Output = anyhow::Result<Self::Beside>> {
        ready(Ok(Self::Beside::default()))
    }

    /// The headings; the last ones only in wide tables.
    fn headings(wide: bool) -> Vec<&'static str>;

    /// The cells.
    fn cells(&self, beside: &Self::Beside, wide: bool) -> Vec<String>;

    /// Rows of what is no object of the kind, but belongs into a list of all of them.
    fn more_rows(_items: &[Object<Self>], _beside: &Self::Beside, _wide: bool) -> Vec<Vec<String>> {
        Vec::new()
    }

    /// Whether it is listed with the objects of the namespace.
    fn is_of(&self, namespace: &Namespace) -> bool {
        self.namespace().is_none_or(|own| own == namespace)
    }

    /// The object of that name.
    fn fetch(client: &Client, namespace: &Namespace, name: &str) -> impl Future<Output = anyhow::Result<Object<Self>>> {
        async move { Ok(client.get(namespace, name).await?) }
    }

    /// All that is known of one.
    fn describe(client: &Client, args: &Named) -> impl Future<Output = anyhow::Result<String>> {
        described::<Self>(client, args)
    }
}

async fn described<T: Shown>(client: &Client, args: &Named) -> anyhow::Result<String> {
    let item = T::fetch(client, &namespace(&args.namespace.namespace), &args.name).await?;
    if let Some(text) = alone(&item, args)? {
        return Ok(text);
    }
    let subject = format!("{}/{}", T::KIND.singular(), args.name);
    Ok(yaml(&item.object)? + &events_of(client, |event| event.subject == subject).await?)
}

/// The documents that describe the objects, if YAML is asked of a kind that files describe.
pub(crate) fn documents<T: Shown>(items: &[Object<T>], output: Output) -> anyhow::Result<Option<String>> {
    let mut out = String::new();
    for item in items {
        let document = heptad_manifest::document(T::KIND, serde_json::to_value(&item.object)?);
        let (Some(document), Output::Yaml) = (document, output) else { return Ok(None) };
        let line = if out.is_empty() { "" } else { "---\n" };
        out += &format!("{line}{}", yaml(&document)?);
    }
    Ok((!out.is_empty()).then_some(out))
}

/// The object without what belongs to it, in the forms that programs read.
fn alone<T: Shown>(item: &Object<T>, args: &Named) -> anyhow::Result<Option<String>> {
    Ok(match args.output.output {
        Output::Json => Some(serde_json::to_string_pretty(item)? + "\n"),
        Output::Yaml => Some(match documents(std::slice::from_ref(item), Output::Yaml)? {
            Some(text) => text,
            None => yaml(item)?,
        }),
        Output::Name => Some(format!("{}/{}\n", T::KIND.singular(), item.object.name())),
        Output::Table | Output::Wide => None,
    })
}

/// Objects as a table, or as their names.
pub(crate) fn rows<T: Shown>(items: &[Object<T>], beside: &T::Beside, output: Output) -> String {
    table(items, beside, output, Vec::new())
}

/// The same, with rows of what is no object; it has no name that could be passed on.
pub(crate) fn table<T: Shown>(
    items: &[Object<T>],
    beside: &T::Beside,
    output: Output,
    more: Vec<Vec<String>>,
) -> String {
    if output == Output::Name {
        return items.iter().map(|item| format!("{}/{}\n", T::KIND.singular(), item.object.name())).collect();
    }
    let wide = output == Output::Wide;
    let mut table = Table::new(&T::headings(wide));
    let rows = items.iter().map(|item| item.object.cells(beside, wide));
    rows.chain(more).for_each(|row| table.push(row));
    table.render()
}

async fn events_of(client: &Client, of: impl Fn(&Event) -> bool) -> anyhow::Result<String> {
    let mut events = client.list::<Event>().await?.items;
    events.retain(|item| of(&item.object));
    events.sort_by_key(|item| item.object.at_ms);
    if events.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("\n{}\n{}", paint("Events", 1), rows(&events, &(), Output::Table)))
}

async fn containers(client: &Client) -> anyhow::Result<Vec<Container>> {
    Ok(client.list::<Container>().await?.items.into_iter().map(|item| item.object).collect())
}

fn settings_cells(namespace: &Namespace, name: &str, keys: Vec<&String>, generation: u64) -> Vec<String> {
    let keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    vec![namespace.to_string(), name.to_owned(), keys.join(", "), generation.to_string()]
}
