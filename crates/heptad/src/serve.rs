//! `dev`, `server` and `agent`: a platform, or a member of a cluster, for as long as the process lives.

mod members;

pub(crate) use members::{agent, server, upgrade};

use anyhow::Context;
use heptad::platform::{self, Platform, PlatformError, Settings, paths};
use heptad_cli::{
    args::{self, Connect, Machine, Run},
    output::{announce, paint, tell},
};
use heptad_control::OptimizeMode;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};
use tokio::signal::unix::{SignalKind, signal};

fn driver(choice: args::DriverChoice) -> platform::DriverChoice {
    match choice {
        args::DriverChoice::Auto => platform::DriverChoice::Auto,
        args::DriverChoice::Oci => platform::DriverChoice::Oci,
        args::DriverChoice::Process => platform::DriverChoice::Process,
    }
}

fn optimize(choice: args::OptimizeChoice) -> OptimizeMode {
    match choice {
        args::OptimizeChoice::Off => OptimizeMode::Off,
        args::OptimizeChoice::Suggest => OptimizeMode::Suggest,
        args::OptimizeChoice::Auto => OptimizeMode::Auto,
    }
}

/// The settings that the flags describe, in `data_dir`.
fn settings(args: &Run, data_dir: PathBuf) -> Settings {
    Settings {
        listen: args.listen,
        node: args.node.clone(),
        optimize: optimize(args.optimize),
        optimize_interval_ms: args.optimize_interval.max(1).saturating_mul(1_000),
        ..of_machine(&args.machine, data_dir)
    }
}

/// The settings of a node, as far as the flags of every node describe them.
fn of_machine(args: &Machine, data_dir: PathBuf) -> Settings {
    Settings {
        ingress: args.ingress,
        driver: driver(args.driver),
        oci_runtime: args.oci_runtime.clone(),
        insecure_registries: args.insecure_registries.clone(),
        registry_auth: args.registry_auth.clone(),
        devices: args.devices(),
        ..Settings::new(data_dir)
    }
}

/// A new directory for a platform that is removed at the end.
fn fresh_data_dir() -> anyhow::Result<PathBuf> {
    let parent = paths::runtime_dir_of_data();
    paths::shared_dir(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let dir = tempfile::Builder::new().prefix("data-").tempdir_in(&parent);
    Ok(dir.with_context(|| format!("cannot make a directory in {}", parent.display()))?.keep())
}

/// The directory of `dev` and `demo`, and whether it is removed at the end. A directory that the user named is kept,
/// but no containers keep running in it unseen.
fn dev_settings(args: &Run) -> anyhow::Result<Settings> {
    match &args.data_dir {
        Some(dir) => Ok(Settings { ends_containers: true, ..settings(args, absolute(dir)?) }),
        None => Ok(Settings { ephemeral: true, ..settings(args, fresh_data_dir()?) }),
    }
}

fn absolute(dir: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(dir).with_context(|| format!("cannot find {}", dir.display()))
}

/// Starts the platform of `dev` or `demo`; removes what a failed start made.
pub(crate) async fn start_dev(args: &Run) -> anyhow::Result<Platform> {
    if args.data_dir.is_none() {
        sweep(args).await;
    }
    let settings = dev_settings(args)?;
    let (dir, ephemeral) = (settings.data_dir.clone(), settings.ephemeral);
    let started = Platform::start(settings).await;
    if started.is_err() && ephemeral {
        // The error to report is that of the start.
        let _ = std::fs::remove_dir_all(dir);
    }
    Ok(started?)
}

/// Removes the platforms that should have removed themselves at their end but were killed before it. Their containers
/// may still run, and nobody else will ever stop them.
async fn sweep(args: &Run) {
    let parent = paths::runtime_dir_of_data();
    for entry in std::fs::read_dir(&parent).into_iter().flatten().flatten() {
        let dir = entry.path();
        // Without this file, the platform has not begun yet or was removed.
        if !dir.join(platform::IDENTITY_FILE).is_file() {
            continue;
        }
        let driver = driver(args.machine.driver);
        match Platform::start(Settings { ephemeral: true, driver, ..Settings::new(&dir) }).await {
            Ok(left) => {
                tell(format!("removing what a killed platform left: {}", dir.display()));
                left.stop().await;
            }
            // It is alive.
            Err(PlatformError::InUse { .. }) => {}
            Err(error) => tracing::warn!(dir = %dir.display(), %error, "what a killed platform left stays"),
        }
    }
}

/// `heptad dev`.
pub(crate) async fn dev(args: Run, connect: &Connect) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut stop = Stop::of_terminal()?;
    let platform = start_dev(&args).await?;
    announce(format!("{} in {} ms\n\n", paint("Heptad runs", 32), began.elapsed().as_millis()));
    announce(describe(&platform));
    let removed = args.data_dir.is_none();
    let end = if removed {
        "Ctrl-C removes it and all its containers."
    } else {
        "Ctrl-C ends it and its containers; its data stays."
    };
    let flags = heptad_cli::flags_for(connect, &platform.socket());
    announce(format!(
        "\nTry   heptad{flags} apply -f examples/shop.yaml --wait\n      heptad{flags} get services\n\n{end}\n"
    ));
    stop.wait().await;
    tell("\nstopping ...");
    Ok(stop_platform(platform, &mut stop).await)
}

/// Stops the platform. A second signal cuts the waiting short, but what is to be removed is still removed. A third
/// signal ends the process.
pub(crate) async fn stop_platform(platform: Platform, stop: &mut Stop) -> ExitCode {
    let (hurry, hurried) = tokio::sync::oneshot::channel::<()>();
    let mut stopping = std::pin::pin!(platform.stop_unless_hurried(async {
        // Never hurried: the sender lives as long as this.
        let _ = hurried.await;
    }));
    tokio::select! {
        () = &mut stopping => return ExitCode::SUCCESS,
        () = stop.wait() => {}
    }
    tell("not waiting any longer for requests and containers to end");
    let _ = hurry.send(());
    tokio::select! {
        () = &mut stopping => ExitCode::SUCCESS,
        () = stop.wait() => {
            tell("ended at once; the next start removes what is left, or goes on with it");
            ExitCode::FAILURE
        }
    }
}

/// Prints the addresses and paths for people.
pub(crate) fn describe(platform: &Platform) -> String {
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

/// Waits for Ctrl-C or SIGTERM and, if the process belongs to a terminal, for that terminal's end. Listens from the
/// moment it is created, so that a signal during the start is not lost.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Stop {
    /// Starts listening.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listening = "cannot listen for signals";
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context(listening)?,
            terminate: signal(SignalKind::terminate()).context(listening)?,
            hangup: None,
        })
    }

    /// Starts listening, also for the end of the terminal (SIGHUP).
    pub(crate) fn of_terminal() -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
        Ok(Self { hangup: Some(hangup), ..Self::listen()? })
    }

    /// Returns at the first signal.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = async {
                match &mut self.hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
}
