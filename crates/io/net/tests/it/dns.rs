//! Names: a real resolver in a container, UDP and TCP, the outside's resolver, and its absence.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use heptad_net::{
    Options,
    dns::{DnsOptions, DnsServer, DnsTable, Upstreams},
    hosts_file, resolv_conf,
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

use crate::world::{ids, on_a_host, process};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 7);
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

fn table() -> Arc<DnsTable> {
    let names = [("web.shop.internal", WEB), ("api.other.internal", Ipv4Addr::new(10, 89, 0, 8))];
    Arc::new(names.into_iter().map(|(name, ip)| (name.to_owned(), ip)).collect())
}

async fn server(listen: SocketAddr, upstreams: Vec<SocketAddr>) -> (DnsServer, watch::Sender<Arc<DnsTable>>) {
    let (sender, receiver) = watch::channel(table());
    let upstreams = Upstreams::Fixed(upstreams);
    let options =
        DnsOptions { listen, upstreams, upstream_timeout_ms: 300, forwards_in_flight_max: 2, ..DnsOptions::default() };
    (DnsServer::start(options, receiver).await.expect("DNS starts"), sender)
}

fn query(name: &str) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a literal"), RecordType::A));
    message
}

async fn udp(server: SocketAddr, name: &str) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    socket.send_to(&query(name).to_vec().expect("encodes"), server).await.expect("sends");
    let mut buffer = [0; 4096];
    let length = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("in time").expect("an answer");
    Message::from_vec(&buffer[..length]).expect("decodes")
}

async fn tcp(stream: &mut TcpStream, name: &str) -> Message {
    let wire = query(name).to_vec().expect("encodes");
    stream.write_u16(wire.len().try_into().expect("short")).await.expect("sends");
    stream.write_all(&wire).await.expect("sends");
    let mut buffer = vec![0; usize::from(stream.read_u16().await.expect("an answer"))];
    stream.read_exact(&mut buffer).await.expect("an answer");
    Message::from_vec(&buffer).expect("decodes")
}

fn addresses(message: &Message) -> Vec<RData> {
    message.answers.iter().map(|record| record.data.clone()).collect()
}

/// Plays the outside resolver: one address for every name; over UDP, as many records as the name says.
async fn upstream() -> SocketAddr {
    let (socket, listener) = both().await;
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            // A forged answer with another question comes first and must be skipped.
            let _ = socket.send_to(&answer(&query("forged.example.").to_vec().expect("encodes"), 1), client).await;
            let count = if buffer[..length].windows(3).any(|part| part == b"big") { 60 } else { 1 };
            let _ = socket.send_to(&answer(&buffer[..length], count), client).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut wire = vec![0; usize::from(stream.read_u16().await.expect("a query"))];
            stream.read_exact(&mut wire).await.expect("a query");
            let answer = answer(&wire, 60);
            stream.write_u16(answer.len().try_into().expect("short")).await.expect("sends");
            stream.write_all(&answer).await.expect("sends");
        }
    });
    address
}

/// UDP and TCP on one port; the number that one gets may be taken for the other.
async fn both() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("bound")).await {
            return (socket, listener);
        }
    }
    panic!("no port is free for both UDP and TCP");
}

fn answer(wire: &[u8], count: usize) -> Vec<u8> {
    let mut message = Message::from_vec(wire).expect("decodes").into_response();
    let name = message.queries[0].name().clone();
    for _ in 0..count {
        message.add_answer(Record::from_rdata(name.clone(), 60, RData::A(A(FOREIGN))));
    }
    message.to_vec().expect("encodes")
}

#[test]
fn the_c_library_of_a_container_finds_services() {
    for dns_port in [53, 5353] {
        on_a_host(move |world| async move {
            let options = Options { dns_port, ..world.options("t0") };
            let network = heptad_net::Network::open(options, &ids(&[])).await.expect("opens");
            let (_server, _sender) = server((network.gateway(), dns_port).into(), vec![]).await;
            let web = network.attach("web", &[]).await.expect("attaches");
            let conf = world.options("t0").dir.join("resolv.conf");
            fs::write(&conf, resolv_conf(web.gateway, "shop")).expect("written");
            let ask =
                |name: &str| format!("mount --bind {} /etc/resolv.conf && getent ahostsv4 {name}", conf.display());
            for (name, ip) in [("web", "10.89.0.7"), ("web.shop.internal", "10.89.0.7"), ("api.other", "10.89.0.8")] {
                let (ok, text) = process(&web, &["unshare", "-m", "sh", "-c", &ask(name)]).await;
                assert!(ok && text.contains(ip), "{name}: {text}");
            }
            let (ok, text) = process(&web, &["unshare", "-m", "sh", "-c", &ask("nothing.shop.internal")]).await;
            assert!(!ok, "{text}");
            network.close().await.expect("closes");
        });
    }
    let more = [("db.example".to_owned(), Ipv4Addr::new(10, 0, 0, 9))].into();
    assert!(hosts_file(WEB, "web-1", &more).ends_with("\n10.89.0.7 web-1\n10.0.0.9 db.example\n"));
}

#[tokio::test]
async fn a_new_table_counts_at_once_and_tcp_serves_many_queries() {
    let (server, sender) = server(([127, 0, 0, 1], 0).into(), vec![]).await;
    assert_eq!(addresses(&udp(server.address(), "web.shop.internal.").await), [RData::A(A(WEB))]);
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    assert_eq!(addresses(&tcp(&mut stream, "WEB.shop.internal.").await), [RData::A(A(WEB))]);
    let others = [("api.shop.internal".to_owned(), WEB)].into_iter().collect::<DnsTable>();
    sender.send(Arc::new(others)).expect("the server listens");
    assert_eq!(tcp(&mut stream, "web.shop.internal.").await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(udp(server.address(), "web.shop.internal.").await.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn other_names_go_to_the_next_upstream_that_answers() {
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("never answers");
    let (server, _sender) =
        server(([127, 0, 0, 1], 0).into(), vec![dead.local_addr().expect("bound"), upstream().await]).await;
    let answer = udp(server.address(), "example.com.").await;
    assert_eq!((answer.metadata.id, addresses(&answer)), (77, vec![RData::A(A(FOREIGN))]));
}

/// Answers every query with a code and nothing else, over UDP and TCP.
async fn refuser(code: ResponseCode) -> SocketAddr {
    let (socket, listener) = both().await;
    let address = listener.local_addr().expect("bound");
    let refusal = move |wire: &[u8]| {
        let mut message = Message::from_vec(wire).expect("decodes").into_response();
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.to_vec().expect("encodes")
    };
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&refusal(&buffer[..length]), client).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut wire = vec![0; usize::from(stream.read_u16().await.expect("a query"))];
            stream.read_exact(&mut wire).await.expect("a query");
            let answer = refusal(&wire);
            stream.write_u16(answer.len().try_into().expect("short")).await.expect("sends");
            stream.write_all(&answer).await.expect("sends");
        }
    });
    address
}

#[tokio::test]
async fn an_upstream_that_does_not_serve_the_name_is_passed_over() {
    for code in [ResponseCode::Refused, ResponseCode::ServFail, ResponseCode::NotImp, ResponseCode::FormErr] {
        let (server, _sender) = server(([127, 0, 0, 1], 0).into(), vec![refuser(code).await, upstream().await]).await;
        assert_eq!(addresses(&udp(server.address(), "example.com.").await), [RData::A(A(FOREIGN))], "{code}");
        let mut stream = TcpStream::connect(server.address()).await.expect("connects");
        assert_eq!(addresses(&tcp(&mut stream, "big.example.").await).len(), 60, "{code}");
    }
    let last = vec![refuser(ResponseCode::Refused).await, refuser(ResponseCode::ServFail).await];
    let (server_, _sender) = server(([127, 0, 0, 1], 0).into(), last).await;
    assert_eq!(udp(server_.address(), "example.com.").await.metadata.response_code, ResponseCode::Refused);
    let denied = vec![refuser(ResponseCode::NXDomain).await, upstream().await];
    let (server_, _sender) = server(([127, 0, 0, 1], 0).into(), denied).await;
    let code = udp(server_.address(), "example.com.").await.metadata.response_code;
    assert_eq!(code, ResponseCode::NXDomain, "a denial is an answer");
}

#[tokio::test]
async fn names_below_internal_that_are_no_namespace_are_those_of_others() {
    let (server, sender) = server(([127, 0, 0, 1], 0).into(), vec![upstream().await]).await;
    let names = ["db.corp.internal.", "metadata.google.internal.", "web.internal."];
    for name in names {
        assert_eq!(addresses(&udp(server.address(), name).await), [RData::A(A(FOREIGN))], "{name}");
    }
    let ours = udp(server.address(), "nothing.shop.internal.").await;
    assert!(ours.metadata.response_code == ResponseCode::NXDomain && ours.metadata.authoritative, "{ours:?}");
    let corp = [("x.corp.internal".to_owned(), WEB)].into_iter().collect();
    sender.send(Arc::new(corp)).expect("the server listens");
    let taken = udp(server.address(), "db.corp.internal.").await;
    assert_eq!(taken.metadata.response_code, ResponseCode::NXDomain, "a namespace of that name owns it");
}

#[tokio::test]
async fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let (server, _sender) = server(([127, 0, 0, 1], 0).into(), vec![upstream().await]).await;
    let cut = udp(server.address(), "big.example.").await;
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.queries.len() == 1);
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    let whole = tcp(&mut stream, "big.example.").await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 60);
}

#[tokio::test]
async fn without_upstreams_and_beyond_the_bound_it_is_servfail() {
    let (alone, _sender) = server(([127, 0, 0, 1], 0).into(), vec![]).await;
    assert_eq!(udp(alone.address(), "example.com.").await.metadata.response_code, ResponseCode::ServFail);
    let nobodys = udp(alone.address(), "db.corp.internal.").await.metadata.response_code;
    assert_eq!(nobodys, ResponseCode::NXDomain, "nobody else could own it");
    let dead = UdpSocket::bind("127.0.0.1:0").await.expect("never answers");
    let (busy, _sender) = server(([127, 0, 0, 1], 0).into(), vec![dead.local_addr().expect("bound")]).await;
    let start = Instant::now();
    let asked = (0..8).map(|_| udp(busy.address(), "example.com."));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "bounded by one time-out, not by eight");
    assert_eq!(addresses(&udp(busy.address(), "web.shop.internal.").await), [RData::A(A(WEB))]);
}

#[tokio::test]
async fn rubbish_is_survived() {
    let (server, _sender) = server(([127, 0, 0, 1], 0).into(), vec![]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for rubbish in [&b""[..], b"x", &[0xff; 12], &[0xc0; 600]] {
        socket.send_to(rubbish, server.address()).await.expect("sends");
    }
    let mut stream = TcpStream::connect(server.address()).await.expect("connects");
    stream.write_all(&[0xff; 100]).await.expect("sends");
    assert_eq!(addresses(&udp(server.address(), "web.shop.internal.").await), [RData::A(A(WEB))]);
}
