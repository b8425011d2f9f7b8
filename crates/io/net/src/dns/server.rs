//! The sockets and tasks of the DNS server. `answer` decides the answers.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use hickory_proto::op::ResponseCode;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    DnsOptions, DnsTable,
    answer::{Decision, Request, decide, encode},
    forward::{Transport, ask, read_framed, servers, write_framed},
    limit::{Limit, Permit},
};
use crate::{Error, Result};

const UDP_QUERY_BYTES_MAX: usize = 4096;
/// With port 0, the number that UDP got may already be in use for TCP.
const BIND_ATTEMPTS_MAX: usize = 16;
/// Pause after an error of a listening socket, such as too many open files.
const ACCEPT_RETRY_DELAY_MS: u64 = 50;

/// A running DNS server; it ends when this is dropped.
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    udp: Arc<UdpSocket>,
    tcp: Arc<TcpListener>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    options: DnsOptions,
    own: SocketAddr,
    table: watch::Receiver<Arc<DnsTable>>,
    forwards: Arc<Limit>,
    connections: Arc<Limit>,
}

impl DnsServer {
    /// Listens on UDP and TCP. A new table applies from the next query on.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(options: DnsOptions, table: watch::Receiver<Arc<DnsTable>>) -> Result<Self> {
        let subject = format!("DNS sockets at {}", options.listen);
        let (udp, tcp) = bind(options.listen).await.map_err(Error::io("bind", subject.clone()))?;
        Self::serve(options, table, udp, tcp).map_err(Error::io("inspect", subject))
    }

    /// Serves on the sockets of an earlier server, in which queries may be waiting already.
    ///
    /// # Errors
    /// If they are not such sockets.
    pub fn adopt(
        options: DnsOptions,
        table: watch::Receiver<Arc<DnsTable>>,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> Result<Self> {
        let adopted = || {
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Self::serve(options, table, UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?)
        };
        adopted().map_err(Error::io("adopt", "DNS sockets"))
    }

    fn serve(
        options: DnsOptions,
        table: watch::Receiver<Arc<DnsTable>>,
        udp: UdpSocket,
        tcp: TcpListener,
    ) -> io::Result<Self> {
        let own = udp.local_addr()?;
        let shared = Arc::new(Shared {
            own,
            table,
            forwards: Limit::new(options.forwards_in_flight_max),
            connections: Limit::new(options.tcp_connections_max),
            options,
        });
        let (udp, tcp) = (Arc::new(udp), Arc::new(tcp));
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(serve_udp(Arc::clone(&shared), Arc::clone(&udp)))),
            AbortOnDropHandle::new(tokio::spawn(serve_tcp(shared, Arc::clone(&tcp)))),
        ];
        Ok(Self { address: own, udp, tcp, _tasks: tasks })
    }

    /// Copies of its UDP and its TCP socket, for the next server.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub fn sockets(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        Ok((self.udp.as_fd().try_clone_to_owned()?, self.tcp.as_fd().try_clone_to_owned()?))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::from(ErrorKind::AddrInUse);
    for _ in 0..BIND_ATTEMPTS_MAX {
        let udp = UdpSocket::bind(listen).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if listen.port() == 0 => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; UDP_QUERY_BYTES_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "DNS socket");
                sleep(Duration::from_millis(ACCEPT_RETRY_DELAY_MS)).await;
                continue;
            }
        };
        let wire = &buffer[..length];
        match shared.decide(wire) {
            Decision::Reply(answer) => send(&socket, &answer, client).await,
            Decision::Ignore => {}
            Decision::Forward(request) => match shared.forwards.take(client.ip()) {
                Some(permit) => {
                    tokio::spawn(forward_udp(
                        Arc::clone(&shared),
                        Arc::clone(&socket),
                        client,
                        wire.to_vec(),
                        request,
                        permit,
                    ));
                }
                None => send(&socket, &failure(&request), client).await,
            },
        }
    }
}

async fn forward_udp(
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    wire: Vec<u8>,
    request: Box<Request>,
    permit: Permit,
) {
    let mut answer = tokio::select! {
        answer = shared.forward(&wire, &request, Transport::Udp) => answer,
        () = permit.lost().cancelled() => failure(&request),
    };
    if answer.len() > request.udp_payload_bytes() {
        answer = encode(&request.truncated()).unwrap_or_default();
    }
    send(&socket, &answer, client).await;
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if answer.is_empty() {
        return;
    }
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "DNS answer not sent");
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: Arc<TcpListener>) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "DNS listener");
                sleep(Duration::from_millis(ACCEPT_RETRY_DELAY_MS)).await;
                continue;
            }
        };
        // Without a permit the connection is closed at once.
        if let Some(permit) = shared.connections.take(client.ip()) {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                tokio::select! {
                    () = permit.lost().cancelled() => {}
                    served = serve_connection(&shared, stream, client.ip()) => {
                        if let Err(error) = served {
                            tracing::trace!(%error, "DNS connection ended");
                        }
                    }
                }
            });
        }
    }
}

async fn serve_connection(shared: &Shared, mut stream: TcpStream, client: IpAddr) -> io::Result<()> {
    let idle = Duration::from_millis(shared.options.tcp_idle_ms_max);
    loop {
        let wire = timeout(idle, read_framed(&mut stream)).await??;
        let answer = match shared.decide(&wire) {
            Decision::Reply(answer) => answer,
            Decision::Ignore => return Ok(()),
            Decision::Forward(request) => match shared.forwards.take(client) {
                Some(permit) => tokio::select! {
                    answer = shared.forward(&wire, &request, Transport::Tcp) => answer,
                    () = permit.lost().cancelled() => failure(&request),
                },
                None => failure(&request),
            },
        };
        timeout(idle, write_framed(&mut stream, &answer)).await??;
    }
}

impl Shared {
    fn decide(&self, wire: &[u8]) -> Decision {
        let table = Arc::clone(&self.table.borrow());
        decide(wire, &table, self.options.ttl_seconds)
    }

    async fn forward(&self, wire: &[u8], request: &Request, transport: Transport) -> Vec<u8> {
        let servers = servers(&self.options.upstreams, self.own.ip()).await;
        if servers.is_empty() {
            return encode(&request.without_upstreams()).unwrap_or_default();
        }
        let answer = ask(wire, &servers, transport, self.options.upstream_timeout_ms).await;
        answer.unwrap_or_else(|| failure(request))
    }
}

fn failure(request: &Request) -> Vec<u8> {
    encode(&request.error(ResponseCode::ServFail)).unwrap_or_default()
}
