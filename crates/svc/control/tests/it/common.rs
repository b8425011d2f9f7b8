//! A server in a directory of its own, an agent that reports what a real one would, and waiting with a bound.

use heptad_api::{List, operations::ContainerReport};
use heptad_client::{Client, watch_state};
use heptad_control::{Control, ControlHandle, Options, ServerParts};
use heptad_model::{
    Bytes, Container, ContainerStatus, CpuMillis, DesiredState, Node, NodeName, ResourceVector, Service, Snapshot,
};
use heptad_state::{MemoryStore, Store};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::Instant};

/// The longest wait for a state that must come.
const WAIT_S_MAX: u64 = 20;

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) control: ControlHandle,
    pub(crate) client: Client,
}

pub(crate) fn options(dir: &TempDir) -> Options {
    Options {
        socket: Some(dir.path().join("api.sock")),
        tcp: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        token_file: Some(dir.path().join("token")),
        bookmark_interval_ms: 100,
        ..Options::default()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Arc::new(MemoryStore::new()), |_| {}, ServerParts::default()).await
    }

    pub(crate) async fn with(store: Arc<dyn Store>, change: impl FnOnce(&mut Options), parts: ServerParts) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = options(&dir);
        change(&mut options);
        let control = Control::start(options, store, parts).await.expect("the control plane starts");
        let client = Client::unix(control.socket().expect("it has a socket"));
        Self { dir, control, client }
    }

    pub(crate) fn token(&self) -> String {
        let file = self.control.token_file().expect("it has a token");
        std::fs::read_to_string(file).expect("the token is readable").trim().to_owned()
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        let snapshot = self.client.snapshot().await.expect("a snapshot");
        assert_eq!(heptad_model::invariants::verify(&snapshot), [], "at revision {}", snapshot.revision);
        snapshot
    }

    /// Waits until the loop has checked all services again: it has said that one which needs more than any node has no
    /// room.
    pub(crate) async fn looked_again(&self) {
        let mark = Service { resources: resources(1_000_000, 64).into(), ..service("mark", 1) };
        let of_mark = |container: &Container| container.service == mark.key();
        self.client.create(&mark).await.expect("created");
        self.containers_until(|all| all.iter().any(|c| of_mark(c) && c.reason == "Unschedulable")).await;
        self.client.delete::<Service>(&mark.namespace, &mark.name, None).await.expect("deleted");
        self.containers_until(|all| !all.iter().any(of_mark)).await;
    }

    pub(crate) async fn quiet_revision(&self) -> u64 {
        quiet_revision(&self.client).await
    }

    pub(crate) async fn containers(&self) -> Vec<Container> {
        let list: List<Container> = self.client.list().await.expect("a list");
        list.items.into_iter().map(|item| item.object).collect()
    }

    /// Waits until the condition holds for the containers, and returns them.
    pub(crate) async fn containers_until(&self, so: impl Fn(&[Container]) -> bool) -> Vec<Container> {
        let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
        loop {
            let containers = self.containers().await;
            if so(&containers) {
                return containers;
            }
            assert!(Instant::now() < deadline, "the containers are still {containers:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The revision once nothing more is written.
pub(crate) async fn quiet_revision(client: &Client) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    let mut before = 0;
    loop {
        let now = client.version().await.expect("a version").revision;
        if now == before {
            return now;
        }
        assert!(Instant::now() < deadline, "something is still written at revision {now}");
        before = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, so: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S_MAX);
    while !so().await {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn resources(cpu_millis: u64, memory_mib: u64) -> ResourceVector {
    ResourceVector { cpu_millis: CpuMillis(cpu_millis), memory: Bytes::mib(memory_mib), ..ResourceVector::ZERO }
}

pub(crate) fn node(name: &str, cpu_millis: u64, memory_mib: u64) -> Node {
    Node::new(name, resources(cpu_millis, memory_mib))
}

pub(crate) fn service(name: &str, replicas: u32) -> Service {
    let command = vec!["sleep".to_owned(), "1000".to_owned()];
    Service { replicas, command, resources: resources(100, 64).into(), ..Service::new(name, "host") }
}

/// All wanted containers are ready, and there are exactly this many of them.
pub(crate) fn all_ready(count: usize) -> impl Fn(&[Container]) -> bool {
    move |containers| containers.len() == count && containers.iter().all(|c| c.ready && c.is_alive())
}

/// An agent without containers: it reports each as running, ready, gone. Dropping it ends it.
pub(crate) struct Agent {
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub(crate) async fn start(client: &Client, node: &Node) -> Self {
        client.replace(node, None).await.expect("the node registers");
        let (client, name) = (client.clone(), node.name.clone());
        Self { task: tokio::spawn(act(client, name)) }
    }
}

async fn act(client: Client, node: NodeName) {
    let mut state = watch_state::<Container>(&client);
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    loop {
        let view = tokio::select! {
            view = state.changed() => view,
            _ = beat.tick() => {
                let _ = client.heartbeat(&node).await;
                state.view()
            }
        };
        let own = view.objects.values().map(|item| &item.object).filter(|c| c.node.as_ref() == Some(&node));
        for container in own {
            // A lost race is repeated with the next view.
            let _ = match container.desired {
                DesiredState::Stopped => client.delete_container(&container.id, &node).await,
                DesiredState::Running if !container.ready => {
                    client.report_container(&container.id, &running(&node)).await.map(|_| ())
                }
                DesiredState::Running => Ok(()),
            };
        }
    }
}

pub(crate) fn running(node: &NodeName) -> ContainerReport {
    ContainerReport {
        node: node.clone(),
        status: ContainerStatus::Running,
        ready: true,
        started_at_ms: Some(1),
        ..ContainerReport::default()
    }
}
