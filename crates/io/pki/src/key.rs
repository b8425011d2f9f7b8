//! A key pair that is generated where it is used and never leaves: it signs certificate requests and TLS handshakes.

use crate::{
    error::{Error, Result},
    file::{read_private, write_private},
    sha256,
};
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, path::Path};
use zeroize::{Zeroize, Zeroizing};

/// A private key (ECDSA P-256) with its public half.
pub struct KeyPair(rcgen::KeyPair);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.sha256())
    }
}

impl Drop for KeyPair {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl KeyPair {
    /// A new key.
    pub fn generate() -> Result<Self> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|source| Error::make("a key pair", source))
    }

    /// Reads a key in PKCS #8.
    pub fn from_pem(pem: &str) -> Result<Self> {
        rcgen::KeyPair::from_pem(pem).map(Self).map_err(|source| Error::unreadable("a private key", source))
    }

    /// The key in PKCS #8, for a file that only its owner may read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// Writes the key to a file with mode 0600.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_private(path, self.to_pem().as_bytes())
    }

    /// Reads a key from a file.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = read_private(path)?;
        Self::from_pem(std::str::from_utf8(&bytes).map_err(|source| Error::unreadable("a private key", source))?)
    }

    /// The SHA-256 of the public half's SubjectPublicKeyInfo, in hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(sha256(&self.0.subject_public_key_info()))
    }

    /// A request for a certificate. It names nobody: the signer decides who the owner of the key is.
    pub fn csr_pem(&self) -> Result<String> {
        self.request(Vec::new())
    }

    fn request(&self, names: Vec<SanType>) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        let failed = |source| Error::make("a certificate request", source);
        params.serialize_request(&self.0).and_then(|request| request.pem()).map_err(failed)
    }

    /// A request that asks for names, which a careful signer does not grant; for tests of signers.
    pub fn csr_pem_asking_for(&self, uri: &str) -> Result<String> {
        let uri = uri.try_into().map_err(|source: rcgen::Error| Error::make("a certificate request", source))?;
        self.request(vec![SanType::URI(uri)])
    }

    pub(crate) fn inner(&self) -> &rcgen::KeyPair {
        &self.0
    }

    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}
