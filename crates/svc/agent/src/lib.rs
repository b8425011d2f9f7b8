//! The node's agent: registers the node, watches what is bound to it, runs the containers, checks their health and
//! reports. Keeps everything running while the control plane is away. Knows no scheduler, no proxy and no store.
#![forbid(unsafe_code)]

mod access;
mod callers;
mod context;
#[cfg(test)]
mod fake;
mod launch;
mod lease;
mod node;
mod options;
mod plane;
mod probe;
mod reporter;
mod services;
mod settings;
mod sync;
mod traffic;
mod worker;

pub use access::{AccessError, ExecLines, LogLines};
pub use launch::loopback_port;
pub use options::Options;
pub use traffic::{InProgress, Traffic, Wait};

use callers::Callers;
use context::Context;
use heptad_client::Client;
use heptad_exec::Driver;
use heptad_image::ImageStore;
use heptad_model::ServiceKey;
use heptad_net::{Network, dns::DnsTable};
use lease::Lease;
use services::Services;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// The running things that the agent works with.
#[derive(Clone)]
pub struct Parts {
    /// Runs containers.
    pub driver: Arc<dyn Driver>,
    /// Fetches images.
    pub images: ImageStore,
    /// The container network; `None` with the process driver.
    pub network: Option<Arc<Network>>,
    /// The control plane.
    pub client: Client,
    /// The traffic to the containers; without it, a stop waits for no requests.
    pub traffic: Option<Arc<dyn Traffic>>,
}

/// A running agent. Dropping it ends the agent and leaves the containers running.
pub struct Agent {
    context: Arc<Context>,
    names: watch::Receiver<Arc<DnsTable>>,
    tasks: std::sync::Mutex<JoinSet<()>>,
    /// Reads logs and runs programs here for people.
    asked: Arc<Semaphore>,
}

impl Agent {
    /// Registers the node and begins to work. Adopts the containers of an earlier agent.
    pub async fn start(options: Options, parts: Parts) -> Self {
        let starts = Arc::new(Semaphore::new(options.starts_max));
        let Parts { driver, images, network, client, traffic } = parts;
        let context = Arc::new(Context {
            options,
            driver,
            images,
            network,
            plane: Arc::new(client.clone()),
            client,
            traffic,
            services: Services::default(),
            callers: Callers::default(),
            lease: Lease::default(),
            starts,
            turns: Default::default(),
            health: watch::Sender::default(),
        });
        // Before anybody can ask about a connection.
        context.learn_callers().await;
        let (tell_names, names) = watch::channel(Arc::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(look(context.clone()));
        tasks.spawn(node::watch_health(context.clone()));
        tasks.spawn(node::register_and_beat(context.clone()));
        tasks.spawn(sync::follow(context.clone(), tell_names));
        tasks.spawn(node::collect_images(context.clone()));
        let asked = Arc::new(Semaphore::new(access::ASKED_MAX));
        Self { context, names, tasks: std::sync::Mutex::new(tasks), asked }
    }

    /// Ends the agent. With `remove`, kills and removes all containers that are still here; otherwise they keep
    /// running.
    pub async fn stop(&self, remove: bool) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        tasks.shutdown().await;
        if remove {
            self.context.clone().clear_all().await;
        }
        // Others that hold the driver may live as long as the process does.
        let driver = self.context.driver.clone();
        let _ = tokio::task::spawn_blocking(move || driver.close()).await;
    }

    /// The current names and addresses of all services, for the node's DNS server.
    pub fn names(&self) -> watch::Receiver<Arc<DnsTable>> {
        self.names.clone()
    }

    /// The service of the container with that address.
    pub fn caller_at(&self, address: IpAddr) -> Option<ServiceKey> {
        self.context.callers.at(address)
    }

    /// The service whose process holds the other end of a connection on loopback. Reads /proc.
    pub fn caller_of_connection(&self, peer: SocketAddr, local: SocketAddr) -> Option<ServiceKey> {
        self.context.callers.of_connection(peer, local)
    }
}

async fn look(context: Arc<Context>) {
    context.lease.look(&context.options).await;
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("driver", &self.driver.kind())
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("node", &self.context.options.node).finish_non_exhaustive()
    }
}
