//! The typed layer on the state store: objects as JSON rows, each write validated, admitted and compared.
//! Knows no HTTP and no reconciler.

mod batch;
mod containers;
mod decode;
mod events;
mod fewer;
mod hosts;
mod images;
mod kinds;
mod liveness;
mod mesh;
mod nodes;
mod pending;
mod read;
mod rollouts;
mod settings;
mod together;
mod watch;
mod write;

pub(crate) use batch::{Batch, Staged};
pub(crate) use decode::{body_json, body_object, body_value, object_of, row_object, row_value, row_value_in};
pub(crate) use pending::Pending;
pub(crate) use settings::version as settings_version;
pub(crate) use write::distinct;

pub use kinds::{Given, Kept};
pub(crate) use mesh::mesh_change;
pub use watch::ObjectWatch;

use self::together::Together;
use heptad_api::Kind;
use heptad_model::Namespace;
use heptad_pki::Keyring;
use heptad_state::{Compare, FencedStore, Store};
use ipnet::Ipv4Net;
use std::sync::{Arc, atomic::AtomicU64};

/// Commits of one write that are tried against concurrent changes.
const WRITE_TRIES_MAX: usize = 32;

/// On whose behalf objects are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writer {
    /// Somebody who may set everything.
    #[default]
    Admin,
    /// Somebody with rights in some places only.
    Limited,
    /// A node, about itself.
    Node,
}

/// The objects of the cluster. Clones share everything.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn Store>,
    service_cidr: Ipv4Net,
    /// Seals the values of secrets; without it there are none.
    keyring: Option<Arc<Keyring>>,
    events_max: usize,
    events_made: Arc<AtomicU64>,
    /// How many had been made when somebody last looked whether there are too many.
    events_looked_at: Arc<AtomicU64>,
    by_node: Arc<Together<containers::ByNode>>,
    writer: Writer,
}

impl Objects {
    /// The objects in `store`; services get addresses of `service_cidr`; the newest `events_max` events are kept.
    pub fn new(store: Arc<dyn Store>, service_cidr: Ipv4Net, events_max: usize) -> Self {
        Self {
            store,
            service_cidr,
            keyring: None,
            events_max,
            events_made: Arc::default(),
            events_looked_at: Arc::default(),
            by_node: Arc::default(),
            writer: Writer::default(),
        }
    }

    /// The same objects, with secrets that are sealed by `keyring`.
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { keyring: Some(keyring), ..self }
    }

    /// The same objects for a loop that may write only while `fence` holds: whatever it writes compares it.
    pub(crate) fn fenced(&self, fence: Compare) -> Self {
        Self { store: Arc::new(FencedStore::new(self.store.clone(), fence)), ..self.clone() }
    }

    /// The same objects, as this writer may write them.
    pub(crate) fn by(&self, writer: Writer) -> Self {
        Self { writer, ..self.clone() }
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }
}

/// An object for messages: `service/NAMESPACE/NAME`.
pub(crate) fn subject(kind: Kind, namespace: &Namespace, name: &str) -> String {
    if kind.is_namespaced() {
        format!("{}/{namespace}/{name}", kind.singular())
    } else {
        format!("{}/{name}", kind.singular())
    }
}
