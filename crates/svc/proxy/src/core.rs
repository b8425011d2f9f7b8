//! What all connections of a proxy share: the table, the pool, the counters, the draws, the phase of its life.

use crate::{
    counters::Counters, options::Options, peer::PeerConnector, peers::Peers, phases::Phases, pool::Pool, shares::Shares,
};
use arc_swap::ArcSwap;
use heptad_model::ContainerId;
use heptad_route::{Draw, Limits, Table};
use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::watch;

/// How often a request is sent again to an endpoint, or to a node that has the only one, after its connection ended.
const RESENDS_MAX: usize = 3;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Arc<Options>,
    pub(crate) pool: Pool,
    pub(crate) peers: Peers,
    pub(crate) counters: Counters,
    /// The connections of callers on this node.
    pub(crate) callers: Arc<Shares>,
    /// Those that come through the ingress.
    pub(crate) outside: Arc<Shares>,
    /// Those that other proxies opened.
    pub(crate) arrivals: Arc<Shares>,
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// The revision of the table, for those who wait for one.
    pub(crate) revision: watch::Sender<u64>,
    /// Counts changes of services, policies or rules, for those who check whether they are still allowed.
    pub(crate) rules: watch::Sender<u64>,
    draws: AtomicU64,
    /// The bounds on the attempts for one request.
    pub(crate) limits: Limits,
    pub(crate) phases: Phases,
}

impl Core {
    /// Without a table, accepts nothing until one is set.
    pub(crate) fn new(options: Options, connector: Option<Arc<dyn PeerConnector>>, table: Option<Arc<Table>>) -> Self {
        let seed = options.draw_seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        let options = Arc::new(options);
        let phases = Phases::new();
        if table.is_some() {
            phases.run();
        }
        let table = table.unwrap_or_default();
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
            draws: AtomicU64::new(seed),
            limits: limits(&options),
            phases,
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
        self.phases.run();
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

fn limits(options: &Options) -> Limits {
    Limits {
        endpoints_max: options.connect_attempts_max,
        resends_max: RESENDS_MAX,
        response_wait_ms_max: options.response_wait_ms_max,
        kept_idle_ms_max: options.pool_idle_ms_max,
        kept_idle_unrepeatable_ms_max: options.pool_idle_unrepeatable_ms_max,
        local_first: options.local_first,
    }
}
