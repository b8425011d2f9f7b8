//! `backup`, `restore` and `state migrate`: they work on the state itself, not through a server.

use crate::{
    cli::Etcd,
    cli_state::{Backup, Migrate, MigrateTo, Restore, StateCommand, StateFlags},
    output::{say, tell},
    platform::paths,
};
use anyhow::{Context, bail};
use heptad_api::operations::APPLY_OBJECTS_MAX;
use heptad_state::{
    EmbeddedStore, Store,
    backup::{self, Saved, Target},
};
use std::{path::Path, process::ExitCode, sync::Arc};

/// Opens the state in a data directory, which must be there to be read, or on etcd.
async fn open(flags: &StateFlags, must_exist: bool) -> anyhow::Result<Arc<dyn Store>> {
    if !flags.etcd.urls.is_empty() {
        return open_etcd(&flags.etcd).await;
    }
    prepare(&flags.data_dir, must_exist)?;
    let mut options = heptad_state::Options::default();
    options.limits.txn_ops_max = options.limits.txn_ops_max.max(4 * APPLY_OBJECTS_MAX);
    let dir = flags.data_dir.join("state");
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(dir, options)).await?;
    Ok(Arc::new(opened.context("the state cannot be opened; stop the server that uses the data directory")?))
}

#[cfg(feature = "etcd")]
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

#[cfg(not(feature = "etcd"))]
async fn open_etcd(_: &Etcd) -> anyhow::Result<Arc<dyn Store>> {
    bail!("this program was built without etcd; use one with the cargo feature `etcd`")
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

pub(super) async fn backup(args: Backup) -> anyhow::Result<ExitCode> {
    let store = open(&args.state, true).await?;
    let saved = backup::backup(&*store, &args.file).await?;
    // What was written is read again before anybody relies on it.
    anyhow::ensure!(backup::verify(&args.file)? == saved, "{} is not what was written", args.file.display());
    say(format!("saved to {}: {}\n", args.file.display(), shown(saved)))?;
    if args.state.etcd.urls.is_empty() && args.state.data_dir.join("keyring").exists() {
        tell("secrets in it are sealed: keep the file `keyring` of the data directory too, elsewhere");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn restore(args: Restore) -> anyhow::Result<ExitCode> {
    backup::verify(&args.file)?;
    let store = open(&args.state, false).await?;
    let saved = backup::restore(&store, &args.file, target(args.force)).await?;
    say(format!("restored from {} and compared: {}\n", args.file.display(), shown(saved)))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn run(command: StateCommand) -> anyhow::Result<ExitCode> {
    let StateCommand::Migrate(args) = command;
    migrate(args).await
}

async fn migrate(args: Migrate) -> anyhow::Result<ExitCode> {
    let Migrate { to, force, state } = args;
    if state.etcd.urls.is_empty() {
        bail!("name the members of etcd with --etcd");
    }
    let embedded = StateFlags { etcd: Default::default(), ..state.clone() };
    let (from, into, place) = match to {
        MigrateTo::Etcd => (open(&embedded, true).await?, open(&state, false).await?, "etcd"),
        MigrateTo::Embedded => (open(&state, false).await?, open(&embedded, false).await?, "the data directory"),
    };
    let saved = backup::copy(&*from, &into, target(force)).await?;
    say(format!("copied to {place} and compared: {}\n", shown(saved)))?;
    say(match to {
        MigrateTo::Etcd => "start the servers with --etcd now; the data directory's state is not used any more\n",
        MigrateTo::Embedded => "start one server without --etcd now; etcd's state is not used any more\n",
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_destroyed_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data_dir, file) = (dir.path().join("data"), dir.path().join("backup"));
        let state = flags(&data_dir);
        let nothing = backup(Backup { file: file.clone(), state: state.clone() }).await.expect_err("nothing is there");
        assert!(nothing.to_string().contains("--data-dir"), "{nothing:#}");
        let store = open(&state, false).await.expect("it opens");
        store.put("/services/default/web", "{}").await.expect("written");
        let busy = backup(Backup { file: file.clone(), state: state.clone() }).await.expect_err("it is open");
        assert!(format!("{busy:#}").contains("stop"), "{busy:#}");
        drop(store);
        backup(Backup { file: file.clone(), state: state.clone() }).await.expect("saved");
        std::fs::remove_dir_all(&data_dir).expect("destroyed");
        let again = |force| Restore { file: file.clone(), force, state: state.clone() };
        restore(again(false)).await.expect("restored");
        assert!(restore(again(false)).await.is_err(), "there is something now");
        restore(again(true)).await.expect("restored once more");
        let store = open(&state, true).await.expect("it opens");
        let row = store.get("/services/default/web").await.expect("read");
        assert_eq!(row.map(|kv| kv.value), Some("{}".into()));
    }
}
