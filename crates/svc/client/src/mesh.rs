//! What proxies route by, followed over one watch of all its kinds. The view is always that of one revision, so a
//! service is never seen without the policies that came with it. Knows no routing.

use crate::{
    client::{Call, Client, with_query},
    error::{Error, Result},
    lines::Lines,
};
use futures_util::FutureExt;
use heptad_api::{
    WatchBatch, WatchChange, WatchEvent,
    mesh::{MeshObject, MeshState},
};
use heptad_model::{Container, ContainerId, NetworkPolicy, Service, ServiceKey, TrafficRule};
use http::Method;
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::time::sleep;

/// The first and the longest wait after a failure.
const RETRY_DELAY_MS_MIN: u64 = 50;
const RETRY_DELAY_MS_MAX: u64 = 2_000;
/// How many batches that have already arrived are taken in at once.
const BATCHES_AT_ONCE_MAX: usize = 10_000;

/// Everything that proxies route by, at one revision. Policies and rules are kept under `NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshView {
    /// The revision.
    pub revision: u64,
    /// All services.
    pub services: BTreeMap<ServiceKey, Service>,
    /// All containers, without their specifications.
    pub containers: BTreeMap<ContainerId, Container>,
    /// All network policies.
    pub policies: BTreeMap<ServiceKey, NetworkPolicy>,
    /// All traffic rules.
    pub rules: BTreeMap<ServiceKey, TrafficRule>,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshChange {
    /// Whether only containers changed.
    pub only_containers: bool,
}

impl From<MeshState> for MeshView {
    fn from(state: MeshState) -> Self {
        let mut view = Self { revision: state.revision, ..Self::default() };
        let services = state.services.into_iter().map(MeshObject::Service);
        let containers = state.containers.into_iter().map(MeshObject::Container);
        let policies = state.policies.into_iter().map(MeshObject::Policy);
        let rules = state.rules.into_iter().map(MeshObject::Rule);
        services.chain(containers).chain(policies).chain(rules).for_each(|object| view.put(object));
        view
    }
}

fn policy_key(policy: &NetworkPolicy) -> ServiceKey {
    ServiceKey { namespace: policy.namespace.clone(), name: policy.name.clone() }
}

fn rule_key(rule: &TrafficRule) -> ServiceKey {
    ServiceKey { namespace: rule.namespace.clone(), name: rule.name.clone() }
}

impl MeshView {
    fn put(&mut self, object: MeshObject) {
        match object {
            MeshObject::Service(service) => _ = self.services.insert(service.key(), service),
            MeshObject::Container(container) => _ = self.containers.insert(container.id.clone(), container),
            MeshObject::Policy(policy) => _ = self.policies.insert(policy_key(&policy), policy),
            MeshObject::Rule(rule) => _ = self.rules.insert(rule_key(&rule), rule),
        }
    }

    fn delete(&mut self, object: &MeshObject) {
        match object {
            MeshObject::Service(service) => _ = self.services.remove(&service.key()),
            MeshObject::Container(container) => _ = self.containers.remove(&container.id),
            MeshObject::Policy(policy) => _ = self.policies.remove(&policy_key(policy)),
            MeshObject::Rule(rule) => _ = self.rules.remove(&rule_key(rule)),
        }
    }

    fn advance(&mut self, batch: WatchBatch<MeshObject>) {
        self.revision = batch.revision;
        for event in batch.events {
            match event.change {
                WatchChange::Put => self.put(event.object),
                WatchChange::Delete => self.delete(&event.object),
            }
        }
    }
}

/// The view and the watch that moves it on.
pub struct Mesh {
    client: Client,
    view: MeshView,
    /// Whether the view must be read anew, not only advanced.
    relist: bool,
    lines: Option<Lines<WatchBatch<MeshObject>>>,
    /// Changes that were taken in but not yet reported.
    untold: Option<MeshChange>,
    delay_ms: u64,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("revision", &self.view.revision).finish_non_exhaustive()
    }
}

impl Client {
    /// Everything that proxies route by.
    pub async fn mesh_state(&self) -> Result<MeshState> {
        self.json(Call::new(Method::GET, "/v1/mesh")).await
    }

    /// Follows what proxies route by; the first change is the first view.
    pub fn follow_mesh(&self) -> Mesh {
        Mesh {
            client: self.clone(),
            view: MeshView::default(),
            relist: true,
            lines: None,
            untold: None,
            delay_ms: RETRY_DELAY_MS_MIN,
        }
    }
}

impl Mesh {
    /// The current view; while no server can be reached, that of the last revision seen.
    pub fn view(&self) -> &MeshView {
        &self.view
    }

    /// Waits until the view has changed, for as long as that takes. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> MeshChange {
        loop {
            let stepped = self.step().await;
            if let Err(error) = &stepped {
                self.lines = None;
                self.relist |= error.is_compacted() || matches!(error, Error::Protocol { .. });
            }
            if let Some(change) = self.untold.take() {
                self.delay_ms = RETRY_DELAY_MS_MIN;
                return change;
            }
            if stepped.is_err() {
                sleep(Duration::from_millis(self.delay_ms)).await;
                self.delay_ms = (self.delay_ms * 2).min(RETRY_DELAY_MS_MAX);
            }
        }
    }

    /// One step: the list, the start of the watch, or the next batch of the watch.
    async fn step(&mut self) -> Result<()> {
        if self.relist {
            self.view = self.client.mesh_state().await?.into();
            (self.relist, self.lines) = (false, None);
            self.untold = Some(MeshChange { only_containers: false });
            return Ok(());
        }
        let Some(lines) = &mut self.lines else {
            self.lines = Some(self.watch(self.view.revision + 1).await?);
            return Ok(());
        };
        let Some(batch) = lines.next().await? else {
            self.lines = None;
            // The server stops; another one, or the same one restarted, is asked after a pause.
            sleep(Duration::from_millis(RETRY_DELAY_MS_MIN)).await;
            return Ok(());
        };
        self.take(batch)?;
        for _ in 0..BATCHES_AT_ONCE_MAX {
            let ready = self.lines.as_mut().and_then(|lines| lines.next().now_or_never());
            let Some(Ok(Some(batch))) = ready else { break };
            self.take(batch)?;
        }
        Ok(())
    }

    async fn watch(&self, from: u64) -> Result<Lines<WatchBatch<MeshObject>>> {
        let query = [("watch", Some("true".to_owned())), ("revision", Some(from.to_string()))];
        let idle = Duration::from_millis(self.client.options().watch_idle_ms_max);
        self.client.lines(Call::new(Method::GET, with_query("/v1/mesh".to_owned(), &query)), Some(idle)).await
    }

    fn take(&mut self, batch: WatchBatch<MeshObject>) -> Result<()> {
        if let Some(problem) = batch.error {
            return Err(problem.into());
        }
        if batch.revision < self.view.revision {
            let reason = format!("the watch went back to revision {}", batch.revision);
            return Err(Error::Protocol { operation: "watch".into(), address: self.client.address(), reason });
        }
        if !batch.events.is_empty() {
            let is_container = |event: &WatchEvent<MeshObject>| matches!(event.object, MeshObject::Container(_));
            let before = self.untold.is_none_or(|change| change.only_containers);
            self.untold = Some(MeshChange { only_containers: before && batch.events.iter().all(is_container) });
        }
        self.view.advance(batch);
        Ok(())
    }
}
