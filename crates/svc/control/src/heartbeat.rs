//! Which nodes report, kept in memory: a heartbeat writes nothing; only a change of a node's status does.

use crate::{
    error::{Error, Result, with_causes},
    objects::Objects,
    options::Options,
};
use heptad_api::work::NodeSilence;
use heptad_model::{Node, NodeName, NodeStatus};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Copy, Debug)]
struct Life {
    last: Instant,
    status: NodeStatus,
}

/// When each node reported last.
#[derive(Debug)]
pub(crate) struct Liveness {
    nodes: Mutex<BTreeMap<NodeName, Life>>,
    /// When this server began to listen: a node that it never heard has been silent at least since then.
    since: Mutex<Instant>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { nodes: Mutex::default(), since: Mutex::new(Instant::now()) }
    }
}

/// The status after `silence`; a node already seen as worse is not improved by silence.
fn status_after(silence: Duration, status: NodeStatus, options: &Options) -> NodeStatus {
    if silence >= Duration::from_millis(options.node_not_ready_ms) {
        NodeStatus::NotReady
    } else if silence >= Duration::from_millis(options.node_unknown_ms) && status == NodeStatus::Ready {
        NodeStatus::Unknown
    } else {
        status
    }
}

impl Liveness {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, Life>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the list of nodes. A new one counts as having reported now.
    pub(crate) fn see<'a>(&self, present: impl Iterator<Item = &'a Node>) {
        let mut nodes = self.lock();
        let before = std::mem::take(&mut *nodes);
        let now = Instant::now();
        for node in present {
            let last = before.get(&node.name).map_or(now, |life| life.last);
            nodes.insert(node.name.clone(), Life { last, status: node.status });
        }
    }

    /// A node reported. Returns whether its status must become `Ready`; an unknown node is not remembered.
    pub(crate) fn beat(&self, name: &NodeName) -> Option<bool> {
        let mut nodes = self.lock();
        let life = nodes.get_mut(name)?;
        life.last = Instant::now();
        Some(life.status != NodeStatus::Ready)
    }

    /// How long each node has been silent, and what status follows.
    pub(crate) fn silences(&self, options: &Options) -> Vec<NodeSilence> {
        let told = |(node, life): (&NodeName, &Life)| {
            let silence = life.last.elapsed();
            let silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            NodeSilence { node: node.clone(), silence_ms, status: status_after(silence, life.status, options) }
        };
        self.lock().iter().map(told).collect()
    }

    /// How long a node has been silent; 0 if this server does not know it.
    pub(crate) fn silence_ms(&self, name: &NodeName) -> u64 {
        let silence = self.lock().get(name).map(|life| life.last.elapsed()).unwrap_or_default();
        u64::try_from(silence.as_millis()).unwrap_or(u64::MAX)
    }

    /// The status of a node that is recorded as `status`, as this server knows it: what its silence means may not be
    /// recorded yet, or cannot be while no server leads or the state is read-only.
    pub(crate) fn shown(&self, name: &NodeName, status: NodeStatus, options: &Options) -> NodeStatus {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.lock().get(name).map_or(since, |life| life.last);
        status_after(last.elapsed(), status, options)
    }

    /// The nodes whose status must change.
    fn due(&self, options: &Options) -> Vec<(NodeName, NodeStatus, u64)> {
        let nodes = self.lock();
        let due = nodes.iter().filter_map(|(name, life)| {
            let silence = life.last.elapsed();
            let status = status_after(silence, life.status, options);
            let silence_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            (status != life.status).then(|| (name.clone(), status, silence_ms))
        });
        due.collect()
    }

    fn set(&self, name: &NodeName, status: NodeStatus) {
        if let Some(life) = self.lock().get_mut(name) {
            life.status = status;
        }
    }

    /// Starts anew: no node counts as silent for a time in which another server listened.
    pub(crate) fn take_over(&self) {
        let now = Instant::now();
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.lock().values_mut().for_each(|life| life.last = now);
    }

    /// Remembers a node that was not known yet; nodes that were silent for long make room.
    fn remember(&self, node: &Node, options: &Options) {
        let mut nodes = self.lock();
        nodes.retain(|_, life| life.last.elapsed() < Duration::from_millis(options.node_not_ready_ms));
        nodes.insert(node.name.clone(), Life { last: Instant::now(), status: node.status });
    }

    /// A heartbeat arrived: the node is ready if it was not. Only the leader, which has `fenced` objects, writes that.
    pub(crate) async fn heartbeat(
        &self,
        objects: &Objects,
        fenced: Option<&Objects>,
        options: &Options,
        name: &NodeName,
    ) -> Result<()> {
        let must_change = match self.beat(name) {
            Some(must_change) => must_change,
            // It may have been registered a moment ago; the store knows.
            None => {
                let key = crate::keys::node(name);
                let node = objects.find_row::<Node>(&key).await?;
                let node = node.ok_or_else(|| Error::not_found(&format!("node/{name}")))?;
                if fenced.is_none() {
                    self.remember(&node.object, options);
                }
                node.object.status != NodeStatus::Ready
            }
        };
        let Some(leading) = fenced.filter(|_| must_change) else { return Ok(()) };
        match leading.set_node_status(name, NodeStatus::Ready, "it reports").await {
            Ok(true) => self.set(name, NodeStatus::Ready),
            Ok(false) => {}
            // The next leader records it; this server only remembers.
            Err(error) if error.is_fenced() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Checks all nodes repeatedly, until `stop`; after [`Self::take_over`].
    pub(crate) async fn run(&self, objects: &Objects, options: &Options, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(options.heartbeat_check_ms.max(1)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            for (name, status, silence_ms) in self.due(options) {
                let why = format!("it has not reported for {silence_ms} ms");
                match objects.set_node_status(&name, status, &why).await {
                    Ok(_) => self.set(&name, status),
                    Err(error) if error.is_fenced() => return,
                    Err(error) => tracing::error!(node = %name, error = with_causes(&error), "status not written"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_makes_nodes_unknown_then_not_ready_and_nothing_better() {
        let options = Options { node_unknown_ms: 10, node_not_ready_ms: 20, ..Options::default() };
        let after = |ms, status| status_after(Duration::from_millis(ms), status, &options);
        assert_eq!(after(9, NodeStatus::Ready), NodeStatus::Ready);
        assert_eq!(after(10, NodeStatus::Ready), NodeStatus::Unknown);
        assert_eq!(after(20, NodeStatus::Unknown), NodeStatus::NotReady);
        assert_eq!(after(10, NodeStatus::NotReady), NodeStatus::NotReady);
    }
}
