//! One watch over one connection: batches of changes, revision by revision. `state` resumes it.

use crate::{
    client::{Call, Client, with_query},
    error::Result,
    lines::Lines,
    objects::collection_path,
    part::Part,
};
use heptad_api::{Resource, WatchBatch};
use heptad_model::Namespace;
use http::Method;
use std::{fmt, time::Duration};

/// A running watch. Dropping it ends it.
pub struct Watch<T: Resource> {
    lines: Lines<WatchBatch<T>>,
    revision: Option<u64>,
}

impl<T: Resource> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("kind", &T::KIND).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl<T: Resource> Watch<T> {
    /// The next batch; one without events only reports the watch's progress. `None` when the server ends the watch
    /// because it stops: resume from the last revision plus one. If the error is `is_compacted`, list again. Dropping
    /// the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<WatchBatch<T>>> {
        let Some(batch) = self.lines.next().await? else { return Ok(None) };
        if let Some(problem) = batch.error {
            return Err(problem.into());
        }
        self.revision = Some(batch.revision);
        Ok(Some(batch))
    }

    /// The revision of the last batch.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }
}

impl Client {
    /// Watches all objects of a kind from revision `from` on; `None`: from now on.
    pub async fn watch<T: Resource>(&self, from: Option<u64>) -> Result<Watch<T>> {
        self.watch_in(None, from).await
    }

    /// Watches the objects of a kind in one namespace.
    pub async fn watch_in<T: Resource>(&self, namespace: Option<&Namespace>, from: Option<u64>) -> Result<Watch<T>> {
        let part = namespace.map_or(Part::All, |namespace| Part::Namespace(namespace.clone()));
        self.watch_part(&part, from).await
    }

    /// Watches a part of a kind.
    pub async fn watch_part<T: Resource>(&self, part: &Part, from: Option<u64>) -> Result<Watch<T>> {
        let query = [("watch", Some("true".to_owned())), ("revision", from.map(|r| r.to_string())), part.query()];
        let call = Call::new(Method::GET, with_query(collection_path::<T>(part.namespace()), &query));
        let idle = Duration::from_millis(self.options().watch_idle_ms_max);
        Ok(Watch { lines: self.lines(call, Some(idle)).await?, revision: None })
    }
}
