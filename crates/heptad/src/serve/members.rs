//! `server` and `agent`: creating, joining and running members. Their parts are in `platform`.

use super::{Stop, absolute, describe, of_machine, settings, stop_platform};
use crate::state;
use anyhow::{Context, bail};
use heptad::platform::{ClusterNode, ClusterServer, NewCluster, Platform, Running, Settings, initialize, take};
use heptad_api::trust::JoinRole;
use heptad_cli::{
    args::{self, AgentCommand, AgentJoin, AgentRun, Run, ServerCommand, ServerInit, ServerJoin},
    contexts::{self, Contexts, Entry},
    output::{announce, tell},
};
use heptad_member::{
    API_PORT, MemberFiles, NODE_PORT, StateSettings,
    handover::{self, Inherited, Parcel},
    join::{self, Joining, advertised},
};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};

/// The data directory if none is named.
const DATA_DIR: &str = "/var/lib/heptad";

/// `heptad server`.
pub(crate) async fn server(args: args::Server) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(ServerCommand::Init(init)) => server_init(init).await,
        Some(ServerCommand::Join(join)) => server_join(join).await,
        None => server_run(&args.run, !args.no_agent).await,
    }
}

fn data_dir(args: &Run) -> anyhow::Result<PathBuf> {
    absolute(&args.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR)))
}

async fn server_run(args: &Run, with_node: bool) -> anyhow::Result<ExitCode> {
    let dir = data_dir(args)?;
    if ClusterServer::is_in(&dir) {
        let mut signals = Signals::listen(&dir)?;
        let settings = Settings { inherited: signals.inherited.clone(), ..settings(args, dir) };
        let server = ClusterServer::start(&settings, with_node).await?;
        signals.inherited.close_rest();
        announce(describe_server(&server));
        return match signals.wait(async || server.sockets().await).await {
            Asked::Stop => Ok(stopped(server.stop(), &mut signals.stop).await),
            Asked::Upgrade(sockets) => upgraded(server.hand_over(), sockets, &signals).await,
        };
    }
    let mut stop = Stop::listen()?;
    if MemberFiles::of_node(&dir).exist() {
        bail!("{} holds a node of a cluster and no server; start it with `heptad agent`", dir.display());
    }
    if !with_node {
        bail!(
            "{} holds no server of a cluster, and a platform of one machine runs containers; leave --no-agent out",
            dir.display()
        );
    }
    let platform = Platform::start(settings(args, dir)).await?;
    announce(describe(&platform));
    stop.wait().await;
    tracing::info!("stopping; containers go on");
    Ok(stop_platform(platform, &mut stop).await)
}

/// What signals ask of a member.
enum Asked {
    Stop,
    /// And what the next program gets.
    Upgrade(Parcel),
}

/// Signals, and what is needed to start the program anew.
struct Signals {
    stop: Stop,
    hangup: tokio::signal::unix::Signal,
    program: PathBuf,
    dir: PathBuf,
    inherited: Inherited,
}

impl Signals {
    /// For the process that uses the data directory `dir`.
    fn listen(dir: &Path) -> anyhow::Result<Self> {
        let inherited = match is_started_anew() {
            true => handover::receive().context("the sockets of the program before this one were not received")?,
            false => Inherited::default(),
        };
        Ok(Self {
            stop: Stop::listen()?,
            hangup: signal(SignalKind::hangup()).context("cannot listen for signals")?,
            program: handover::program_file().context("cannot find the file of this program")?,
            dir: dir.to_owned(),
            inherited,
        })
    }

    /// The first signal that can be obeyed. A new program that does not start, or sockets that cannot be handed over,
    /// are no reason to stop the running one.
    async fn wait(&mut self, sockets: impl AsyncFn() -> io::Result<BTreeMap<String, OwnedFd>>) -> Asked {
        loop {
            tokio::select! {
                () = self.stop.wait() => {
                    tracing::info!("stopping; containers go on");
                    return Asked::Stop;
                }
                _ = self.hangup.recv() => {}
            }
            match self.prepared(&sockets).await {
                Ok(parcel) => return Asked::Upgrade(parcel),
                Err(error) => {
                    tracing::error!(program = %self.program.display(), %error, "not started anew");
                    if let Err(error) = Running::refuse(&self.dir, error.to_string()) {
                        tracing::warn!(%error, "whoever asked is not told");
                    }
                }
            }
        }
    }

    /// What the next program gets, prepared only after everything that can fail before this program ends has succeeded.
    async fn prepared(&self, sockets: impl AsyncFn() -> io::Result<BTreeMap<String, OwnedFd>>) -> io::Result<Parcel> {
        let program = self.program.clone();
        let checked = tokio::task::spawn_blocking(move || handover::check(&program)).await;
        checked.map_err(io::Error::other).flatten()?;
        Parcel::of(&sockets().await?)
    }
}

/// Starts the program file anew in this process, with the listening sockets.
async fn upgraded(
    handing_over: impl Future<Output = ()>,
    sockets: Parcel,
    signals: &Signals,
) -> anyhow::Result<ExitCode> {
    tracing::info!(program = %signals.program.display(), "starting anew; containers and connections wait");
    handing_over.await;
    Err(handover::become_program(&signals.program, sockets))
        .with_context(|| format!("cannot start {}, nor the previous program", signals.program.display()))
}

/// Waits for the end. A second signal ends the process without waiting.
async fn stopped(ending: impl Future<Output = ()>, stop: &mut Stop) -> ExitCode {
    tokio::select! {
        () = ending => ExitCode::SUCCESS,
        () = stop.wait() => {
            tell("not waiting any longer; the next start goes on where this one ended");
            ExitCode::FAILURE
        }
    }
}

/// The name that was given, or as much of the host's as is valid.
fn name_of(given: Option<String>, dir: &Path) -> anyhow::Result<String> {
    Ok(Settings { node: given, ..Settings::new(dir) }.node_name()?)
}

async fn server_init(args: ServerInit) -> anyhow::Result<ExitCode> {
    let dir = absolute(&args.data_dir)?;
    let advertise = advertised(&args.advertise, API_PORT).map_err(anyhow::Error::msg)?;
    let new = NewCluster {
        advertise,
        name: name_of(args.name, &dir)?,
        trust_domain: args.trust_domain,
        service_cidr: args.service_cidr,
        state: state::settings_of(&args.etcd)?,
    };
    let made = initialize(&Settings::new(&dir), new).await.context("no cluster was made")?;
    let entry = Entry {
        cluster: made.member.cluster.clone(),
        servers: made.member.servers.clone(),
        token: made.admin_token.clone(),
        trust_bundle_pem: made.trust_bundle_pem,
    };
    let kept = keep_context(&args.context_name, entry);
    let url = &made.member.servers[0];
    announce(format!(
        "Cluster {} is made; its first server is {}.\n\n  Start it       heptad server --data-dir {}\n  \
         Log in         heptad login {url} --token {} --ca-pin {}\n  \
         Add machines   heptad node join-token     (prints the line to run on the new machine)\n\n",
        made.member.cluster,
        made.member.name,
        dir.display(),
        made.admin_token,
        made.ca_pin,
    ));
    match kept {
        Ok(file) => tell(format!("The administrator's token is shown this once; it is also in {file}.")),
        Err(error) => tell(format!("The administrator's token is shown this once; no context was made: {error:#}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds a context; if one is in use, it stays in use.
fn keep_context(name: &str, entry: Entry) -> anyhow::Result<String> {
    let path = contexts::path()?;
    let mut known = Contexts::load(&path)?;
    let before = known.current.clone();
    known.add(name, entry)?;
    known.current = before;
    known.save(&path)?;
    Ok(format!("{} as context `{name}`", path.display()))
}

/// Whether this is the same process with its program started anew: then it has joined already.
fn is_started_anew() -> bool {
    std::env::args_os().any(|arg| arg == handover::FLAG)
}

fn joining(args: args::Joining, port: u16, dir: &Path) -> anyhow::Result<Joining> {
    let args::Joining { url, token, ca_pin, name, advertise } = args;
    // A node that joins again keeps its identity.
    let name = name.or_else(|| Some(MemberFiles::of_node(dir).member().ok()?.name));
    let address: Option<SocketAddr> =
        advertise.map(|text| advertised(&text, port)).transpose().map_err(anyhow::Error::msg)?;
    Ok(Joining {
        server: url,
        token: token.context("no join token")?,
        ca_pin,
        name: name_of(name, dir)?,
        advertise: address.map(|address| address.ip()),
        port: address.map_or(port, |address| address.port()),
        labels: Default::default(),
        devices: Default::default(),
    })
}

async fn server_join(args: ServerJoin) -> anyhow::Result<ExitCode> {
    let dir = data_dir(&args.run)?;
    if is_started_anew() && ClusterServer::is_in(&dir) {
        return server_run(&args.run, !args.no_agent).await;
    }
    let wanted = joining(args.joining, API_PORT, &dir)?;
    let lock = take(&dir)?;
    let (member, answer) = join::join(&dir, JoinRole::Server, &wanted).await?;
    let state = answer.settings.context("the server that answered did not say where the cluster's state is")?;
    let state: StateSettings = serde_json::from_value(state).context("cannot read where the cluster's state is")?;
    if !state.is_shared() {
        bail!("the state of this cluster is in the data directory of its one server; further servers need etcd");
    }
    state.save(&dir)?;
    drop(lock);
    tell(format!("server {} has joined cluster {}", member.name, member.cluster));
    server_run(&Run { data_dir: Some(dir), ..args.run }, !args.no_agent).await
}

/// `heptad agent`.
pub(crate) async fn agent(args: args::Agent) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(AgentCommand::Join(join)) => agent_join(join).await,
        None => agent_run(args.run).await,
    }
}

async fn agent_join(args: AgentJoin) -> anyhow::Result<ExitCode> {
    let dir = absolute(&args.run.data_dir)?;
    if is_started_anew() && MemberFiles::of_node(&dir).exist() {
        return agent_run(args.run).await;
    }
    let labels = args.labels.into_iter().collect();
    let devices = args.run.machine.devices();
    let wanted = Joining { labels, devices, ..joining(args.joining, NODE_PORT, &dir)? };
    let lock = take(&dir)?;
    let (member, _) = join::join(&dir, JoinRole::Node, &wanted).await?;
    drop(lock);
    tell(format!("node {} has joined cluster {}", member.name, member.cluster));
    if args.no_run {
        return Ok(ExitCode::SUCCESS);
    }
    agent_run(args.run).await
}

async fn agent_run(args: AgentRun) -> anyhow::Result<ExitCode> {
    let dir = absolute(&args.data_dir)?;
    if !MemberFiles::of_node(&dir).exist() {
        bail!("{} holds no node of a cluster; `heptad node join-token` prints the line to join with", dir.display());
    }
    let mut signals = Signals::listen(&dir)?;
    let _lock = take(&dir)?;
    let settings = Settings { inherited: signals.inherited.clone(), ..of_machine(&args.machine, dir.clone()) };
    let node = ClusterNode::start(&settings, None).await?;
    signals.inherited.close_rest();
    announce(format!("{}  Data        {}\n", describe_node(&node), dir.display()));
    match signals.wait(async || node.sockets().await).await {
        Asked::Stop => Ok(stopped(node.stop(), &mut signals.stop).await),
        Asked::Upgrade(sockets) => upgraded(node.hand_over(), sockets, &signals).await,
    }
}

fn describe_node(node: &ClusterNode) -> String {
    let containers = match node.runs_containers() {
        true => "isolated OCI containers",
        false => "plain processes (no root, so no isolation; limits by rlimits)",
    };
    let ingress = node.proxy().ingress_address().map_or("-".to_owned(), |address| format!("http://{address}"));
    let member = node.member();
    format!(
        "  Node        {} of cluster {}\n  Containers  {containers}\n  Node port   {}\n  Ingress     {ingress}\n",
        member.name,
        member.cluster,
        node.address(),
    )
}

fn describe_server(server: &ClusterServer) -> String {
    let node = server.node().map(describe_node).unwrap_or_default();
    let member = server.member();
    format!(
        "  Server      {} of cluster {}\n  API         {}\n  Socket      {}\n{node}  Data        {}\n",
        member.name,
        member.cluster,
        server.url(),
        server.socket().display(),
        server.data_dir().display(),
    )
}

/// How often the progress of an upgrade is checked.
const LOOK_MS: u64 = 50;

/// `heptad upgrade`.
pub(crate) async fn upgrade(args: args::Upgrade) -> anyhow::Result<ExitCode> {
    let dir = absolute(&args.data_dir)?;
    let unreadable = || format!("cannot tell who runs in {}", dir.display());
    let Some(before) = Running::of(&dir).with_context(unreadable)? else {
        bail!("nothing runs in {}; start it with `heptad server` or `heptad agent`", dir.display());
    };
    if !MemberFiles::of_node(&dir).exist() && !ClusterServer::is_in(&dir) {
        bail!("{} holds no member of a cluster; stop it and start it again", dir.display());
    }
    let process = nix::unistd::Pid::from_raw(before.pid);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGHUP)
        .with_context(|| format!("cannot signal process {}", before.pid))?;
    let limit = tokio::time::Instant::now() + Duration::from_secs(args.timeout);
    loop {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        match Running::of(&dir).with_context(unreadable)? {
            Some(Running { refused: Some(refused), pid, version, .. }) if Some(&refused) != before.refused.as_ref() => {
                bail!("process {pid} goes on with version {version}: {}", refused.why);
            }
            None if nix::sys::signal::kill(process, None).is_err() => {
                bail!("process {} ended when it was started anew; its log says why", before.pid);
            }
            Some(now) if now.started_ms != before.started_ms => {
                tell(format!("process {} runs version {} (before: {})", now.pid, now.version, before.version));
                return Ok(ExitCode::SUCCESS);
            }
            _ if tokio::time::Instant::now() >= limit => {
                bail!("process {} did not start anew in {} s; its log says why", before.pid, args.timeout);
            }
            _ => {}
        }
    }
}
