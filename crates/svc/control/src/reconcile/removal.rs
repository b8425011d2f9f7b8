//! Nodes that are being taken out of the cluster. What they run is stopped like everything that is no longer wanted;
//! this file deletes their rows, and those of forgotten containers, once `life` permits it.

use super::{Reconciler, Session};
use crate::{error::Result, keys, objects::Pending, rows::Rows};
use heptad_api::Object;
use heptad_capacity::Allocation;
use heptad_life::{StopReason, may_go};
use heptad_model::{Container, EventKind, NodeName, ServiceKey};
use std::collections::BTreeSet;

/// How many containers one transaction forgets.
const FORGOTTEN_MAX: usize = 100;

impl Reconciler {
    /// Deletes the nodes that may go. Returns whether nothing else had changed.
    pub(super) async fn remove_nodes(&self, session: &mut Session) -> Result<bool> {
        let nodes = session.rows.nodes.values().filter(|item| item.object.removing);
        for name in nodes.map(|item| item.object.name.clone()).collect::<Vec<_>>() {
            // In pieces, each of which leaves less.
            while let Some(pending) = self.stage_node_removal(&session.rows, &name)? {
                let Some(revision) = pending.commit(&**self.objects.store()).await? else { return Ok(false) };
                session.catch_up(revision).await?;
            }
        }
        Ok(true)
    }

    /// The deletion of a node with all that is bound to it, or as much of that as one transaction takes.
    fn stage_node_removal(&self, rows: &Rows, name: &NodeName) -> Result<Option<Pending>> {
        let Some(node) = rows.nodes.get(name) else { return Ok(None) };
        let bound = |item: &&Object<Container>| item.object.node.as_ref() == Some(name);
        let left: Vec<&Object<Container>> = rows.containers.values().filter(bound).collect();
        let service = |container: &Container| rows.services.get(&container.service);
        let never_twice = |c: &Container| !c.is_finished() && service(c).is_some_and(|s| s.object.never_twice);
        if !may_go(&node.object, left.iter().map(|item| never_twice(&item.object))) {
            return Ok(None);
        }
        let mut pending = Pending::default();
        pending.expect(&keys::node(name), node.revision);
        let (now, later) = left.split_at(left.len().min(FORGOTTEN_MAX));
        let services: BTreeSet<&ServiceKey> = now.iter().map(|item| &item.object.service).collect();
        for key in services {
            pending.expect(&keys::service(key), rows.services.get(key).map_or(0, |item| item.revision));
        }
        for item in now {
            let key = keys::container(&item.object.id);
            pending.expect(&key, item.revision);
            pending.delete(&key);
            pending.event(&self.objects.stop_event(&item.object.id, StopReason::NodeGone)?);
        }
        let row = rows.allocations.get(name).map_or(0, |item| item.revision);
        pending.expect(&keys::allocation(name), row);
        if !later.is_empty() {
            pending.put(&keys::allocation(name), &Allocation::of(later.iter().map(|item| &item.object)));
            return Ok(Some(pending));
        }
        pending.delete(&keys::node(name));
        if row > 0 {
            pending.delete(&keys::allocation(name));
        }
        let message = format!("it is no longer part of the cluster; {} containers went with it", left.len());
        pending.event(&self.objects.event(EventKind::Normal, "Removed", &format!("node/{name}"), message)?);
        Ok(Some(pending))
    }
}
