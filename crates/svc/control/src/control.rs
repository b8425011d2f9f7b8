//! The control plane as one thing: started with a store, stopped gracefully. Composes, decides nothing.

use crate::{
    access::ServerParts,
    audit::{Audit, Bounds, Refused},
    budget::Budget,
    condition::{Conditions, Watcher},
    error::{Error, Result, StoreContext},
    fanout::Hub,
    http::{
        self, App, Peer,
        serve::{Listeners, Server, UNKNOWN_ADDRESS},
    },
    leader::{Leader, Loops},
    objects::Objects,
    options::{Leadership, Options},
    servers::Servers,
    token::Token,
    trust::Trust,
};
use heptad_pki::Strangers;
use heptad_state::Store;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many searches for better placements run at once, for each kind of callers and for one of them.
const SEARCHES_MAX: usize = 4;
const SEARCHES_EACH_MAX: usize = 2;

/// The control plane: API server, reconcilers, scheduler loop.
#[derive(Debug)]
pub struct Control;

/// A running control plane. Dropping it stops it without waiting; [`ControlHandle::shutdown`] waits.
#[derive(Debug)]
pub struct ControlHandle {
    socket: Option<PathBuf>,
    tcp: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    token_file: Option<PathBuf>,
    objects: Objects,
    listeners: Listeners,
    server: Server,
    leader: Arc<Leader>,
    audit: Option<Audit>,
}

impl Control {
    /// Starts the control plane on `store`. When it returns, the sockets accept and the reconcilers run.
    pub async fn start(options: Options, store: Arc<dyn Store>, mut parts: ServerParts) -> Result<ControlHandle> {
        check(&options, &parts)?;
        let options = Arc::new(options);
        // A store that cannot be read is reported now, not by the first request.
        store.current_revision().await.during("read", "the revision")?;
        let objects = objects_of(store, &options, &parts);
        let listeners = Listeners::open(&options, std::mem::take(&mut parts.inherited)).await?;
        let (tcp, tls) = listeners.addresses();
        let token = match options.token_file.as_ref().filter(|_| tcp.is_some()) {
            Some(path) => Some(Token::load_or_create(path)?),
            None => None,
        };
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let servers = Servers::new(objects.store().clone());
        if let Some(url) = &options.server_url {
            servers.register(&options.server_name, url, &parts.version).await?;
        }
        let audit = options.audit_dir.as_deref().map(|dir| Audit::open(dir, bounds(&options))).transpose()?;
        let trust = parts.trust.clone();
        if let Some(trust) = &trust {
            follow_nodes(trust, &objects, &stop, &tracker).await?;
        }
        let leader = Arc::new(Leader::new(objects.clone(), options.clone())?);
        let conditions = Arc::new(Conditions::default());
        let hub = Hub::new(objects.clone());
        tracker.spawn(hub.clone().run(stop.clone()));
        let connections =
            Budget::new("connections", options.connections_max, options.connections_each_max).of_each_node();
        let strangers = Strangers::new(options.strangers_max, options.strangers_each_max);
        let app = Arc::new(App {
            objects: objects.clone(),
            hub,
            reports: Arc::default(),
            liveness: Arc::default(),
            leader: leader.clone(),
            connections: connections.clone(),
            requests: Budget::new("requests", options.requests_max, options.requests_each_max),
            streams: Budget::new("watches and log streams", options.streams_max, options.streams_each_max)
                .of_each_node(),
            searches: Budget::new("searches for a better placement", SEARCHES_MAX, SEARCHES_EACH_MAX),
            options: options.clone(),
            parts,
            token,
            audit: audit.clone(),
            refused: Refused::default(),
            conditions: conditions.clone(),
            stop: stop.clone(),
        });
        let watcher =
            Watcher { conditions, objects: objects.clone(), leader: leader.clone(), options: options.clone() };
        tracker.spawn(watcher.run(stop.clone()));
        let loops = Loops { reports: app.reports.clone(), liveness: app.liveness.clone(), tracker: tracker.clone() };
        leader.start(loops, stop.clone()).await?;
        let router = http::router(app);
        let server = Server {
            router,
            trust,
            options: options.clone(),
            connections,
            strangers,
            tracker,
            drain: stop.child_token(),
            stop,
        };
        listeners.serve(&server);
        let (socket, token_file) = (options.socket.clone(), options.token_file.clone());
        Ok(ControlHandle { socket, tcp, tls, token_file, objects, listeners, leader, audit, server })
    }
}

fn objects_of(store: Arc<dyn Store>, options: &Options, parts: &ServerParts) -> Objects {
    let objects = Objects::new(store, options.service_cidr, options.events_max);
    let of_cluster = || parts.trust.as_ref().map(|trust| Arc::new(trust.keyring().clone()));
    match parts.keyring.clone().or_else(of_cluster) {
        Some(keyring) => objects.with_keyring(keyring),
        None => objects,
    }
}

/// The keys of all nodes are known before anybody is let in, and followed from then on.
async fn follow_nodes(
    trust: &Arc<Trust>,
    objects: &Objects,
    stop: &CancellationToken,
    tracker: &TaskTracker,
) -> Result<()> {
    trust.roster().sync(objects).await?;
    let (trust, objects, stop) = (trust.clone(), objects.clone(), stop.clone());
    tracker.spawn(async move { trust.roster().follow(&objects, stop).await });
    Ok(())
}

fn bounds(options: &Options) -> Bounds {
    Bounds {
        file_bytes_max: options.audit_file_bytes_max,
        files_max: options.audit_files_max,
        sync_delay_ms_max: options.audit_sync_delay_ms_max,
    }
}

fn check(options: &Options, parts: &ServerParts) -> Result<()> {
    let wrong = |option, reason: &str| Err(Error::Option { option, reason: reason.to_owned() });
    if options.tls.is_some() && parts.trust.is_none() {
        return wrong("tls", "TLS needs the cluster's identity; make it with `heptad server init`");
    }
    if options.tcp.is_some() && options.token_file.is_none() {
        return wrong("token_file", "TCP needs a file for its token");
    }
    if options.service_cidr.prefix_len() > 30 {
        return wrong("service_cidr", "a range of services needs a prefix length of at most 30");
    }
    if let Leadership::Elected { lease_ms, renew_interval_ms } = options.leadership
        && (renew_interval_ms == 0 || lease_ms < 3 * renew_interval_ms)
    {
        return wrong("leadership", "a lease must be at least three times as long as the interval of its renewals");
    }
    let Options { requests_max, requests_each_max, streams_max, streams_each_max, .. } = *options;
    let Options { connections_max, connections_each_max, .. } = *options;
    let bounds =
        [requests_max, requests_each_max, streams_max, streams_each_max, connections_max, connections_each_max];
    if bounds.contains(&0) {
        return wrong("requests_max", "the bounds of requests, streams and connections must be at least 1");
    }
    Ok(())
}

impl ControlHandle {
    /// The Unix socket.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The TCP address, with the port that was given.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The TLS address, with the port that was given.
    pub fn tls(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// The file with the token for TCP.
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// The objects, without HTTP.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Serves a connection that was accepted elsewhere, until it ends. One beyond the bound is closed at once.
    pub fn serve<S>(&self, stream: S, peer: Peer) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (server, place) = (self.server.clone(), self.server.place(&peer, UNKNOWN_ADDRESS));
        async move {
            if let Some(place) = place {
                server.connection(stream, peer, place).await;
            }
        }
    }

    /// Whether this server runs the reconcilers.
    pub fn is_leader(&self) -> bool {
        self.leader.objects().is_some()
    }

    /// Tells at any time whether this server runs the reconcilers.
    pub fn leads(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let leader = self.leader.clone();
        move || leader.objects().is_some()
    }

    /// Copies of the listening sockets by name, for the next program (`ServerParts::inherited` there).
    pub fn sockets(&self) -> io::Result<BTreeMap<String, OwnedFd>> {
        self.listeners.copies()
    }

    /// Stops as `shutdown` does, for whoever holds `sockets`: new connections then wait in their queues. Before that,
    /// clients of kept connections are told with their next answer to reconnect.
    pub async fn hand_over(self) {
        self.listeners.leave();
        self.server.drain.cancel();
        tokio::time::sleep(Duration::from_millis(self.server.options.drain_idle_ms_max)).await;
        self.shutdown().await;
    }

    /// Stops: accepts no new connections, ends watches, finishes requests in progress within a bound.
    pub async fn shutdown(mut self) {
        self.listeners = Listeners::default();
        self.server.stop.cancel();
        self.server.tracker.close();
        let longest = 2 * Duration::from_millis(self.server.options.drain_ms_max);
        if tokio::time::timeout(longest, self.server.tracker.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        if let Some(audit) = &self.audit {
            audit.sync().await;
        }
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        self.server.stop.cancel();
    }
}
