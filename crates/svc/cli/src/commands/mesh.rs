//! `mesh call` and `mesh check`: requests through the mesh, and what would happen to them.

use super::service_key;
use crate::{
    args::{MeshCall, MeshCheck},
    output::{paint, print, tell},
};
use anyhow::{Context, bail};
use heptad_api::mesh::CallRequest;
use heptad_client::Client;
use std::{collections::BTreeMap, process::ExitCode};

/// The request that the words of the command line mean.
struct Asked<'a> {
    from: &'a str,
    to: &'a str,
    path: &'a str,
    port: Option<u16>,
    namespace: &'a str,
}

impl Asked<'_> {
    fn request(&self) -> CallRequest {
        CallRequest {
            from: (self.from != "-").then(|| service_key(self.from, self.namespace)),
            to: service_key(self.to, self.namespace),
            port: self.port,
            method: "GET".to_owned(),
            path: if self.path.starts_with('/') { self.path.to_owned() } else { format!("/{}", self.path) },
            headers: BTreeMap::new(),
            body: String::new(),
        }
    }
}

pub(super) async fn call(client: &Client, args: MeshCall) -> anyhow::Result<ExitCode> {
    let namespace = &args.namespace.namespace;
    let asked = Asked { from: &args.from, to: &args.to, path: &args.path, port: args.port, namespace };
    let headers = args.headers.iter().map(|header| match header.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => bail!("`{header}` is not a header; write NAME: VALUE"),
    });
    let headers = headers.collect::<anyhow::Result<_>>()?;
    let request = CallRequest { method: args.method, headers, body: args.data, ..asked.request() };
    let response = client.mesh_call(&request).await.context("the call did not go through")?;
    let by = response.container.as_ref().map_or("the mesh itself".to_owned(), ToString::to_string);
    let rule = response.rule.as_ref().map_or(String::new(), |rule| format!(", by rule {rule}"));
    tell(format!(
        "{} from {by}{rule}",
        paint(&response.status.to_string(), if response.status < 400 { 32 } else { 31 })
    ));
    print(args.output.output, &response, || format!("{}\n", response.body.trim_end()))?;
    Ok(if response.status < 400 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) async fn check(client: &Client, args: MeshCheck) -> anyhow::Result<ExitCode> {
    let namespace = &args.namespace.namespace;
    let asked = Asked { from: &args.from, to: &args.to, path: &args.path, port: args.port, namespace };
    let response = client.mesh_check(&asked.request()).await?;
    print(args.output.output, &response, || {
        let word = if response.allowed { paint("allowed", 32) } else { paint("not allowed", 31) };
        format!("{word}: {}\n", response.explanation)
    })?;
    Ok(if response.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
