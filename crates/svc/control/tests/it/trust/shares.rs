//! What one party can take from the others: nobody, whoever it is and whatever it holds open, keeps others from being heard.

use super::cluster::{Cluster, HOST, Joined};
use crate::common::{service, until};
use heptad_api::{ErrorCode, trust::JoinTokenRequest};
use heptad_client::Client;
use heptad_control::TrustOptions;
use heptad_model::{Node, NodeName, NodeStatus, Service};
use heptad_pki::{Credential, TlsIdentity, TrustBundle, client_config_of, client_config_pinned};
use heptad_state::{BoxFuture, Layer, MemoryStore, RangeRequest, RangeResponse, Store};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{any::Any, collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// More than there is of anything.
const MANY: usize = 40;

/// What everybody has of requests and watches.
const SHARE: usize = 4;

/// What a party holds open.
type Held = Vec<Box<dyn Any + Send>>;

/// Who takes as much as it can, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    /// Connects to the TLS port and says nothing.
    SilentStranger,
    /// Shakes hands and says nothing.
    ShakenStranger,
    /// Sends the body of a join slowly.
    SlowStranger,
    /// Another user of this machine, who connects to the loopback port and says nothing.
    SilentUser,
    /// The same, with a request whose body comes slowly and that has no token.
    SlowUser,
    /// Sends tokens that nobody has.
    WrongTokens,
    /// A person who reads: bodies that come slowly.
    SlowViewer,
    /// The same: watches.
    WatchingViewer,
    /// Somebody who may write in one namespace: watches.
    WatchingDeployer,
    /// A node: bodies that come slowly.
    SlowNode,
    /// A node: watches.
    WatchingNode,
}

const PARTIES: [Party; 11] = [
    Party::SilentStranger,
    Party::ShakenStranger,
    Party::SlowStranger,
    Party::SilentUser,
    Party::SlowUser,
    Party::WrongTokens,
    Party::SlowViewer,
    Party::WatchingViewer,
    Party::WatchingDeployer,
    Party::SlowNode,
    Party::WatchingNode,
];

struct World {
    cluster: Cluster,
    n1: Joined,
    n2: Joined,
    admin: Client,
    viewer: (String, Client),
    deployer: (String, Client),
    other_viewer: Client,
}

impl World {
    async fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new())).await
    }

    async fn on(store: Arc<dyn Store>) -> Self {
        let cluster = Cluster::on(store, TrustOptions::default(), |options| {
            options.tcp = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
            options.token_file = options.socket.as_ref().map(|socket| socket.with_file_name("token"));
            (options.requests_max, options.requests_each_max) = (16, SHARE);
            (options.streams_max, options.streams_each_max) = (16, SHARE);
            (options.connections_max, options.connections_each_max) = (32, 8);
            (options.strangers_max, options.strangers_each_max) = (16, 8);
        })
        .await;
        let (n1, n2, admin) = (cluster.node("n1").await, cluster.node("n2").await, cluster.admin());
        let token = async |role: &str| {
            let request = heptad_api::trust::TokenRequest {
                name: role.to_owned(),
                role: role.parse().expect("a role"),
                ttl_ms: None,
            };
            admin.create_token(&request).await.expect("a token").token
        };
        let (viewer, deployer) = (token("viewer").await, token("deployer:shop").await);
        let viewer = (viewer.clone(), cluster.person(&viewer));
        let deployer = (deployer.clone(), cluster.person(&deployer));
        let other_viewer = cluster.with_role("viewer").await;
        Self { cluster, n1, n2, admin, viewer, deployer, other_viewer }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.cluster.control.tls().expect("it listens on TLS")).await.expect("connected")
    }

    async fn tls(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(HOST).expect("a name");
        TlsConnector::from(config).connect(name, self.tcp().await).await
    }

    async fn loopback(&self) -> TcpStream {
        TcpStream::connect(self.cluster.control.tcp().expect("it listens on TCP")).await.expect("connected")
    }

    fn stranger(&self) -> Arc<ClientConfig> {
        client_config_pinned(&self.cluster.made.ca_pin)
    }

    fn node_config(&self, node: &Joined) -> Arc<ClientConfig> {
        let bundle = TrustBundle::from_pem(&node.answer.trust_bundle_pem).expect("a bundle");
        let identity = TlsIdentity::new(&node.answer.certificate_pem, &node.key, bundle).expect("an identity");
        identity.client_config(&[b"http/1.1"])
    }

    /// A request of a person with this token, whose body comes slowly.
    async fn slow_person(&self, token: &str) -> (TlsStream<TcpStream>, String) {
        let stream = self.tls(client_config_of(&self.cluster.identity.bundle())).await.expect("shaken hands");
        begun(stream, "POST /v1/plan", &format!("Authorization: Bearer {token}\r\n")).await
    }

    /// Takes as much as `party` can, and holds it: its share at least.
    async fn attack(&self, party: Party) -> Held {
        let mut held: Held = Vec::new();
        let mut answers = BTreeMap::new();
        let wrong = Credential::generate().expect("a token").expose().to_string();
        for _ in 0..MANY {
            let (one, answer): (Box<dyn Any + Send>, String) = match party {
                Party::SilentStranger => (Box::new(self.tcp().await), "connected".to_owned()),
                Party::ShakenStranger => {
                    (Box::new(self.tls(self.stranger()).await.expect("shaken hands")), "connected".to_owned())
                }
                Party::SlowStranger => {
                    let stream = self.tls(self.stranger()).await.expect("shaken hands");
                    boxed(begun(stream, "POST /v1/join", "").await)
                }
                Party::SilentUser => (Box::new(self.loopback().await), "connected".to_owned()),
                Party::SlowUser => boxed(begun(self.loopback().await, "POST /v1/apply", "").await),
                Party::WrongTokens => boxed(self.slow_person(&wrong).await),
                Party::SlowViewer => boxed(self.slow_person(&self.viewer.0).await),
                Party::SlowNode => {
                    let stream = self.tls(self.node_config(&self.n1)).await.expect("shaken hands");
                    boxed(begun(stream, "PUT /v1/nodes/n1", "").await)
                }
                Party::WatchingViewer => watching(self.viewer.1.watch::<Service>(None).await),
                Party::WatchingDeployer => watching(self.deployer.1.watch::<Service>(None).await),
                Party::WatchingNode => watching(self.n1.client.watch::<Service>(None).await),
            };
            held.push(one);
            *answers.entry(answer).or_default() += 1;
        }
        // Connections are accepted in their order: all of these have been, once one more has.
        match party {
            Party::SilentStranger => drop(self.tls(self.stranger()).await.expect("shaken hands")),
            Party::SilentUser => drop(begun(self.loopback().await, "POST /v1/apply", "").await),
            _ => {}
        }
        let meant: &[(&str, usize)] = match party {
            Party::SilentStranger | Party::ShakenStranger | Party::SilentUser => &[("connected", MANY)],
            Party::SlowStranger => &[("100", MANY)],
            Party::SlowUser | Party::WrongTokens => &[("401", MANY)],
            Party::SlowViewer | Party::SlowNode => &[("100", SHARE), ("429", MANY - SHARE)],
            Party::WatchingViewer | Party::WatchingDeployer | Party::WatchingNode => {
                &[("watching", SHARE), ("429", MANY - SHARE)]
            }
        };
        let meant: BTreeMap<String, usize> = meant.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
        assert_eq!(answers, meant, "what {party:?} got");
        held
    }

    /// Everybody but the party itself is heard: old and new connections, requests, watches, heartbeats, a join.
    async fn others_are_heard(&self, party: Party, round: usize) {
        let operator = &self.cluster.operator;
        operator.list::<Node>().await.expect("the operator is heard");
        operator.watch::<Service>(None).await.expect("the operator has a watch");
        for (name, client) in [("admin", &self.admin), ("viewer", &self.other_viewer), ("n2", &self.n2.client)] {
            client.list::<Node>().await.unwrap_or_else(|error| panic!("{party:?}: {name} is not heard: {error}"));
            let watch = client.watch::<Service>(None).await;
            watch.unwrap_or_else(|error| panic!("{party:?}: {name} has no watch: {error}"));
        }
        // A node that does what it may not is still alive.
        for (name, node) in [("n1", &self.n1), ("n2", &self.n2)] {
            let beat = node.client.heartbeat(&NodeName::from(name)).await;
            beat.unwrap_or_else(|error| panic!("{party:?}: {name}'s heartbeat is not heard: {error}"));
        }
        let loopback = self.cluster.control.tcp().expect("it listens on TCP");
        let file = self.cluster.control.token_file().expect("it has a token");
        let token = std::fs::read_to_string(file).expect("readable").trim().to_owned();
        Client::tcp(loopback, token).version().await.expect("loopback with its token is heard");
        let token = self.cluster.token_for(JoinTokenRequest::default()).await;
        let joined = self.cluster.join(&token, &format!("new{round}")).await;
        assert!(joined.is_ok(), "{party:?}: a machine cannot join: {:?}", joined.err());
    }
}

/// A request whose body never ends, sent so far that the server waits for the body, or has answered; and the status that it
/// answered.
async fn begun<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, line: &str, headers: &str) -> (S, String) {
    let head =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = [0; 1_024];
    let bytes = stream.read(&mut answer).await.expect("answered");
    let answer = String::from_utf8_lossy(&answer[..bytes]).into_owned();
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    (stream, status)
}

fn boxed<S: Any + Send>((stream, answer): (S, String)) -> (Box<dyn Any + Send>, String) {
    (Box::new(stream), answer)
}

fn watching<W: Any + Send>(watch: Result<W, heptad_client::Error>) -> (Box<dyn Any + Send>, String) {
    let answer = match &watch {
        Ok(_) => "watching".to_owned(),
        Err(heptad_client::Error::Problem(problem)) => problem.status.to_string(),
        Err(error) => error.to_string(),
    };
    (Box::new(watch), answer)
}

/// A store in which one token is looked up for as long as the gate is closed.
#[derive(Debug)]
struct SlowToken {
    inner: MemoryStore,
    id: String,
    looked_up: watch::Sender<usize>,
    open: watch::Sender<bool>,
}

impl Layer for SlowToken {
    fn inner(&self) -> &dyn Store {
        &self.inner
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, heptad_state::Result<RangeResponse>> {
        Box::pin(async move {
            if format!("{request:?}").contains(&self.id) {
                self.looked_up.send_modify(|count| *count += 1);
                let _ = self.open.subscribe().wait_for(|open| *open).await;
            }
            self.inner.range(request).await
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_wrong_tokens_are_looked_up_at_once() {
    let wrong = Credential::generate().expect("a token");
    let store = Arc::new(SlowToken {
        inner: MemoryStore::new(),
        id: wrong.id().to_owned(),
        looked_up: watch::Sender::new(0),
        open: watch::Sender::new(false),
    });
    let world = World::on(store.clone()).await;
    // Their connections are theirs from here on.
    for person in [&world.viewer.1, &world.other_viewer] {
        person.list::<Node>().await.expect("listed");
    }
    let wrong = wrong.expose().to_string();
    let head =
        |token: &str| format!("GET /v1/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut own = Vec::new();
    for _ in 0..SHARE {
        let mut known = world.tls(client_config_of(&world.cluster.identity.bundle())).await.expect("shaken hands");
        known.write_all(head(&world.viewer.0).as_bytes()).await.expect("sent");
        let mut answer = [0; 4_096];
        assert!(known.read(&mut answer).await.expect("answered") > 0 && answer.starts_with(b"HTTP/1.1 200"));
        own.push(known);
    }
    let mut first = Box::pin(world.slow_person(&wrong));
    let mut looked_up = store.looked_up.subscribe();
    tokio::select! {
        (_, status) = &mut first => panic!("it was answered {status}"),
        _ = looked_up.wait_for(|count| *count == 1) => {}
    }
    for _ in 0..MANY {
        assert_eq!(world.slow_person(&wrong).await.1, "429");
    }
    // Whoever is known does not share with them; over a connection of its own it is its own share.
    let viewer = &world.viewer.1;
    viewer.list::<Node>().await.expect("listed");
    for (count, known) in own.iter_mut().enumerate() {
        known.write_all(head(&wrong).as_bytes()).await.expect("sent");
        looked_up.wait_for(|known| *known == count + 2).await.expect("it is looked up");
    }
    let error = viewer.list::<Node>().await.expect_err("it has its share");
    assert_eq!(error.code(), Some(ErrorCode::Busy));
    world.other_viewer.list::<Node>().await.expect("others have theirs");
    store.open.send_replace(true);
    assert_eq!(first.await.1, "401");
    until("the viewer is heard again", async || viewer.list::<Node>().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_what_others_need() {
    let world = World::new().await;
    for (round, party) in PARTIES.into_iter().enumerate() {
        let held = world.attack(party).await;
        world.others_are_heard(party, round).await;
        drop(held);
    }
    let nodes = world.cluster.operator.list::<Node>().await.expect("listed").items;
    // Those that only joined have no agent.
    for item in nodes.iter().filter(|item| !item.object.name.as_str().starts_with("new")) {
        assert_eq!(item.object.status, NodeStatus::Ready, "{item:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_too_much_is_told_so_and_gets_on_when_it_gives_back() {
    let world = World::new().await;
    let viewer = &world.viewer.1;
    let mut watches = Vec::new();
    let error = loop {
        match viewer.watch::<Service>(None).await {
            Ok(watch) => watches.push(watch),
            Err(error) => break error,
        }
    };
    assert_eq!((watches.len(), error.code()), (SHARE, Some(ErrorCode::Busy)));
    assert!(error.to_string().contains("you have 4 watches"), "{error}");
    drop(watches);
    until("the viewer has a watch again", async || viewer.watch::<Service>(None).await.is_ok()).await;
    // What a stranger may send is little.
    let mut stream = world.tls(world.stranger()).await.expect("shaken hands");
    let head = "POST /v1/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let _ = stream.write_all(&[b' '; 100_000]).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 413");
    world.admin.create(&service("web", 0)).await.expect("a person may send more");
}
