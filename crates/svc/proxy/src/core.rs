//! What all connections of a proxy share: the table, the pool, the counters, the draws, the signal to end.

use crate::{counters::Counters, options::Options, pool::Pool};
use arc_swap::ArcSwap;
use heptad_route::{Draw, Table};
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    table: ArcSwap<Table>,
    draws: AtomicU64,
    /// Everything that serves a client.
    pub(crate) tasks: TaskTracker,
    /// No more connections and requests.
    pub(crate) stop: CancellationToken,
    /// No more waiting for those in progress.
    pub(crate) abort: CancellationToken,
}

impl Core {
    pub(crate) fn new(options: Options, table: Arc<Table>) -> Self {
        let seed = options.draw_seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self {
            pool: Pool::default(),
            counters: Counters::new(options.counters_max),
            table: ArcSwap::new(table),
            draws: AtomicU64::new(seed),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            options,
        }
    }

    pub(crate) fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    pub(crate) fn set_table(&self, table: Arc<Table>) {
        let wanted: BTreeSet<_> = table.endpoints_all().map(|endpoint| endpoint.address).collect();
        self.table.store(table);
        self.pool.retain(&wanted);
    }

    /// The numbers are all different; `route` scrambles them.
    pub(crate) fn draw(&self) -> Draw {
        Draw(self.draws.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed))
    }
}
