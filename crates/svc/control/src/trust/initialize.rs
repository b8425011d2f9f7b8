//! The creation of a cluster: its name, its first CA, and a token for its first administrator, all in one transaction.

use super::{
    HOUR_MS, Trust, failed, rows,
    rows::{AuthorityRow, ClusterRow, TokenRow},
};
use crate::{
    clock::now_ms,
    error::{Error, Result},
    objects::Pending,
    random,
};
use heptad_api::{ErrorCode, trust::Role};
use heptad_pki::{Authority, CaPin, Credential, Keyring};
use heptad_state::Store;
use ipnet::Ipv4Net;
use std::{net::Ipv4Addr, time::Duration};

/// How a cluster is created.
#[derive(Clone, Debug)]
pub struct ClusterInit {
    /// The domain of its SPIFFE ids.
    pub trust_domain: String,
    /// The range of service addresses.
    pub service_cidr: Ipv4Net,
    /// The life of the first CA.
    pub authority_ttl_ms: u64,
}

impl Default for ClusterInit {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            authority_ttl_ms: 10 * 365 * 24 * HOUR_MS,
        }
    }
}

/// What was created.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// What the cluster is.
    pub cluster: ClusterRow,
    /// The pin of its CA.
    pub ca_pin: CaPin,
    /// The token of the first administrator; it is stored nowhere.
    pub admin_token: Credential,
}

impl Trust {
    /// Creates the rows of a new cluster in `store`, with its CA's key sealed by `keyring`. Fails if there is a cluster
    /// already.
    pub async fn initialize(store: &dyn Store, keyring: &Keyring, init: &ClusterInit) -> Result<Initialized> {
        let now = now_ms();
        let ttl = Duration::from_millis(init.authority_ttl_ms);
        let ca = Authority::generate(&init.trust_domain, now, ttl).map_err(failed("make the first CA"))?;
        let row = AuthorityRow::seal(&ca, keyring, now, now)?;
        let cluster = ClusterRow {
            id: random::word(12, "the cluster's id")?,
            trust_domain: init.trust_domain.clone(),
            service_cidr: init.service_cidr,
        };
        let admin_token = Credential::generate().map_err(failed("make a token"))?;
        let token = TokenRow {
            hash: admin_token.hash(),
            name: "admin".to_owned(),
            role: Role::Admin,
            created_by: "init".to_owned(),
            created_at_ms: now,
            expires_at_ms: None,
        };
        let mut pending = Pending::default();
        pending.expect(rows::CLUSTER, 0);
        pending.put(rows::CLUSTER, &cluster);
        pending.put(&rows::authority(&row.pin), &row);
        pending.put(&rows::token(admin_token.id()), &token);
        if pending.commit(store).await?.is_none() {
            let detail = "this state store holds a cluster already; start it with `heptad server`";
            return Err(Error::refused(ErrorCode::AlreadyExists, detail));
        }
        Ok(Initialized { cluster, ca_pin: ca.pin().clone(), admin_token })
    }
}
