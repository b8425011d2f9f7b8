//! Identity in the cluster's state: its CAs, join tokens, tokens of people, and the keys of nodes. Rows hold hashes of
//! tokens, and CA keys sealed by the keyring. Knows no HTTP and no permission.

mod authorities;
mod initialize;
mod join;
mod maintain;
mod roster;
mod rows;
mod tokens;

pub use initialize::{ClusterInit, Initialized};
pub(crate) use roster::{Roster, Standing};
pub use rows::ClusterRow;
pub(crate) use tokens::Person;

use crate::{
    clock::now_ms,
    error::{Error, Result, StoreContext, with_causes},
    servers::Servers,
};
use authorities::Authorities;
use heptad_api::{
    ErrorCode,
    trust::{CertificateResponse, ClusterInfo, ServerInfo},
};
use heptad_pki::{Authority, IssuedCertificate, Keyring, SpiffeId, TrustBundle};
use heptad_state::{Store, StoreExt};
use std::{sync::Arc, time::Duration};

const HOUR_MS: u64 = 3_600_000;

/// Times of certificates and CAs.
#[derive(Clone, Debug)]
pub struct TrustOptions {
    /// The life of a server's or node's certificate.
    pub certificate_ttl_ms: u64,
    /// The life of a CA.
    pub authority_ttl_ms: u64,
    /// How long a new CA is trusted before it signs; every member must have fetched the roots by then.
    pub authority_spread_ms: u64,
    /// How often a server checks whether its own certificate or the roots must be replaced.
    pub maintain_interval_ms: u64,
}

impl Default for TrustOptions {
    fn default() -> Self {
        Self {
            certificate_ttl_ms: 24 * HOUR_MS,
            authority_ttl_ms: 10 * 365 * 24 * HOUR_MS,
            authority_spread_ms: HOUR_MS / 6,
            maintain_interval_ms: 10_000,
        }
    }
}

/// The identity of a cluster. Whoever has it holds the keyring, and can sign for every name.
#[derive(Debug)]
pub struct Trust {
    store: Arc<dyn Store>,
    keyring: Keyring,
    options: TrustOptions,
    cluster: ClusterRow,
    roster: Roster,
}

/// A failure with certificates that is not a client's fault.
pub(crate) fn failed(operation: &'static str) -> impl Fn(heptad_pki::Error) -> Error {
    move |source| Error::Trust { operation, source }
}

impl Trust {
    /// The identity of the cluster whose rows are in `store`. Fails if the cluster was never initialised, or if
    /// `keyring` belongs to another cluster.
    pub async fn open(store: Arc<dyn Store>, keyring: Keyring, options: TrustOptions) -> Result<Arc<Self>> {
        let row = store.get(rows::CLUSTER).await.during("read", rows::CLUSTER)?;
        let cluster = rows::decoded(&row.ok_or_else(|| {
            Error::refused(ErrorCode::NotFound, "this state store holds no cluster; make one with `heptad server init`")
        })?)?;
        let trust = Self { store, keyring, options, cluster, roster: Roster::default() };
        // A keyring that does not match is reported now, not by the first request.
        trust.signing().await?;
        Ok(Arc::new(trust))
    }

    /// What the cluster is.
    pub fn cluster(&self) -> &ClusterRow {
        &self.cluster
    }

    /// The keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(crate) async fn authorities(&self) -> Result<Authorities> {
        let (rows, revision) = self.store.list(rows::AUTHORITIES).await.during("list", "CAs")?;
        let rows = rows.iter().map(rows::decoded).collect::<Result<Vec<_>>>()?;
        Ok(Authorities::new(rows, revision))
    }

    /// The CA that signs now.
    async fn signing(&self) -> Result<Authority> {
        let authorities = self.authorities().await?;
        let row = authorities.signing(now_ms()).ok_or_else(|| {
            Error::refused(ErrorCode::Internal, "the cluster has no CA; restore a backup of its state")
        })?;
        row.open(&self.keyring)
    }

    /// The roots that are trusted now.
    pub async fn bundle(&self) -> Result<TrustBundle> {
        let authorities = self.authorities().await?;
        let pem: String = authorities
            .trusted(now_ms(), self.options.certificate_ttl_ms)
            .map(|row| row.certificate_pem.as_str())
            .collect();
        TrustBundle::from_pem(&pem).map_err(failed("read the roots"))
    }

    /// Signs a certificate; errors in the request are the client's.
    async fn sign(&self, csr_pem: &str, id: &SpiffeId, hosts: &[String]) -> Result<IssuedCertificate> {
        let ttl = Duration::from_millis(self.options.certificate_ttl_ms);
        self.signing().await?.sign(csr_pem, id, hosts, ttl, now_ms()).map_err(|error| {
            Error::refused(ErrorCode::BadRequest, format!("no certificate for {id}: {}", with_causes(&error)))
        })
    }

    /// A certificate for a control server that holds the keyring; `hosts` are the names and addresses of its API.
    pub async fn sign_server(&self, name: &str, csr_pem: &str, hosts: &[String]) -> Result<CertificateResponse> {
        let issued = self.sign(csr_pem, &SpiffeId::Server(name.to_owned()), hosts).await?;
        self.answer(issued).await
    }

    async fn answer(&self, issued: IssuedCertificate) -> Result<CertificateResponse> {
        let trust_bundle_pem = self.bundle().await?.to_pem().to_owned();
        Ok(CertificateResponse { certificate_pem: issued.chain_pem, trust_bundle_pem })
    }

    /// A new certificate for a member that presented its current one, for the key with the hash `key_sha256`. Another
    /// key needs another join: a member is known by its key.
    pub(crate) async fn renew(&self, id: &SpiffeId, key_sha256: &str, csr_pem: &str) -> Result<CertificateResponse> {
        let issued = self.sign(csr_pem, id, &[]).await?;
        if issued.key_sha256 != key_sha256 {
            let detail = format!("{id} asks with another key than it has; join anew to change the key");
            return Err(Error::refused(ErrorCode::Forbidden, detail));
        }
        self.answer(issued).await
    }

    /// The servers of the cluster.
    pub(crate) fn servers(&self) -> Servers {
        Servers::new(self.store.clone())
    }

    /// The cluster's current description, as given by a server of `version`.
    pub async fn cluster_info(&self, version: &str) -> Result<ClusterInfo> {
        let servers = self.servers().list().await?.into_iter();
        Ok(ClusterInfo {
            id: self.cluster.id.clone(),
            trust_domain: self.cluster.trust_domain.clone(),
            service_cidr: self.cluster.service_cidr,
            servers: servers.map(|(name, row)| ServerInfo { name, url: row.url }).collect(),
            leader: self.servers().leader().await?,
            version: version.to_owned(),
        })
    }
}
