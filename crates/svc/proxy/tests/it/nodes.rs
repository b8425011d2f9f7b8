//! Proxies of several nodes in one process, joined by connections that can be refused, cut or broken.

use crate::support::*;
use heptad_model::NodeName;
use heptad_proxy::{BoxFuture, Io, Options, Parts, PeerConnector, PeerNode, PeerProtocol, Proxy};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What happens to the connections of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Connections are refused and those that stand are broken.
    Dead,
    /// Nothing passes any more, and neither side is told.
    Cut,
}

#[derive(Default)]
pub(crate) struct Wires {
    proxies: Mutex<BTreeMap<NodeName, Proxy>>,
    faults: Mutex<BTreeMap<NodeName, watch::Sender<Fault>>>,
    /// Nodes whose streams are real TCP connections.
    tcp: Mutex<BTreeSet<NodeName>>,
    pub(crate) made: AtomicUsize,
}

impl Wires {
    fn fault_of(&self, node: &NodeName) -> watch::Sender<Fault> {
        self.faults.lock().expect("no panic").entry(node.clone()).or_default().clone()
    }

    pub(crate) fn set_fault(&self, node: &str, fault: Fault) {
        self.fault_of(&node.into()).send_replace(fault);
    }

    /// From now on, that proxy gets whatever arrives at a node.
    pub(crate) fn attach(&self, node: &str, proxy: &Proxy) {
        self.proxies.lock().expect("no panic").insert(node.into(), proxy.clone());
    }

    pub(crate) fn over_tcp(&self, node: &str) {
        self.tcp.lock().expect("no panic").insert(node.into());
    }

    pub(crate) fn connector(self: &Arc<Self>, from: &str) -> Arc<dyn PeerConnector> {
        Arc::new(Wire { wires: Arc::clone(self), from: PeerNode::node(from) })
    }
}

pub(crate) struct Wire {
    pub(crate) wires: Arc<Wires>,
    /// The identity that the receiver sees for the sender.
    pub(crate) from: PeerNode,
}

impl PeerConnector for Wire {
    fn connect<'a>(&'a self, node: &'a NodeName, protocol: PeerProtocol) -> BoxFuture<'a, io::Result<Box<dyn Io>>> {
        Box::pin(async move {
            let mut fault = self.wires.fault_of(node).subscribe();
            if *fault.borrow() == Fault::Dead {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let _ = fault.wait_for(|fault| *fault != Fault::Cut).await;
            self.wires.made.fetch_add(1, Relaxed);
            let proxy = self.wires.proxies.lock().expect("no panic").get(node).cloned().expect("a node");
            let from = self.from.clone();
            if self.wires.tcp.lock().expect("no panic").contains(node) {
                let (here, there) = tcp_pair().await?;
                tokio::spawn(async move { proxy.serve_peer(there, protocol, from).await });
                return Ok(Box::new(here) as Box<dyn Io>);
            }
            let ((here, mut near), (mut far, there)) = (tokio::io::duplex(64 << 10), tokio::io::duplex(64 << 10));
            tokio::spawn(async move { proxy.serve_peer(there, protocol, from).await });
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = becomes(fault.clone(), Fault::Dead) => {}
                    () = becomes(fault, Fault::Cut) => std::future::pending().await,
                }
            });
            Ok(Box::new(here) as Box<dyn Io>)
        })
    }
}

async fn becomes(mut fault: watch::Receiver<Fault>, wanted: Fault) {
    let _ = fault.wait_for(|fault| *fault == wanted).await;
}

async fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (here, there) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (here, (there, _)) = (here?, there?);
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    Ok((here, there))
}

/// A proxy for each of these nodes, all with the table of `world`.
pub(crate) async fn nodes<const N: usize>(world: &World, names: [&str; N]) -> (Arc<Wires>, [Proxy; N]) {
    nodes_with(world, names, Options::default()).await
}

pub(crate) async fn nodes_with<const N: usize>(
    world: &World,
    names: [&str; N],
    options: Options,
) -> (Arc<Wires>, [Proxy; N]) {
    let wires = Arc::new(Wires::default());
    let mut proxies = Vec::new();
    for name in names {
        let proxy = node(&wires, name, world, options.clone()).await;
        proxies.push(proxy);
    }
    let Ok(proxies) = proxies.try_into() else { panic!("as many as names") };
    (wires, proxies)
}

/// The proxy of one node.
pub(crate) async fn node(wires: &Arc<Wires>, name: &str, world: &World, options: Options) -> Proxy {
    let options = Options { node: Some(name.into()), ..options };
    let connector = Some(wires.connector(name));
    let parts = Parts { connector, table: Some(world.table()), ..Parts::new(resolver()) };
    let proxy = Proxy::start_with(options, parts).await.expect("the proxy starts");
    wires.attach(name, &proxy);
    proxy
}

/// A node `n1` on which `client` calls `web`, whose endpoints are all elsewhere.
pub(crate) fn from_n1(world: World) -> World {
    world.caller_on("n1", "client").caller_on("n1", "stranger")
}

/// A world in which `web` is only on `n2`, a connected pair of nodes, and where n1 serves `web`.
pub(crate) async fn pair(endpoint: SocketAddr) -> (Arc<Wires>, [Proxy; 2], SocketAddr) {
    let world = from_n1(World::new().service("web", &[])).on("n2", "web", &[endpoint]);
    let (wires, proxies) = nodes(&world, ["n1", "n2"]).await;
    let address = listen(&proxies[0], "web").await;
    (wires, proxies, address)
}
