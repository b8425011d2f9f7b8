//! The trusted roots: one, or two or three during a rotation of the CA.

use crate::{
    authority::trust_domain_of_root,
    certificate::{certificates_of_pem, parsed},
    error::{Error, Result},
    pin::CaPin,
    sha256,
};
use rustls::{RootCertStore, pki_types::CertificateDer};
use std::sync::Arc;

/// The most roots at once: the old CA, the present one and the next.
pub const ROOTS_MAX: usize = 3;

/// The roots of one trust domain.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    pem: String,
    pins: Vec<CaPin>,
    version: String,
    trust_domain: String,
    roots: Arc<RootCertStore>,
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for TrustBundle {}

impl TrustBundle {
    /// Reads one to three root certificates.
    pub fn from_pem(pem: &str) -> Result<Self> {
        Self::of(certificates_of_pem(pem)?)
    }

    pub(crate) fn of(mut roots: Vec<CertificateDer<'static>>) -> Result<Self> {
        roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        roots.dedup();
        if roots.is_empty() || roots.len() > ROOTS_MAX {
            let reason = format!("it has {} roots; there are 1 to {ROOTS_MAX}", roots.len());
            return Err(Error::malformed("a trust bundle", reason));
        }
        let domains = roots.iter().map(trust_domain_of_root).collect::<Result<Vec<_>>>()?;
        if domains.iter().any(|domain| *domain != domains[0]) {
            return Err(Error::mismatch("a trust bundle", "its roots are of several trust domains"));
        }
        let pins = roots.iter().map(|root| Ok(CaPin::of_key_info(parsed(root)?.public_key().raw)));
        Ok(Self {
            pem: pem_of(&roots),
            pins: pins.collect::<Result<_>>()?,
            version: hex::encode(
                &sha256(&roots.iter().flat_map(|root| root.iter().copied()).collect::<Vec<u8>>())[..8],
            ),
            trust_domain: domains.into_iter().next().expect("there is at least one root"),
            roots: store_of(&roots)?,
        })
    }

    /// The roots as PEM.
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The pins of the roots.
    pub fn pins(&self) -> &[CaPin] {
        &self.pins
    }

    /// Changes when, and only when, the roots change.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The trust domain of the roots.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

pub(crate) fn store_of(roots: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone().into_owned()).map_err(|source| Error::unreadable("a root certificate", source))?;
    }
    Ok(Arc::new(store))
}

fn pem_of(roots: &[CertificateDer<'_>]) -> String {
    let line_ends = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    roots.iter().map(|root| pem::encode_config(&pem::Pem::new("CERTIFICATE", root.as_ref()), line_ends)).collect()
}
