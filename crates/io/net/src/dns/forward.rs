//! Asks the host's resolvers, one after another, with a time-out each. The query passes unchanged.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::Upstreams;
use crate::upstreams_of;

const HEADER_BYTES: usize = 12;
const NO_ERROR: u8 = 0;
const NX_DOMAIN: u8 = 3;
/// The largest UDP answer that is accepted.
const UDP_ANSWER_BYTES_MAX: usize = 4096;
/// A resolver configuration is a few lines; a larger file is not one.
const RESOLV_CONF_BYTES_MAX: usize = 64 * 1024;

/// Transport of a query; an answer over UDP may be truncated, and then the client asks again over TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// The servers to ask now; `own` is our address, and asking it would be a loop.
pub(crate) async fn servers(upstreams: &Upstreams, own: IpAddr) -> Vec<SocketAddr> {
    match upstreams {
        Upstreams::Fixed(servers) => servers.clone(),
        Upstreams::ResolvConf(path) => upstreams_of(&read(path).await, own),
    }
}

/// Read for every forwarded query: the file is small and cached, and a change of the host's networks takes effect at
/// once.
async fn read(path: &Path) -> String {
    let bytes = tokio::fs::read(path).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(RESOLV_CONF_BYTES_MAX)]).into_owned()
}

/// The first answer that says something about the name; else the first server's answer; `None` if no server answered.
pub(crate) async fn ask(wire: &[u8], servers: &[SocketAddr], transport: Transport, timeout_ms: u64) -> Option<Vec<u8>> {
    let mut excuse = None;
    for server in servers {
        let answer = async {
            match transport {
                Transport::Udp => ask_udp(wire, *server).await,
                Transport::Tcp => ask_tcp(wire, *server).await,
            }
        };
        match timeout(Duration::from_millis(timeout_ms), answer).await {
            Ok(Ok(answer)) if is_verdict(&answer) => return Some(answer),
            Ok(Ok(answer)) => {
                tracing::debug!(%server, code = answer[3] & 0xf, "DNS upstream says nothing of the name");
                excuse.get_or_insert(answer);
            }
            Ok(Err(error)) => tracing::debug!(%server, %error, "DNS upstream failed"),
            Err(_) => tracing::debug!(%server, timeout_ms, "DNS upstream did not answer"),
        }
    }
    excuse
}

/// Whether an answer is about the name: it exists or not. Others, such as SERVFAIL and REFUSED, are about the server,
/// and so is an empty answer from a server that only refers to others. The C library also moves to the next server
/// then.
fn is_verdict(answer: &[u8]) -> bool {
    const AUTHORITATIVE_OR_TRUNCATED: u8 = 0x06;
    let flags = (answer[2], answer[3]);
    let is_empty = answer[6..8] == [0, 0];
    let is_referral = is_empty && flags.0 & AUTHORITATIVE_OR_TRUNCATED == 0 && flags.1 & 0x80 == 0;
    match flags.1 & 0xf {
        NO_ERROR => !is_referral,
        NX_DOMAIN => true,
        _ => false,
    }
}

/// A socket per query: the kernel chooses a random port, and a connected socket accepts packets only from the server.
async fn ask_udp(wire: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(wire).await?;
    let mut answer = vec![0; UDP_ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if belongs(wire, &answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(wire: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, wire).await?;
    let answer = read_framed(&mut stream).await?;
    if belongs(wire, &answer) { Ok(answer) } else { Err(ErrorKind::InvalidData.into()) }
}

/// DNS over TCP: two bytes of length, then the message.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}

/// Whether the answer belongs to this query: same id, an answer at all, same question.
fn belongs(query: &[u8], answer: &[u8]) -> bool {
    let Some(end) = question_end(query) else { return false };
    answer.len() >= end
        && answer[..2] == query[..2]
        && answer[2] & 0x80 != 0
        && answer[HEADER_BYTES..end].eq_ignore_ascii_case(&query[HEADER_BYTES..end])
}

/// Where the first question ends: labels up to the empty one, type and class.
fn question_end(wire: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        match *wire.get(at)? {
            0 => break,
            length if length < 64 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
    let end = at + 5;
    (end <= wire.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03abc\x00\x00\x01\x00\x01";

    #[test]
    fn only_answers_to_the_question_count() {
        let mut answer = QUERY.to_vec();
        assert!(!belongs(QUERY, &answer), "a query is no answer");
        answer[2] |= 0x80;
        assert!(belongs(QUERY, &answer));
        answer[13] = b'A';
        assert!(belongs(QUERY, &answer), "case may change");
        answer[13] = b'x';
        assert!(!belongs(QUERY, &answer), "another name");
        assert!(!belongs(QUERY, &[]));
    }

    #[test]
    fn only_what_is_said_of_the_name_is_a_verdict() {
        // Flags, the count of answers, and whether it ends the search.
        for (flags, answers, expected) in [
            ([0x81, 0x80], 1, true),
            ([0x81, 0x80], 0, true),
            ([0x84, 0x00], 0, true),
            ([0x83, 0x00], 0, true),
            ([0x81, 0x00], 0, false),
            ([0x81, 0x83], 0, true),
            ([0x81, 0x81], 0, false),
            ([0x81, 0x82], 0, false),
            ([0x81, 0x84], 0, false),
            ([0x81, 0x85], 0, false),
        ] {
            let header = [0, 1, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0];
            assert_eq!(is_verdict(&header), expected, "{flags:x?} {answers}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(a in prop::collection::vec(any::<u8>(), 0..80), b in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = belongs(&a, &b);
        }
    }
}
