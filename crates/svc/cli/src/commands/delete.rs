//! `delete`: objects by name or by the files that made them; waits until the containers are gone.

use super::{apply::read, namespace, service_key};
use crate::{
    args::Delete,
    output::{say, tell},
};
use anyhow::bail;
use heptad_api::{Kind, Manifest, Writers, with_kind};
use heptad_client::{Client, watch_state};
use heptad_model::{Container, ServiceKey};
use std::{process::ExitCode, time::Duration};

const WAIT_SECONDS_MAX: u64 = 120;

struct Target {
    kind: Kind,
    namespace: String,
    name: String,
}

pub(super) async fn delete(client: &Client, args: Delete) -> anyhow::Result<ExitCode> {
    let by_file = !args.files.is_empty();
    let targets = targets(&args)?;
    let mut services = Vec::new();
    let mut failed = false;
    for target in targets {
        match remove(client, &target).await {
            Ok(()) => {
                say(format!("{}/{} deleted\n", target.kind.singular(), target.name))?;
                if target.kind == Kind::Services {
                    services.push(service_key(&target.name, &target.namespace));
                }
            }
            Err(error) if by_file && error.is_not_found() => {
                say(format!("{}/{} is not there\n", target.kind.singular(), target.name))?;
            }
            Err(error) => {
                failed = true;
                tell(format!("error: deleting {}/{}: {error}", target.kind.singular(), target.name));
            }
        }
    }
    if !args.no_wait && !services.is_empty() {
        wait_gone(client, &services).await?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn targets(args: &Delete) -> anyhow::Result<Vec<Target>> {
    if !args.files.is_empty() {
        let of = |object: Manifest| Target {
            kind: object.kind(),
            namespace: object.namespace().cloned().unwrap_or_default().0,
            name: object.name().to_owned(),
        };
        let mut targets: Vec<Target> = read(&args.files, true)?.into_iter().map(of).collect();
        // What is in a namespace goes before what is in none.
        targets.sort_by_key(|target| !target.kind.is_namespaced());
        return Ok(targets);
    }
    let Some(kind) = args.kind else { bail!("name what to delete, such as `heptad delete service web`") };
    let of = |name: &String| {
        let key = service_key(name, &args.namespace.namespace);
        Target { kind, namespace: key.namespace.to_string(), name: key.name }
    };
    Ok(args.names.iter().map(of).collect())
}

async fn remove(client: &Client, target: &Target) -> Result<(), heptad_client::Error> {
    let (space, name) = (namespace(&target.namespace), &target.name);
    if target.kind.writers() == Writers::Servers {
        let detail = "containers follow their service and events expire; scale or delete the service instead";
        return Err(heptad_api::ProblemDetails::new(heptad_api::ErrorCode::BadRequest, detail).into());
    }
    with_kind!(target.kind, T => client.delete::<T>(&space, name, None).await.map(drop))
}

async fn wait_gone(client: &Client, services: &[ServiceKey]) -> anyhow::Result<()> {
    let mut containers = watch_state::<Container>(client);
    let gone = async {
        let mut view = containers.synced().await;
        while view.objects.values().any(|item| services.contains(&item.object.service)) {
            view = containers.changed().await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(WAIT_SECONDS_MAX), gone).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("some containers still stop after {WAIT_SECONDS_MAX} s; `heptad get containers` shows them"),
    }
}
