//! Several objects staged for one transaction: old state read, new state admitted and validated, conditions collected.

use super::{Kept, Objects, Pending, hosts::Hosts, subject};
use crate::{
    error::{Error, Result, StoreContext},
    keys, random,
};
use heptad_api::{ErrorCode, Kind, Object, ProblemDetails, operations::Outcome};
use heptad_model::{EventKind, Namespace, Quota, Secret, Service, ServiceKey};
use heptad_sched::Allocation;
use heptad_state::{KeyRange, Revision, StoreExt};
use serde::Deserialize;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::Ipv4Addr,
};

/// What is wanted of an object that is written.
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
pub(crate) struct Batch<'a> {
    pub(super) objects: &'a Objects,
    pub(crate) pending: Pending,
    addresses: Option<Taken>,
    pub(super) hosts: Hosts,
    /// Namespaces whose quotas are guarded by this transaction.
    guarded: BTreeSet<Namespace>,
    /// How many services it adds to namespaces in which they are counted.
    services: BTreeMap<Namespace, usize>,
}

/// The service addresses that are taken, and the revision of the row that guards them.
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

    /// Reads what is there and stages the object to be as `new`; unchanged objects are compared but not written.
    pub(crate) async fn stage<T: Kept>(&mut self, mut new: T, mode: Mode) -> Result<Staged<T>> {
        let key = keys::of(&new);
        let old = self.objects.find_row::<T>(&key).await?;
        let namespace = new.namespace().cloned().unwrap_or_default();
        let subject = subject(T::KIND, &namespace, new.name());
        expected(mode, old.as_ref().map(|old| old.revision), &subject)?;
        let (id, writer) = (random::word(12, "an identifier")?, self.objects.writer);
        let mut given = super::Given { id, writer, ..super::Given::default() };
        if T::KIND == Kind::Nodes {
            given.allocation = self.compared_allocation(new.name()).await?;
        }
        let before = old.as_ref().map(|old| &old.object);
        // Problems first: an object that is refused takes no address.
        let problems = new.problems(&given);
        if !problems.is_empty() {
            return Err(ProblemDetails::invalid(format!("{subject} was not written"), problems).into());
        }
        self.permit_priority(before, &new).await?;
        if T::ADDRESSED && new.wants_address(before) {
            given.address = Some(self.free_address(&namespace, new.name()).await?);
        }
        if let Some(secret) = (&mut new as &mut dyn Any).downcast_mut::<Secret>() {
            let before = before.and_then(|before| (before as &dyn Any).downcast_ref());
            self.objects.seal(secret, before, &mut self.pending).await?;
        }
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
        if let Some((reason, message)) = new.warning(before) {
            let event = self.objects.event(EventKind::Warning, reason, &subject, message)?;
            self.pending.event(&event);
        }
        if let Some(service) = (&new as &dyn Any).downcast_ref::<Service>() {
            self.hosts.stage(before.and_then(|before| (before as &dyn Any).downcast_ref()), service);
        }
        if T::KIND == Kind::Services && outcome == Outcome::Created {
            self.count_service(&namespace, &subject).await?;
        }
        if T::KIND == Kind::Quotas && outcome != Outcome::Unchanged {
            let read_at = self.quota_guard(&namespace).await?;
            self.guard_quota(&namespace, read_at);
        }
        if outcome == Outcome::Updated {
            self.stage_fewer(before, &new).await?;
        }
        Ok(Staged { old, new, outcome })
    }

    /// If fewer replicas are asked, the surplus is stopped in the same transaction, so that it is never too many.
    async fn stage_fewer<T: Kept>(&mut self, old: Option<&T>, new: &T) -> Result<()> {
        let old = old.and_then(|old| (old as &dyn Any).downcast_ref::<Service>());
        let new = (new as &dyn Any).downcast_ref::<Service>();
        if let (Some(old), Some(new)) = (old, new)
            && (new.replicas < old.replicas || new.template() != old.template())
        {
            self.objects.stage_surplus(&new.key(), Some(new), &mut self.pending).await?;
        }
        Ok(())
    }

    /// A priority above 0 takes the places of others' containers, so it is what a quota permits, or what somebody gives who
    /// may write everywhere. One that stands may stay.
    async fn permit_priority<T: Kept>(&mut self, old: Option<&T>, new: &T) -> Result<()> {
        let of = |object: &T| (object as &dyn Any).downcast_ref::<Service>().map_or(0, |service| service.priority);
        let (asked, stands) = (of(new), old.map_or(0, of));
        if asked <= stands.max(0) {
            return Ok(());
        }
        let namespace = new.namespace().cloned().unwrap_or_default();
        let subject = subject(T::KIND, &namespace, new.name());
        let guard = self.quota_guard(&namespace).await?;
        let quotas = self.objects.list::<Quota>(Some(&namespace)).await?.items;
        let bound = quotas.iter().filter_map(|item| Some((item.object.priority_max?, &item.object.name))).min();
        match bound {
            Some((priority_max, quota)) if asked > priority_max => {
                let detail = format!(
                    "{subject} was not written: quota {quota} of namespace {namespace} permits priorities of at most \
                     {priority_max}, and it has {asked}"
                );
                Err(Error::refused(ErrorCode::QuotaExceeded, detail))
            }
            None if self.objects.writer != super::Writer::Admin => {
                let detail = format!(
                    "{subject} was not written: priority {asked} is above 0 and takes the places of others' containers; an \
                     administrator gives it, or permits it with `priority_max` in a quota of namespace {namespace}"
                );
                Err(Error::refused(ErrorCode::Forbidden, detail))
            }
            Some(_) => {
                self.guard_quota(&namespace, guard);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// One more service: refused if a quota of the namespace does not permit it.
    async fn count_service(&mut self, namespace: &Namespace, subject: &str) -> Result<()> {
        // The guard is read first: whatever is added between the reads changes it.
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
            let detail = format!(
                "{subject} was not written: quota {quota} of namespace {namespace} permits {limit} services, and there \
                 are {used}; raise it or delete a service"
            );
            return Err(Error::refused(ErrorCode::QuotaExceeded, detail));
        }
        self.guard_quota(namespace, guard);
        Ok(())
    }

    async fn quota_guard(&self, namespace: &Namespace) -> Result<Revision> {
        let key = keys::quota_guard(namespace);
        let guard = self.objects.store.get(key.clone()).await.during("read", &key)?;
        Ok(guard.map_or(0, |kv| kv.mod_revision))
    }

    /// Whoever takes a part of the namespace's quotas at the same time does not.
    fn guard_quota(&mut self, namespace: &Namespace, read_at: Revision) {
        if self.guarded.insert(namespace.clone()) {
            let key = keys::quota_guard(namespace);
            self.pending.expect(&key, read_at);
            self.pending.put(&key, namespace);
        }
    }

    /// What the node gave; the transaction holds only if that stays so.
    async fn compared_allocation(&mut self, node: &str) -> Result<Allocation> {
        let (allocation, revision) = self.objects.allocation(&node.into()).await?;
        self.pending.expect(&keys::allocation(&node.into()), revision);
        Ok(allocation)
    }

    async fn free_address(&mut self, namespace: &Namespace, name: &str) -> Result<Ipv4Addr> {
        if self.addresses.is_none() {
            self.addresses = Some(self.objects.taken_addresses().await?);
        }
        let cidr = self.objects.service_cidr;
        let taken = self.addresses.as_mut().expect("it was filled just now");
        let key = ServiceKey::new(namespace.as_str(), name);
        let free = free_address(&cidr, &taken.addresses, &key).ok_or_else(|| {
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

/// The first free address behind a place that follows from the name, so that a service that is made again tends to get
/// the address that it had. Network and broadcast addresses are not given.
fn free_address(cidr: &ipnet::Ipv4Net, taken: &BTreeSet<Ipv4Addr>, key: &ServiceKey) -> Option<Ipv4Addr> {
    let first = u32::from(cidr.network()) + 1;
    let count = u32::from(cidr.broadcast()).checked_sub(first).filter(|count| *count > 0)?;
    // The default hasher has fixed keys: the same name, the same place.
    let mut hasher = DefaultHasher::new();
    (key.namespace.as_str(), &key.name).hash(&mut hasher);
    let start = u32::try_from(hasher.finish() % u64::from(count)).expect("it is below a u32");
    let address = |i: u32| Ipv4Addr::from(first + (u64::from(start) + u64::from(i)).rem_euclid(count.into()) as u32);
    (0..count).map(address).find(|address| !taken.contains(address))
}

impl Objects {
    async fn taken_addresses(&self) -> Result<Taken> {
        // The guard is read first: an address that is taken between the two reads changes it.
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
