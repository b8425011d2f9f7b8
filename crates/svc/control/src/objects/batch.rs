//! Several objects staged for one transaction: old state read, new state admitted and validated, conditions collected.

use super::{Kept, Objects, Pending, Writer, events, hosts::Hosts, subject};
use crate::{
    error::{Error, Result, StoreContext},
    keys, random,
};
use heptad_api::{ErrorCode, Kind, Object, ProblemDetails, operations::Outcome};
use heptad_capacity::Allocation;
use heptad_model::{Namespace, Quota, Service, ServiceKey};
use heptad_state::{KeyRange, Revision, StoreExt};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// The expected state of an object that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It must be new.
    Create,
    /// It may exist; if a revision is given, it must exist at that one.
    Replace(Option<Revision>),
}

/// An object that is staged.
#[derive(Clone, Debug)]
pub(crate) struct Staged<T> {
    pub(crate) old: Option<Object<T>>,
    pub(crate) new: T,
    pub(crate) outcome: Outcome,
}

/// A transaction over objects.
#[derive(Debug)]
pub struct Batch<'a> {
    pub(super) objects: &'a Objects,
    pub(crate) pending: Pending,
    addresses: Option<Taken>,
    pub(super) hosts: Hosts,
    /// Namespaces whose quotas this transaction guards.
    guarded: BTreeSet<Namespace>,
    /// How many services it adds to namespaces in which they are counted.
    services: BTreeMap<Namespace, usize>,
}

/// The service addresses in use, and the revision of the row that guards them.
#[derive(Debug)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    revision: Revision,
    claimed: bool,
}

/// The one field of a service that is needed to find free addresses.
#[derive(Deserialize)]
struct Addressed {
    address: Option<Ipv4Addr>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(objects: &'a Objects) -> Self {
        Self {
            objects,
            pending: Pending::default(),
            addresses: None,
            hosts: Hosts::default(),
            guarded: BTreeSet::new(),
            services: BTreeMap::new(),
        }
    }

    /// Reads the present state and stages the object as `new`; unchanged objects are compared but not written.
    pub(crate) async fn stage<T: Kept>(&mut self, mut new: T, mode: Mode) -> Result<Staged<T>> {
        let key = keys::of(&new);
        let old = self.objects.find_row::<T>(&key).await?;
        let namespace = new.namespace().cloned().unwrap_or_default();
        let subject = subject(T::KIND, &namespace, new.name());
        expected(mode, old.as_ref().map(|old| old.revision), &subject)?;
        let (id, writer) = (random::word(12, "an identifier")?, self.objects.writer);
        let mut given = super::Given { id, writer, ..super::Given::default() };
        if T::ALLOCATED {
            given.allocation = self.compared_allocation(new.name()).await?;
        }
        let before = old.as_ref().map(|old| &old.object);
        // Problems first: a refused object takes no address.
        let problems = new.problems(&given);
        if !problems.is_empty() {
            return Err(ProblemDetails::invalid(format!("{subject} was not written"), problems).into());
        }
        new.claim(before, &mut given, self).await?;
        new.admit(before, &given);
        self.pending.expect(&key, old.as_ref().map_or(0, |old| old.revision));
        let outcome = match before {
            None => Outcome::Created,
            Some(before) if *before == new => Outcome::Unchanged,
            Some(_) => Outcome::Updated,
        };
        if outcome != Outcome::Unchanged {
            self.pending.put(&key, &new);
        }
        for (kind, reason, message) in new.told(before) {
            let mut event = self.objects.event(kind, &reason, &subject, message)?;
            if self.objects.writer == Writer::Node {
                // What follows from a node's words is of its part.
                event.id += &events::tag(&subject);
            }
            self.pending.event(&event);
        }
        new.stage(before, outcome, self).await?;
        Ok(Staged { old, new, outcome })
    }

    /// One more service: refused if a quota of the namespace does not permit it.
    pub(super) async fn count_service(&mut self, service: &Service) -> Result<()> {
        let namespace = &service.namespace;
        // The guard is read first: any addition between the two reads changes it.
        let guard = self.quota_guard(namespace).await?;
        let quotas = self.objects.list::<Quota>(Some(namespace)).await?.items;
        let bounds = quotas.iter().filter_map(|item| Some((item.object.services?, &item.object.name)));
        let Some((limit, quota)) = bounds.min() else { return Ok(()) };
        let prefix = keys::prefix(Kind::Services, Some(namespace));
        let there = self.objects.rows_at(KeyRange::prefix(prefix), None).await?.0.len();
        let added = self.services.entry(namespace.clone()).or_default();
        let used = there + *added;
        *added += 1;
        if used >= limit as usize {
            let subject = subject(Kind::Services, namespace, &service.name);
            let detail = format!(
                "{subject} was not written: quota {quota} of namespace {namespace} permits {limit} services, and there \
                 are {used}; raise it or delete a service"
            );
            return Err(Error::refused(ErrorCode::QuotaExceeded, detail));
        }
        self.guard_quota(namespace, guard);
        Ok(())
    }

    pub(super) async fn quota_guard(&self, namespace: &Namespace) -> Result<Revision> {
        let key = keys::quota_guard(namespace);
        let guard = self.objects.store.get(key.clone()).await.during("read", &key)?;
        Ok(guard.map_or(0, |kv| kv.mod_revision))
    }

    /// Excludes all others that take a part of the namespace's quotas at the same time.
    pub(super) fn guard_quota(&mut self, namespace: &Namespace, read_at: Revision) {
        if self.guarded.insert(namespace.clone()) {
            let key = keys::quota_guard(namespace);
            self.pending.expect(&key, read_at);
            self.pending.put(&key, namespace);
        }
    }

    /// What the node gave; the transaction holds only if that does not change.
    async fn compared_allocation(&mut self, node: &str) -> Result<Allocation> {
        let (allocation, revision) = self.objects.allocation(&node.into()).await?;
        self.pending.expect(&keys::allocation(&node.into()), revision);
        Ok(allocation)
    }

    pub(super) async fn free_address(&mut self, key: &ServiceKey) -> Result<Ipv4Addr> {
        if self.addresses.is_none() {
            self.addresses = Some(self.objects.taken_addresses().await?);
        }
        let cidr = self.objects.service_cidr;
        let taken = self.addresses.as_mut().expect("it was filled just now");
        let free = free_address(&cidr, &taken.addresses, key).ok_or_else(|| {
            let detail = format!("all addresses of {cidr} are taken by services; delete some or widen the range");
            Error::refused(ErrorCode::InsufficientSpace, detail)
        })?;
        taken.addresses.insert(free);
        if !std::mem::replace(&mut taken.claimed, true) {
            self.pending.expect(keys::ADDRESSES, taken.revision);
            self.pending.put(keys::ADDRESSES, &free);
        }
        Ok(free)
    }
}

/// Whether the object is in the state that the client expects.
pub(crate) fn expected(mode: Mode, found: Option<Revision>, subject: &str) -> Result<()> {
    match (mode, found) {
        (Mode::Create, Some(_)) => {
            let detail = format!("{subject} exists; replace it, or choose another name");
            Err(Error::refused(ErrorCode::AlreadyExists, detail))
        }
        (Mode::Replace(Some(asked)), None) => {
            Err(Error::refused(ErrorCode::Conflict, format!("{subject} at revision {asked} does not exist")))
        }
        (Mode::Replace(Some(asked)), Some(found)) if asked != found => {
            let detail = format!("{subject} is at revision {found}, not {asked}; read it again and repeat the change");
            Err(Error::refused(ErrorCode::Conflict, detail))
        }
        _ => Ok(()),
    }
}

/// The first free address from a position derived from the name on, so that a service that is recreated tends to get
/// its former address. Network and broadcast addresses are not assigned.
fn free_address(cidr: &ipnet::Ipv4Net, taken: &BTreeSet<Ipv4Addr>, key: &ServiceKey) -> Option<Ipv4Addr> {
    let first = u32::from(cidr.network()) + 1;
    let count = u32::from(cidr.broadcast()).checked_sub(first).filter(|count| *count > 0)?;
    let place = heptad_shard::stable_hash_two(key.namespace.as_str().as_bytes(), key.name.as_bytes());
    let start = u32::try_from(place % u64::from(count)).expect("it is below a u32");
    let address = |i: u32| Ipv4Addr::from(first + (u64::from(start) + u64::from(i)).rem_euclid(count.into()) as u32);
    (0..count).map(address).find(|address| !taken.contains(address))
}

impl Objects {
    async fn taken_addresses(&self) -> Result<Taken> {
        // The guard is read first: an address taken between the two reads changes it.
        let guard = self.store.get(keys::ADDRESSES).await.during("read", keys::ADDRESSES)?;
        let rows = self.rows_at(KeyRange::prefix(keys::prefix(Kind::Services, None)), None).await?.0;
        let mut addresses = BTreeSet::new();
        for kv in &rows {
            addresses.extend(super::row_value::<Addressed>(kv)?.address);
        }
        Ok(Taken { addresses, revision: guard.map_or(0, |kv| kv.mod_revision), claimed: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_unique_and_run_out() {
        let cidr = "10.0.0.0/29".parse().expect("a range");
        let mut taken = BTreeSet::new();
        let key = ServiceKey::new("default", "web");
        assert_eq!(free_address(&cidr, &taken, &key), free_address(&cidr, &taken, &key));
        while let Some(address) = free_address(&cidr, &taken, &key) {
            assert!(cidr.contains(&address) && address != cidr.network() && address != cidr.broadcast());
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 6);
    }
}
