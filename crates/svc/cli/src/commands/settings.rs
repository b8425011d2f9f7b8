//! `config` and `secret`: sets and removes values. Never prints a value.

use super::namespace;
use crate::{args::SettingsCommand, output::say};
use anyhow::{Context, bail};
use heptad_api::Resource;
use heptad_client::Client;
use serde_json::{Map, Value, json};
use std::{io::Read, process::ExitCode};

/// The longest value that is read from a file.
const VALUE_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn run<T: Resource>(client: &Client, command: SettingsCommand) -> anyhow::Result<ExitCode> {
    let (name, space, data) = match command {
        SettingsCommand::Set { name, values, namespace } => (name, namespace, set(&values)?),
        SettingsCommand::Unset { name, keys, namespace } => {
            (name, namespace, keys.into_iter().map(|key| (key, Value::Null)).collect())
        }
    };
    let (space, kind) = (namespace(&space.namespace), T::KIND.singular());
    let is_set = data.values().any(|value| !value.is_null());
    let patched = client.patch::<T>(&space, &name, &json!({ "data": data }), None).await;
    match patched {
        Ok(_) => say(format!("{kind}/{name} changed\n"))?,
        Err(error) if error.is_not_found() && is_set => {
            let object = json!({ "name": name, "namespace": space, "data": data });
            let object: T = serde_json::from_value(object).context("cannot make the object")?;
            client.create(&object).await?;
            say(format!("{kind}/{name} created\n"))?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn set(values: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut data = Map::new();
    for pair in values {
        // The text behind the key may be secret and is not repeated.
        let Some((key, value)) = pair.split_once('=') else { bail!("write KEY=VALUE, KEY=@FILE or KEY=@-") };
        let value = match value.strip_prefix('@') {
            Some("-") => read(std::io::stdin(), "standard input")?,
            Some(file) => read(std::fs::File::open(file).with_context(|| format!("cannot open {file}"))?, file)?,
            None => value.to_owned(),
        };
        data.insert(key.to_owned(), Value::String(value));
    }
    Ok(data)
}

fn read(source: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = source.take(VALUE_BYTES_MAX + 1).read_to_string(&mut text);
    let bytes =
        read.with_context(|| format!("cannot read {name} as text; binary values are to be encoded, as in Base64"))?;
    if bytes as u64 > VALUE_BYTES_MAX {
        bail!("{name} is longer than {VALUE_BYTES_MAX} bytes");
    }
    Ok(text)
}
