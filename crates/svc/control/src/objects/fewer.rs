//! Containers that a write of their service makes superfluous: stopped in the same transaction, so that no committed
//! state has a running container without its service, or more containers than wanted.

use super::{Objects, Pending, row_object, row_value};
use crate::{
    clock::now_ms,
    error::{Result, StoreContext},
    keys,
};
use heptad_api::{Kind, Object};
use heptad_capacity::NodesView;
use heptad_life::{Action, ServiceView, StopReason, next_steps};
use heptad_model::{
    Container, ContainerId, DesiredState, Event, EventKind, Node, Revision, Rollout, Service, ServiceKey,
};
use heptad_state::{KeyRange, StoreExt};
use std::collections::BTreeMap;

/// Containers that are stopped in the transaction of their service, each with its event; the reconciler stops the others.
const STOPS_MAX: usize = 100;

impl Objects {
    /// Stages the stops of containers of `key` that `service` (`None`: deleted) no longer wants.
    pub(crate) async fn stage_surplus(
        &self,
        key: &ServiceKey,
        service: Option<&Service>,
        pending: &mut Pending,
    ) -> Result<()> {
        // Whoever adds containers changes this row, so none is missed here.
        let guard = keys::replicas(key);
        let revision = self.store.get(guard.clone()).await.during("read", &guard)?.map_or(0, |kv| kv.mod_revision);
        pending.expect(&guard, revision);
        let containers = self.containers_of(key).await?;
        if containers.is_empty() {
            return Ok(());
        }
        let nodes: Vec<Node> = self.list::<Node>(None).await?.items.into_iter().map(|item| item.object).collect();
        let nodes = NodesView::new(&nodes, containers.values().map(|item| &item.object)).with_services(service);
        let filled = match service {
            Some(service) => Some(self.with_settings(service).await?),
            None => None,
        };
        let service = filled.as_ref();
        let of_key = containers.values().map(|item| &item.object).collect();
        let (rollout, revisions) = self.remembered(key).await?;
        let view = ServiceView {
            service,
            containers: of_key,
            nodes: &nodes,
            rollout: rollout.as_ref().map(|item| &item.object),
            revisions: revisions.iter().collect(),
            now_ms: now_ms(),
        };
        // Only stops are used, so the identifiers of what would be created do not matter.
        let mut drawn = 0u64;
        let steps = next_steps(&view, || {
            drawn += 1;
            format!("surplus-{drawn}")
        });
        let stops = steps.actions.into_iter().filter_map(|action| match action {
            Action::Stop(id, reason) | Action::Delete(id, reason) => Some((id, reason)),
            Action::Create(_) | Action::Lose(..) => None,
        });
        let wanted = |reason: &StopReason| match service {
            None => true,
            Some(_) => matches!(reason, StopReason::ScaledDown | StopReason::NeverStarted),
        };
        for (id, reason) in stops.filter(|(_, reason)| wanted(reason)).take(STOPS_MAX) {
            if let Some(container) = containers.get(id.as_str()) {
                stage_stop(container, pending);
                pending.event(&self.stop_event(&id, reason)?);
            }
        }
        Ok(())
    }

    /// What is remembered about a service: how far its rollout is, and its revisions.
    pub(crate) async fn remembered(&self, key: &ServiceKey) -> Result<(Option<Object<Rollout>>, Vec<Revision>)> {
        let row = self.store.get(keys::rollout(key)).await.during("read", keys::rollout(key))?;
        let rollout = row.as_ref().map(row_object).transpose()?;
        let rows = self.rows_at(KeyRange::prefix(keys::revisions(key)), None).await?.0;
        Ok((rollout, rows.iter().map(row_value).collect::<Result<_>>()?))
    }

    /// The event of a container that has to go.
    pub(crate) fn stop_event(&self, id: &ContainerId, reason: StopReason) -> Result<Event> {
        let (kind, word) = match reason {
            StopReason::ScaledDown => (EventKind::Normal, "Scaled"),
            StopReason::NodeNotReady | StopReason::NodeCannotStart | StopReason::NodeGone => {
                (EventKind::Warning, "Stopping")
            }
            _ => (EventKind::Normal, "Stopping"),
        };
        self.event(kind, word, &format!("container/{id}"), reason.to_string())
    }

    /// The containers of a service, found by their identifiers, which begin with its name.
    pub(crate) async fn containers_of(&self, key: &ServiceKey) -> Result<BTreeMap<String, Object<Container>>> {
        let prefix = format!("{}{}-", keys::prefix(Kind::Containers, None), key.name);
        let rows = self.rows_at(KeyRange::prefix(prefix), None).await?.0;
        let mut found = BTreeMap::new();
        for kv in &rows {
            let container: Object<Container> = row_object(kv)?;
            if container.object.service == *key {
                found.insert(container.object.id.to_string(), container);
            }
        }
        Ok(found)
    }
}

/// Stages the stop of a container; one without a node runs nowhere and is simply deleted.
fn stage_stop(container: &Object<Container>, pending: &mut Pending) {
    let key = keys::container(&container.object.id);
    pending.expect(&key, container.revision);
    if container.object.node.is_none() {
        pending.delete(&key);
    } else if container.object.desired != DesiredState::Stopped {
        pending.put(&key, &Container { desired: DesiredState::Stopped, ..container.object.clone() });
    }
}
