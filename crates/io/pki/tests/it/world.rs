//! Members with certificates, and TLS handshakes between them in memory.

use heptad_pki::{
    Authority, ClientAuth, IssuedCertificate, KeyPair, PeerIdentity, SpiffeId, TlsIdentity, TrustBundle, peer_identity,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, pki_types::ServerName};
use std::{
    io::{Read, Write},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) const DOMAIN: &str = "cluster.local";
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const ALPN: &[&[u8]] = &[b"heptad-mesh/1"];

pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis()).expect("in range")
}

pub(crate) fn authority() -> Authority {
    Authority::generate(DOMAIN, now_ms(), 24 * HOUR).expect("a CA")
}

pub(crate) fn bundle(authorities: &[&Authority]) -> TrustBundle {
    let pem: String = authorities.iter().map(|authority| authority.certificate_pem()).collect();
    TrustBundle::from_pem(&pem).expect("a bundle")
}

pub(crate) fn node(name: &str) -> SpiffeId {
    SpiffeId::Node(name.into())
}

pub(crate) fn server(name: &str) -> SpiffeId {
    SpiffeId::Server(name.to_owned())
}

pub(crate) fn signed(authority: &Authority, key: &KeyPair, id: &SpiffeId) -> IssuedCertificate {
    let request = key.csr_pem().expect("a request");
    authority.sign(&request, id, &[], HOUR, now_ms()).expect("signed")
}

/// A part named `id`, signed by `authority`, trusting `trusted`.
pub(crate) fn part(authority: &Authority, id: &SpiffeId, trusted: &TrustBundle) -> TlsIdentity {
    let key = KeyPair::generate().expect("a key");
    TlsIdentity::new(&signed(authority, &key, id).chain_pem, &key, trusted.clone()).expect("an identity")
}

/// Two ends that completed a handshake.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

/// Carries bytes between the ends until both are done, or one refuses.
pub(crate) fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<Pair, rustls::Error> {
    let name = ServerName::try_from("10.0.0.1").expect("an address");
    let client = ClientConnection::new(client.clone(), name)?;
    let mut pair = Pair { client, server: ServerConnection::new(server.clone())? };
    for _ in 0..20 {
        pair.carry()?;
    }
    assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking(), "a handshake needs no more than this");
    Ok(pair)
}

impl Pair {
    fn carry(&mut self) -> Result<(), rustls::Error> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).expect("memory takes it");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).expect("memory gives it");
            self.server.process_new_packets()?;
        }
        wire.clear();
        while self.server.wants_write() {
            self.server.write_tls(&mut wire).expect("memory takes it");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("memory gives it");
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    /// Sends a word there and back.
    pub(crate) fn talk(&mut self) {
        self.client.writer().write_all(b"ping").expect("written");
        self.carry().expect("carried");
        let mut word = [0; 4];
        self.server.reader().read_exact(&mut word).expect("read");
        assert_eq!(&word, b"ping");
        self.server.writer().write_all(b"pong").expect("written");
        self.carry().expect("carried");
        self.client.reader().read_exact(&mut word).expect("read");
        assert_eq!(&word, b"pong");
    }

    /// The identity that the server sees.
    pub(crate) fn seen_client(&self) -> Option<PeerIdentity> {
        self.server.peer_certificates().map(|certs| peer_identity(certs).expect("an identity"))
    }

    /// The identity that the client sees.
    pub(crate) fn seen_server(&self) -> PeerIdentity {
        peer_identity(self.client.peer_certificates().expect("a server has certificates")).expect("an identity")
    }
}

/// A handshake between two members that both present certificates.
pub(crate) fn mutual(client: &TlsIdentity, server: &TlsIdentity) -> Result<Pair, rustls::Error> {
    shake(&client.client_config(ALPN), &server.server_config(ALPN, ClientAuth::Required))
}
