//! Reading objects: one, a page at one revision, all. Nodes are completed from their allocation rows.

use super::{Kept, Objects, decode::row_object, row_value, subject};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
};
use heptad_api::{ErrorCode, List, Object};
use heptad_capacity::Allocation;
use heptad_model::{Namespace, NodeName};
use heptad_state::{KeyRange, KeyValue, RangeRequest, RangeResponse, Revision, StoreExt};
use std::collections::BTreeMap;

impl Objects {
    /// One object. `namespace` counts only for kinds that have namespaces.
    pub async fn get<T: Kept>(&self, namespace: &Namespace, name: &str) -> Result<Object<T>> {
        let found = self.find::<T>(namespace, name).await?;
        found.ok_or_else(|| Error::not_found(&subject(T::KIND, namespace, name)))
    }

    /// One object, if it exists.
    pub async fn find<T: Kept>(&self, namespace: &Namespace, name: &str) -> Result<Option<Object<T>>> {
        let Some(mut found) = self.find_row::<T>(&keys::object(T::KIND, namespace, name)).await? else {
            return Ok(None);
        };
        if T::ALLOCATED {
            let (allocation, _) = self.allocation(&name.into()).await?;
            found.object.derive(&allocation);
        }
        Ok(Some(found))
    }

    /// One object as its row says.
    pub(crate) async fn find_row<T: Kept>(&self, key: &str) -> Result<Option<Object<T>>> {
        let row = self.store.get(key.to_owned()).await.during("read", key)?;
        row.as_ref().map(row_object).transpose()
    }

    /// What a node gave, and the revision of the row (0: there is none yet).
    pub(crate) async fn allocation(&self, node: &NodeName) -> Result<(Allocation, Revision)> {
        let key = keys::allocation(node);
        match self.store.get(key.clone()).await.during("read", key)? {
            Some(kv) => Ok((row_value(&kv)?, kv.mod_revision)),
            None => Ok((Allocation::default(), 0)),
        }
    }

    /// One page of at most `limit` objects; `next` comes from the previous page, whose revision it continues.
    pub async fn page<T: Kept>(
        &self,
        namespace: Option<&Namespace>,
        limit: usize,
        next: Option<&str>,
    ) -> Result<List<T>> {
        let prefix = keys::prefix(T::KIND, namespace);
        let mut request = RangeRequest::new(KeyRange::prefix(prefix.clone())).limit(limit);
        let mut at = None;
        if let Some(next) = next {
            let (revision, after) = continued(next)?;
            request.range = request.range.after(format!("{prefix}{after}").as_bytes());
            request = request.at(revision);
            at = Some(revision);
        }
        let page = self.store.range(request).await.during("list", T::KIND.plural())?;
        let revision = at.unwrap_or(page.revision);
        let next = next_page(&page, &prefix, revision);
        let mut items = page.kvs.iter().map(row_object).collect::<Result<Vec<Object<T>>>>()?;
        self.derive(&mut items, revision).await?;
        Ok(List { revision, items, next })
    }

    /// All objects of a kind at one revision.
    pub async fn list<T: Kept>(&self, namespace: Option<&Namespace>) -> Result<List<T>> {
        let (rows, revision) =
            self.store.list(keys::prefix(T::KIND, namespace)).await.during("list", T::KIND.plural())?;
        let mut items = rows.iter().map(row_object).collect::<Result<Vec<Object<T>>>>()?;
        self.derive(&mut items, revision).await?;
        Ok(List { revision, items, next: None })
    }

    /// Fills in derived fields, from the rows of the same revision.
    async fn derive<T: Kept>(&self, items: &mut [Object<T>], revision: Revision) -> Result<()> {
        if !T::ALLOCATED || items.is_empty() {
            return Ok(());
        }
        let rows = self.rows_at(KeyRange::prefix(keys::ALLOCATIONS), Some(revision)).await?.0;
        let mut allocations: BTreeMap<String, Allocation> = BTreeMap::new();
        for kv in &rows {
            allocations.insert(keys::shown(&kv.key), row_value(kv)?);
        }
        for item in items {
            if let Some(allocation) = allocations.get(&keys::allocation(&item.object.name().into())) {
                item.object.derive(allocation);
            }
        }
        Ok(())
    }

    /// All rows of a range at one revision, the present one by default.
    pub(crate) async fn rows_at(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> Result<(Vec<KeyValue>, Revision)> {
        let mut request = RangeRequest { revision, ..RangeRequest::new(range) };
        let mut page = self.store.range(request.clone()).await.during("list", "rows")?;
        let revision = revision.unwrap_or(page.revision);
        let mut rows = std::mem::take(&mut page.kvs);
        while page.more {
            let Some(last) = rows.last() else { break };
            request.range = request.range.after(&last.key);
            request.revision = Some(revision);
            page = self.store.range(request.clone()).await.during("list", "rows")?;
            rows.append(&mut page.kvs);
        }
        Ok((rows, revision))
    }
}

/// `REVISION.NAME` as it is given to clients, to whom it is opaque.
fn next_page(page: &RangeResponse, prefix: &str, revision: Revision) -> Option<String> {
    let last = page.kvs.last().filter(|_| page.more)?;
    let name = keys::shown(&last.key);
    Some(format!("{revision}.{}", name.strip_prefix(prefix)?))
}

fn continued(next: &str) -> Result<(Revision, &str)> {
    let parts = next.split_once('.').and_then(|(revision, after)| Some((revision.parse().ok()?, after)));
    parts.ok_or_else(|| {
        let detail = format!("`{next}` does not continue a list; pass what the page before gave as `continue`");
        Error::refused(ErrorCode::BadRequest, detail)
    })
}
