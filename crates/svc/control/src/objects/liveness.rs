//! The status of a node as the server sees it, written only when it changes.

use super::{Objects, Pending};
use crate::{error::Result, keys};
use heptad_model::{EventKind, Node, NodeName, NodeStatus};

impl Objects {
    /// Sets a node's status; returns whether it was changed. A node that does not exist is left so.
    pub(crate) async fn set_node_status(&self, name: &NodeName, status: NodeStatus, why: &str) -> Result<bool> {
        let key = keys::node(name);
        for _ in 0..super::WRITE_TRIES_MAX {
            let Some(old) = self.find_row::<Node>(&key).await?.filter(|old| old.object.status != status) else {
                return Ok(false);
            };
            let kind = if status == NodeStatus::Ready { EventKind::Normal } else { EventKind::Warning };
            let event = self.event(kind, &format!("Node{status}"), &format!("node/{name}"), why)?;
            let mut pending = Pending::default();
            pending.expect(&key, old.revision);
            let fenced = old.object.fenced && status != NodeStatus::Ready;
            pending.put(&key, &Node { status, fenced, ..old.object });
            pending.event(&event);
            if pending.commit(&*self.store).await?.is_some() {
                self.trim_events_sometimes().await;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
