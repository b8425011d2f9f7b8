//! Containers: reconcilers and agents write them, clients only read.

use super::{Given, Kept, Route};
use crate::{
    error::Result,
    keys::ObjectKey,
    objects::{mesh::routed_container, row_object},
    rows::Rows,
};
use heptad_model::{Container, ContainerStatus, NodeName, NodeStatus, Problem};
use heptad_state::KeyValue;

impl Kept for Container {
    const FOLLOWED: bool = true;
    const RECONCILED: bool = true;
    const ROUTED: Option<Route> = Some(routed_container);

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        Vec::new()
    }

    fn admit(&mut self, _old: Option<&Self>, _given: &Given) {}

    /// Nobody can say how a container stands whose node does not answer.
    fn see(&mut self, node: &dyn Fn(&NodeName, NodeStatus) -> NodeStatus) {
        let is_lost = |name| node(name, NodeStatus::Ready) == NodeStatus::NotReady;
        if !self.is_finished() && self.node.as_ref().is_some_and(is_lost) {
            self.status = ContainerStatus::Unknown;
        }
    }

    fn enter(rows: &mut Rows, _: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.put_container(row_object(row)?);
        Ok(())
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.delete_container(&key.name.into());
    }
}
