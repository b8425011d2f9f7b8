//! Identities: certificate authorities, SPIFFE names, keys and certificates, TLS configurations that change while they
//! are used, join tokens, the keyring that seals secrets at rest, and the bounds on connections of unidentified peers.
//! Knows no network, no store, no API and no role.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod authority;
mod bundle;
mod certificate;
mod config;
mod credential;
mod error;
mod file;
mod identity;
mod key;
mod keyring;
mod pin;
mod spiffe;
mod strangers;
mod verify;

pub use authority::{Authority, IssuedCertificate};
pub use bundle::{ROOTS_MAX, TrustBundle};
pub use certificate::{PeerIdentity, peer_identity};
pub use config::{ClientAuth, Ended, client_config_of, client_config_pinned};
pub use credential::{Credential, JoinToken};
pub use error::{Error, Result};
pub use file::{read_private, write_private};
pub use identity::TlsIdentity;
pub use key::KeyPair;
pub use keyring::Keyring;
pub use pin::CaPin;
pub use spiffe::{SpiffeId, is_trust_domain};
pub use strangers::{Seat, Strangers, party};
pub use zeroize::Zeroizing;

/// How far the clocks of two machines may be apart: certificates are valid from that long before their creation.
pub const CLOCK_SKEW_MS_MAX: u64 = 5 * 60 * 1_000;

/// The SHA-256 of bytes.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// Fills with random bytes of the system.
fn random(bytes: &mut [u8], subject: &'static str) -> Result<()> {
    use ring::rand::SecureRandom;
    ring::rand::SystemRandom::new().fill(bytes).map_err(|_| Error::Random { subject })
}
