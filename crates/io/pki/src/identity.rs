//! The identity that a member presents and the roots that it trusts, replaced while TLS configurations use them: a
//! handshake takes what is current at its moment, and open connections go on.

use crate::{
    bundle::TrustBundle,
    certificate::{PeerIdentity, certificates_of_pem, peer_identity},
    config::{self, ClientAuth, Ended, provider},
    error::{Error, Result},
    key::KeyPair,
    verify::clients_of,
};
use arc_swap::{ArcSwap, Guard};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use std::sync::Arc;

/// A member's certificate with its key, and the roots that it trusts. Clones are the same identity.
#[derive(Clone, Debug)]
pub struct TlsIdentity(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared(ArcSwap<Current>);

/// Everything that is replaced together.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) bundle: TrustBundle,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    own: PeerIdentity,
    certified: Arc<CertifiedKey>,
}

impl Shared {
    pub(crate) fn load(&self) -> Guard<Arc<Current>> {
        self.0.load()
    }
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.load().certified.clone())
    }
}

impl ResolvesClientCert for Shared {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Current {
    fn new(chain_pem: &str, key: &KeyPair, bundle: TrustBundle) -> Result<Self> {
        let chain = certificates_of_pem(chain_pem)?;
        let own = peer_identity(&chain)?;
        if own.key_sha256 != key.sha256() {
            return Err(Error::mismatch("a certificate", "it is not that of the key"));
        }
        if own.trust_domain != bundle.trust_domain() {
            let reason = format!("it is of {}, the roots are of {}", own.trust_domain, bundle.trust_domain());
            return Err(Error::mismatch("a certificate", reason));
        }
        let signer = provider()
            .key_provider
            .load_private_key(key.der())
            .map_err(|source| Error::unreadable("a private key", source))?;
        let clients = clients_of(&bundle)?;
        Ok(Self { bundle, clients, own, certified: Arc::new(CertifiedKey::new(chain, signer)) })
    }
}

impl TlsIdentity {
    /// The identity of `key`, for which `chain_pem` was signed, trusting `bundle`.
    pub fn new(chain_pem: &str, key: &KeyPair, bundle: TrustBundle) -> Result<Self> {
        Ok(Self(Arc::new(Shared(ArcSwap::from_pointee(Current::new(chain_pem, key, bundle)?)))))
    }

    /// Presents and trusts something else from the next handshake on. Nothing changes if the parts do not match.
    pub fn replace(&self, chain_pem: &str, key: &KeyPair, bundle: TrustBundle) -> Result<()> {
        self.0.0.store(Arc::new(Current::new(chain_pem, key, bundle)?));
        Ok(())
    }

    /// Presents and trusts what another identity does now.
    pub fn adopt(&self, other: &Self) {
        self.0.0.store(other.0.0.load_full());
    }

    /// Trusts other roots from the next handshake on.
    pub fn replace_bundle(&self, bundle: TrustBundle) -> Result<()> {
        let old = self.0.0.load_full();
        if old.own.trust_domain != bundle.trust_domain() {
            return Err(Error::mismatch("a trust bundle", "it is of another trust domain"));
        }
        let (own, certified) = (old.own.clone(), old.certified.clone());
        self.0.0.store(Arc::new(Current { clients: clients_of(&bundle)?, bundle, own, certified }));
        Ok(())
    }

    /// The name of this member, and until when it is valid.
    pub fn own(&self) -> PeerIdentity {
        self.0.load().own.clone()
    }

    /// The roots that are trusted now.
    pub fn bundle(&self) -> TrustBundle {
        self.0.load().bundle.clone()
    }

    /// For accepting. The configuration follows every later replacement.
    pub fn server_config(&self, alpn: &[&[u8]], auth: ClientAuth) -> Arc<ServerConfig> {
        self.server_config_with(alpn, auth, Ended::Refused)
    }

    /// The same, with a choice about clients whose certificate has ended.
    pub fn server_config_with(&self, alpn: &[&[u8]], auth: ClientAuth, ended: Ended) -> Arc<ServerConfig> {
        config::server(self.0.clone(), alpn, auth, ended)
    }

    /// For connecting. The chain is verified against the roots; the caller checks with
    /// [`peer_identity`](crate::peer_identity) whether the peer is the intended one. The configuration follows every
    /// later replacement.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        self.client_config_with(alpn, Ended::Refused)
    }

    /// The same, with a choice about a peer whose certificate has ended.
    pub fn client_config_with(&self, alpn: &[&[u8]], ended: Ended) -> Arc<ClientConfig> {
        config::client(self.0.clone(), alpn, ended)
    }
}
