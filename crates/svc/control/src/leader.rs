//! Leading: takes part in the election, and runs the reconciler and the liveness loop while this server leads. The
//! generation fences whatever these write. Decides nothing: `election` does.

use crate::{
    election::{Election, Generation, Lease, Seen, Step, Terms, first_lease},
    error::{Error, Result, StoreContext, with_causes},
    heartbeat::Liveness,
    keys,
    objects::Objects,
    options::{Leadership, Options},
    random,
    reconcile::{Reconciler, Reports},
};
use heptad_state::{Compare, KeyValue, Op, OpResponse, Revision, Txn};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A store that has not answered for this many renewal intervals is silent; another server may be elected meanwhile.
const SILENT_INTERVALS: u64 = 3;

/// What a leader's loops share with the rest of the server.
#[derive(Clone, Debug)]
pub(crate) struct Loops {
    pub(crate) reports: Arc<Reports>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) tracker: TaskTracker,
}

/// One term of leading.
#[derive(Debug)]
struct Term {
    fence: Revision,
    objects: Objects,
    stop: CancellationToken,
}

impl Drop for Term {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Whether this server leads, and how it comes to.
#[derive(Debug)]
pub(crate) struct Leader {
    objects: Objects,
    options: Arc<Options>,
    /// Which run of this server it is.
    incarnation: String,
    term: Mutex<Option<Term>>,
    /// Whether the store, which is elsewhere, has not answered for too long.
    silent: watch::Sender<bool>,
}

impl Leader {
    pub(crate) fn new(objects: Objects, options: Arc<Options>) -> Result<Self> {
        let incarnation = random::word(12, "the election")?;
        Ok(Self { objects, options, incarnation, term: Mutex::default(), silent: watch::Sender::new(false) })
    }

    /// Whether this server does not reach the store: it then learns nothing new, while others may. A single server has
    /// its store in its own process.
    pub(crate) fn store_is_silent(&self) -> watch::Receiver<bool> {
        self.silent.subscribe()
    }

    /// The objects as the leader may write them; `None` if this server does not lead.
    pub(crate) fn objects(&self) -> Option<Objects> {
        let term = self.term.lock().unwrap_or_else(PoisonError::into_inner);
        term.as_ref().filter(|term| !term.stop.is_cancelled()).map(|term| term.objects.clone())
    }

    /// Takes part until `stop`. A single server already leads when this returns.
    pub(crate) async fn start(self: &Arc<Self>, loops: Loops, stop: CancellationToken) -> Result<()> {
        match self.options.leadership {
            Leadership::Sole => {
                let fence = self.take_alone().await?;
                self.lead(fence, &loops, &stop);
            }
            Leadership::Elected { lease_ms, renew_interval_ms } => {
                let election =
                    Election::new(&self.options.server_name, &self.incarnation, Terms { lease_ms, renew_interval_ms });
                let (leader, tracker) = (self.clone(), loops.tracker.clone());
                tracker.spawn(async move { leader.take_part(election, loops, renew_interval_ms, stop).await });
            }
        }
        Ok(())
    }

    async fn take_alone(&self) -> Result<Revision> {
        for _ in 0..self.options.commit_tries_max.max(1) {
            let seen = self.read().await?;
            let number = seen.generation.as_ref().map_or(1, |(_, generation)| generation.number + 1);
            let holder = self.options.server_name.clone();
            let generation = Generation { number, holder, incarnation: self.incarnation.clone() };
            if let Some(revision) = self.take_over(&seen, &generation, None).await? {
                return Ok(revision);
            }
        }
        let detail = "another server takes over the leadership again and again; let one server use this store";
        Err(Error::refused(heptad_api::ErrorCode::Busy, detail))
    }

    /// Begins to lead, or continues if it already leads in this generation.
    fn lead(&self, fence: Revision, loops: &Loops, stop: &CancellationToken) {
        let mut term = self.term.lock().unwrap_or_else(PoisonError::into_inner);
        if term.as_ref().is_some_and(|term| term.fence == fence && !term.stop.is_cancelled()) {
            return;
        }
        let objects = self.objects.fenced(Compare::mod_revision(keys::GENERATION, fence));
        let stop = stop.child_token();
        let Loops { reports, liveness, tracker } = loops.clone();
        let reconciler = Reconciler::new(objects.clone(), reports, liveness.clone(), self.options.clone());
        // Before anybody can ask the new leader.
        liveness.take_over();
        tracker.spawn(reconciler.run(stop.clone()));
        let (own, options, until) = (objects.clone(), self.options.clone(), stop.clone());
        tracker.spawn(async move { liveness.run(&own, &options, until).await });
        tracker.spawn(crate::optimize::run(objects.clone(), self.options.clone(), stop.clone()));
        *term = Some(Term { fence, objects, stop });
    }

    fn step_down(&self, why: &str) {
        let term = self.term.lock().unwrap_or_else(PoisonError::into_inner).take();
        if term.is_some() {
            tracing::warn!(server = self.options.server_name, why, "this server leads no more");
        }
    }

    async fn take_part(&self, mut election: Election, loops: Loops, interval_ms: u64, stop: CancellationToken) {
        let clock = Instant::now();
        let mut answered = Instant::now();
        loop {
            // A store that hangs does not keep this server leading beyond its lease.
            let patience_ms =
                election.lease_left_ms(elapsed_ms(clock)).map_or(interval_ms * 2, |left| left.min(interval_ms * 2));
            let turn = timeout(Duration::from_millis(patience_ms.max(1)), self.turn(&mut election, clock));
            let wait_ms = tokio::select! {
                () = stop.cancelled() => break,
                turned = turn => match turned {
                    Ok(Ok(wait_ms)) => {
                        answered = Instant::now();
                        wait_ms
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(error = with_causes(&error), "the lease could not be looked at");
                        interval_ms
                    }
                    Err(_) => {
                        tracing::warn!("the state store does not answer: the lease could not be looked at");
                        1
                    }
                },
            };
            let silent = answered.elapsed() >= Duration::from_millis(interval_ms * SILENT_INTERVALS);
            self.silent.send_if_modified(|was| std::mem::replace(was, silent) != silent);
            match election.leads(elapsed_ms(clock)) {
                Some(fence) => self.lead(fence, &loops, &stop),
                None => self.step_down("its lease ended, or was taken over"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(Duration::from_millis(wait_ms)) => {}
            }
        }
        let led = election.leads(elapsed_ms(clock));
        self.step_down("it is stopped");
        if let Some(fence) = led {
            self.release(fence, interval_ms).await;
        }
    }

    /// Checks once and acts accordingly. Returns when to check again.
    async fn turn(&self, election: &mut Election, clock: Instant) -> Result<u64> {
        let seen = self.read().await?;
        let began_ms = elapsed_ms(clock);
        match election.look(&seen, began_ms) {
            Step::Wait(ms) => return Ok(ms),
            Step::Resign => self.step_down("another server took over"),
            Step::TakeOver(generation) => {
                let lease = first_lease(&generation);
                if let Some(revision) = self.take_over(&seen, &generation, Some(&lease)).await? {
                    tracing::info!(server = self.options.server_name, generation = generation.number, "leads now");
                    election.took_over(revision, began_ms);
                }
            }
            Step::Renew(lease) => {
                if self.renew(&seen, &lease).await? {
                    election.renewed(began_ms);
                }
            }
        }
        Ok(1)
    }

    /// Both rows at one revision, the newest committed one.
    async fn read(&self) -> Result<Seen> {
        let txn = Txn::new().then([Op::get(keys::LEASE), Op::get(keys::GENERATION)]);
        let answer = self.objects.store().txn(txn).await.during("read", keys::LEASE)?;
        let mut rows = answer.responses.into_iter().map(|response| match response {
            OpResponse::Range(mut range) => range.kvs.pop(),
            _ => None,
        });
        Ok(Seen { lease: decoded(rows.next().flatten())?, generation: decoded(rows.next().flatten())? })
    }

    async fn take_over(&self, seen: &Seen, generation: &Generation, lease: Option<&Lease>) -> Result<Option<Revision>> {
        let unchanged = [
            Compare::mod_revision(keys::GENERATION, seen.generation_revision()),
            Compare::mod_revision(keys::LEASE, seen.lease_revision()),
        ];
        // A single server leaves no lease that nobody renews.
        let lease = match lease {
            Some(lease) => Some(Op::put(keys::LEASE, encoded(lease))),
            None => seen.lease.is_some().then(|| Op::delete(keys::LEASE)),
        };
        let writes = [Op::put(keys::GENERATION, encoded(generation))].into_iter().chain(lease);
        let done = self.objects.store().txn(Txn::new().when(unchanged).then(writes)).await;
        let done = done.during("take over", keys::GENERATION)?;
        Ok(done.succeeded.then_some(done.revision))
    }

    async fn renew(&self, seen: &Seen, lease: &Lease) -> Result<bool> {
        let unchanged = [
            Compare::mod_revision(keys::GENERATION, seen.generation_revision()),
            Compare::mod_revision(keys::LEASE, seen.lease_revision()),
        ];
        let renewal = Txn::new().when(unchanged).then([Op::put(keys::LEASE, encoded(lease))]);
        Ok(self.objects.store().txn(renewal).await.during("renew", keys::LEASE)?.succeeded)
    }

    /// Gives the lease back, so that nobody has to wait for it to expire.
    async fn release(&self, fence: Revision, patience_ms: u64) {
        let mine = Compare::mod_revision(keys::GENERATION, fence);
        let txn = Txn::new().when([mine]).then([Op::delete(keys::LEASE)]);
        let released = timeout(Duration::from_millis(patience_ms), self.objects.store().txn(txn)).await;
        if !matches!(released, Ok(Ok(_))) {
            tracing::warn!("the lease could not be given back; others wait for its end");
        }
    }
}

fn elapsed_ms(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn encoded(row: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows of strings and numbers serialize")
}

fn decoded<T: DeserializeOwned>(row: Option<KeyValue>) -> Result<Option<(Revision, T)>> {
    let Some(kv) = row else { return Ok(None) };
    let value = serde_json::from_slice(&kv.value);
    let value = value.map_err(|source| Error::Decode { key: keys::shown(&kv.key), source })?;
    Ok(Some((kv.mod_revision, value)))
}
