//! The kinds of objects that are kept, a file each: what is checked on a write, what the server sets whatever clients say,
//! what else is written or compared in the same transaction, and what reconcilers and proxies see of it.

mod config;
mod container;
mod event;
mod namespace;
mod node;
mod policy;
mod quota;
mod rule;
mod secret;
mod service;

use super::{Batch, Objects, Pending, Writer};
use crate::{error::Result, keys::ObjectKey, rows::Rows};
use heptad_api::{Resource, mesh::MeshObject, operations::Outcome};
use heptad_capacity::Allocation;
use heptad_model::{EventKind, Namespace, NodeName, NodeStatus, Problem};
use heptad_state::KeyValue;
use std::{
    future::{Future, ready},
    net::Ipv4Addr,
};

/// What the server has at hand for an object that is written.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// A fresh identifier.
    pub id: String,
    /// A free service address, if the object needs one.
    pub address: Option<Ipv4Addr>,
    /// What the node gave, if the object is a node.
    pub allocation: Allocation,
    /// Who writes it.
    pub writer: Writer,
}

/// An object as the state store keeps it.
pub trait Kept: Resource + PartialEq {
    /// Whether what one gave is in a row of its own: compared by writes, and filled in by reads.
    const ALLOCATED: bool = false;
    /// Whether many follow its changes, so that each is put into words once for all.
    const FOLLOWED: bool = false;

    /// Whether the reconcilers look at it: [`enter`](Self::enter) and [`leave`](Self::leave) say how.
    const RECONCILED: bool = false;
    /// What proxies route by of its row, if they do.
    const ROUTED: Option<Route> = None;

    /// The names of its fields, if the type itself does not refuse others.
    fn fields() -> Option<&'static [String]> {
        None
    }

    /// All that is wrong with it.
    fn problems(&self, given: &Given) -> Vec<Problem>;

    /// Sets what the server keeps, from what was there before.
    fn admit(&mut self, old: Option<&Self>, given: &Given);

    /// Fills in what is derived when it is read.
    fn derive(&mut self, _allocation: &Allocation) {}

    /// Fills in what a server knows by itself when it shows it: how nodes stand by now, given how they stood.
    fn see(&mut self, _node: &dyn Fn(&NodeName, NodeStatus) -> NodeStatus) {}

    /// What is to be told of the change, as events: their kinds, reasons and texts.
    fn told(&self, _old: Option<&Self>) -> Vec<(EventKind, String, String)> {
        Vec::new()
    }

    /// Takes, before it is admitted, what else it needs: by the rights of who writes it, in the same transaction.
    fn claim(
        &mut self,
        _old: Option<&Self>,
        _given: &mut Given,
        _batch: &mut Batch<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        ready(Ok(()))
    }

    /// Stages what else follows from its new state.
    fn stage(
        &self,
        _old: Option<&Self>,
        _outcome: Outcome,
        _batch: &mut Batch<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        ready(Ok(()))
    }

    /// Puts its row among those that the reconcilers look at.
    fn enter(_rows: &mut Rows, _key: ObjectKey<'_>, _row: &KeyValue) -> Result<()> {
        Ok(())
    }

    /// Takes it out of them.
    fn leave(_rows: &mut Rows, _key: ObjectKey<'_>) {}

    /// Stages what else goes when one is deleted, or refuses that.
    fn unstage(
        _objects: &Objects,
        _namespace: &Namespace,
        _name: &str,
        _pending: &mut Pending,
    ) -> impl Future<Output = Result<()>> + Send {
        ready(Ok(()))
    }
}

/// What proxies route by of a row; none as long as that is nothing.
pub(crate) type Route = fn(&KeyValue) -> Result<Option<MeshObject>>;

/// The identifier that stays, or a fresh one.
fn kept_id(old: Option<&str>, given: &Given) -> String {
    old.filter(|id| !id.is_empty()).unwrap_or(&given.id).to_owned()
}
