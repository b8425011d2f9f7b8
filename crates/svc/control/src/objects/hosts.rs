//! Hosts of exposed services: each belongs to the first service that has it, for as long as that service has it. Tells
//! the owner only to callers of the same namespace, since others may not see it.

use super::{Batch, row_value, subject};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
};
use heptad_api::{ErrorCode, Kind};
use heptad_model::{Expose, Namespace, Service, ServiceKey};
use heptad_state::{KeyRange, StoreExt};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a transaction does to hosts.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// The host, if any, that each of its services will have.
    staged: BTreeMap<ServiceKey, Option<String>>,
    /// Those of them that had another one before.
    claims: Vec<ServiceKey>,
}

/// The fields of a service that are needed to know its host.
#[derive(Deserialize)]
struct Exposed {
    name: String,
    #[serde(default)]
    namespace: Namespace,
    #[serde(default)]
    expose: Option<Expose>,
}

fn host_of(expose: Option<&Expose>) -> Option<String> {
    expose.map(|expose| Expose::host_compared(&expose.host).into_owned())
}

impl Hosts {
    /// Records a service that is staged.
    pub(super) fn stage(&mut self, before: Option<&Service>, now: &Service) {
        let host = host_of(now.expose.as_ref());
        if host.is_some() && before.is_none_or(|before| host_of(before.expose.as_ref()) != host) {
            self.claims.push(now.key());
        }
        self.staged.insert(now.key(), host);
    }

    /// The claim that must be refused, and the service that has the host; `taken` maps hosts to their present services.
    fn refused<'a>(
        &'a self,
        taken: impl Iterator<Item = &'a (ServiceKey, String)>,
    ) -> Option<(&'a ServiceKey, &'a ServiceKey, &'a str)> {
        let staged = self.staged.iter().filter_map(|(key, host)| Some((key, host.as_deref()?)));
        let stays = taken.filter(|(key, _)| !self.staged.contains_key(key)).map(|(key, host)| (key, host.as_str()));
        let owners: Vec<(&ServiceKey, &str)> = stays.chain(staged).collect();
        self.claims.iter().find_map(|claiming| {
            let wanted = self.staged[claiming].as_deref()?;
            let (owner, _) = owners.iter().find(|(key, host)| *host == wanted && *key != claiming)?;
            Some((claiming, *owner, wanted))
        })
    }
}

impl Batch<'_> {
    /// Call this when everything is staged: refuses a host that another service has and does not give up in the same
    /// transaction.
    pub(super) async fn claim_hosts(&mut self) -> Result<()> {
        if self.hosts.claims.is_empty() {
            return Ok(());
        }
        // The guard is read first: a host taken between the two reads changes it.
        let guard = self.objects.store.get(keys::HOSTS).await.during("read", keys::HOSTS)?;
        let rows = self.objects.rows_at(KeyRange::prefix(keys::prefix(Kind::Services, None)), None).await?.0;
        let mut taken = Vec::new();
        for kv in &rows {
            let Exposed { name, namespace, expose } = row_value(kv)?;
            taken.extend(host_of(expose.as_ref()).map(|host| (ServiceKey { namespace, name }, host)));
        }
        if let Some((claiming, owner, host)) = self.hosts.refused(taken.iter()) {
            return Err(refusal(claiming, owner, host));
        }
        self.pending.expect(keys::HOSTS, guard.map_or(0, |kv| kv.mod_revision));
        self.pending.put(keys::HOSTS, &self.hosts.claims);
        Ok(())
    }
}

fn refusal(claiming: &ServiceKey, owner: &ServiceKey, host: &str) -> Error {
    let of = |key: &ServiceKey| subject(Kind::Services, &key.namespace, &key.name);
    let owner = match owner.namespace == claiming.namespace {
        true => format!("{} has it", of(owner)),
        false => "a service of another namespace has it".to_owned(),
    };
    let detail = format!(
        "{} was not written: `{host}` of `expose.host` is taken, {owner}; choose another host, or let whoever may write \
         both services apply them together, the other one without it",
        of(claiming)
    );
    Error::refused(ErrorCode::Conflict, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, host: Option<&str>) -> Service {
        let expose = host.map(|host| Expose { host: host.to_owned(), port: None });
        Service { namespace: namespace.into(), expose, ..Service::new(name, "host") }
    }

    fn refused(taken: &[Service], changes: &[(Option<Service>, Service)]) -> bool {
        let mut hosts = Hosts::default();
        for (before, now) in changes {
            hosts.stage(before.as_ref(), now);
        }
        let taken: Vec<_> = taken.iter().filter_map(|s| Some((s.key(), host_of(s.expose.as_ref())?))).collect();
        hosts.refused(taken.iter()).is_some()
    }

    #[test]
    fn a_host_belongs_to_the_first_and_moves_only_when_it_is_given_up() {
        let shop = service("shop", "web", Some("shop.example.com"));
        let taken = std::slice::from_ref(&shop);
        let other = service("aaa", "zz", Some("shop.example.com"));
        let without = service("shop", "web", None);
        assert!(refused(taken, &[(None, other.clone())]));
        assert!(refused(taken, &[(Some(service("aaa", "zz", None)), service("aaa", "zz", Some("SHOP.example.com.")))]));
        assert!(!refused(taken, &[(Some(other.clone()), other.clone())]), "two that exist may be changed otherwise");
        assert!(!refused(taken, &[(None, other.clone()), (Some(shop.clone()), without.clone())]), "in any order");
        assert!(!refused(taken, &[(Some(shop.clone()), without), (None, other.clone())]));
        assert!(refused(taken, &[(Some(shop.clone()), shop.clone()), (None, other.clone())]));
        assert!(refused(&[], &[(None, shop.clone()), (None, other)]), "two in one apply");
        assert!(!refused(taken, &[(Some(shop.clone()), shop.clone())]));
    }

    #[test]
    fn a_refusal_names_nothing_of_another_namespace() {
        let text = |owner: &ServiceKey| refusal(&ServiceKey::new("aaa", "zz"), owner, "h").to_string();
        let said = text(&ServiceKey::new("shop", "web"));
        assert!(!said.contains("shop") && !said.contains("web"), "{said}");
        assert!(text(&ServiceKey::new("aaa", "web")).contains("service/aaa/web has it"));
    }
}
