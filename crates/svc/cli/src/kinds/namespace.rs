//! Namespaces: those that were declared, those in which there are objects, and how many.

use super::{Shown, alone, events_of};
use crate::{
    args::Named,
    commands::namespace,
    output::{tell, yaml},
};
use anyhow::bail;
use heptad_api::{ErrorCode, Kind, Object, Resource, with_kind};
use heptad_client::{Client, Error};
use heptad_model::{DeclaredNamespace, Namespace};
use std::collections::BTreeMap;

/// How many objects of each kind each namespace holds.
type Held = BTreeMap<Namespace, BTreeMap<Kind, usize>>;

async fn count<T: Resource>(client: &Client, held: &mut Held) -> anyhow::Result<()> {
    match client.list::<T>().await {
        Ok(list) => {
            for namespace in list.items.iter().filter_map(|item| item.object.namespace()) {
                *held.entry(namespace.clone()).or_default().entry(T::KIND).or_default() += 1;
            }
            Ok(())
        }
        Err(Error::Problem(problem)) if problem.code == ErrorCode::Forbidden => {
            tell(format!("{} are not counted: you may not list them", T::KIND));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn held(client: &Client) -> anyhow::Result<Held> {
    let mut held = Held::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_namespaced()) {
        with_kind!(kind, T => count::<T>(client, &mut held).await?);
    }
    Ok(held)
}

/// `2 services, 1 secret`
fn objects(held: &Held, namespace: &Namespace) -> String {
    let words = |(kind, count): (&Kind, &usize)| match count {
        1 => format!("1 {}", kind.singular()),
        _ => format!("{count} {kind}"),
    };
    let all: Vec<String> = held.get(namespace).into_iter().flatten().map(words).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

impl Shown for DeclaredNamespace {
    type Beside = Held;

    async fn beside(client: &Client) -> anyhow::Result<Self::Beside> {
        held(client).await
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAME", "DECLARED", "OBJECTS", "LABELS"];
        headings.extend(wide.then_some("DESCRIPTION"));
        headings
    }

    fn cells(&self, held: &Self::Beside, wide: bool) -> Vec<String> {
        let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let objects = objects(held, &namespace(&self.name));
        let mut cells = vec![self.name.clone(), "yes".to_owned(), objects, labels.join(",")];
        cells.extend(wide.then(|| self.description.clone()));
        cells
    }

    /// Namespaces that nobody declared, and objects are in.
    fn more_rows(items: &[Object<Self>], held: &Self::Beside, _: bool) -> Vec<Vec<String>> {
        let others = held.keys().filter(|name| items.iter().all(|item| item.object.name != name.as_str()));
        others.map(|name| vec![name.to_string(), "no".to_owned(), objects(held, name)]).collect()
    }

    /// Says of one that nobody declared what it holds.
    async fn fetch(client: &Client, of: &Namespace, name: &str) -> anyhow::Result<Object<Self>> {
        let missing = match client.get(of, name).await {
            Err(Error::Problem(problem)) if problem.code == ErrorCode::NotFound => problem,
            item => return Ok(item?),
        };
        let held = held(client).await?;
        if !held.contains_key(&namespace(name)) {
            return Err(Error::Problem(missing).into());
        }
        let objects = objects(&held, &namespace(name));
        bail!("namespace/{name} holds {objects} but is not declared; apply a file that says `namespace: {name}`")
    }

    async fn describe(client: &Client, args: &Named) -> anyhow::Result<String> {
        let item = Self::fetch(client, &Namespace::default(), &args.name).await?;
        if let Some(text) = alone(&item, args)? {
            return Ok(text);
        }
        let objects = objects(&held(client).await?, &namespace(&args.name));
        let subject = format!("namespace/{}", args.name);
        let events = events_of(client, |event| event.subject == subject).await?;
        Ok(format!("{}\nObjects: {objects}\n{events}", yaml(&item.object)?))
    }
}
