//! Objects of any kind: get, list, create, replace, patch, delete. Knows no kind's meaning.

use crate::{
    client::{Call, Client, encoded, with_query},
    error::Result,
    part::Part,
};
use heptad_api::{List, Object, PAGE_ITEMS_MAX, Resource};
use heptad_model::Namespace;
use http::Method;
use serde_json::Value;

pub(crate) fn object_path<T: Resource>(namespace: &Namespace, name: &str) -> String {
    T::KIND.object_path(&Namespace(encoded(namespace.as_str(), false)), &encoded(name, false))
}

pub(crate) fn collection_path<T: Resource>(namespace: Option<&Namespace>) -> String {
    match namespace.filter(|_| T::KIND.is_namespaced()) {
        Some(namespace) => format!("/v1/namespaces/{}/{}", encoded(namespace.as_str(), false), T::KIND),
        None => T::KIND.collection_path(),
    }
}

fn path_of<T: Resource>(object: &T) -> String {
    object_path::<T>(&object.namespace().cloned().unwrap_or_default(), object.name())
}

impl Client {
    /// One object. `namespace` counts only for kinds that have namespaces.
    pub async fn get<T: Resource>(&self, namespace: &Namespace, name: &str) -> Result<Object<T>> {
        self.json(Call::new(Method::GET, object_path::<T>(namespace, name))).await
    }

    /// All objects of a kind in all namespaces, read at one revision.
    pub async fn list<T: Resource>(&self) -> Result<List<T>> {
        self.list_part(&Part::All).await
    }

    /// All objects of a kind in one namespace, read at one revision.
    pub async fn list_in<T: Resource>(&self, namespace: &Namespace) -> Result<List<T>> {
        self.list_part(&Part::Namespace(namespace.clone())).await
    }

    /// One page of a list; `next` is the `continue` of the page before.
    pub async fn page<T: Resource>(
        &self,
        namespace: Option<&Namespace>,
        limit: usize,
        next: Option<String>,
    ) -> Result<List<T>> {
        let part = namespace.map_or(Part::All, |namespace| Part::Namespace(namespace.clone()));
        self.page_of(&part, limit, next).await
    }

    async fn page_of<T: Resource>(&self, part: &Part, limit: usize, next: Option<String>) -> Result<List<T>> {
        let query = [("limit", Some(limit.to_string())), ("continue", next), part.query()];
        let path = with_query(collection_path::<T>(part.namespace()), &query);
        self.json(Call::new(Method::GET, path)).await
    }

    /// A part of a kind, read at one revision.
    pub async fn list_part<T: Resource>(&self, part: &Part) -> Result<List<T>> {
        let mut all: List<T> = self.page_of(part, PAGE_ITEMS_MAX, None).await?;
        // This loop ends: every page but the last has items and starts after the previous one.
        while let Some(next) = all.next.take() {
            let page = self.page_of(part, PAGE_ITEMS_MAX, Some(next)).await?;
            all.items.extend(page.items);
            all.next = page.next;
        }
        Ok(all)
    }

    /// Creates a new object; fails if it exists.
    pub async fn create<T: Resource>(&self, object: &T) -> Result<Object<T>> {
        let path = collection_path::<T>(Some(&object.namespace().cloned().unwrap_or_default()));
        self.json(Call::new(Method::POST, path).json(object)).await
    }

    /// Creates or replaces an object; with `revision`, only if that is its current one.
    pub async fn replace<T: Resource>(&self, object: &T, revision: Option<u64>) -> Result<Object<T>> {
        self.json(Call::new(Method::PUT, path_of(object)).json(object).if_match(revision)).await
    }

    /// Merges `patch` (RFC 7396) into an object; with `revision`, only if that is its current one.
    pub async fn patch<T: Resource>(
        &self,
        namespace: &Namespace,
        name: &str,
        patch: &Value,
        revision: Option<u64>,
    ) -> Result<Object<T>> {
        self.json(Call::new(Method::PATCH, object_path::<T>(namespace, name)).json(patch).if_match(revision)).await
    }

    /// Deletes an object and returns its last state; with `revision`, only if that is its current one.
    pub async fn delete<T: Resource>(
        &self,
        namespace: &Namespace,
        name: &str,
        revision: Option<u64>,
    ) -> Result<Object<T>> {
        self.json(Call::new(Method::DELETE, object_path::<T>(namespace, name)).if_match(revision)).await
    }
}
