//! `storage`: objects in and out of the distributed storage, streamed, and the health of their copies.

use crate::{
    args::Output,
    output::{Table, age, now_ms, print, say, tell, write},
};
use anyhow::{Context, bail};
use heptad_api::storage::{ListPage, ObjectInfo, StorageStatus};
use heptad_client::{Body, Client, ObjectListing};
use heptad_model::Bytes;
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

fn bucket_and_key(target: &str) -> anyhow::Result<(&str, &str)> {
    match target.split_once('/') {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok((bucket, key)),
        _ => bail!("`{target}` names no object; write BUCKET/KEY"),
    }
}

fn body_of(reader: impl tokio::io::AsyncRead + Send + 'static) -> Body {
    Body::stream(ReaderStream::with_capacity(reader, READ_BYTES))
}

/// How many bytes are read from a file at once.
const READ_BYTES: usize = 256 << 10;

pub(super) async fn put(client: &Client, target: &str, file: &Path) -> anyhow::Result<ExitCode> {
    let (bucket, key) = bucket_and_key(target)?;
    let (body, length) = if file == Path::new("-") {
        (body_of(tokio::io::stdin()), None)
    } else {
        let open = tokio::fs::File::open(file).await;
        let open = open.with_context(|| format!("cannot read {}", file.display()))?;
        let length = open.metadata().await?.len();
        (body_of(open), Some(length))
    };
    let stored: ObjectInfo = client.storage_put(bucket, key, body, length).await?;
    tell(format!("stored {} bytes as {bucket}/{key} on a majority of its disks", stored.size_bytes));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn get(client: &Client, source: &str, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (bucket, key) = bucket_and_key(source)?;
    let mut object = client.storage_get(bucket, key).await?;
    match file.filter(|file| file != Path::new("-")) {
        None => {
            let terminal = std::io::stdout().is_terminal();
            while let Some(chunk) = object.chunk().await? {
                if terminal { say(String::from_utf8_lossy(&chunk))? } else { write(&chunk)? }
            }
        }
        Some(file) => {
            let writing = || format!("cannot write {}", file.display());
            let mut out = tokio::fs::File::create(&file).await.with_context(writing)?;
            while let Some(chunk) = object.chunk().await? {
                out.write_all(&chunk).await.with_context(writing)?;
            }
            out.flush().await.with_context(writing)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn ls(client: &Client, target: &str, output: Output) -> anyhow::Result<ExitCode> {
    let (bucket, prefix) = target.split_once('/').unwrap_or((target, ""));
    let prefix = Some(prefix.to_owned()).filter(|p| !p.is_empty());
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let listing = ObjectListing { prefix: prefix.clone(), after, limit: None };
        let page: ListPage = client.storage_list(bucket, &listing).await?;
        all.extend(page.objects);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    print(output, &all, || {
        let mut table = Table::new(&["KEY", "SIZE", "CHECKSUM", "CONTENT"]);
        for object in &all {
            let short = object.checksum.chars().take(16).collect();
            let content = if object.lost_unix_ms.is_some() { "LOST" } else { "stored" };
            table.row([object.key.clone(), Bytes(object.size_bytes).to_string(), short, content.to_owned()]);
        }
        table.render()
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rm(client: &Client, target: &str) -> anyhow::Result<ExitCode> {
    let (bucket, key) = bucket_and_key(target)?;
    client.storage_delete(bucket, key).await?;
    say(format!("{bucket}/{key} deleted\n"))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn status(client: &Client, output: Output) -> anyhow::Result<ExitCode> {
    let status: StorageStatus = client.storage_status().await?;
    print(output, &status, || describe(&status))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(status: &StorageStatus) -> String {
    let now = now_ms();
    let ago = |unix_ms: u64| format!("{} ago", age(unix_ms, now));
    let mut table =
        Table::new(&["STORAGE NODE", "STATE", "USED", "CAPACITY", "SHARDS", "BLOBS", "COUNTED", "VERIFIED", "REASON"]);
    for node in &status.nodes {
        table.row([
            node.name.clone(),
            format!("{:?}", node.state),
            format!("{} MiB", node.used_bytes >> 20),
            format!("{} MiB", node.capacity_bytes >> 20),
            node.shards.to_string(),
            node.blobs.to_string(),
            if node.checked { "yes" } else { "no" }.to_owned(),
            node.verified_unix_ms.map_or("never".to_owned(), ago),
            node.reason.clone().unwrap_or_default(),
        ]);
    }
    let counted = status.checked_unix_ms.map_or("not counted yet".to_owned(), |at| format!("counted {}", ago(at)));
    let mut text = format!(
        "{}\n{} of {} shards have all {} copies ({counted}, map epoch {})\n",
        table.render(),
        status.shards_whole,
        status.shards_total,
        status.replication_factor,
        status.epoch
    );
    if status.shards_unchecked > 0 {
        text += &format!(
            "{} shards have copies on disks that were opened or silent since: they are counted now\n",
            status.shards_unchecked
        );
    }
    if status.records_unreadable > 0 {
        text += &format!(
            "{} objects have records that are not readable, so no shard counts: the leader's log names them; store or delete them again\n",
            status.records_unreadable
        );
    }
    if status.blobs_lost > 0 {
        text += &format!(
            "{} pieces of objects have no copy left: `heptad storage ls BUCKET` marks the objects\n",
            status.blobs_lost
        );
    }
    text
}
