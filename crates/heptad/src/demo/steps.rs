//! The steps of the demo: each does something real and returns what it saw, or an error if a promise did not hold.

use anyhow::{Context, bail, ensure};
use heptad::platform::Platform;
use heptad_api::{mesh::CallRequest, mesh::CallResponse, operations::ApplyRequest};
use heptad_cli::show_until_ready;
use heptad_client::watch_state;
use heptad_model::{Container, ContainerId, ServiceKey};
use heptad_store::{DistributedStorage, StorageStatus};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The shop's file, which is also an example for users.
const SHOP: &str = include_str!("../../../../examples/shop.yaml");
const READY_SECONDS_MAX: u64 = 60;
/// How long the proxy and the packet filter of the node may take to learn what became ready.
const KNOWN_SECONDS_MAX: u64 = 10;
const KNOWN_POLL: Duration = Duration::from_millis(20);
const REPAIRED_SECONDS_MAX: u64 = 120;
const REPAIRED_POLL: Duration = Duration::from_millis(50);
const SPLIT_CALLS: u32 = 500;
const OBJECTS: usize = 8;
const OBJECT_BYTES: usize = 1_500_000;

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

async fn call(platform: &Platform, from: Option<&str>, to: &str, path: &str) -> anyhow::Result<CallResponse> {
    let request = CallRequest {
        from: from.map(key),
        to: key(to),
        port: None,
        method: "GET".to_owned(),
        path: path.to_owned(),
        headers: BTreeMap::new(),
        body: String::new(),
    };
    platform.client().mesh_call(&request).await.with_context(|| format!("calling {to}{path}"))
}

/// Has the shop's service `from` call another one from inside its container, and returns what it counted.
async fn call_from_inside(platform: &Platform, from: &str, query: &str) -> anyhow::Result<Value> {
    let response = call(platform, None, from, &format!("/call?{query}")).await?;
    ensure!(response.status == 200, "{from} answered {}: {}", response.status, response.body);
    serde_json::from_str(&response.body).with_context(|| format!("{from} answered no JSON"))
}

pub(super) async fn deploy(platform: &Platform) -> anyhow::Result<String> {
    let objects = heptad_manifest::parse("shop.yaml", SHOP, false)?.objects;
    let services: Vec<_> = objects.iter().filter(|o| o.kind() == heptad_api::Kind::Services).collect();
    let services: Vec<ServiceKey> = services.iter().map(|o| key(o.name())).collect();
    platform.client().apply(&ApplyRequest { objects }).await.context("applying examples/shop.yaml")?;
    show_until_ready(platform.client(), &services, Duration::from_secs(READY_SECONDS_MAX)).await?;
    let containers = platform.client().list::<Container>().await?.items;
    let ready = containers.iter().filter(|item| item.object.ready).count();
    ensure!(ready == 8, "{ready} of 8 containers are ready");
    Ok(format!("{ready} containers of {} services are healthy", services.len()))
}

pub(super) async fn calls(platform: &Platform) -> anyhow::Result<String> {
    let until = Instant::now() + Duration::from_secs(KNOWN_SECONDS_MAX);
    loop {
        match page(platform).await {
            Err(_) if Instant::now() < until => tokio::time::sleep(KNOWN_POLL).await,
            shown => return shown,
        }
    }
}

async fn page(platform: &Platform) -> anyhow::Result<String> {
    let response = call(platform, None, "web", "/").await?;
    ensure!(response.status == 200, "web answered {}: {}", response.status, response.body);
    let page: Value = serde_json::from_str(&response.body).context("web answered no JSON")?;
    let stock = &page["parts"]["cart"]["parts"]["stock"]["container"];
    let catalog = &page["parts"]["catalog"]["container"];
    match (catalog.as_str(), stock.as_str()) {
        (Some(catalog), Some(stock)) => Ok(format!("web -> {catalog}, web -> cart -> {stock}")),
        _ => bail!("the page of web lacks catalog or stock: {page}"),
    }
}

pub(super) async fn denial(platform: &Platform) -> anyhow::Result<String> {
    let denied = call_from_inside(platform, "web", "to=stock").await?;
    ensure!(denied["statuses"]["403"] == 1, "web -> stock was not denied: {denied}");
    let allowed = call_from_inside(platform, "cart", "to=stock").await?;
    ensure!(allowed["statuses"]["200"] == 1, "cart -> stock was not allowed: {allowed}");
    let reason = denied["last"].as_str().unwrap_or_default();
    let reason = serde_json::from_str::<Value>(reason).ok().and_then(|r| Some(r["detail"].as_str()?.to_owned()));
    Ok(format!("web -> stock: 403{}\ncart -> stock: 200", reason.map_or(String::new(), |r| format!(" ({r})"))))
}

pub(super) async fn split(platform: &Platform) -> anyhow::Result<String> {
    let counted = call_from_inside(platform, "web", &format!("to=catalog&times={SPLIT_CALLS}")).await?;
    let count = |version: &str| counted["versions"][version].as_u64().unwrap_or(0);
    let (old, new) = (count("1"), count("2"));
    ensure!(old + new == u64::from(SPLIT_CALLS), "not every call was answered: {counted}");
    // Five standard deviations around one tenth: a correct split fails here once in two million runs.
    let share = new as f64 / f64::from(SPLIT_CALLS);
    let deviation = (0.1f64 * 0.9 / f64::from(SPLIT_CALLS)).sqrt();
    ensure!((share - 0.1).abs() < 5.0 * deviation, "version 2 got {:.1} % of the calls", share * 100.0);
    Ok(format!("{SPLIT_CALLS} calls: {old} to version 1, {new} to version 2 ({:.1} %)", share * 100.0))
}

/// Kills a replica of the catalog from inside and waits until it is back; the service answers throughout.
pub(super) async fn killed(platform: &Platform) -> anyhow::Result<String> {
    let mut containers = watch_state::<Container>(platform.client());
    let view = containers.synced().await;
    let victim = view.objects.values().find(|item| item.object.service == key("catalog"));
    let victim = &victim.context("the catalog has no container")?.object;
    let (id, restarts) = (victim.id.clone(), victim.restarts);
    kill(platform, &id).await?;
    let back = async {
        loop {
            let view = containers.changed().await;
            let now = view.objects.get(id.as_str()).map(|item| &item.object);
            if now.is_some_and(|c| c.restarts > restarts && c.ready) {
                return;
            }
        }
    };
    let began = std::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(READY_SECONDS_MAX), back)
        .await
        .with_context(|| format!("{id} did not come back in {READY_SECONDS_MAX} s"))?;
    let after = call_from_inside(platform, "web", "to=catalog&times=20").await?;
    ensure!(after["statuses"]["200"] == 20, "calls failed afterwards: {after}");
    Ok(format!("{id} was killed and is ready again after {} ms", began.elapsed().as_millis()))
}

/// Ends the first process of a container, as a crash would.
async fn kill(platform: &Platform, id: &ContainerId) -> anyhow::Result<()> {
    platform.agent().crash(id).await.with_context(|| format!("killing {id}"))
}

fn content(index: usize) -> Vec<u8> {
    (0..OBJECT_BYTES).map(|at| (at.wrapping_mul(31) ^ index.wrapping_mul(7919) ^ (at >> 8)) as u8).collect()
}

pub(super) async fn storage(platform: &Platform) -> anyhow::Result<String> {
    let storage = platform.storage();
    for index in 0..OBJECTS {
        let stored = storage.put_bytes("demo", &format!("photo-{index}"), content(index).into()).await;
        stored.with_context(|| format!("storing photo-{index}"))?;
    }
    let dir = platform.storage_dir(1);
    let lost = dir.with_extension("lost");
    // The whole directory at once, as when a disk fails; the platform may recreate it meanwhile.
    std::fs::rename(&dir, &lost).with_context(|| format!("moving {} away", dir.display()))?;
    let removed = std::fs::remove_dir_all(&lost);
    removed.with_context(|| format!("removing {}", lost.display()))?;
    for index in 0..OBJECTS {
        let name = format!("photo-{index}");
        let read = storage.get_bytes("demo", &name, OBJECT_BYTES as u64).await;
        let read = read.with_context(|| format!("reading {name} with a disk less"))?;
        ensure!(read == content(index), "{name} came back changed");
    }
    storage.put_bytes("demo", "written-meanwhile", content(99).into()).await.context("writing with a disk less")?;
    let status = repaired(storage).await?;
    let dir = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!(
        "{OBJECTS} objects of {OBJECT_BYTES} bytes read back byte for byte without {dir}\nrepaired: all {} shards have {} \
         copies again",
        status.shards_total, status.replication_factor
    ))
}

/// Waits until the platform has repaired everything by itself.
async fn repaired(storage: &DistributedStorage) -> anyhow::Result<StorageStatus> {
    let until = Instant::now() + Duration::from_secs(REPAIRED_SECONDS_MAX);
    loop {
        let status = storage.status().await;
        if status.shards_whole == status.shards_total {
            return Ok(status);
        }
        ensure!(
            Instant::now() < until,
            "{} of {} shards are whole {REPAIRED_SECONDS_MAX} s after the loss of a disk",
            status.shards_whole,
            status.shards_total
        );
        tokio::time::sleep(REPAIRED_POLL).await;
    }
}

pub(super) async fn verify(platform: &Platform) -> anyhow::Result<String> {
    let report = platform.client().verify().await?;
    for guarantee in &report.guarantees {
        let findings: Vec<String> =
            guarantee.findings.iter().map(|f| format!("{}: {}", f.subject, f.message)).collect();
        ensure!(findings.is_empty(), "{} ({}) does not hold: {}", guarantee.id, guarantee.title, findings.join("; "));
    }
    let checked = report.guarantees.iter().filter(|g| g.checked && g.applies);
    let names: Vec<String> = checked.map(|g| format!("{} {}", g.id, g.title)).collect();
    Ok(format!("hold: {}", names.join(", ")))
}
