//! A server of a cluster with TLS on loopback, and clients with certificates, tokens, or nothing.

use heptad_api::trust::{JoinRequest, JoinResponse, JoinRole, JoinTokenRequest, TokenRequest};
use heptad_client::{BoxFuture, Client, Connector, Io, Options as ClientOptions};
use heptad_control::{
    ClusterInit, Control, ControlHandle, Initialized, Options, Peer, ServerParts, ServerTls, Trust, TrustOptions,
};
use heptad_model::NodeName;
use heptad_pki::{ClientAuth, KeyPair, Keyring, TlsIdentity, TrustBundle, client_config_of, client_config_pinned};
use heptad_state::{MemoryStore, Store};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) const HOST: &str = "127.0.0.1";

pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keyring: Keyring,
    pub(crate) made: Initialized,
    pub(crate) trust: Arc<Trust>,
    pub(crate) identity: TlsIdentity,
    pub(crate) control: ControlHandle,
    /// Over the Unix socket.
    pub(crate) operator: Client,
}

/// The way to a server over TLS.
struct Tls {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    token: Option<String>,
}

impl Connector for Tls {
    fn endpoints(&self) -> Vec<String> {
        vec![format!("https://{}", self.address)]
    }

    fn connect(&self, _endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let stream = TcpStream::connect(self.address).await?;
            let name = ServerName::IpAddress(self.address.ip().into());
            let stream = TlsConnector::from(self.config.clone()).connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }

    fn token(&self) -> Option<String> {
        self.token.clone()
    }
}

/// A node that has joined.
pub(crate) struct Joined {
    pub(crate) key: KeyPair,
    pub(crate) answer: JoinResponse,
    pub(crate) client: Client,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::with(TrustOptions::default(), |_| {}).await
    }

    pub(crate) async fn with(options: TrustOptions, change: impl FnOnce(&mut Options)) -> Self {
        Self::on(Arc::new(MemoryStore::new()), options, change).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, options: TrustOptions, change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let keyring = Keyring::generate().expect("a keyring");
        let made = Trust::initialize(&*store, &keyring, &ClusterInit::default()).await.expect("a cluster");
        let trust = Trust::open(store.clone(), keyring.clone(), options).await.expect("it is there");
        let key = KeyPair::generate().expect("a key");
        let identity = trust.server_identity("s1", &key, &[HOST.to_owned()]).await.expect("an identity");
        let tls = identity.server_config(&[b"http/1.1"], ClientAuth::Optional);
        let mut options = Options {
            socket: Some(dir.path().join("api.sock")),
            tls: Some(ServerTls { listen: SocketAddr::from(([127, 0, 0, 1], 0)), tls }),
            audit_dir: Some(dir.path().join("audit")),
            bookmark_interval_ms: 100,
            token_recheck_ms: 50,
            server_name: "s1".to_owned(),
            server_url: Some(format!("https://{HOST}:7443")),
            ..Options::default()
        };
        change(&mut options);
        let parts = ServerParts {
            trust: Some(trust.clone()),
            join_settings: Some(serde_json::json!({ "etcd": ["https://10.0.0.9:2379"] })),
            version: "1".to_owned(),
            ..ServerParts::default()
        };
        let control = Control::start(options, store.clone(), parts).await.expect("the control plane starts");
        let operator = Client::unix(control.socket().expect("it has a socket"));
        Self { dir, store, keyring, made, trust, identity, control, operator }
    }

    pub(crate) fn audit_file(&self) -> PathBuf {
        self.dir.path().join("audit/audit.jsonl")
    }

    fn client(&self, config: Arc<ClientConfig>, token: Option<String>) -> Client {
        let address = self.control.tls().expect("it listens on TLS");
        let connector = Tls { address, config, token };
        Client::with_connector(Arc::new(connector), ClientOptions::default())
    }

    /// Knows the CA only by its pin.
    pub(crate) fn stranger(&self) -> Client {
        self.client(client_config_pinned(&self.made.ca_pin), None)
    }

    /// With a token.
    pub(crate) fn person(&self, token: &str) -> Client {
        self.client(client_config_of(&self.identity.bundle()), Some(token.to_owned()))
    }

    pub(crate) fn admin(&self) -> Client {
        self.person(&self.made.admin_token.expose())
    }

    /// With a new token of this role.
    pub(crate) async fn with_role(&self, role: &str) -> Client {
        let request = TokenRequest { name: role.to_owned(), role: role.parse().expect("a role"), ttl_ms: None };
        let made = self.admin().create_token(&request).await.expect("a token");
        self.person(&made.token)
    }

    /// With a certificate.
    pub(crate) fn certified(&self, chain_pem: &str, bundle_pem: &str, key: &KeyPair) -> Client {
        let bundle = TrustBundle::from_pem(bundle_pem).expect("a bundle");
        let identity = TlsIdentity::new(chain_pem, key, bundle).expect("an identity");
        self.client(identity.client_config(&[b"http/1.1"]), None)
    }

    pub(crate) async fn token_for(&self, request: JoinTokenRequest) -> String {
        self.admin().create_join_token(&request).await.expect("a join token").token
    }

    pub(crate) async fn join(&self, token: &str, name: &str) -> Result<Joined, heptad_client::Error> {
        self.join_as(token, name, JoinRole::Node, KeyPair::generate().expect("a key")).await
    }

    pub(crate) async fn join_as(
        &self,
        token: &str,
        name: &str,
        role: JoinRole,
        key: KeyPair,
    ) -> Result<Joined, heptad_client::Error> {
        let request = JoinRequest {
            token: token.to_owned(),
            csr_pem: key.csr_pem().expect("a request"),
            name: name.to_owned(),
            role,
            address: Some("10.0.0.2:7444".parse().expect("an address")),
        };
        let answer = self.stranger().join(&request).await?;
        let client = self.certified(&answer.certificate_pem, &answer.trust_bundle_pem, &key);
        Ok(Joined { key, answer, client })
    }

    /// A node with room that reports.
    pub(crate) async fn node(&self, name: &str) -> Joined {
        let token = self.token_for(JoinTokenRequest::default()).await;
        let joined = self.join(&token, name).await.expect("it joins");
        joined.client.replace(&crate::common::node(name, 1_000, 1_024), None).await.expect("it registers");
        joined.client.heartbeat(&NodeName::from(name)).await.expect("it is heard");
        joined
    }

    /// A client whose connections are served as if from `peer`.
    pub(crate) fn as_peer(&self, peer: Peer) -> Client {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<tokio::io::DuplexStream>(4);
        // Serving needs the handle, which cannot be shared: each connection is served by a task made here.
        let serve: Vec<_> = (0..4).map(|_| tokio::io::duplex(1 << 16)).collect();
        for (ours, theirs) in serve {
            tokio::spawn(self.control.serve(theirs, peer.clone()));
            sender.try_send(ours).expect("there is room");
        }
        receiver.close();
        Client::with_connector(Arc::new(Made(tokio::sync::Mutex::new(receiver))), ClientOptions::default())
    }
}

/// Connections that were made before.
struct Made(tokio::sync::Mutex<tokio::sync::mpsc::Receiver<tokio::io::DuplexStream>>);

impl Connector for Made {
    fn endpoints(&self) -> Vec<String> {
        vec!["memory".to_owned()]
    }

    fn connect(&self, _endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(async {
            let stream = self.0.lock().await.recv().await.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}
