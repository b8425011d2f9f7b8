//! Host ports: each belongs to one container, and to no process of the host. Knows no rule and no namespace.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Error, HostPort, Protocol, Result};

/// The ports that are published or about to be.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Mutex<BTreeMap<Key, Held>>,
}

type Key = (Protocol, u16);

fn key(port: &HostPort) -> Key {
    (port.protocol, port.host_port)
}

#[derive(Debug)]
struct Held {
    /// The container that holds it.
    holder: String,
    _socket: Socket,
}

/// An open socket on a published port: no process of the host can take the port and then wonder why it hears nothing.
#[derive(Debug)]
#[allow(dead_code, reason = "held open, never used: translation happens before packets could reach it")]
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// Published by an earlier process, and since then bound by another program.
    Lost,
}

impl Socket {
    fn open(port: &HostPort) -> Result<Self> {
        let address = (Ipv4Addr::UNSPECIFIED, port.host_port);
        let opened = match port.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(Self::Tcp),
            Protocol::Udp => UdpSocket::bind(address).map(Self::Udp),
        };
        opened.map_err(|source| Error::HostPortTaken {
            host_port: port.host_port,
            protocol: port.protocol.name(),
            source,
        })
    }
}

/// Ports reserved for a container; dropping this releases them, unless it was kept.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    ports: &'a Ports,
    taken: Vec<HostPort>,
}

impl Ports {
    /// Reserves the `added` ports for a container, all or none. A port that the same change removes (`removed`) in
    /// order to redirect it stays the container's own.
    pub(crate) fn claim(&self, id: &str, removed: &[HostPort], added: &[HostPort]) -> Result<Claim<'_>> {
        let mut claim = Claim { ports: self, taken: Vec::new() };
        for (at, port) in added.iter().enumerate() {
            let is_twice = added[..at].iter().any(|other| key(other) == key(port));
            let is_kept = !is_twice && removed.iter().any(|other| key(other) == key(port));
            match self.take(id, port)? {
                None => claim.taken.push(*port),
                Some(holder) if holder == id && is_kept => {}
                Some(holder) => {
                    let (host_port, protocol) = (port.host_port, port.protocol.name());
                    return Err(Error::HostPortPublished { host_port, protocol, holder });
                }
            }
        }
        Ok(claim)
    }

    /// Reserves one port for a container; if it has a holder, returns that one's name instead.
    fn take(&self, id: &str, port: &HostPort) -> Result<Option<String>> {
        let mut held = self.held();
        if let Some(Held { holder, .. }) = held.get(&key(port)) {
            return Ok(Some(holder.clone()));
        }
        held.insert(key(port), Held { holder: id.to_owned(), _socket: Socket::open(port)? });
        Ok(None)
    }

    /// Reserves the ports of a container that an earlier process attached, even if another program has one by now.
    pub(crate) fn adopt(&self, id: &str, ports: &[HostPort]) {
        for port in ports {
            let _socket = Socket::open(port).unwrap_or_else(|error| {
                tracing::warn!(container = id, %error, "adopted host port is shared with another process");
                Socket::Lost
            });
            self.held().insert(key(port), Held { holder: id.to_owned(), _socket });
        }
    }

    /// Releases the ports that are not among the `kept` ones.
    pub(crate) fn give_back(&self, ports: &[HostPort], kept: &[HostPort]) {
        let mut held = self.held();
        for port in ports.iter().filter(|port| !kept.iter().any(|other| key(other) == key(port))) {
            held.remove(&key(port));
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    /// The ports are the container's from now on.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.ports.give_back(&self.taken, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Free at this moment; the system does not give the same number twice in a row.
    fn free() -> HostPort {
        let probe = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|listener| listener.local_addr());
        HostPort { host_port: probe.expect("an address").port(), container_port: 80, protocol: Protocol::Tcp }
    }

    fn is_free(port: &HostPort) -> bool {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.host_port)).is_ok()
    }

    #[test]
    fn a_claim_is_seen_by_others_and_given_back_unless_kept() {
        let (ports, one, two) = (Ports::default(), free(), free());
        let claim = ports.claim("a", &[], &[one]).expect("free");
        let refused = ports.claim("b", &[], &[two, one]);
        assert!(matches!(&refused, Err(Error::HostPortPublished { holder, .. }) if holder == "a"), "{refused:?}");
        assert!(is_free(&two), "all or none");
        drop(claim);
        assert!(is_free(&one));
        ports.claim("b", &[], &[one]).expect("free").keep();
        assert!(ports.claim("a", &[], &[one]).is_err() && !is_free(&one));
        ports.give_back(&[one], &[]);
        assert!(is_free(&one));
    }

    #[test]
    fn a_port_that_leads_elsewhere_keeps_its_socket_and_is_named_once() {
        let (ports, one) = (Ports::default(), free());
        ports.claim("a", &[], &[one]).expect("free").keep();
        let elsewhere = HostPort { container_port: 81, ..one };
        drop(ports.claim("a", &[one], &[elsewhere]).expect("its own"));
        assert!(!is_free(&one), "what was its own is not given back");
        let third = HostPort { container_port: 82, ..one };
        assert!(ports.claim("a", &[one], &[elsewhere, third]).is_err());
        ports.give_back(&[one], &[elsewhere]);
        assert!(!is_free(&one));
    }
}
