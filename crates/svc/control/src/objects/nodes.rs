//! Orders about nodes: no new containers, no containers at all, certainly off, no longer part of the cluster. The
//! reconciler moves what has to be moved.

use super::{Objects, Pending};
use crate::{
    error::{Error, Result},
    keys,
};
use heptad_api::{
    ErrorCode, Object,
    work::{DrainLeft, DrainStatus, RemoveNodeRequest},
};
use heptad_model::{
    Container, DesiredState, EventKind, Mode, Node, NodeName, NodeStatus, Service, lease::stopped_after_ms,
};

fn subject(name: &NodeName) -> String {
    format!("node/{name}")
}

fn contended(name: &NodeName) -> Error {
    Error::refused(ErrorCode::Busy, format!("node/{name} is changed by too many at once; try again"))
}

/// Records that the machine is off, unless that cannot be.
fn fence(node: &mut Node) -> Result<()> {
    if node.status == NodeStatus::Ready {
        let detail = format!(
            "node/{} reports, or did a few seconds ago, so its containers run; drain it instead, or, if its machine was just \
             switched off, try again in 10 s",
            node.name
        );
        return Err(Error::refused(ErrorCode::Conflict, detail));
    }
    node.fenced = true;
    Ok(())
}

/// What the removal of a silent node waits for if it has a container that must never run twice.
fn waits_for_certainty(node: &Node, container: &Container, silence_ms: u64) -> String {
    let name = &node.name;
    let stops = match stopped_after_ms(container.template.stop_grace_ms).saturating_sub(silence_ms) {
        0 => "should have stopped it by now".to_owned(),
        left_ms => format!("stops it within {} s", left_ms.div_ceil(1000)),
    };
    format!(
        "it must never run twice, and node/{name} does not report; if the machine is off, `heptad node remove {name} --fenced`; \
         if it is only cut off from all servers, its agent, if that lives, {stops}"
    )
}

impl Objects {
    async fn node(&self, name: &NodeName) -> Result<Object<Node>> {
        let found = self.find_row::<Node>(&keys::node(name)).await?;
        found.ok_or_else(|| Error::not_found(&subject(name)))
    }

    /// Stops placing new containers on that node; those that are there stay.
    pub async fn cordon(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Cordoned", "it takes no new containers", |node| {
            node.unschedulable = true;
            Ok(())
        })
        .await
    }

    /// Places new containers there again, stops emptying the node, and cancels its removal.
    pub async fn uncordon(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Uncordoned", "it takes new containers", |node| {
            (node.unschedulable, node.draining, node.removing) = (false, false, false);
            Ok(())
        })
        .await
    }

    /// Moves all containers away, except those of services on every node.
    pub async fn drain(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Draining", "its containers are moved away", |node| {
            (node.unschedulable, node.draining) = (true, true);
            Ok(())
        })
        .await
    }

    /// Records that nothing runs on a node that does not report: what must never run twice may then run elsewhere.
    pub async fn fence(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Fenced", "somebody said that nothing runs on it any more", fence).await
    }

    /// Accepts what a node's agent reported beyond what the node was admitted with.
    pub async fn admit_node(&self, name: &NodeName) -> Result<Object<Node>> {
        self.change_node(name, "Admitted", "what its agent tells of the machine counts", |node| {
            if let Some(offered) = node.offered.take() {
                node.set_machine(&offered);
                (node.admitted, node.set_by_person) = (Some(offered), false);
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

    /// Begins to take a node out of the cluster: it gets nothing more, what it runs is stopped, and its row goes once
    /// nothing is left that could do harm. If the node has containers of services other than those on every node, this
    /// needs `force`.
    pub async fn remove_node(&self, name: &NodeName, request: &RemoveNodeRequest) -> Result<Object<Node>> {
        let left = match request {
            RemoveNodeRequest { force: false, fenced: false } => self.drain_status(name, 0).await?.left,
            _ => Vec::new(),
        };
        self.change_node(name, "Removing", "what it runs is stopped, then it leaves the cluster", |node| {
            if let Some(first) = left.first().filter(|_| !node.removing) {
                let (count, first) = (left.len(), &first.container);
                let detail = format!(
                    "node/{name} has {count} containers, such as {first}; drain it first, or remove it by force: they are \
                     stopped there and made anew elsewhere"
                );
                return Err(Error::refused(ErrorCode::Conflict, detail));
            }
            if request.fenced {
                fence(node)?;
            }
            (node.unschedulable, node.draining, node.removing) = (true, true, true);
            Ok(())
        })
        .await
    }

    /// How far the emptying, or the removal, of a node is that has not reported for this long.
    pub async fn drain_status(&self, name: &NodeName, silence_ms: u64) -> Result<DrainStatus> {
        let node = self.node(name).await?.object;
        let (draining, removing) = (node.draining, node.removing);
        let mut status = DrainStatus { node: name.clone(), draining, removing, left: Vec::new(), staying: 0 };
        let mut containers = Vec::new();
        if removing {
            // Including those that have ended and take nothing of it any more.
            containers.extend(self.containers_on(name).await?.items);
        } else {
            for id in &self.allocation(name).await?.0.containers {
                containers.extend(self.find_row::<Container>(&keys::container(id)).await?);
            }
        }
        for container in containers.into_iter().map(|item| item.object) {
            let service = self.find_row::<Service>(&keys::service(&container.service)).await?.map(|row| row.object);
            if !removing && service.as_ref().is_some_and(|s| s.mode == Mode::Daemon) && container.is_alive() {
                status.staying += 1;
                continue;
            }
            let never_twice = service.is_some_and(|service| service.never_twice);
            let waits_for = match node.status {
                NodeStatus::Ready => self.waits_for(&container).await?,
                _ if removing && never_twice => waits_for_certainty(&node, &container, silence_ms),
                _ => "its node does not report".to_owned(),
            };
            status.left.push(DrainLeft { container: container.id, service: container.service, waits_for });
        }
        Ok(status)
    }

    async fn waits_for(&self, container: &Container) -> Result<String> {
        if container.desired == DesiredState::Stopped {
            return Ok(if container.message.is_empty() { "stopping".to_owned() } else { container.message.clone() });
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
