//! What all connections of a proxy share: the table, the pool, the counters, the draws, the signal to end.

use crate::{counters::Counters, options::Options, peer::PeerConnector, peers::Peers, pool::Pool, shares::Shares};
use arc_swap::ArcSwap;
use heptad_model::ContainerId;
use heptad_route::{Draw, Table};
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Arc<Options>,
    pub(crate) pool: Pool,
    pub(crate) peers: Peers,
    pub(crate) counters: Counters,
    /// The connections of callers on this node.
    pub(crate) callers: Arc<Shares>,
    /// Those that come by the ingress.
    pub(crate) outside: Arc<Shares>,
    /// Those that other proxies have made.
    pub(crate) arrivals: Arc<Shares>,
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// The revision of the table, for those who wait for one.
    pub(crate) revision: watch::Sender<u64>,
    /// How often services, policies or rules have changed, for those who ask whether they are still allowed.
    pub(crate) rules: watch::Sender<u64>,
    /// A table has been set: connections may be accepted.
    pub(crate) ready: CancellationToken,
    draws: AtomicU64,
    /// Everything that serves a client.
    pub(crate) tasks: TaskTracker,
    /// Those among them whose requests come from outside of the node: by the ingress, or from other proxies.
    pub(crate) outer_tasks: TaskTracker,
    /// Those whose requests come by the ingress; `outer_tasks` has them too.
    pub(crate) ingress_tasks: TaskTracker,
    /// Like `outer_drain` and `outer_stop`, but only for the ingress: a request that came by it may come back from another
    /// node in the shape of a call that it needs.
    pub(crate) ingress_drain: CancellationToken,
    /// See `ingress_drain`.
    pub(crate) ingress_stop: CancellationToken,
    /// Like `drain` and `stop`, but only for what comes from outside: what is in progress there may need calls between
    /// containers, which are accepted meanwhile.
    pub(crate) outer_drain: CancellationToken,
    /// See `outer_drain`.
    pub(crate) outer_stop: CancellationToken,
    /// No more connections; requests on those that are open are the last.
    pub(crate) drain: CancellationToken,
    /// No more waiting for requests.
    pub(crate) stop: CancellationToken,
    /// No more waiting for those in progress.
    pub(crate) abort: CancellationToken,
}

impl Core {
    /// Without a table nothing is accepted until one is set.
    pub(crate) fn new(options: Options, connector: Option<Arc<dyn PeerConnector>>, table: Option<Arc<Table>>) -> Self {
        let seed = options.draw_seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let options = Arc::new(options);
        let ready = CancellationToken::new();
        if table.is_some() {
            ready.cancel();
        }
        let table = table.unwrap_or_default();
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let (outer_drain, outer_stop) = (drain.child_token(), stop.child_token());
        Self {
            pool: Pool::new(options.node.clone()),
            peers: Peers::new(connector, Arc::clone(&options)),
            counters: Counters::new(options.counters_max),
            callers: Shares::new(options.connections_max),
            outside: Shares::new(options.ingress_connections_max),
            arrivals: Shares::new(options.arrivals_max),
            revision: watch::Sender::new(table.revision()),
            table: Arc::new(ArcSwap::new(table)),
            rules: watch::Sender::new(0),
            ready,
            draws: AtomicU64::new(seed),
            tasks: TaskTracker::new(),
            outer_tasks: TaskTracker::new(),
            ingress_tasks: TaskTracker::new(),
            ingress_drain: outer_drain.child_token(),
            ingress_stop: outer_stop.child_token(),
            outer_drain,
            outer_stop,
            drain,
            stop,
            abort: CancellationToken::new(),
            options,
        }
    }

    pub(crate) fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    pub(crate) fn set_table(&self, table: Arc<Table>) {
        let before = self.table.swap(Arc::clone(&table));
        if !table.has_rules_of(&before) {
            self.rules.send_modify(|count| *count += 1);
        }
        self.ready.cancel();
        self.revision.send_replace(table.revision());
        self.pool.retain(&table);
        self.peers.retain(&table.endpoints_all().filter_map(|endpoint| endpoint.node.as_ref()).collect());
    }

    /// Returns when the table has no endpoint of that container.
    pub(crate) async fn until_unlisted(&self, container: &ContainerId) {
        let mut tables = self.revision.subscribe();
        // The sender lives as long as this.
        let _ = tables.wait_for(|_| !self.table().has_endpoint(container)).await;
    }

    /// The numbers are all different; `route` scrambles them.
    pub(crate) fn draw(&self) -> Draw {
        Draw(self.draws.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed))
    }
}
