//! The services as this node last heard of them: for names and for variables. Knows no container.

use crate::launch;
use heptad_model::{
    Namespace, NetworkPolicy, Service, ServiceKey,
    policy::{Toward, external_allowed},
};
use heptad_net::Outside;
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
};

/// A shared view of all services and of the policies over them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    services: BTreeMap<ServiceKey, Service>,
    policies: Vec<NetworkPolicy>,
}

impl Services {
    pub(crate) fn replace(&self, services: BTreeMap<ServiceKey, Service>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).services = services;
    }

    pub(crate) fn replace_policies(&self, policies: Vec<NetworkPolicy>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).policies = policies;
    }

    /// Whether containers of the service may exchange traffic with the outside world, as the policies say.
    pub(crate) fn outside(&self, service: &ServiceKey) -> Outside {
        self.read(|known| {
            let Some(found) = known.services.get(service) else { return Outside::default() };
            let allowed = |toward| external_allowed(&known.policies, found, toward);
            Outside { reaches: allowed(Toward::Outside), reached: allowed(Toward::Inside) }
        })
    }

    /// Whether containers of the service must never run twice; `None` if the service is not known.
    pub(crate) fn never_twice(&self, service: &ServiceKey) -> Option<bool> {
        self.read(|known| Some(known.services.get(service)?.never_twice))
    }

    fn read<T>(&self, with: impl FnOnce(&Known) -> T) -> T {
        with(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Variables that say where a namespace's services are found.
    pub(crate) fn variables(&self, namespace: &Namespace) -> BTreeMap<String, String> {
        self.read(|known| launch::service_variables(known.services.values().filter(|s| &s.namespace == namespace)))
    }

    /// The addresses by DNS name.
    pub(crate) fn names(&self) -> BTreeMap<String, Ipv4Addr> {
        self.read(|known| known.services.iter().filter_map(|(key, s)| Some((key.dns_name(), s.address?))).collect())
    }
}
