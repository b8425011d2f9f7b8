//! What nodes report about containers bound to them: their state, and that a stopped one is gone.

use super::{Objects, Pending, row_object, subject};
use crate::{
    clock::now_ms,
    error::{Error, Result},
    fanout::bound_row,
    keys,
};
use heptad_api::{ErrorCode, Kind, List, Object, operations::ContainerReport};
use heptad_capacity::{Allocation, AllocationError, Request};
use heptad_model::{Container, ContainerId, DesiredState, EventKind, Namespace, NodeName, Placement};
use heptad_state::{KeyRange, KeyValue, Revision};
use std::collections::BTreeMap;

/// The rows of all containers that have a node, at one revision.
#[derive(Debug)]
pub(super) struct ByNode {
    revision: Revision,
    rows: BTreeMap<NodeName, Vec<KeyValue>>,
}

fn name(id: &ContainerId) -> String {
    subject(Kind::Containers, &Namespace::default(), id.as_str())
}

/// The record with the node's report, received at `now_ms`.
fn merged(container: &Container, report: &ContainerReport, now_ms: u64) -> Container {
    let report = report.clone();
    let is_new = report.started_at_ms != container.started_at_ms;
    Container {
        heard_at_ms: if is_new { report.started_at_ms.map(|_| now_ms) } else { container.heard_at_ms },
        status: report.status,
        ready: report.ready,
        reason: report.reason,
        message: report.message,
        start_failure: report.start_failure,
        addresses: report.addresses,
        restarts: report.restarts,
        exit_code: report.exit_code,
        started_at_ms: report.started_at_ms,
        ..container.clone()
    }
}

fn bound_to(container: &Container, node: &NodeName) -> Result<()> {
    if container.node.as_ref() == Some(node) {
        return Ok(());
    }
    let there = container.node.as_ref().map_or("no node".to_owned(), |node| format!("node {node}"));
    let detail = format!("{} is bound to {there}, not to node {node}; stop it there", name(&container.id));
    Err(Error::refused(ErrorCode::Conflict, detail))
}

impl Objects {
    async fn container(&self, id: &ContainerId) -> Result<Object<Container>> {
        let found = self.find_row::<Container>(&keys::container(id)).await?;
        found.ok_or_else(|| Error::not_found(&name(id)))
    }

    /// All containers that are bound to a node, at one revision, read once for all nodes that ask at the same time.
    /// Includes those of finished jobs, which hold nothing of it any more, since their logs are still on the node.
    pub(crate) async fn containers_on(&self, node: &NodeName) -> Result<List<Container>> {
        let all = self.by_node.get(async || self.rows_by_node().await).await?;
        let rows = all.rows.get(node).map_or(&[][..], Vec::as_slice);
        let items = rows.iter().map(row_object).collect::<Result<_>>()?;
        Ok(List { revision: all.revision, items, next: None })
    }

    async fn rows_by_node(&self) -> Result<ByNode> {
        let (all, revision) = self.rows_at(KeyRange::prefix(keys::prefix(Kind::Containers, None)), None).await?;
        let mut rows: BTreeMap<NodeName, Vec<KeyValue>> = BTreeMap::new();
        for row in all {
            if let Some(node) = bound_row(&row)? {
                rows.entry(node).or_default().push(row);
            }
        }
        Ok(ByNode { revision, rows })
    }

    /// Merges a node's report into the record; writes nothing if nothing changes.
    pub async fn report(&self, id: &ContainerId, report: &ContainerReport) -> Result<Object<Container>> {
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.container(id).await?;
            bound_to(&old.object, &report.node)?;
            let new = merged(&old.object, report, now_ms());
            if new == old.object {
                return Ok(old);
            }
            let key = keys::container(id);
            let mut pending = Pending::default();
            pending.expect(&key, old.revision);
            pending.put(&key, &new);
            self.stage_health_event(&old.object, &new, &mut pending)?;
            if new.is_finished() && !old.object.is_finished() {
                self.stage_release(&new, &mut pending).await?;
            }
            if let Some(revision) = pending.commit(&*self.store).await? {
                self.trim_events_sometimes().await;
                return Ok(Object { revision, object: new });
            }
        }
        Err(Error::refused(ErrorCode::Busy, format!("{} is changed by too many at once; try again", name(id))))
    }

    /// A change between ready and not ready is an event, unless the container is being stopped.
    fn stage_health_event(&self, old: &Container, new: &Container, pending: &mut Pending) -> Result<()> {
        if old.ready == new.ready || new.desired == DesiredState::Stopped {
            return Ok(());
        }
        let node = new.node.as_ref().map(NodeName::as_str).unwrap_or_default();
        let event = if new.ready {
            self.event(EventKind::Normal, "Ready", &name(&new.id), format!("it gets requests on node {node}"))?
        } else {
            let why = if new.message.is_empty() { new.reason.as_str() } else { new.message.as_str() };
            let message = format!("it gets no more requests on node {node}: {} {why}", new.status);
            self.event(EventKind::Warning, "Unhealthy", &name(&new.id), message)?
        };
        pending.event(&event);
        Ok(())
    }

    /// Deletes the record of a stopped container and takes back what its node gave it, in one transaction.
    pub async fn remove_container(&self, id: &ContainerId, node: &NodeName) -> Result<Object<Container>> {
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.container(id).await?;
            bound_to(&old.object, node)?;
            if old.object.desired != DesiredState::Stopped {
                let detail = format!("{} is wanted running; only a stopped container is deleted", name(id));
                return Err(Error::refused(ErrorCode::Conflict, detail));
            }
            let mut pending = Pending::default();
            self.stage_removal(&old, &mut pending).await?;
            if pending.commit(&*self.store).await?.is_some() {
                return Ok(old);
            }
        }
        Err(Error::refused(ErrorCode::Busy, format!("{} is changed by too many at once; try again", name(id))))
    }

    /// Stages the deletion of a record and the release of what its node gave.
    pub(crate) async fn stage_removal(&self, container: &Object<Container>, pending: &mut Pending) -> Result<()> {
        let key = keys::container(&container.object.id);
        pending.expect(&key, container.revision);
        pending.delete(&key);
        self.stage_release(&container.object, pending).await
    }

    /// Stages that the node gets back what the container was given.
    async fn stage_release(&self, container: &Container, pending: &mut Pending) -> Result<()> {
        if let Some(node) = &container.node {
            let (mut row, revision) = self.allocation(node).await?;
            self.release(&mut row, container, node).await?;
            let key = keys::allocation(node);
            pending.expect(&key, revision);
            if revision > 0 {
                pending.put(&key, &row);
            }
        }
        Ok(())
    }

    /// Takes a container out of its node's row. A row that does not add up is derived anew from the containers.
    async fn release(&self, row: &mut Allocation, container: &Container, node: &NodeName) -> Result<()> {
        match row.release(&Request::of(container, Placement::default())) {
            Ok(()) | Err(AllocationError::NotBound { .. }) => Ok(()),
            Err(error) => {
                tracing::error!(%node, %error, "the allocation row is derived anew");
                let all = self.list::<Container>(None).await?;
                let others = all.items.iter().map(|item| &item.object);
                *row = Allocation::of(others.filter(|c| c.node.as_ref() == Some(node) && c.id != container.id));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{
        Service,
        container::{RESTARTED_STEADY_MS, UNCHECKED_STEADY_MS},
    };

    #[test]
    fn the_clock_of_a_node_does_not_say_who_is_steady() {
        const NOW_MS: u64 = 1_000_000_000;
        let first = Container::pending("web-1".into(), &Service::new("web", "host"), 0);
        for node_now_ms in [NOW_MS - 600_000, NOW_MS, NOW_MS + 600_000] {
            let runs = |restarts, after_ms: u64| ContainerReport {
                restarts,
                started_at_ms: Some(node_now_ms + after_ms),
                ..ContainerReport::default()
            };
            let started = merged(&first, &runs(0, 0), NOW_MS);
            assert!(!started.is_steady(NOW_MS + UNCHECKED_STEADY_MS - 1), "{node_now_ms}");
            // A repeated report on the same run changes nothing.
            let again = merged(&started, &runs(0, 0), NOW_MS + 4_000);
            assert!(again == started && again.is_steady(NOW_MS + UNCHECKED_STEADY_MS), "{node_now_ms}");
            let restarted = merged(&again, &runs(1, 20_000), NOW_MS + 20_000);
            assert!(!restarted.is_steady(NOW_MS + 20_000 + RESTARTED_STEADY_MS - 1), "{node_now_ms}");
            assert!(restarted.is_steady(NOW_MS + 20_000 + RESTARTED_STEADY_MS), "{node_now_ms}");
            let gone = merged(&restarted, &ContainerReport::default(), NOW_MS + 40_000);
            assert_eq!(gone.heard_at_ms, None);
        }
    }
}
