//! `dev`, `server` and `agent`: a platform, or a member of a cluster, for as long as the process lives.

mod members;

pub use members::{agent, server, upgrade};

use crate::{
    cli::Run,
    output::{announce, paint, tell},
    platform::{self, Platform, PlatformError, Settings, paths},
};
use anyhow::Context;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};
use tokio::signal::unix::{SignalKind, signal};

/// The settings that the flags describe, in `data_dir`.
pub fn settings(args: &Run, data_dir: PathBuf) -> Settings {
    Settings {
        listen: args.listen,
        ingress: args.ingress,
        driver: args.driver,
        oci_runtime: args.oci_runtime.clone(),
        insecure_registries: args.insecure_registries.clone(),
        registry_auth: args.registry_auth.clone(),
        node: args.node.clone(),
        devices: args.devices.counts(),
        optimize: args.optimize,
        optimize_interval_ms: args.optimize_interval.max(1).saturating_mul(1_000),
        ..Settings::new(data_dir)
    }
}

/// A directory that was not there before, for a platform that is removed at the end.
pub fn fresh_data_dir() -> anyhow::Result<PathBuf> {
    let parent = paths::runtime_dir_of_data();
    paths::shared_dir(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let dir = tempfile::Builder::new().prefix("data-").tempdir_in(&parent);
    Ok(dir.with_context(|| format!("cannot make a directory in {}", parent.display()))?.keep())
}

/// The directory of `dev` and `demo`, and whether it is removed at the end: one that the user named is kept, without
/// containers that would go on where nobody looks.
fn dev_settings(args: &Run) -> anyhow::Result<Settings> {
    match &args.data_dir {
        Some(dir) => Ok(Settings { ends_containers: true, ..settings(args, absolute(dir)?) }),
        None => Ok(Settings { ephemeral: true, ..settings(args, fresh_data_dir()?) }),
    }
}

fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(dir).with_context(|| format!("cannot find {}", dir.display()))
}

/// Starts the platform of `dev` or `demo`; what a failed start made is removed.
pub async fn start_dev(args: &Run) -> anyhow::Result<Platform> {
    if args.data_dir.is_none() {
        sweep(args).await;
    }
    let settings = dev_settings(args)?;
    let (dir, ephemeral) = (settings.data_dir.clone(), settings.ephemeral);
    let started = Platform::start(settings).await;
    if started.is_err() && ephemeral {
        // The error of the start is the one to tell.
        let _ = std::fs::remove_dir_all(dir);
    }
    Ok(started?)
}

/// Removes what platforms left that were to be removed at their end, and were killed before it: their containers may still
/// run, and nobody else will ever stop them.
async fn sweep(args: &Run) {
    let parent = paths::runtime_dir_of_data();
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let dir = entry.path();
        // Without this file it has not begun yet, or was removed.
        if !dir.join(platform::IDENTITY_FILE).is_file() {
            continue;
        }
        let driver = args.driver;
        match Platform::start(Settings { ephemeral: true, driver, ..Settings::new(&dir) }).await {
            Ok(left) => {
                tell(format!("removing what a platform that was killed has left: {}", dir.display()));
                left.stop().await;
            }
            // It lives.
            Err(PlatformError::InUse { .. }) => {}
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "what a killed platform left stays"),
        }
    }
}

/// `heptad dev`.
pub async fn dev(args: Run) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut stop = Stop::listen()?;
    let platform = start_dev(&args).await?;
    announce(format!("{} in {} ms\n\n", paint("Heptad runs", 32), began.elapsed().as_millis()));
    announce(describe(&platform));
    let removed = args.data_dir.is_none();
    let end = if removed {
        "Ctrl-C removes it and all its containers."
    } else {
        "Ctrl-C ends it and its containers; its data stays."
    };
    announce(format!("\nTry   heptad apply -f examples/shop.yaml --wait\n      heptad get services\n\n{end}\n"));
    stop.wait().await;
    tell("\nstopping ...");
    Ok(stop_platform(platform, &mut stop).await)
}

/// Stops the platform. A second signal ends the process without waiting for what does not end.
pub async fn stop_platform(platform: Platform, stop: &mut Stop) -> ExitCode {
    tokio::select! {
        () = platform.stop() => ExitCode::SUCCESS,
        () = stop.wait() => {
            tell("not waiting any longer; the next `heptad dev` or `heptad demo` removes what is left");
            ExitCode::FAILURE
        }
    }
}

/// Where everything is, for people.
pub fn describe(platform: &Platform) -> String {
    let address = |found: Option<std::net::SocketAddr>| found.map_or("-".to_owned(), |a| format!("http://{a}"));
    let containers = match platform.runs_containers() {
        true => "isolated OCI containers",
        false => "plain processes (no root, so no isolation; limits by rlimits)",
    };
    let token = platform.token_file().map(|file| file.display().to_string()).unwrap_or_default();
    format!(
        "  Containers  {containers}\n  API         {} (token in {token})\n  Socket      {}\n  Ingress     {}\n  Data        {}\n",
        address(platform.api_address()),
        platform.socket().display(),
        address(platform.ingress_address()),
        platform.data_dir().display(),
    )
}

/// Waits for Ctrl-C or SIGTERM. Listens from the moment it is made, so that a signal during the start is not lost.
#[derive(Debug)]
pub struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// Begins to listen.
    pub fn listen() -> anyhow::Result<Self> {
        let listening = "cannot listen for signals";
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context(listening)?,
            terminate: signal(SignalKind::terminate()).context(listening)?,
        })
    }

    /// Returns at the first signal.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
