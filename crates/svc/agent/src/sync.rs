//! Compares what is bound to this node with what runs here, and gives each container a worker that closes the gap.

use crate::{
    context::Context,
    launch::RunLabel,
    worker::{Wish, Worker},
};
use heptad_client::{Part, View, watch_part, watch_state};
use heptad_model::{Container, ContainerId, DesiredState, NetworkPolicy, Permit, Service};
use heptad_net::dns::DnsTable;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{
    sync::watch,
    task::{self, JoinError, JoinSet},
};

/// The workers of this node's containers.
struct Workers {
    context: Arc<Context>,
    alive: BTreeMap<ContainerId, Handle>,
    /// Each returns whether the control plane has heard that its container is gone.
    tasks: JoinSet<bool>,
}

struct Handle {
    task: task::Id,
    wish: watch::Sender<Wish>,
}

/// Follows the control plane for ever.
pub(crate) async fn follow(context: Arc<Context>, names: watch::Sender<Arc<DnsTable>>) {
    let mut services = watch_state::<Service>(&context.client);
    let mut policies = watch_state::<NetworkPolicy>(&context.client);
    let mut containers = watch_part::<Container>(&context.client, Part::Node(context.options.node.clone()));
    let mut permits = context.lease.permits();
    let mut workers = Workers { context: context.clone(), alive: BTreeMap::new(), tasks: JoinSet::new() };
    let first = async {
        take_services(&context, &*services.synced().await, &names);
        // Before any container starts: a missing policy would let it out.
        take_policies(&context, &*policies.synced().await).await;
        containers.synced().await
    };
    // What an earlier agent started may keep running until a server answers, if one does in time.
    let first = workers.end_denied_until(first, &mut permits).await;
    workers.take(&first);
    workers.adopt_strays().await;
    loop {
        tokio::select! {
            view = containers.changed() => {
                // Names must exist before containers ask for them.
                take_services(&context, &services.view(), &names);
                context.services.replace_policies(policies_of(&policies.view()));
                workers.take(&view);
            }
            view = services.changed() => {
                take_services(&context, &view, &names);
                take_policies(&context, &policies.view()).await;
            }
            view = policies.changed() => take_policies(&context, &view).await,
            Ok(()) = permits.changed() => workers.take(&containers.view()),
            Some(ended) = workers.tasks.join_next_with_id() => workers.take_end(ended, &containers.view()),
        }
    }
}

fn take_services(context: &Context, view: &View<Service>, names: &watch::Sender<Arc<DnsTable>>) {
    context.services.replace(view.objects.values().map(|item| (item.object.key(), item.object.clone())).collect());
    let table = DnsTable::new(context.services.names());
    names.send_if_modified(|known| {
        let changed = **known != table;
        if changed {
            *known = Arc::new(table);
        }
        changed
    });
}

/// Policies concern the proxy, except for the world outside the mesh, which the network opens or closes.
async fn take_policies(context: &Context, view: &View<NetworkPolicy>) {
    context.services.replace_policies(policies_of(view));
    context.apply_outside().await;
}

fn policies_of(view: &View<NetworkPolicy>) -> Vec<NetworkPolicy> {
    view.objects.values().map(|item| item.object.clone()).collect()
}

/// What is wanted of this node's containers, without those that may not run now.
fn wishes(view: &View<Container>, context: &Context) -> BTreeMap<ContainerId, Wish> {
    let bound =
        view.objects.values().map(|item| &item.object).filter(|c| c.node.as_ref() == Some(&context.options.node));
    let may = bound.filter(|c| c.desired == DesiredState::Stopped || context.permits(&c.service, false));
    may.map(|container| (container.id.clone(), Wish::of(container.clone()))).collect()
}

impl Workers {
    fn take(&mut self, view: &View<Container>) {
        if !view.synced {
            return;
        }
        let wishes = wishes(view, &self.context);
        for (id, handle) in &self.alive {
            if !wishes.contains_key(id) {
                handle.wish.send_replace(Wish::Forget);
            }
        }
        for (id, wish) in wishes {
            match self.alive.get(&id) {
                Some(handle) => drop(handle.wish.send_replace(wish)),
                None => self.spawn(id, wish),
            }
        }
    }

    fn spawn(&mut self, id: ContainerId, wish: Wish) {
        let (wish, wishes) = watch::channel(wish);
        let worker = Worker::new(id.clone(), self.context.clone(), wishes);
        let task = self.tasks.spawn(worker.live()).id();
        self.alive.insert(id, Handle { task, wish });
    }

    /// Forgets a worker that has ended. If its container is still wanted, a new worker takes over, unless the control
    /// plane has just heard that the container is gone.
    fn take_end(&mut self, ended: Result<(task::Id, bool), JoinError>, view: &View<Container>) {
        let (task, gone) = ended.unwrap_or_else(|error| {
            tracing::error!(%error, "a container's worker broke off; another one goes on");
            (error.id(), false)
        });
        self.alive.retain(|_, handle| handle.task != task);
        if !gone {
            self.take(view);
        }
    }

    /// Containers that run here but are not bound to this node: the control plane deleted them while this agent was
    /// away.
    async fn adopt_strays(&mut self) {
        self.forget(|_| true).await;
    }

    /// Ends what may no longer run, until `known` says what is wanted.
    async fn end_denied_until<T>(
        &mut self,
        known: impl Future<Output = T>,
        permits: &mut watch::Receiver<Permit>,
    ) -> T {
        tokio::pin!(known);
        loop {
            tokio::select! {
                known = &mut known => return known,
                Ok(()) = permits.changed() => {
                    let context = self.context.clone();
                    self.forget(|run| !context.permits(&run.service, run.never_twice)).await;
                }
            }
        }
    }

    /// Ends the containers that are here, have no worker, and for which `meant` is true.
    async fn forget(&mut self, meant: impl Fn(&RunLabel) -> bool) {
        let runs = self.context.driver(|driver| Ok(driver.list())).await.unwrap_or_default();
        let here = runs.iter().filter_map(|run| RunLabel::of(&run.spec)).filter(meant);
        let here: BTreeSet<ContainerId> = here.map(|label| label.container).collect();
        for id in here {
            if !self.alive.contains_key(&id) {
                self.spawn(id, Wish::Forget);
            }
        }
    }
}

#[cfg(test)]
mod tests;
