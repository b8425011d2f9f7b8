//! Members against each other over real TLS, with a control plane in this process: who may speak what on a node port,
//! and who no longer may.

use crate::{
    Caller, Member, MemberFiles, MemberStream, Members, NodePort, NodeServices, PersonConnector, ServerConnector,
    ServerList, Spoken, Wires,
    join::{Joining, join, join_over},
    unix_ms,
};
use heptad_api::{
    ErrorCode,
    trust::{JoinRole, JoinTokenRequest},
};
use heptad_client::{BoxFuture, Client, Options};
use heptad_control::{ClusterInit, Control, ControlHandle, ServerParts, ServerTls, Trust, TrustOptions};
use heptad_model::{Namespace, Node};
use heptad_pki::{CaPin, ClientAuth, Ended, KeyPair, Keyring, TlsIdentity};
use heptad_state::{MemoryStore, Store};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Sends back what it gets.
struct Echo;

impl NodeServices for Echo {
    fn serve(&self, _spoken: Spoken, _caller: Caller, stream: MemberStream) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            tokio::io::copy(&mut reader, &mut writer).await.map(drop)
        })
    }
}

/// A control plane with its identity.
struct World {
    dir: tempfile::TempDir,
    control: ControlHandle,
    trust: Arc<Trust>,
    /// In the same cluster; whatever it signs has already ended on arrival.
    ending: Arc<Trust>,
    pin: CaPin,
    operator: Client,
    url: String,
}

fn api_config(identity: &TlsIdentity) -> Arc<rustls::ServerConfig> {
    identity.server_config_with(&[b"http/1.1"], ClientAuth::Optional, Ended::Passed)
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let keyring = Keyring::generate().expect("a keyring");
        let made = Trust::initialize(&*store, &keyring, &ClusterInit::default()).await.expect("a cluster");
        let trust = Trust::open(store.clone(), keyring.clone(), TrustOptions::default()).await.expect("opened");
        let at_once = TrustOptions { certificate_ttl_ms: 1, ..TrustOptions::default() };
        let ending = Trust::open(store.clone(), keyring, at_once).await.expect("opened");
        let key = KeyPair::generate().expect("a key");
        let identity = trust.server_identity("s1", &key, &["127.0.0.1".to_owned()]).await.expect("an identity");
        let free = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let listen = free.local_addr().expect("an address");
        drop(free);
        let url = format!("https://{listen}");
        let socket = dir.path().join("api.sock");
        let options = heptad_control::Options {
            socket: Some(socket.clone()),
            server_name: "s1".to_owned(),
            server_url: Some(url.clone()),
            tls: Some(ServerTls { listen, tls: api_config(&identity) }),
            ..Default::default()
        };
        let parts = ServerParts { trust: Some(trust.clone()), version: "test".to_owned(), ..ServerParts::default() };
        let control = Control::start(options, store, parts).await.expect("started");
        Self { operator: Client::unix(&socket), dir, control, trust, ending, pin: made.ca_pin, url }
    }

    async fn token(&self, uses: u32) -> String {
        let request = JoinTokenRequest { uses, ..JoinTokenRequest::default() };
        self.operator.create_join_token(&request).await.expect("a token").token
    }

    fn joining(&self, name: &str, token: &str, port: u16) -> Joining {
        Joining {
            server: self.url.clone(),
            token: token.to_owned(),
            ca_pin: self.pin.to_string(),
            name: name.to_owned(),
            advertise: Some(IpAddr::from([127, 0, 0, 1])),
            port,
            labels: Default::default(),
            devices: Default::default(),
        }
    }

    fn data(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// A node that has joined, and its port.
    async fn node(&self, name: &str) -> TestNode {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (data, token) = (self.data(name), self.token(1).await);
        let (member, _) = join(&data, JoinRole::Node, &self.joining(name, &token, port)).await.expect("joined");
        TestNode::start(&data, member, listener, None).await
    }

    /// Makes the certificate in this directory end. Returns the client that presents it.
    async fn let_end(&self, name: &str) -> Client {
        let files = MemberFiles::of_node(&self.data(name));
        let csr = files.load().expect("a node").key.csr_pem().expect("a request");
        let ended = self.ending.enroll_node(&name.into(), &csr, None).await.expect("signed");
        files.save_certificate(&ended.certificate_pem, &ended.trust_bundle_pem).expect("kept");
        let loaded = files.load().expect("it can be read");
        assert!(loaded.identity.own().not_after_ms <= unix_ms());
        let servers = ServerList::new(loaded.member.servers);
        let connector = ServerConnector { servers, wires: Wires::new(loaded.identity) };
        Client::with_connector(Arc::new(connector), Options::default())
    }

    /// The server's own way to nodes.
    async fn server_members(&self) -> Members {
        let key = KeyPair::generate().expect("a key");
        let identity = self.trust.server_identity("s1", &key, &[]).await.expect("an identity");
        Members::follow(&self.operator, Wires::new(identity))
    }
}

struct TestNode {
    client: Client,
    members: Members,
    port: NodePort,
}

impl TestNode {
    /// Uses the node list of `lists`, if its own certificate opens none.
    async fn start(data: &Path, member: Member, listener: TcpListener, lists: Option<&Client>) -> Self {
        let loaded = MemberFiles::of_node(data).load().expect("it has joined");
        assert_eq!(loaded.member, member);
        let wires = Wires::new(loaded.identity.clone());
        let connector = ServerConnector { servers: ServerList::new(member.servers), wires: wires.clone() };
        let client = Client::with_connector(Arc::new(connector), Options::default());
        let members = Members::follow(lists.unwrap_or(&client), wires);
        let port = NodePort::start(listener, &loaded.identity, members.clone(), Arc::new(Echo));
        let port = port.expect("a node port");
        Self { client, members, port }
    }
}

/// Whether the node port lets this protocol be spoken: it then waits for a request, else it closes.
async fn may_speak(members: &Members, node: &str, spoken: Spoken) -> bool {
    let Ok(mut stream) = members.dial(&node.into(), spoken).await else { return false };
    if stream.write_all(b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n").await.is_err() {
        return false;
    }
    let mut one = [0];
    matches!(tokio::time::timeout(Duration::from_secs(5), stream.read(&mut one)).await, Ok(Ok(1)))
}

#[tokio::test]
async fn a_machine_joins_and_speaks_to_the_servers_as_the_node_that_it_is() {
    let world = World::new().await;
    let node = world.node("n1").await;
    assert_eq!(node.client.whoami().await.expect("known").principal, "node/n1");
    let listed = world.operator.get::<Node>(&Namespace::default(), "n1").await.expect("a node").object;
    assert_eq!(listed.address, Some(node.port.address));
    assert!(listed.key_sha256.is_some());
    world.control.shutdown().await;
}

#[tokio::test]
async fn joins_that_must_fail_say_why() {
    let world = World::new().await;
    let token = world.token(1).await;
    let other = KeyPair::generate().expect("a key");
    let wrong = Joining { ca_pin: format!("sha256:{}", other.sha256()), ..world.joining("n1", &token, 1) };
    let error = join(&world.data("a"), JoinRole::Node, &wrong).await.expect_err("another CA");
    assert!(format!("{error:#}").contains("Copy the line"), "{error:#}");
    join(&world.data("b"), JoinRole::Node, &world.joining("n1", &token, 1)).await.expect("it was not used up");
    let error = join(&world.data("b"), JoinRole::Node, &world.joining("n1", &token, 1)).await.expect_err("again");
    assert!(error.to_string().contains("already"), "{error:#}");
    let error = join(&world.data("c"), JoinRole::Node, &world.joining("n2", &token, 1)).await.expect_err("used up");
    assert!(format!("{error:#}").contains("used up"), "{error:#}");
    let fresh = world.token(1).await;
    let error = join(&world.data("d"), JoinRole::Node, &world.joining("n1", &fresh, 1)).await.expect_err("taken");
    assert!(format!("{error:#}").contains("node/n1"), "{error:#}");
    assert!(!MemberFiles::of_node(&world.data("d")).exist());
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_repeated_with_the_same_key() {
    let world = World::new().await;
    let token = world.token(1).await;
    let files = MemberFiles::of_node(&world.data("n1"));
    let connector = PersonConnector::pinned(&world.url, None, &world.pin);
    let client = Client::with_connector(Arc::new(connector), Options::default());
    let joining = world.joining("n1", &token, 1);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    join_over(&client, &files, JoinRole::Node, &joining, address, None).await.expect("joined");
    let first = files.key().expect("readable").expect("kept").sha256();
    std::fs::remove_file(files.dir().join("member.json")).expect("as if it had not been finished");
    join_over(&client, &files, JoinRole::Node, &joining, address, None).await.expect("joined again");
    assert_eq!(files.key().expect("readable").expect("kept").sha256(), first);
}

#[tokio::test]
async fn a_node_port_serves_members_alone_and_only_servers_may_ask_for_containers() {
    let world = World::new().await;
    let (one, two) = (world.node("n1").await, world.node("n2").await);
    let server = world.server_members().await;
    assert!(may_speak(&server, "n1", Spoken::Node).await);
    assert!(!may_speak(&two.members, "n1", Spoken::Node).await, "nodes do not ask nodes for containers");
    assert!(two.members.dial(&"n1".into(), Spoken::Mesh).await.is_ok());
    assert!(one.members.dial(&"n2".into(), Spoken::Stream).await.is_ok());
    // Anybody else: without a certificate, nothing is spoken.
    let stranger = heptad_pki::client_config_of(&world.trust.bundle().await.expect("roots"));
    let dialled = crate::connect::dial(one.port.address, stranger).await;
    assert!(dialled.is_err(), "its certificate is no server's, and none was shown");
}

#[tokio::test]
async fn a_removed_node_is_refused_by_the_others_at_once() {
    let world = World::new().await;
    let (one, two) = (world.node("n1").await, world.node("n2").await);
    assert!(two.members.dial(&"n1".into(), Spoken::Mesh).await.is_ok());
    world.operator.delete::<Node>(&Namespace::default(), "n2", None).await.expect("removed");
    let until = unix_ms() + 5_000;
    // As soon as the others have heard of it.
    while may_speak(&two.members, "n1", Spoken::Mesh).await {
        assert!(unix_ms() < until, "n2 still gets through");
    }
    let gone = one.members.dial(&"n2".into(), Spoken::Mesh).await.expect_err("no member");
    assert!(gone.to_string().contains("not a member"), "{gone}");
    assert!(two.client.cluster().await.is_err(), "nor do the servers know it");
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_renewed_with_the_key_of_its_node_and_opens_nothing_else() {
    let world = World::new().await;
    world.node("n1").await;
    let ended = world.let_end("n1").await;
    let key = MemberFiles::of_node(&world.data("n1")).load().expect("a node").key;
    for refused in [ended.whoami().await.map(drop), ended.list::<Node>().await.map(drop)] {
        let error = refused.expect_err("it may do nothing");
        assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
        assert!(error.to_string().contains("has ended"), "{error}");
    }
    let other = KeyPair::generate().expect("a key").csr_pem().expect("a request");
    let error = ended.renew_certificate(&other).await.expect_err("another key");
    assert_eq!(error.code(), Some(ErrorCode::Forbidden));
    let csr = key.csr_pem().expect("a request");
    let answer = ended.renew_certificate(&csr).await.expect("renewed");
    MemberFiles::of_node(&world.data("n1"))
        .save_certificate(&answer.certificate_pem, &answer.trust_bundle_pem)
        .expect("kept");
    let loaded = MemberFiles::of_node(&world.data("n1")).load().expect("a node");
    assert!(loaded.identity.own().not_after_ms > unix_ms());
    let connector =
        ServerConnector { servers: ServerList::new(loaded.member.servers), wires: Wires::new(loaded.identity) };
    let renewed = Client::with_connector(Arc::new(connector), Options::default());
    assert_eq!(renewed.whoami().await.expect("known").principal, "node/n1");
    // Neither an earlier key of the node nor that of a removed node.
    let named = JoinTokenRequest { name: Some("n1".to_owned()), ..JoinTokenRequest::default() };
    let token = world.operator.create_join_token(&named).await.expect("a token").token;
    join(&world.data("other"), JoinRole::Node, &world.joining("n1", &token, 1)).await.expect("it replaces n1");
    assert_eq!(ended.renew_certificate(&csr).await.expect_err("replaced").code(), Some(ErrorCode::NodeRemoved));
    world.operator.delete::<Node>(&Namespace::default(), "n1", None).await.expect("removed");
    assert_eq!(ended.renew_certificate(&csr).await.expect_err("removed").code(), Some(ErrorCode::NodeRemoved));
}

#[tokio::test]
async fn nodes_whose_certificates_have_ended_reach_each_other_until_they_are_removed() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for name in ["n1", "n2"] {
        let data = world.data(name);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let token = world.token(1).await;
        let (member, _) = join(&data, JoinRole::Node, &world.joining(name, &token, port)).await.expect("joined");
        world.let_end(name).await;
        nodes.push(TestNode::start(&data, member, listener, Some(&world.operator)).await);
    }
    assert!(may_speak(&nodes[1].members, "n1", Spoken::Mesh).await);
    assert!(nodes[0].members.dial(&"n2".into(), Spoken::Stream).await.is_ok());
    world.operator.delete::<Node>(&Namespace::default(), "n2", None).await.expect("removed");
    let until = unix_ms() + 30_000;
    while may_speak(&nodes[1].members, "n1", Spoken::Mesh).await {
        assert!(unix_ms() < until, "n2 still gets through");
    }
}

#[tokio::test]
async fn a_node_that_was_off_for_too_long_or_removed_joins_again_with_its_data() {
    let world = World::new().await;
    let data = world.data("n1");
    let token = world.token(1).await;
    let labels = [("zone".to_owned(), "a".to_owned())].into();
    let first = Joining { labels, ..world.joining("n1", &token, 7) };
    join(&data, JoinRole::Node, &first).await.expect("joined");
    std::fs::create_dir_all(data.join("storage/disk1")).expect("a directory");
    std::fs::write(data.join("storage/disk1/segment"), "bytes").expect("written");
    let key = MemberFiles::of_node(&data).load().expect("a node").key.sha256();
    let again = async |name: &str| join(&data, JoinRole::Node, &world.joining(name, &world.token(1).await, 8)).await;
    let error = again("n1").await.expect_err("it is a member");
    assert!(format!("{error:#}").contains("already"), "{error:#}");
    for removed in [false, true] {
        match removed {
            false => drop(world.let_end("n1").await),
            true => drop(world.operator.delete::<Node>(&Namespace::default(), "n1", None).await.expect("removed")),
        }
        let error = again("n2").await.expect_err("the data is of n1");
        assert!(format!("{error:#}").contains("--name n1"), "{error:#}");
        let (member, _) = again("n1").await.expect("it joins again");
        assert_eq!((member.labels.get("zone").map(String::as_str), member.advertise.port()), (Some("a"), 8));
        let loaded = MemberFiles::of_node(&data).load().expect("a node");
        assert_eq!(loaded.key.sha256(), key);
        assert!(loaded.identity.own().not_after_ms > unix_ms());
        assert!(data.join("storage/disk1/segment").is_file());
    }
}
