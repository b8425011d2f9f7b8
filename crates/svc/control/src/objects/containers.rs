//! What nodes say of containers that are bound to them: where they stand, and that a stopped one is gone.

use super::{Objects, Pending, row_object, subject};
use crate::{
    error::{Error, Result},
    fanout::bound_row,
    keys,
};
use heptad_api::{ErrorCode, Kind, List, Object, operations::ContainerReport};
use heptad_model::{Container, ContainerId, DesiredState, EventKind, Namespace, NodeName, Placement};
use heptad_sched::{Allocation, AllocationError, Request};
use heptad_state::KeyRange;

fn name(id: &ContainerId) -> String {
    subject(Kind::Containers, &Namespace::default(), id.as_str())
}

/// The record with what the node says.
fn merged(container: &Container, report: &ContainerReport) -> Container {
    let report = report.clone();
    Container {
        status: report.status,
        ready: report.ready,
        reason: report.reason,
        message: report.message,
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

    /// All containers that are bound to a node, at one revision; among them those of jobs that are finished and hold
    /// nothing of it any more, since what is left of them is there.
    pub(crate) async fn containers_on(&self, node: &NodeName) -> Result<List<Container>> {
        let (rows, revision) = self.rows_at(KeyRange::prefix(keys::prefix(Kind::Containers, None)), None).await?;
        let mut items = Vec::new();
        for row in &rows {
            if bound_row(row)?.as_ref() == Some(node) {
                items.push(row_object(row)?);
            }
        }
        Ok(List { revision, items, next: None })
    }

    /// Merges a node's report into the record; nothing is written if nothing changes.
    pub async fn report(&self, id: &ContainerId, report: &ContainerReport) -> Result<Object<Container>> {
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.container(id).await?;
            bound_to(&old.object, &report.node)?;
            let new = merged(&old.object, report);
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

    /// The change between ready and not ready is an event, unless the container is being stopped.
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
