//! The phases of a proxy's life: waiting for a table, running, draining, stopping, broken off. Traffic ends in parts,
//! in an order that is defined only here (`TURNS`). Does not know what the traffic is.

use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Traffic by where it comes from. Each part includes the parts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// What comes through the ingress. A request in progress there may come back from another node as a call that it
    /// needs, so other proxies are served until this part has ended.
    Ingress,
    /// And what comes from other nodes. A request in progress there may call other containers, and such a call must not
    /// wait for a proxy that waits for the request, so callers on this node are served until this part has ended.
    Outer,
    /// And the calls of this node: everything.
    All,
}

/// The order in which the parts end.
const TURNS: [Part; 3] = [Part::Ingress, Part::Outer, Part::All];

/// One part and how far its end has come.
#[derive(Debug)]
struct Turn {
    tasks: TaskTracker,
    /// No more connections; requests on open ones are the last.
    draining: CancellationToken,
    /// No more waiting for requests.
    stopping: CancellationToken,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Phases {
    running: CancellationToken,
    /// By `Part`.
    turns: [Turn; TURNS.len()],
    /// No more waiting for what is in progress.
    broken_off: CancellationToken,
}

impl Phases {
    /// A proxy that waits until it may `run`.
    pub(crate) fn new() -> Self {
        let all = Turn::within(None);
        let outer = Turn::within(Some(&all));
        let ingress = Turn::within(Some(&outer));
        Self { running: CancellationToken::new(), turns: [ingress, outer, all], broken_off: CancellationToken::new() }
    }

    fn turn(&self, part: Part) -> &Turn {
        &self.turns[part as usize]
    }

    /// Connections may be accepted from now on.
    pub(crate) fn run(&self) {
        self.running.cancel();
    }

    /// Cancelled when connections may be accepted.
    pub(crate) fn running(&self) -> &CancellationToken {
        &self.running
    }

    /// Cancelled when no more connections are accepted, and requests on open ones are the last.
    pub(crate) fn draining(&self, part: Part) -> &CancellationToken {
        &self.turn(part).draining
    }

    /// Cancelled when further requests are no longer awaited.
    pub(crate) fn stopping(&self, part: Part) -> &CancellationToken {
        &self.turn(part).stopping
    }

    /// Runs the future to its end, or until it is broken off; the end of `part` waits for it.
    pub(crate) fn tracked<F: Future>(&self, part: Part, future: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let tracking = TURNS.map(|turn| (part <= turn).then(|| self.turn(turn).tasks.token()));
        let future = self.broken_off.clone().run_until_cancelled_owned(future);
        async move {
            let ended = future.await;
            drop(tracking);
            ended
        }
    }

    /// The same as a task of its own.
    pub(crate) fn spawn<F>(&self, part: Part, future: F) -> JoinHandle<()>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let tracked = self.tracked(part, future);
        tokio::spawn(async move { _ = tracked.await })
    }

    /// Ends one part. Requests are still awaited for `idle_ms_max`, but for no more than half of the time, so that
    /// clients are told. Returns whether the part ended by itself.
    pub(crate) async fn drain_part(&self, part: Part, drain_ms_max: u64, idle_ms_max: u64) -> bool {
        let Turn { tasks, draining, stopping } = self.turn(part);
        let deadline = Instant::now() + Duration::from_millis(drain_ms_max);
        draining.cancel();
        tasks.close();
        let idle = Duration::from_millis(idle_ms_max.min(drain_ms_max / 2));
        if timeout(idle, tasks.wait()).await.is_ok() {
            return true;
        }
        stopping.cancel();
        timeout_at(deadline, tasks.wait()).await.is_ok()
    }

    /// Ends the parts in order: each within a third of the time, the last within what is left. Returns whether
    /// everything ended by itself.
    pub(crate) async fn drain(&self, drain_ms_max: u64, idle_ms_max: u64) -> bool {
        let began = Instant::now();
        let mut has_ended = false;
        for part in TURNS {
            let left_ms = drain_ms_max.saturating_sub(began.elapsed().as_millis() as u64);
            let part_ms_max = if part == Part::All { left_ms } else { left_ms.min(drain_ms_max / 3) };
            has_ended = self.drain_part(part, part_ms_max, idle_ms_max).await;
        }
        has_ended
    }

    /// All parts at once: no more connections, no more waiting for requests.
    pub(crate) fn stop(&self) {
        let Turn { tasks, draining, stopping } = self.turn(Part::All);
        draining.cancel();
        stopping.cancel();
        tasks.close();
    }

    /// Stops, waits until everything has ended, and breaks the rest off. Returns whether everything ended by itself.
    pub(crate) async fn end(&self, drain_ms_max: u64) -> bool {
        self.stop();
        let tasks = &self.turn(Part::All).tasks;
        let has_ended = timeout(Duration::from_millis(drain_ms_max), tasks.wait()).await.is_ok();
        self.break_off();
        tasks.wait().await;
        has_ended
    }

    /// The immediate end of everything.
    pub(crate) fn break_off(&self) {
        self.stop();
        self.broken_off.cancel();
    }
}

impl Turn {
    /// It drains and stops with the part to which it belongs.
    fn within(outer: Option<&Self>) -> Self {
        let child =
            |of: fn(&Self) -> &CancellationToken| outer.map(|outer| of(outer).child_token()).unwrap_or_default();
        Self {
            tasks: TaskTracker::new(),
            draining: child(|outer| &outer.draining),
            stopping: child(|outer| &outer.stopping),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, sync::Arc};

    /// The milliseconds of a drain when somebody ignores it.
    const SHORT_MS: u64 = 300;

    #[tokio::test]
    async fn parts_end_in_their_order() {
        let phases = Arc::new(Phases::new());
        let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
        for part in [Part::All, Part::Ingress, Part::Outer] {
            let (stopping, told) = (phases.stopping(part).clone(), told.clone());
            phases.spawn(part, async move {
                stopping.cancelled().await;
                told.send(part)
            });
        }
        assert!(phases.drain(SHORT_MS, 1).await, "everything ended by itself");
        for part in TURNS {
            assert_eq!(ends.try_recv(), Ok(part));
        }
    }

    #[tokio::test]
    async fn what_does_not_end_is_waited_for_within_the_bound_and_then_broken_off() {
        let phases = Phases::new();
        phases.spawn(Part::Ingress, pending::<()>());
        let began = Instant::now();
        assert!(!phases.drain(SHORT_MS, 10_000).await);
        let took_ms = began.elapsed().as_millis() as u64;
        assert!((SHORT_MS..SHORT_MS + 5_000).contains(&took_ms), "{took_ms} ms");
        assert!(!phases.end(1).await);
        assert!(phases.spawn(Part::All, pending::<()>()).await.is_ok(), "what comes after that ends at once");
    }

    #[test]
    fn a_part_drains_with_those_that_it_is_in() {
        for (at, part) in TURNS.into_iter().enumerate() {
            let phases = Phases::new();
            phases.draining(part).cancel();
            phases.stopping(part).cancel();
            let reached =
                TURNS.map(|part| phases.draining(part).is_cancelled() && phases.stopping(part).is_cancelled());
            let expected = TURNS.map(|other| other <= part);
            assert_eq!(reached, expected, "{at}");
        }
        let phases = Phases::new();
        phases.break_off();
        assert!(phases.draining(Part::Ingress).is_cancelled() && !phases.running().is_cancelled());
    }
}
