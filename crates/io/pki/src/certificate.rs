//! What a certificate says about its owner. Only reads: whoever verified the chain decides whether to believe it.

use crate::{
    error::{Error, Result},
    sha256,
    spiffe::SpiffeId,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

/// The identity in a verified certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its SPIFFE id.
    pub id: SpiffeId,
    /// In which trust domain.
    pub trust_domain: String,
    /// The SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    pub key_sha256: String,
    /// When the certificate ends, in milliseconds since the Unix epoch.
    pub not_after_ms: u64,
}

/// The owner of a chain that TLS has verified; `certs` as [`rustls`] gives them, the owner's first.
pub fn peer_identity(certs: &[CertificateDer<'_>]) -> Result<PeerIdentity> {
    let first = certs.first().ok_or_else(|| Error::malformed("a certificate chain", "it is empty"))?;
    let certificate = parsed(first)?;
    if certificate.is_ca() {
        return Err(Error::mismatch("a certificate", "it is a CA's, not a member's"));
    }
    let mut uris = uris(&certificate)?;
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(Error::mismatch("a certificate", "it has not exactly one URI name"));
    };
    let (trust_domain, id) = SpiffeId::parse(uri)?;
    Ok(PeerIdentity {
        id,
        trust_domain,
        key_sha256: key_sha256(&certificate),
        not_after_ms: not_after_ms(&certificate),
    })
}

pub(crate) fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Error::malformed("a certificate", "bytes follow it")),
        Err(source) => Err(Error::unreadable("a certificate", source)),
    }
}

/// The URIs among its names.
pub(crate) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<impl Iterator<Item = &'a str> + use<'a>> {
    let names = certificate.subject_alternative_name().map_err(|source| Error::unreadable("a certificate", source))?;
    let names = names.map(|extension| extension.value.general_names.iter()).into_iter().flatten();
    Ok(names.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    }))
}

pub(crate) fn key_sha256(certificate: &X509Certificate<'_>) -> String {
    hex::encode(sha256(certificate.public_key().raw))
}

pub(crate) fn not_after_ms(certificate: &X509Certificate<'_>) -> u64 {
    u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1_000)
}

/// The largest text that is read as certificates.
const PEM_BYTES_MAX: usize = 256 << 10;

/// All certificates of a PEM text; anything else in it is an error.
pub(crate) fn certificates_of_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(Error::malformed("certificates", format!("they have more than {PEM_BYTES_MAX} bytes")));
    }
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|source| Error::malformed("certificates", format!("they are not PEM: {source}")))
}
