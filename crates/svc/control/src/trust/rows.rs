//! The rows of identity in the state store. The only secrets in them are CA keys, which are sealed.

use super::failed;
use crate::{
    error::{Error, Result},
    objects::row_value,
};
use heptad_api::trust::{JoinRole, Role};
use heptad_pki::{Authority, Keyring};
use heptad_state::KeyValue;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(super) const CLUSTER: &str = "/trust/cluster";
pub(super) const AUTHORITIES: &str = "/trust/authorities/";
pub(super) const JOIN_TOKENS: &str = "/trust/join-tokens/";
pub(super) const TOKENS: &str = "/trust/tokens/";

pub(super) fn authority(pin: &str) -> String {
    format!("{AUTHORITIES}{pin}")
}

pub(super) fn join_token(id: &str) -> String {
    format!("{JOIN_TOKENS}{id}")
}

pub(super) fn token(id: &str) -> String {
    format!("{TOKENS}{id}")
}

pub(super) fn decoded<T: DeserializeOwned>(kv: &KeyValue) -> Result<T> {
    row_value(kv)
}

/// A cluster's description, fixed at its creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Its identifier.
    pub id: String,
    /// The domain of its SPIFFE ids.
    pub trust_domain: String,
    /// The range of services' addresses.
    pub service_cidr: Ipv4Net,
}

/// A CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthorityRow {
    pub(crate) pin: String,
    pub(crate) certificate_pem: String,
    /// The private key, sealed; hexadecimal.
    pub(crate) key_sealed: String,
    pub(crate) created_at_ms: u64,
    /// Until then it is only trusted.
    pub(crate) signs_from_ms: u64,
    pub(crate) not_after_ms: u64,
}

impl AuthorityRow {
    pub(super) fn seal(ca: &Authority, keyring: &Keyring, created_at_ms: u64, signs_from_ms: u64) -> Result<Self> {
        let pin = ca.pin().to_string();
        let sealed = keyring.seal(&authority(&pin), ca.key_pem().as_bytes()).map_err(failed("seal the key of a CA"))?;
        Ok(Self {
            certificate_pem: ca.certificate_pem().to_owned(),
            key_sealed: hex::encode(sealed),
            created_at_ms,
            signs_from_ms,
            not_after_ms: ca.not_after_ms(),
            pin,
        })
    }

    pub(super) fn open(&self, keyring: &Keyring) -> Result<Authority> {
        let operation = "open the key of a CA with this keyring";
        let sealed = hex::decode(&self.key_sealed).unwrap_or_default();
        let key = keyring.open(&authority(&self.pin), &sealed).map_err(failed(operation))?;
        let key = std::str::from_utf8(&key)
            .map_err(|_| Error::refused(heptad_api::ErrorCode::Internal, "the key of a CA is no text"))?;
        Authority::from_pem(&self.certificate_pem, key).map_err(failed(operation))
    }
}

/// A machine that a join token admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    pub(crate) name: String,
    pub(crate) key_sha256: String,
}

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinTokenRow {
    pub(crate) hash: String,
    pub(crate) role: JoinRole,
    pub(crate) name: Option<String>,
    pub(crate) created_by: String,
    pub(crate) expires_at_ms: u64,
    pub(crate) uses_max: u32,
    pub(crate) used: Vec<Use>,
}

/// A person's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    pub(crate) hash: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) created_by: String,
    pub(crate) created_at_ms: u64,
    pub(crate) expires_at_ms: Option<u64>,
}
