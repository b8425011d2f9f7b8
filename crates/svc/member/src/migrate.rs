//! Moves the state of a server from its data directory to etcd, or back. A file beside the settings records what was
//! begun, so that the next `state migrate`, or the next start of the server, completes it or takes it back.

use crate::{MemberFiles, StateError, StateSettings, unix_ms};
use heptad_pki::{read_private, write_private};
use heptad_state::{
    backup::{Saved, Target},
    migration::{self, Migration},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const FILE: &str = "migration.json";

/// A migration that was begun.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    id: String,
    from: StateSettings,
    into: StateSettings,
}

fn file(data_dir: &Path) -> PathBuf {
    MemberFiles::of_server(data_dir).dir().join(FILE)
}

fn begun(data_dir: &Path) -> Result<Option<Begun>, StateError> {
    let file = file(data_dir);
    if !file.exists() {
        return Ok(None);
    }
    let bytes = read_private(&file)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| StateError::File { file, source: source.into() })
}

/// Where the state of the server in `data_dir` is, after a migration that was broken off is ended or taken back. Whoever calls
/// has the data directory.
pub async fn resolve_migration(data_dir: &Path) -> Result<StateSettings, StateError> {
    let settings = StateSettings::load(data_dir)?;
    let Some(Begun { id, from, into }) = begun(data_dir)? else { return Ok(settings) };
    let mut now = settings;
    if now != into && migration::settle(&*from.open_as_it_is(data_dir).await?, &id).await? {
        migration::finish(&*into.open_as_it_is(data_dir).await?, &id).await?;
        into.save(data_dir)?;
        now = into;
    }
    forget(data_dir).map_err(|source| StateError::File { file: file(data_dir), source })?;
    Ok(now)
}

fn forget(data_dir: &Path) -> io::Result<()> {
    let file = file(data_dir);
    fs::remove_file(&file)?;
    file.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Moves the state to `into`, where the server of `data_dir`, which is not running, uses it from now on. `None`: it is
/// there already. The caller must hold the data directory's lock.
pub async fn migrate(data_dir: &Path, into: StateSettings, target: Target) -> Result<Option<Saved>, StateError> {
    let from = resolve_migration(data_dir).await?;
    if from == into {
        return Ok(None);
    }
    if from.is_shared() && into.is_shared() {
        return Err(StateError::Refused {
            dir: data_dir.to_owned(),
            reason: "has its state on another etcd; migrate to embedded first, or move that etcd with its own snapshots",
        });
    }
    let id = format!("{}-{}", unix_ms(), std::process::id());
    let text = serde_json::to_vec_pretty(&Begun { id: id.clone(), from: from.clone(), into: into.clone() });
    write_private(&file(data_dir), &text.expect("lists and texts serialize"))?;
    let ran = run(data_dir, &id, &from, &into, target).await;
    // What went wrong first is told; the next to come resolves it then.
    let resolved = resolve_migration(data_dir).await;
    let saved = ran?;
    resolved.map(|_| Some(saved))
}

async fn run(
    data_dir: &Path,
    id: &str,
    from: &StateSettings,
    into: &StateSettings,
    target: Target,
) -> Result<Saved, StateError> {
    let (left, new) = (from.open_as_it_is(data_dir).await?, into.open_as_it_is(data_dir).await?);
    let (left_place, new_place) = (from.place(data_dir), into.place(data_dir));
    let migration = Migration { id, from: (&*left, &left_place), into: (&new, &new_place) };
    Ok(migration.run(target).await?)
}
