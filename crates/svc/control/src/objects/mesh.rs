//! What proxies route by: services, containers, policies and rules, read at one revision, and what each change of a
//! row means to them. Containers go out without what they are made of.

use super::{Objects, row_value, watch::compacted};
use crate::{
    error::Result,
    keys::{self, Row},
};
use heptad_api::{
    Kind, WatchChange, WatchEvent,
    mesh::{MeshObject, MeshState},
};
use heptad_model::{Container, ContainerTemplate};
use heptad_state::{Event, EventKind, KeyRange, KeyValue, Revision};

impl Objects {
    /// Everything that proxies route by.
    pub async fn mesh(&self) -> Result<MeshState> {
        let mut state = MeshState::default();
        let mut at = None;
        for kind in [Kind::Services, Kind::Policies, Kind::Rules, Kind::Containers] {
            let (rows, revision) = self.rows_at(KeyRange::prefix(keys::prefix(kind, None)), at).await?;
            (state.revision, at) = (revision, Some(revision));
            for row in &rows {
                match typed(row)? {
                    Some(MeshObject::Service(service)) => state.services.push(service),
                    Some(MeshObject::Container(container)) => state.containers.push(container),
                    Some(MeshObject::Policy(policy)) => state.policies.push(policy),
                    Some(MeshObject::Rule(rule)) => state.rules.push(rule),
                    None => {}
                }
            }
        }
        Ok(state)
    }
}

/// A change that matters to proxies; none if it does not.
pub(crate) fn mesh_change(event: &Event, revision: Revision) -> Result<Option<WatchEvent<MeshObject>>> {
    let (change, row) = match (event.kind, &event.prev_kv) {
        (EventKind::Put, _) => (WatchChange::Put, &event.kv),
        (EventKind::Delete, Some(previous)) => (WatchChange::Delete, previous),
        (EventKind::Delete, None) if keys::mesh_row(&event.kv.key) => return Err(compacted(revision)),
        (EventKind::Delete, None) => return Ok(None),
    };
    let Some(object) = typed(row)? else { return Ok(None) };
    // Most reports of containers say nothing that routing looks at.
    if let (WatchChange::Put, MeshObject::Container(_), Some(previous)) = (change, &object, &event.prev_kv)
        && typed(previous)?.as_ref() == Some(&object)
    {
        return Ok(None);
    }
    Ok(Some(WatchEvent { change, object }))
}

fn typed(row: &KeyValue) -> Result<Option<MeshObject>> {
    Ok(match keys::row(&row.key) {
        Row::Service => Some(MeshObject::Service(row_value(row)?)),
        Row::Container => Some(MeshObject::Container(routed(row_value(row)?))),
        Row::Policy => Some(MeshObject::Policy(row_value(row)?)),
        Row::Rule => Some(MeshObject::Rule(row_value(row)?)),
        _ => None,
    })
}

/// What routing looks at.
fn routed(container: Container) -> Container {
    Container {
        template: ContainerTemplate::default(),
        reason: String::new(),
        message: String::new(),
        restarts: 0,
        exit_code: None,
        created_at_ms: 0,
        started_at_ms: None,
        ..container
    }
}
