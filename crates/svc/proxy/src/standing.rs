//! Whether a flow that was allowed when it began still is: a later policy can end it. `route` decides.

use crate::{
    call::{Origin, Taken},
    core::Core,
};
use arc_swap::ArcSwap;
use heptad_model::ServiceKey;
use heptad_route::{Caller, Table, revoked};
use std::{future::pending, sync::Arc};
use tokio::sync::watch;

/// A flow, and the facts by which it is judged.
#[derive(Debug)]
pub(crate) struct Standing {
    caller: Caller,
    /// What was addressed, and what a traffic rule chose instead.
    calls: [(ServiceKey, u16); 2],
    table: Arc<ArcSwap<Table>>,
    rules: watch::Receiver<u64>,
}

impl Standing {
    pub(crate) fn new(core: &Core, origin: &Origin<'_>, taken: &Taken) -> Self {
        Self {
            caller: origin.caller.clone(),
            calls: [(origin.target.clone(), origin.port), (taken.service.clone(), taken.endpoint.port)],
            table: Arc::clone(&core.table),
            rules: core.rules.subscribe(),
        }
    }

    /// Waits until policies no longer allow it.
    pub(crate) async fn revoked(mut self) {
        loop {
            self.rules.mark_unchanged();
            if self.is_revoked() {
                return;
            }
            if self.rules.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    fn is_revoked(&self) -> bool {
        let table = self.table.load();
        let denial = self.calls.iter().find_map(|(service, port)| revoked(&table, &self.caller, service, *port));
        denial.is_some_and(|denial| {
            tracing::debug!(%denial, "an open flow ends");
            true
        })
    }
}
