//! `backup`, `restore` and `state migrate`: they work on the state itself, not through a server.

use anyhow::{Context, bail};
use heptad::platform::{self, ClusterServer, paths, take};
use heptad_cli::{
    args::{Backup, Etcd, Migrate, MigrateTo, Restore, StateCommand, StateFlags},
    output::{say, tell},
};
use heptad_client::Client;
use heptad_member::{EtcdSettings, StateSettings, migrate as move_state};
use heptad_state::{
    Store,
    backup::{self, Saved, Target},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// Where the flags place the state.
pub(crate) fn settings_of(flags: &Etcd) -> anyhow::Result<StateSettings> {
    if flags.urls.is_empty() {
        return Ok(StateSettings::Embedded);
    }
    let text = |file: &Option<PathBuf>| match file {
        None => Ok(None),
        Some(file) => fs::read_to_string(file).map(Some).with_context(|| format!("cannot read {}", file.display())),
    };
    Ok(StateSettings::Etcd(EtcdSettings {
        endpoints: flags.urls.clone(),
        ca_pem: text(&flags.ca)?,
        cert_pem: text(&flags.cert)?,
        key_pem: text(&flags.key)?,
        user: flags.user.clone(),
        password: text(&flags.password_file)?.map(|password| password.trim_end_matches('\n').to_owned()),
    }))
}

/// Opens the state, on etcd if that is named, else where the server of the data directory keeps it; and says where that
/// is.
async fn open(flags: &StateFlags, must_exist: bool) -> anyhow::Result<(Arc<dyn Store>, String)> {
    if !flags.etcd.urls.is_empty() {
        return Ok((open_etcd(&flags.etcd).await?, format!("etcd at {}", flags.etcd.urls.join(","))));
    }
    let dir = &flags.data_dir;
    let settings = match ClusterServer::is_in(dir) {
        true => StateSettings::load(dir)?,
        false => StateSettings::Embedded,
    };
    if !settings.is_shared() {
        prepare(dir, must_exist)?;
    }
    let opened = settings.open_as_it_is(dir).await;
    Ok((opened.context("the state cannot be opened; a server that uses it must be stopped")?, settings.place(dir)))
}

async fn open_etcd(flags: &Etcd) -> anyhow::Result<Arc<dyn Store>> {
    use heptad_state::{EtcdOptions, EtcdStore, EtcdUser};
    let user = match (&flags.user, &flags.password_file) {
        (Some(name), Some(file)) => {
            let read = std::fs::read_to_string(file);
            let password = read.with_context(|| format!("cannot read the password in {}", file.display()))?;
            Some(EtcdUser { name: name.clone(), password: password.trim_end_matches('\n').to_owned() })
        }
        _ => None,
    };
    let options = EtcdOptions {
        endpoints: flags.urls.clone(),
        ca_file: flags.ca.clone(),
        cert_file: flags.cert.clone(),
        key_file: flags.key.clone(),
        user,
        ..EtcdOptions::default()
    };
    Ok(Arc::new(EtcdStore::open(options).await?))
}

fn prepare(dir: &Path, must_exist: bool) -> anyhow::Result<()> {
    if must_exist && !dir.join("state").is_dir() {
        bail!("there is no state in {}; name the data directory with --data-dir, or etcd with --etcd", dir.display());
    }
    paths::private_dir(dir).with_context(|| format!("cannot use {}", dir.display()))
}

fn target(force: bool) -> Target {
    if force { Target::Replaced } else { Target::Empty }
}

fn shown(saved: Saved) -> String {
    format!("{} rows, {} bytes, revision {}", saved.rows, saved.bytes, saved.revision)
}

/// Has the server that uses the data directory write the backup: over its socket, as a stream.
async fn backup_of_running(data_dir: &Path, file: &Path) -> anyhow::Result<(Saved, String)> {
    let client = Client::unix(platform::socket(&std::path::absolute(data_dir)?));
    let mut stream = client.backup().await.context("the server that uses the data directory cannot write a backup")?;
    let mut receiver = backup::Receiver::create(file)?;
    while let Some(chunk) = stream.chunk().await? {
        receiver.chunk(&chunk)?;
    }
    Ok((receiver.finish()?, format!("the running server of {}", data_dir.display())))
}

pub(crate) async fn backup(args: Backup) -> anyhow::Result<ExitCode> {
    let opened = open(&args.state, true).await;
    let is_used = |error: &anyhow::Error| {
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(heptad_state::Error::Locked { .. })))
    };
    let (saved, place) = match opened {
        Err(error) if is_used(&error) => backup_of_running(&args.state.data_dir, &args.file).await?,
        opened => {
            let (store, place) = opened?;
            (backup::backup(store, &args.file).await?, place)
        }
    };
    say(format!("saved {place} to {}: {}\n", args.file.display(), shown(saved)))?;
    if args.state.etcd.urls.is_empty() && args.state.data_dir.join("keyring").exists() {
        tell("secrets in it are sealed: keep the file `keyring` of the data directory too, elsewhere");
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn restore(args: Restore) -> anyhow::Result<ExitCode> {
    backup::verify(&args.file)?;
    let (store, place) = open(&args.state, false).await?;
    let saved = backup::restore(&store, &args.file, target(args.force)).await?;
    say(format!("restored {} to {place} and compared: {}\n", args.file.display(), shown(saved)))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn run(command: StateCommand) -> anyhow::Result<ExitCode> {
    let StateCommand::Migrate(args) = command;
    migrate(args).await
}

async fn migrate(args: Migrate) -> anyhow::Result<ExitCode> {
    let Migrate { to, force, state } = args;
    let dir = std::path::absolute(&state.data_dir)?;
    if !ClusterServer::is_in(&dir) {
        bail!(
            "{} holds no server of a cluster; only a cluster (`heptad server init`) can have its state on etcd",
            dir.display()
        );
    }
    let into = match to {
        MigrateTo::Embedded => StateSettings::Embedded,
        MigrateTo::Etcd if state.etcd.urls.is_empty() => bail!("name the members of etcd with --etcd"),
        MigrateTo::Etcd => settings_of(&state.etcd)?,
    };
    let _lock = take(&dir)?;
    let place = into.place(&dir);
    let Some(saved) = move_state(&dir, into, target(force)).await? else {
        say(format!("nothing to do: the state is in {place} already\n"))?;
        return Ok(ExitCode::SUCCESS);
    };
    say(format!("moved to {place} and compared: {}\n", shown(saved)))?;
    say(match to {
        MigrateTo::Etcd => "start this server as before; others can join it now\n",
        MigrateTo::Embedded => "start this server as before, and no other one: their state is here now\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_state::StoreExt;

    fn flags(dir: &Path) -> StateFlags {
        StateFlags { data_dir: dir.to_owned(), etcd: Etcd::default() }
    }

    #[test]
    fn without_etcd_the_state_is_in_the_data_directory() {
        let state = settings_of(&Etcd::default()).expect("no file is read");
        assert!(state == StateSettings::Embedded && !state.is_shared());
        let flags = Etcd { urls: vec!["https://e:2379".into()], ca: Some("/nowhere/ca".into()), ..Etcd::default() };
        assert!(settings_of(&flags).is_err_and(|error| error.to_string().contains("/nowhere/ca")));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_destroyed_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data_dir, file) = (dir.path().join("data"), dir.path().join("backup"));
        let state = flags(&data_dir);
        let nothing = backup(Backup { file: file.clone(), state: state.clone() }).await.expect_err("nothing is there");
        assert!(nothing.to_string().contains("--data-dir"), "{nothing:#}");
        let (store, _) = open(&state, false).await.expect("it opens");
        store.put("/services/default/web", "{}").await.expect("written");
        let busy = backup(Backup { file: file.clone(), state: state.clone() }).await.expect_err("it is open");
        assert!(format!("{busy:#}").contains("the server that uses"), "{busy:#}");
        drop(store);
        backup(Backup { file: file.clone(), state: state.clone() }).await.expect("saved");
        std::fs::remove_dir_all(&data_dir).expect("destroyed");
        let again = |force| Restore { file: file.clone(), force, state: state.clone() };
        restore(again(false)).await.expect("restored");
        assert!(restore(again(false)).await.is_err(), "there is something now");
        restore(again(true)).await.expect("restored once more");
        let (store, _) = open(&state, true).await.expect("it opens");
        let row = store.get("/services/default/web").await.expect("read");
        assert_eq!(row.map(|kv| kv.value), Some("{}".into()));
    }
}
