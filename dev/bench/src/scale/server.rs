//! The server: the real control plane on the embedded store, in a process of its own.

use anyhow::{Context, Result, bail};
use heptad_control::{Control, Options, ServerParts};
use heptad_state::EmbeddedStore;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::process::{Child, Command};

/// The instructions of the server's process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where its store and its token are.
    #[arg(long)]
    dir: PathBuf,
    /// Nodes that will come.
    #[arg(long)]
    agents: usize,
}

/// Runs the server's process until it is killed or its input ends.
pub(crate) fn run(args: &Args) -> Result<()> {
    tracing_subscriber::fmt().with_env_filter("warn").with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    // As the platform opens it.
    let mut kept = heptad_state::Options::default();
    kept.limits.txn_ops_max = 4 * heptad_api::operations::APPLY_OBJECTS_MAX;
    let store = EmbeddedStore::open(args.dir.join("state"), kept).context("cannot open the store")?;
    let options = Options {
        tcp: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        token_file: Some(args.dir.join("token")),
        // Here all agents are the user of this machine, who has one bound; nodes with certificates each have their own.
        connections_max: args.agents * 8 + 100,
        streams_max: args.agents * 6 + 100,
        requests_max: args.agents * 2 + 100,
        ..Options::default()
    };
    let control = Control::start(options, Arc::new(store), ServerParts::default()).await?;
    let address = control.tcp().context("the server has no address")?;
    std::fs::write(args.dir.join("address"), address.to_string()).context("cannot write the address")?;
    // The parent holds the other end.
    let mut nothing = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut nothing)).await??;
    Ok(())
}

/// The server as its parent holds it; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    _child: Child,
    _dir: tempfile::TempDir,
}

impl Server {
    /// With room for the connections of this many nodes; its store is in a directory of its own below `dir`.
    pub(crate) async fn start(dir: &Path, agents: usize) -> Result<Self> {
        let dir = tempfile::tempdir_in(dir).context("cannot make a directory for the server")?;
        let program = std::env::current_exe().context("cannot find the own program")?;
        let child = Command::new(program)
            .arg("scale-server")
            .arg("--dir")
            .arg(dir.path())
            .args(["--agents", &agents.to_string()])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the server")?;
        let pid = child.id().context("the server ended at once")?;
        let address = address(dir.path()).await?;
        let token = std::fs::read_to_string(dir.path().join("token")).context("cannot read the token")?;
        Ok(Self { pid, address, token: token.trim().to_owned(), _child: child, _dir: dir })
    }
}

async fn address(dir: &Path) -> Result<SocketAddr> {
    for _ in 0..1_000 {
        if let Some(address) = std::fs::read_to_string(dir.join("address")).ok().and_then(|text| text.parse().ok()) {
            return Ok(address);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("the server did not say its address within 10 s")
}
