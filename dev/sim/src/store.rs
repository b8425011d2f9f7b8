//! A store in memory as a server sees it through a bad network: slow, sometimes with an unknown outcome, its watches late
//! or broken. What it acknowledges is kept, whoever crashes. Mutations make it wrong on purpose.

use crate::{draw::Draw, mutation::Mutation, world::World};
use heptad_state::{
    BoxFuture, Compare, Error, Layer, MemoryStore, RangeRequest, RangeResponse, Result, Store, Txn, TxnResponse,
    WatchEvent, WatchRequest, WatchSource, WatchStream,
};
use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// The row that changes with every takeover of the leadership.
pub(crate) const GENERATION: &str = "/leader/generation";

/// How often it is looked whether a stall is over.
const STALL_STEP: Duration = Duration::from_millis(20);

/// The way of one server to the store. Each incarnation of a server has its own.
pub(crate) struct SimStore {
    inner: MemoryStore,
    world: World,
    who: String,
    draw: Mutex<Draw>,
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore").field("who", &self.who).finish_non_exhaustive()
    }
}

fn unknown_outcome() -> Error {
    let source = Arc::new(io::Error::from(io::ErrorKind::TimedOut));
    Error::Commit { dir: "simulated".into(), source }
}

impl SimStore {
    pub(crate) fn new(world: &World, who: &str) -> Self {
        let (incarnation, seed) = (world.next_number(), world.seed);
        let draw = Mutex::new(Draw::of(seed, &format!("store of {who} {incarnation}")));
        Self { inner: world.store.clone(), world: world.clone(), who: who.to_owned(), draw }
    }

    fn with_draw<T>(&self, f: impl FnOnce(&mut Draw) -> T) -> T {
        f(&mut self.draw.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn chance(&self, per_mille: u64) -> bool {
        !self.world.is_calm() && self.with_draw(|draw| draw.chance(per_mille))
    }

    /// Lets others go first, sometimes for long.
    async fn wait(&self) {
        // In pieces: the end of all faults ends this too.
        while !self.world.stalled(&self.who).is_zero() {
            sleep(STALL_STEP).await;
        }
        let delay = match self.world.is_calm() {
            true => Duration::ZERO,
            false => self.with_draw(|draw| match draw.within(0, 99) {
                0..60 => Duration::ZERO,
                60..97 => draw.ms(1, 4),
                _ => draw.ms(5, 60),
            }),
        };
        if delay.is_zero() { tokio::task::yield_now().await } else { sleep(delay).await }
    }

    fn mutated(&self, mut txn: Txn) -> Txn {
        let forgotten = match self.world.mutation {
            Mutation::BlindAllocations => "/allocations/",
            Mutation::BlindReplicas => "/replicas/",
            Mutation::BlindContainers => "/containers/",
            Mutation::BlindGeneration => GENERATION,
            _ => return txn,
        };
        txn.compares.retain(|compare: &Compare| !compare.key.starts_with(forgotten.as_bytes()));
        txn
    }

    /// Whether this transaction is acknowledged and not done: the worst a store can do.
    fn is_lost(&self, txn: &Txn) -> bool {
        let user =
            txn.then.iter().any(|op| matches!(op, heptad_state::Op::Put { key, .. } if key.starts_with(b"/services/")));
        self.world.mutation == Mutation::LostWrites && user && self.with_draw(|draw| draw.chance(100))
    }

    async fn commit(&self, txn: Txn) -> Result<TxnResponse> {
        self.wait().await;
        if self.chance(3) {
            return Err(unknown_outcome());
        }
        let fenced = txn.compares.iter().any(|compare| compare.key == GENERATION);
        let txn = self.mutated(txn);
        if self.is_lost(&txn) {
            let revision = self.inner.current_revision().await?;
            return Ok(TxnResponse { succeeded: true, revision, responses: Vec::new() });
        }
        let before = self.inner.current_revision().await?;
        let done = self.inner.txn(txn.clone()).await?;
        if done.revision > before {
            let ops = if done.succeeded { &txn.then } else { &txn.else_ };
            self.world.judge.commit(&self.who, done.revision, ops, fenced);
        }
        self.wait().await;
        if self.chance(3) {
            return Err(unknown_outcome());
        }
        Ok(done)
    }
}

impl Layer for SimStore {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Box::pin(async move {
            self.wait().await;
            self.inner.range(request).await
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(self.commit(txn))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>> {
        Box::pin(async move {
            self.wait().await;
            let inner = self.inner.watch(request).await?;
            let name = format!("watch of {} {}", self.who, self.world.next_number());
            let draw = Draw::of(self.world.seed, &name);
            Ok(WatchStream::new(LateWatch { inner, world: self.world.clone(), draw, held: None }))
        })
    }
}

/// A watch whose events come late, and which breaks now and then.
struct LateWatch {
    inner: WatchStream,
    world: World,
    draw: Draw,
    held: Option<(WatchEvent, Instant)>,
}

impl LateWatch {
    async fn event(&mut self) -> Result<WatchEvent> {
        if self.held.is_none() {
            let event = loop {
                let event = self.inner.next().await?;
                let skips = self.world.mutation == Mutation::SkippedEvents && matches!(event, WatchEvent::Batch(_));
                if !(skips && self.draw.chance(30)) {
                    break event;
                }
            };
            let late = match (self.world.is_calm(), self.draw.within(0, 99)) {
                (true, _) | (false, 0..70) => Duration::ZERO,
                (false, 70..98) => self.draw.ms(1, 10),
                (false, _) => self.draw.ms(20, 300),
            };
            self.held = Some((event, Instant::now() + late));
        }
        if let Some((_, due)) = &self.held {
            sleep_until(*due).await;
        }
        if !self.world.is_calm() && self.draw.chance(2) {
            return Err(Error::Closed);
        }
        Ok(self.held.take().expect("it was filled above").0)
    }
}

impl WatchSource for LateWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchEvent>> {
        Box::pin(self.event())
    }
}
