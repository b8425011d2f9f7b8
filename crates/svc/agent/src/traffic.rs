//! The requests in progress at a container, as the node's proxy knows them, and the wait for their end before the
//! container is told to stop. Knows no proxy.

use futures_util::future::BoxFuture;
use heptad_model::ContainerId;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// A wait.
pub type Wait<'a> = BoxFuture<'a, ()>;

/// How much is in progress at a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InProgress {
    /// HTTP requests.
    pub requests: u32,
    /// Connections of other protocols, and WebSockets.
    pub flows: u32,
}

/// The traffic to this node's containers, as its proxy knows it.
pub trait Traffic: Send + Sync {
    /// Returns when no request is in progress at a container and none can arrive.
    fn requests_ended<'a>(&'a self, container: &'a ContainerId) -> Wait<'a>;

    /// The same for flows.
    fn flows_ended<'a>(&'a self, container: &'a ContainerId) -> Wait<'a>;

    /// How much is in progress.
    fn in_progress(&self, container: &ContainerId) -> InProgress;
}

/// Waits until nothing is in progress at a container: for requests up to `requests_ms_max`, and up to `flows_ms_max` of
/// that for flows, many of which have no end. Returns what is still in progress.
pub(crate) async fn drain(
    traffic: Option<&Arc<dyn Traffic>>,
    container: &ContainerId,
    requests_ms_max: u64,
    flows_ms_max: u64,
) -> InProgress {
    let Some(traffic) = traffic else { return InProgress::default() };
    let begun = Instant::now();
    let by = |ms: u64| begun + Duration::from_millis(ms.min(requests_ms_max));
    let flows = timeout_at(by(flows_ms_max), traffic.flows_ended(container));
    let requests = timeout_at(by(requests_ms_max), traffic.requests_ended(container));
    let _ = tokio::join!(flows, requests);
    traffic.in_progress(container)
}

/// The message about what was broken off; `None` if nothing was.
pub(crate) fn said_of(left: InProgress, waited: Duration) -> Option<String> {
    let InProgress { requests, flows } = left;
    if requests + flows == 0 {
        return None;
    }
    let of =
        |count: u32, what: &str| (count > 0).then(|| format!("{count} {what}{}", if count == 1 { "" } else { "s" }));
    let what: Vec<String> = [of(requests, "request"), of(flows, "open connection")].into_iter().flatten().collect();
    Some(format!(
        "it is told to stop with {} in progress after a wait of {} ms; connections of other protocols than HTTP and \
         WebSockets are broken off when it ends",
        what.join(" and "),
        waited.as_millis()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    /// Requests end after that time, flows never.
    struct After(u64);

    impl Traffic for After {
        fn requests_ended<'a>(&'a self, _container: &'a ContainerId) -> Wait<'a> {
            Box::pin(sleep(Duration::from_millis(self.0)))
        }
        fn flows_ended<'a>(&'a self, _container: &'a ContainerId) -> Wait<'a> {
            Box::pin(std::future::pending())
        }
        fn in_progress(&self, _container: &ContainerId) -> InProgress {
            InProgress { requests: 0, flows: 1 }
        }
    }

    async fn drained_ms(traffic: After, requests_ms_max: u64) -> u128 {
        let (begun, traffic) = (Instant::now(), Arc::new(traffic) as Arc<dyn Traffic>);
        let left = drain(Some(&traffic), &"c".into(), requests_ms_max, 1_000).await;
        assert_eq!(left.flows, 1);
        begun.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_waited_for_and_flows_not_for_ever() {
        assert_eq!(drained_ms(After(3_000), 10_000).await, 3_000);
        assert_eq!(drained_ms(After(0), 10_000).await, 1_000);
        assert_eq!(drained_ms(After(60_000), 10_000).await, 10_000);
        assert_eq!(drained_ms(After(60_000), 200).await, 200);
        assert_eq!(drain(None, &"c".into(), 10_000, 1_000).await, InProgress::default());
    }

    #[test]
    fn what_is_broken_off_is_told() {
        let said = |requests, flows| said_of(InProgress { requests, flows }, Duration::from_millis(5));
        assert_eq!(said(0, 0), None);
        assert!(said(1, 2).is_some_and(|text| text.contains("with 1 request and 2 open connections in progress")));
    }
}
