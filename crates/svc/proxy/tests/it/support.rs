//! Worlds of services with real endpoints, and plain clients.

use heptad_model::{
    Container, ContainerId, ContainerStatus, NetworkPolicy, PolicyPeer, Port, Selector, Service, ServiceKey,
    TrafficRule, WeightedBackend,
};
use heptad_proxy::{CallerResolver, Options, Proxy};
use heptad_route::{Caller, Inputs, Table};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

/// No wait in a test should take this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Enough for all who connect at once to a server that a busy machine holds up.
const BACKLOG: u32 = 4_096;

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// Services, their endpoints, policies and rules, from which tables are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) services: Vec<Service>,
    pub(crate) containers: Vec<Container>,
    pub(crate) policies: Vec<NetworkPolicy>,
    pub(crate) rules: Vec<TrafficRule>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::default().service("client", &[]).service("stranger", &[])
    }

    /// A service on port 80 with these endpoints.
    pub(crate) fn service(mut self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let service = Service { ports: vec![Port::tcp(80)], ..Service::new(name, "host") };
        self.services.push(service);
        self.endpoints(name, endpoints)
    }

    /// Replaces the endpoints of a service.
    pub(crate) fn endpoints(mut self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let service = self.services.iter().find(|service| service.name == name).expect("a service").clone();
        self.containers.retain(|container| container.service != service.key());
        for endpoint in endpoints {
            let mut container = Container::pending(ContainerId(format!("{name}-{endpoint}")), &service, 0);
            (container.status, container.ready) = (ContainerStatus::Running, true);
            container.addresses.insert(80, *endpoint);
            self.containers.push(container);
        }
        self
    }

    /// Adds ready endpoints of a service on a node.
    pub(crate) fn on(mut self, node: &str, name: &str, endpoints: &[SocketAddr]) -> Self {
        let service = self.services.iter().find(|service| service.name == name).expect("a service").clone();
        for endpoint in endpoints {
            let mut container = Container::pending(ContainerId(format!("{name}-{node}-{endpoint}")), &service, 0);
            (container.status, container.ready) = (ContainerStatus::Running, true);
            container.node = Some(node.into());
            container.addresses.insert(80, *endpoint);
            self.containers.push(container);
        }
        self
    }

    /// Adds a container of a service that calls from a node and serves nothing.
    pub(crate) fn caller_on(mut self, node: &str, name: &str) -> Self {
        let service = self.services.iter().find(|service| service.name == name).expect("a service").clone();
        let mut container = Container::pending(ContainerId(format!("{name}-{node}")), &service, 0);
        container.node = Some(node.into());
        self.containers.push(container);
        self
    }

    /// Only `callers` may call `target`.
    pub(crate) fn allow(mut self, target: &str, callers: &[&str]) -> Self {
        let peer = |name: &&str| PolicyPeer { services: vec![(*name).to_owned()], ..PolicyPeer::default() };
        self.policies.push(NetworkPolicy {
            id: String::new(),
            name: format!("{target}-callers"),
            namespace: Default::default(),
            selector: Selector { services: vec![target.to_owned()], ..Selector::default() },
            ingress: Some(callers.iter().map(peer).collect()),
            egress: None,
        });
        self
    }

    /// Splits the requests to `service` whose path begins with `prefix`.
    pub(crate) fn split(mut self, service: &str, prefix: &str, backends: &[(&str, u32)]) -> Self {
        let condition = format!(r#"[{{"field":"path","operator":"Prefix","value":"{prefix}"}}]"#);
        self.rules.push(TrafficRule {
            id: String::new(),
            name: format!("{service}-split"),
            namespace: Default::default(),
            service: service.to_owned(),
            priority: 0,
            conditions: serde_json::from_str(&condition).expect("a condition"),
            backends: backends
                .iter()
                .map(|&(name, weight)| WeightedBackend { service: name.to_owned(), weight })
                .collect(),
        });
        self
    }

    pub(crate) fn table_at(&self, revision: u64) -> Arc<Table> {
        let Self { services, containers, policies, rules } = self;
        Arc::new(Table::build(&Inputs { services, containers, policies, rules }).at_revision(revision))
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        let Self { services, containers, policies, rules } = self;
        Arc::new(Table::build(&Inputs { services, containers, policies, rules }))
    }

    pub(crate) async fn start(&self, options: Options) -> Proxy {
        Proxy::start(options, resolver(), self.table()).await.expect("the proxy starts")
    }

    /// A proxy with default options and one listener for `service`.
    pub(crate) async fn serve(&self, service: &str) -> (Proxy, SocketAddr) {
        self.serve_with(service, Options::default()).await
    }

    pub(crate) async fn serve_with(&self, service: &str, options: Options) -> (Proxy, SocketAddr) {
        let proxy = self.start(options).await;
        let address = listen(&proxy, service).await;
        (proxy, address)
    }
}

/// 127.0.0.1 is the service `client`, 127.0.0.2 is `stranger`, all others are outside.
pub(crate) fn resolver() -> Arc<dyn CallerResolver> {
    Arc::new(|peer: SocketAddr, _local: SocketAddr| match peer.ip() {
        IpAddr::V4(ip) if ip.octets() == [127, 0, 0, 1] => Caller::Service(key("client")),
        IpAddr::V4(ip) if ip.octets() == [127, 0, 0, 2] => Caller::Service(key("stranger")),
        _ => Caller::External,
    })
}

/// Opens a listener for port 80 of `service` on a free address.
pub(crate) async fn listen(proxy: &Proxy, service: &str) -> SocketAddr {
    let address = free_address();
    let failed = proxy.set_service_listeners(BTreeMap::from([(address, (key(service), 80))])).await;
    assert!(failed.is_empty(), "{failed:?}");
    address
}

/// An address on which nothing listens.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound")
}

/// Runs `serve` for every connection to the address that is returned; ends when the handle is aborted.
pub(crate) async fn tcp_server<F, S>(serve: S) -> (SocketAddr, JoinHandle<()>)
where
    S: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("loopback has free ports");
    let listener = socket.listen(BACKLOG).expect("it listens");
    let address = listener.local_addr().expect("it is bound");
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            connections.spawn(serve(stream));
            while connections.try_join_next().is_some() {}
        }
    });
    (address, task)
}

/// An HTTP endpoint that answers by `answer`.
pub(crate) async fn http_server<F, S, B>(answer: S) -> (SocketAddr, JoinHandle<()>)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    tcp_server(move |stream| {
        let answer = answer.clone();
        async move {
            let service = service_fn(|request| {
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        }
    })
    .await
}

/// An HTTP endpoint that answers with its name.
pub(crate) async fn named(name: &'static str) -> SocketAddr {
    http_server(move |_| async move { Response::new(name.to_owned()) }).await.0
}

/// An HTTP endpoint that answers with the head it received, one `name: value` per line after the request line.
pub(crate) async fn mirror() -> SocketAddr {
    http_server(|request| async move {
        let mut text = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        Response::new(text)
    })
    .await
    .0
}

/// An HTTP endpoint that streams a request's body back.
pub(crate) async fn echo() -> SocketAddr {
    http_server(|request: Request<Incoming>| async move { Response::new(request.into_body()) }).await.0
}

pub(crate) async fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("loopback has every 127.0.0.0/8 address");
    let stream = socket.connect(to).await.expect("the proxy accepts");
    stream.set_nodelay(true).expect("TCP");
    stream
}

/// A client with one kept connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: hyper::client::conn::http1::SendRequest<String>,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::connect_from("127.0.0.1", to).await
    }

    pub(crate) async fn connect_from(from: &str, to: SocketAddr) -> Self {
        let io = TokioIo::new(connect_from(from, to).await);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("a handshake");
        tokio::spawn(connection);
        Self { sender }
    }

    pub(crate) async fn send(&mut self, request: Request<String>) -> Result<(u16, String), hyper::Error> {
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    pub(crate) async fn get(&mut self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "web").body(String::new()).expect("a request");
        self.send(request).await.expect("a response")
    }
}

/// Sends `bytes` on a new connection and reads to its end, or for as long as the peer is quiet.
pub(crate) async fn raw(to: SocketAddr, bytes: &[u8], quiet: Duration) -> String {
    let mut stream = connect_from("127.0.0.1", to).await;
    stream.write_all(bytes).await.expect("the proxy reads");
    let mut all = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(quiet, stream.read_buf(&mut all)).await {}
    String::from_utf8_lossy(&all).into_owned()
}
