//! Who calls from this node: the service behind a container address or behind a process. The proxy asks for every
//! connection, so answers come from memory.

use heptad_model::{ContainerId, ServiceKey};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{PoisonError, RwLock},
};

#[derive(Debug, Default)]
pub(crate) struct Callers(RwLock<BTreeMap<ContainerId, Caller>>);

#[derive(Clone, Debug)]
struct Caller {
    service: ServiceKey,
    address: Option<IpAddr>,
    process: Option<u32>,
}

impl Callers {
    fn change(&self, id: &ContainerId, service: &ServiceKey, change: impl FnOnce(&mut Caller)) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let unknown = || Caller { service: service.clone(), address: None, process: None };
        change(all.entry(id.clone()).or_insert_with(unknown));
    }

    pub(crate) fn set_address(&self, id: &ContainerId, service: &ServiceKey, address: IpAddr) {
        self.change(id, service, |caller| caller.address = Some(address));
    }

    pub(crate) fn set_process(&self, id: &ContainerId, service: &ServiceKey, pid: i32) {
        self.change(id, service, |caller| caller.process = u32::try_from(pid).ok());
    }

    /// Must happen before the address is free for another container.
    pub(crate) fn remove(&self, id: &ContainerId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// All containers that are known, with their services.
    pub(crate) fn all(&self) -> Vec<(ContainerId, ServiceKey)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(id, caller)| (id.clone(), caller.service.clone())).collect()
    }

    fn find(&self, is: impl Fn(&Caller) -> bool) -> Option<ServiceKey> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().find(|caller| is(caller)).map(|caller| caller.service.clone())
    }

    /// The service of the container with that address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<ServiceKey> {
        self.find(|caller| caller.address == Some(address))
    }

    /// The service whose process has the connection's other end open. Reads /proc.
    pub(crate) fn of_connection(&self, peer: SocketAddr, local: SocketAddr) -> Option<ServiceKey> {
        let roots: Vec<u32> = {
            let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
            all.values().filter_map(|caller| caller.process).collect()
        };
        let owner = heptad_net::procnet::owner_of_connection(peer, local, &roots).ok()??;
        let root = owner.holders.first()?.root;
        self.find(|caller| caller.process == Some(root))
    }
}
