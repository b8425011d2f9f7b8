//! The services as this node last heard of them: for names and for variables. Knows no container.

use crate::launch;
use heptad_model::{Namespace, Service, ServiceKey};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, RwLock},
};

/// A shared view of all services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(Arc<RwLock<BTreeMap<ServiceKey, Service>>>);

impl Services {
    pub(crate) fn replace(&self, services: BTreeMap<ServiceKey, Service>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = services;
    }

    fn read<T>(&self, with: impl FnOnce(&BTreeMap<ServiceKey, Service>) -> T) -> T {
        with(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Where the services of a namespace are found, as variables.
    pub(crate) fn variables(&self, namespace: &Namespace) -> BTreeMap<String, String> {
        self.read(|services| launch::service_variables(services.values().filter(|s| &s.namespace == namespace)))
    }

    /// The addresses by DNS name.
    pub(crate) fn names(&self) -> BTreeMap<String, Ipv4Addr> {
        self.read(|services| services.iter().filter_map(|(key, s)| Some((key.dns_name(), s.address?))).collect())
    }
}
