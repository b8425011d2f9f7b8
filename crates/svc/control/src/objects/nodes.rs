//! Orders about nodes: no new containers, no containers at all, certainly off, no longer part of the cluster.
//! The reconciler moves what has to be moved.

use super::{Objects, Pending};
use crate::{
    error::{Error, Result},
    keys,
};
use heptad_api::{
    ErrorCode, Object,
    work::{DrainLeft, DrainStatus},
};
use heptad_model::{Container, DesiredState, EventKind, Mode, Node, NodeName, NodeStatus, Service};

fn subject(name: &NodeName) -> String {
    format!("node/{name}")
}

fn contended(name: &NodeName) -> Error {
    Error::refused(ErrorCode::Busy, format!("node/{name} is changed by too many at once; try again"))
}

impl Objects {
    async fn node(&self, name: &NodeName) -> Result<Object<Node>> {
        let found = self.find_row::<Node>(&keys::node(name)).await?;
        found.ok_or_else(|| Error::not_found(&subject(name)))
    }

    /// Takes no new containers on that node; those that are there stay.
    pub async fn cordon(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Cordoned", "it takes no new containers", |node| {
            node.unschedulable = true;
            Ok(())
        })
        .await
    }

    /// Takes new containers again, and stops moving those away that are there.
    pub async fn uncordon(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Uncordoned", "it takes new containers", |node| {
            (node.unschedulable, node.draining) = (false, false);
            Ok(())
        })
        .await
    }

    /// Has all containers moved away, but those of services that are on every node.
    pub async fn drain(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Draining", "its containers are moved away", |node| {
            (node.unschedulable, node.draining) = (true, true);
            Ok(())
        })
        .await
    }

    /// Takes note that nothing runs on a node that does not report: what must never run twice may run elsewhere.
    pub async fn fence(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Fenced", "somebody said that nothing runs on it any more", |node| {
            if node.status == NodeStatus::Ready {
                let detail = format!("node/{name} reports, so its containers run; drain it instead");
                return Err(Error::refused(ErrorCode::Conflict, detail));
            }
            node.fenced = true;
            Ok(())
        })
        .await
    }

    /// Takes what the agent of a node told beyond what it was admitted with.
    pub async fn admit_node(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Admitted", "what its agent tells of the machine counts", |node| {
            if let Some(offered) = node.offered.take() {
                (node.capacity, node.devices) = (offered.capacity, offered.devices.clone());
                node.admitted = Some(offered);
            }
            Ok(())
        })
        .await
    }

    async fn change_node(
        &self,
        name: &NodeName,
        word: &str,
        message: &str,
        change: impl Fn(&mut Node) -> Result<()>,
    ) -> Result<Object<Node>> {
        let key = keys::node(name);
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.node(name).await?;
            let mut new = old.object.clone();
            change(&mut new)?;
            if new == old.object {
                return Ok(old);
            }
            let mut pending = Pending::default();
            pending.expect(&key, old.revision);
            pending.put(&key, &new);
            pending.event(&self.event(EventKind::Normal, word, &subject(name), message)?);
            if let Some(revision) = pending.commit(&*self.store).await? {
                return Ok(Object { revision, object: new });
            }
        }
        Err(contended(name))
    }

    /// Takes a node out of the cluster. One that still has containers of other services than those on every node only by
    /// `force`: they are forgotten, and made anew elsewhere.
    pub async fn remove_node(&self, name: &NodeName, force: bool) -> Result<Object<Node>> {
        let (key, row) = (keys::node(name), keys::allocation(name));
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.node(name).await?;
            let (allocation, revision) = self.allocation(name).await?;
            // Services that are on every node leave with it.
            let left = if force { Vec::new() } else { self.drain_status(name).await?.left };
            if let Some(first) = left.first() {
                let (count, first) = (left.len(), &first.container);
                let detail = format!(
                    "node/{name} has {count} containers, such as {first}; drain it first, or, if it is lost for good, \
                     remove it by force"
                );
                return Err(Error::refused(ErrorCode::Conflict, detail));
            }
            let mut pending = Pending::default();
            pending.expect(&key, old.revision);
            pending.delete(&key);
            pending.expect(&row, revision);
            if revision > 0 {
                pending.delete(&row);
            }
            let message =
                format!("it is no longer part of the cluster; {} containers went", allocation.containers.len());
            pending.event(&self.event(EventKind::Normal, "Removed", &subject(name), message)?);
            if pending.commit(&*self.store).await?.is_some() {
                return Ok(old);
            }
        }
        Err(contended(name))
    }

    /// How far the emptying of a node is.
    pub async fn drain_status(&self, name: &NodeName) -> Result<DrainStatus> {
        let node = self.node(name).await?.object;
        let (allocation, _) = self.allocation(name).await?;
        let mut status = DrainStatus { node: name.clone(), draining: node.draining, left: Vec::new(), staying: 0 };
        for id in &allocation.containers {
            let Some(container) = self.find_row::<Container>(&keys::container(id)).await? else { continue };
            let container = container.object;
            let service = self.find_row::<Service>(&keys::service(&container.service)).await?;
            if service.is_some_and(|service| service.object.mode == Mode::Daemon) && container.is_alive() {
                status.staying += 1;
                continue;
            }
            let waits_for = self.waits_for(&container).await?;
            status.left.push(DrainLeft { container: id.clone(), service: container.service, waits_for });
        }
        Ok(status)
    }

    async fn waits_for(&self, container: &Container) -> Result<String> {
        if container.desired == DesiredState::Stopped {
            return Ok("stopping".to_owned());
        }
        if container.template.retries.is_some() {
            return Ok("it is part of a job and runs to its end".to_owned());
        }
        let all = self.containers_of(&container.service).await?;
        let successor =
            all.values().map(|item| &item.object).find(|c| c.is_alive() && !c.ready && c.id != container.id);
        Ok(match successor {
            Some(other) if other.node.is_none() && other.message.is_empty() => {
                "its successor has no node yet".to_owned()
            }
            Some(other) if other.node.is_none() => format!("its successor {} has no node: {}", other.id, other.message),
            Some(other) => format!("its successor {} is not ready yet", other.id),
            None => "its turn".to_owned(),
        })
    }
}
