//! Which peers TLS believes: those whose chain ends in a root that is trusted at this moment. The caller checks
//! everything else about a peer (its SPIFFE id, the key in its node's row).

use crate::{
    bundle::TrustBundle,
    certificate::{not_after_ms, parsed, peer_identity},
    config::{Ended, provider},
    identity::Shared,
    pin::CaPin,
    spiffe::SpiffeId,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{sync::Arc, time::Duration};

/// Where a verifier finds the roots at the moment of a handshake.
#[derive(Debug)]
pub(crate) enum Roots {
    /// The roots that a TLS identity trusts now.
    Live(Arc<Shared>),
    /// A fixed set.
    Fixed(TrustBundle),
    /// The root in the peer's own chain that has this pin.
    Pinned(CaPin),
}

fn refused(error: crate::Error) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// The time for which a chain is verified: now, or, if an ended certificate is permitted, the last moment of its
/// owner's certificate.
fn moment(first: &CertificateDer<'_>, now: UnixTime, ended: Ended) -> Result<UnixTime, Error> {
    if ended == Ended::Refused {
        return Ok(now);
    }
    let not_after_ms = not_after_ms(&parsed(first).map_err(refused)?);
    let last = UnixTime::since_unix_epoch(Duration::from_millis(not_after_ms));
    Ok(if last.as_secs() < now.as_secs() { last } else { now })
}

/// Verifies the chain of a server, whatever its host name: members are named by SPIFFE ids, not by DNS.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) roots: Roots,
    pub(crate) ended: Ended,
}

impl ServerVerifier {
    fn chain(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        roots: &RootCertStore,
    ) -> Result<(), Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        let now = moment(first, now, self.ended)?;
        verify_server_cert_signed_by_trust_anchor(&ParsedCertificate::try_from(first)?, roots, others, now, algorithms)
    }
}

/// Whether the owner of a verified certificate belongs to the trust domain of the roots.
fn of_domain(first: &CertificateDer<'_>, trust_domain: &str) -> Result<SpiffeId, Error> {
    let peer = peer_identity(std::slice::from_ref(first)).map_err(refused)?;
    if peer.trust_domain != trust_domain {
        return Err(CertificateError::NotValidForName.into());
    }
    Ok(peer.id)
}

/// The CA in a chain that has the pin.
fn pinned(pin: &CaPin, others: &[CertificateDer<'_>]) -> Result<TrustBundle, Error> {
    let matching = others
        .iter()
        .find(|der| parsed(der).is_ok_and(|certificate| CaPin::of_key_info(certificate.public_key().raw) == *pin));
    let root = matching.ok_or(CertificateError::UnknownIssuer)?;
    TrustBundle::of(vec![root.clone().into_owned()]).map_err(refused)
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let bundle = match &self.roots {
            Roots::Live(shared) => shared.load().bundle.clone(),
            Roots::Fixed(bundle) => bundle.clone(),
            Roots::Pinned(pin) => pinned(pin, others)?,
        };
        self.chain(first, others, now, bundle.roots())?;
        let id = of_domain(first, bundle.trust_domain())?;
        // Peers without a certificate of their own talk only to servers.
        match (&self.roots, id) {
            (Roots::Live(_), _) | (_, SpiffeId::Server(_)) => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies the chain of a client against what is trusted at the moment of the handshake.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) shared: Arc<Shared>,
    pub(crate) required: bool,
    pub(crate) ended: Ended,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The roots change, and every member has only one certificate anyway.
        &[]
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let current = self.shared.load();
        let now = moment(first, now, self.ended)?;
        let verified = current.clients.verify_client_cert(first, others, now)?;
        of_domain(first, current.bundle.trust_domain())?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The part of a client's verification that depends only on the roots.
pub(crate) fn clients_of(bundle: &TrustBundle) -> crate::Result<Arc<dyn ClientCertVerifier>> {
    WebPkiClientVerifier::builder_with_provider(bundle.roots().clone(), provider())
        .build()
        .map_err(|source| crate::Error::make("a verifier of clients", source))
}
