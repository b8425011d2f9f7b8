//! Namespaces: one that holds objects is not deleted. Objects may be in one that nobody declared, so nothing else asks for it.

use super::{Given, Kept, kept_id};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
    objects::{Objects, Pending},
};
use heptad_api::{ErrorCode, Kind};
use heptad_model::{DeclaredNamespace, Namespace, Problem, Validate};
use heptad_state::{KeyRange, RangeRequest};

/// Most objects of a kind that a refusal names.
const NAMED_MAX: usize = 3;

impl Kept for DeclaredNamespace {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }

    /// What is made in it at the same moment is in a namespace that nobody declared, which may be.
    async fn unstage(objects: &Objects, _: &Namespace, name: &str, _: &mut Pending) -> Result<()> {
        let (mut held, mut remedy) = (Vec::new(), String::new());
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_namespaced()) {
            let mut names = named(objects, kind, &Namespace::from(name)).await?;
            let Some(first) = names.first() else { continue };
            if remedy.is_empty() {
                remedy = format!("heptad delete {} {first} -n {name}", kind.singular());
            }
            if names.len() > NAMED_MAX {
                names[NAMED_MAX] = "...".to_owned();
            }
            held.push(format!("{kind} ({})", names.join(", ")));
        }
        if held.is_empty() {
            return Ok(());
        }
        let held = held.join(", ");
        let detail = format!(
            "namespace/{name} was not deleted: it holds {held}; delete them first, as with `{remedy}`, then the namespace"
        );
        Err(Error::refused(ErrorCode::Conflict, detail))
    }
}

/// The names of the first objects of a kind in a namespace, one more than a refusal names.
async fn named(objects: &Objects, kind: Kind, namespace: &Namespace) -> Result<Vec<String>> {
    let prefix = keys::prefix(kind, Some(namespace));
    let range = RangeRequest::new(KeyRange::prefix(prefix.clone())).limit(NAMED_MAX + 1);
    let page = objects.store.range(RangeRequest { keys_only: true, ..range }).await.during("list", kind.plural())?;
    Ok(page.kvs.iter().map(|row| keys::shown(&row.key).replacen(&prefix, "", 1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{Config, Service};
    use heptad_state::MemoryStore;
    use std::sync::Arc;

    fn config(name: &str) -> Config {
        serde_json::from_value(serde_json::json!({ "name": name, "namespace": "shop" })).expect("a config")
    }

    #[tokio::test]
    async fn a_namespace_that_holds_objects_is_not_deleted_and_needs_not_be_declared() {
        let cidr = "10.96.0.0/16".parse().expect("a range");
        let objects = Objects::new(Arc::new(MemoryStore::new()), cidr, 10);
        let (shop, none) = (Namespace::from("shop"), Namespace::default());
        for name in ["a", "b", "c", "d"] {
            objects.create(config(name)).await.expect("nobody declared the namespace");
        }
        objects
            .create(Service { namespace: shop.clone(), ..Service::new("web", "docker.io/library/web:1") })
            .await
            .expect("made");
        let declared = DeclaredNamespace { name: "shop".to_owned(), ..DeclaredNamespace::default() };
        let made = objects.create(declared).await.expect("declared");
        assert!(!made.object.id.is_empty());
        let delete = || objects.delete::<DeclaredNamespace>(&none, "shop", None);
        let refused = delete().await.expect_err("it holds objects");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        let said = refused.to_string();
        assert!(said.contains("services (web), configs (a, b, c, ...); delete them first"), "{said}");
        assert!(said.contains("`heptad delete service web -n shop`"), "{said}");
        objects.delete::<Service>(&shop, "web", None).await.expect("deleted");
        for name in ["a", "b", "c", "d"] {
            assert!(delete().await.is_err(), "config {name} is in it");
            objects.delete::<Config>(&shop, name, None).await.expect("deleted");
        }
        delete().await.expect("it is empty");
    }
}
