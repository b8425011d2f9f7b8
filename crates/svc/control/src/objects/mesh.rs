//! What proxies route by: services, containers, policies and rules, read at one revision, and what each change of a
//! row means to them. Containers go out once they have a node, and without what routing does not look at.

use super::{Kept, Objects, row_value, row_value_in, watch::compacted};
use crate::{
    error::Result,
    keys::{self, Row},
};
use heptad_api::{
    Kind,
    mesh::{MeshObject, MeshState},
    with_kind,
};
use heptad_model::{Container, ContainerStatus, DesiredState};
use heptad_state::{Event, EventKind, KeyRange, KeyValue, Revision};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

impl Objects {
    /// Everything that proxies route by.
    pub async fn mesh(&self) -> Result<MeshState> {
        let mut state = MeshState::default();
        let mut at = None;
        for kind in Kind::ALL.into_iter().filter(is_routed) {
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

/// A change that matters to proxies, and the object as they read it; none if it does not. Thousands may follow, so that
/// what is not said here counts.
pub(crate) fn mesh_change(event: &Event, revision: Revision) -> Result<Option<(EventKind, Vec<u8>)>> {
    let Row::Object(kind, _) = keys::row(&event.kv.key) else { return Ok(None) };
    if !is_routed(&kind) {
        return Ok(None);
    }
    let is_container = kind == Kind::Containers;
    match (event.kind, &event.prev_kv) {
        // What was deleted is compacted, so that nobody can say it any more.
        (EventKind::Delete, None) => Err(compacted(revision)),
        (EventKind::Delete, Some(previous)) if is_container => {
            Ok(Routed::of(previous)?.map(|gone| (EventKind::Delete, gone.encoded())))
        }
        (EventKind::Put, previous) if is_container => {
            let before = previous.as_ref().map(Routed::of).transpose()?.flatten();
            let now = Routed::of(&event.kv)?;
            // Most reports of containers say nothing that routing looks at.
            Ok(match (before, now) {
                (before, Some(now)) if before.as_ref() != Some(&now) => Some((EventKind::Put, now.encoded())),
                (Some(before), None) => Some((EventKind::Delete, before.encoded())),
                _ => None,
            })
        }
        (EventKind::Delete, Some(previous)) => Ok(encoded(previous)?.map(|object| (EventKind::Delete, object))),
        (EventKind::Put, _) => Ok(encoded(&event.kv)?.map(|object| (EventKind::Put, object))),
    }
}

fn encoded(row: &KeyValue) -> Result<Option<Vec<u8>>> {
    Ok(typed(row)?.map(|object| json(&object)))
}

fn json(object: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(object).expect("the model's types have string keys and serialize")
}

fn typed(row: &KeyValue) -> Result<Option<MeshObject>> {
    match keys::row(&row.key) {
        Row::Object(kind, _) => with_kind!(kind, T => T::ROUTED.map_or(Ok(None), |read| read(row))),
        _ => Ok(None),
    }
}

fn is_routed(kind: &Kind) -> bool {
    with_kind!(*kind, T => T::ROUTED.is_some())
}

/// A container as proxies route by it; none while it has no node.
pub(super) fn routed_container(row: &KeyValue) -> Result<Option<MeshObject>> {
    Ok(Routed::of(row)?.map(|routed| routed.container(row)).transpose()?.map(MeshObject::Container))
}

/// A part of a row, copied only if it has escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Stands for what a container is made of, in its shortest form.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Anything {
    image: &'static str,
}

/// What routing looks at of a container, as a [`Container`] that says only that.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Routed<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    service: Text<'a>,
    #[serde(borrow)]
    service_id: Text<'a>,
    generation: u64,
    #[serde(skip_deserializing)]
    template: Anything,
    #[serde(default, skip_serializing_if = "is_default")]
    revision: u64,
    #[serde(borrow, default)]
    node: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "is_default")]
    desired: DesiredState,
    #[serde(default, skip_serializing_if = "is_default")]
    status: ContainerStatus,
    #[serde(default, skip_serializing_if = "is_default")]
    ready: bool,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    addresses: BTreeMap<Text<'a>, Text<'a>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// As [`MeshObject`] is written.
#[derive(Serialize)]
#[serde(tag = "kind", content = "object", rename_all = "lowercase")]
enum Written<'a> {
    Container(&'a Routed<'a>),
}

impl<'a> Routed<'a> {
    /// What a row says; none while the container has no node, and so neither gets nor makes calls.
    fn of(row: &'a KeyValue) -> Result<Option<Self>> {
        let routed: Self = row_value_in(row)?;
        Ok(routed.node.is_some().then_some(routed))
    }

    /// As clients read it, so that list and watch say the same.
    fn container(&self, row: &KeyValue) -> Result<Container> {
        row_value(&KeyValue { value: json(self).into(), ..row.clone() })
    }

    fn encoded(&self) -> Vec<u8> {
        json(&Written::Container(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::Service;

    fn row(container: &Container) -> KeyValue {
        let key = keys::container(&container.id).into();
        KeyValue { key, value: json(container).into(), create_revision: 1, mod_revision: 2, version: 1 }
    }

    fn change(before: Option<&Container>, now: &Container) -> Option<(EventKind, Vec<u8>)> {
        let event = Event { kind: EventKind::Put, kv: row(now), prev_kv: before.map(row) };
        mesh_change(&event, 2).expect("it is read")
    }

    #[test]
    fn a_container_is_told_when_it_has_a_node_and_when_what_is_routed_by_changes() {
        let service =
            Service { id: "id".into(), environment: [("A".into(), "\n".into())].into(), ..Service::new("web", "x") };
        let unbound = Container::pending("web-1".into(), &service, 5);
        let bound = Container { node: Some("n1".into()), ..unbound.clone() };
        let ready = Container {
            status: ContainerStatus::Running,
            ready: true,
            addresses: [(80, "10.0.0.1:80".parse().expect("an address"))].into(),
            ..bound.clone()
        };
        assert_eq!(change(None, &unbound), None);
        assert!(matches!(change(Some(&unbound), &bound), Some((EventKind::Put, _))));
        let (kind, object) = change(Some(&bound), &ready).expect("told");
        let read: MeshObject = serde_json::from_slice(&object).expect("as clients read it");
        let template = serde_json::from_str(r#"{"image":""}"#).expect("a template");
        let told = Container { template, created_at_ms: 0, ..ready.clone() };
        assert_eq!((kind, read), (EventKind::Put, MeshObject::Container(told.clone())));
        assert_eq!(typed(&row(&ready)).expect("read"), Some(MeshObject::Container(told)), "lists say the same");
        assert_eq!(change(Some(&ready), &Container { restarts: 1, message: "again".into(), ..ready.clone() }), None);
        assert!(matches!(change(Some(&ready), &unbound), Some((EventKind::Delete, _))));
        let gone = KeyValue { value: Default::default(), ..row(&ready) };
        let deleted = |prev| mesh_change(&Event { kind: EventKind::Delete, kv: gone.clone(), prev_kv: prev }, 3);
        assert!(matches!(deleted(Some(row(&ready))), Ok(Some((EventKind::Delete, _)))));
        assert!(matches!(deleted(Some(row(&unbound))), Ok(None)));
        assert!(deleted(None).is_err(), "nobody can say any more what it was");
    }
}
