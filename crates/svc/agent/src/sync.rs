//! Compares what is bound to this node with what runs here, and gives each container a worker that brings it there.

use crate::{
    context::Context,
    launch::RunLabel,
    worker::{Wish, Worker},
};
use heptad_client::{Part, View, watch_part, watch_state};
use heptad_exec::ExitEvent;
use heptad_model::{Container, ContainerId, NetworkPolicy, NodeName, Service};
use heptad_net::dns::DnsTable;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinError, JoinSet},
};

/// The workers of this node's containers.
struct Workers {
    context: Arc<Context>,
    alive: BTreeMap<ContainerId, Handle>,
    /// Each gives whether the control plane was told that its container is gone.
    tasks: JoinSet<bool>,
}

struct Handle {
    task: task::Id,
    wish: watch::Sender<Wish>,
    exits: mpsc::UnboundedSender<ExitEvent>,
}

/// Follows the control plane for ever.
pub(crate) async fn follow(context: Arc<Context>, names: watch::Sender<Arc<DnsTable>>) {
    let mut exits = context.driver.exits();
    let mut services = watch_state::<Service>(&context.client);
    let mut policies = watch_state::<NetworkPolicy>(&context.client);
    let mut containers = watch_part::<Container>(&context.client, Part::Node(context.options.node.clone()));
    take_services(&context, &*services.synced().await, &names);
    // Before any container starts: a policy that is missing would let it out.
    take_policies(&context, &*policies.synced().await).await;
    let mut workers = Workers { context: context.clone(), alive: BTreeMap::new(), tasks: JoinSet::new() };
    workers.take(&*containers.synced().await);
    workers.adopt_strays().await;
    loop {
        tokio::select! {
            view = containers.changed() => {
                // Names must be there before containers that ask for them.
                take_services(&context, &services.view(), &names);
                context.services.replace_policies(policies_of(&policies.view()));
                workers.take(&view);
            }
            view = services.changed() => {
                take_services(&context, &view, &names);
                take_policies(&context, &policies.view()).await;
            }
            view = policies.changed() => take_policies(&context, &view).await,
            Some(event) = exits.recv() => workers.tell_exit(event),
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

/// Policies are the proxy's, but for the world outside of the mesh, which the network opens or closes.
async fn take_policies(context: &Context, view: &View<NetworkPolicy>) {
    context.services.replace_policies(policies_of(view));
    context.apply_outside().await;
}

fn policies_of(view: &View<NetworkPolicy>) -> Vec<NetworkPolicy> {
    view.objects.values().map(|item| item.object.clone()).collect()
}

/// The wishes for the containers of `node`.
fn wishes(view: &View<Container>, node: &NodeName) -> BTreeMap<ContainerId, Wish> {
    let bound = view.objects.values().filter(|item| item.object.node.as_ref() == Some(node));
    bound.map(|item| (item.object.id.clone(), Wish::of(item.object.clone()))).collect()
}

impl Workers {
    fn take(&mut self, view: &View<Container>) {
        if !view.synced {
            return;
        }
        let wishes = wishes(view, &self.context.options.node);
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
        let (exits, exit_events) = mpsc::unbounded_channel();
        let worker = Worker::new(id.clone(), self.context.clone(), wishes, exit_events);
        let task = self.tasks.spawn(worker.live()).id();
        self.alive.insert(id, Handle { task, wish, exits });
    }

    /// Forgets a worker that has ended. What is still wished of its container is another one's, unless the control plane
    /// has just been told that the container is gone.
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

    /// Containers that run here but are bound to nobody: the control plane deleted them while this agent was away.
    async fn adopt_strays(&mut self) {
        let runs = self.context.driver(|driver| Ok(driver.list())).await.unwrap_or_default();
        let here: BTreeSet<ContainerId> =
            runs.iter().filter_map(|run| Some(RunLabel::of(&run.spec)?.container)).collect();
        for id in here {
            if !self.alive.contains_key(&id) {
                self.spawn(id, Wish::Forget);
            }
        }
    }

    fn tell_exit(&self, event: ExitEvent) {
        let container = event.id.rsplit_once('.').map_or(event.id.as_str(), |(container, _)| container);
        if let Some(handle) = self.alive.get(&ContainerId::from(container)) {
            // A worker that has ended needs no telling.
            let _ = handle.exits.send(event);
        }
    }
}
