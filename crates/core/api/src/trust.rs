//! Requests and answers around identity: joining, certificates, roots, tokens, and the description of a cluster. Knows
//! no certificate's format: certificates travel as PEM text.

use heptad_model::{SocketAddress, ids::LABEL_PATTERN};
use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, str::FromStr};

/// What a machine joins as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JoinRole {
    /// It runs containers.
    #[default]
    Node,
    /// It is a control server as well.
    Server,
}

impl fmt::Display for JoinRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Node => "node",
            Self::Server => "server",
        })
    }
}

/// The request of a machine that wants to join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The join token, as it was printed.
    pub token: String,
    /// The request for a certificate; only its public key counts.
    pub csr_pem: String,
    /// The name that it asks for.
    pub name: String,
    /// What it joins as; the token must be for it.
    #[serde(default)]
    pub role: JoinRole,
    /// A node: its node port. A server: where its API listens.
    #[serde(default)]
    #[schemars(with = "Option<SocketAddress>")]
    pub address: Option<SocketAddr>,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// What a machine gets when it joins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinResponse {
    /// Its certificate, followed by that of the CA.
    pub certificate_pem: String,
    /// The roots that it trusts.
    pub trust_bundle_pem: String,
    /// The cluster that it has joined.
    pub cluster: ClusterInfo,
    /// A server: the keyring that opens what is sealed in the state store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<String>,
    /// For a server: what it needs besides, such as where the state store is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<serde_json::Value>,
}

impl fmt::Debug for JoinResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinResponse").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A request for a new certificate by the holder of the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// The request; its key must be that of the present certificate.
    pub csr_pem: String,
}

/// A new certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateResponse {
    /// The certificate, followed by that of the CA.
    pub certificate_pem: String,
    /// The roots that are trusted now.
    pub trust_bundle_pem: String,
}

/// The roots that are trusted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrustBundleResponse {
    /// Changes when, and only when, the roots change.
    pub version: String,
    /// The roots.
    pub trust_bundle_pem: String,
    /// The pins of the roots, as `sha256:HEX`.
    pub pins: Vec<String>,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// Where its API is.
    pub url: String,
}

/// The description of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterInfo {
    /// Its identifier.
    pub id: String,
    /// The domain of its SPIFFE ids.
    pub trust_domain: String,
    /// The range of service addresses.
    #[schemars(with = "String")]
    pub service_cidr: Ipv4Net,
    /// Its servers, whether they run or not.
    pub servers: Vec<ServerInfo>,
    /// The server that leads, by name.
    pub leader: Option<String>,
    /// The version of the server that answers.
    pub version: String,
}

/// A join token to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// What it lets machines join as.
    #[serde(default)]
    pub role: JoinRole,
    /// How long it is valid, in milliseconds.
    #[serde(default = "join_token_ttl_ms_default")]
    #[schemars(range(min = 1, max = JOIN_TOKEN_TTL_MS_MAX))]
    pub ttl_ms: u64,
    /// For how many machines.
    #[serde(default = "join_token_uses_default")]
    #[schemars(range(min = 1, max = JOIN_TOKEN_USES_MAX))]
    pub uses: u32,
    /// Only for the machine of this name. It may replace one that joined under this name before.
    #[serde(default)]
    pub name: Option<String>,
}

fn join_token_ttl_ms_default() -> u64 {
    3_600_000
}

fn join_token_uses_default() -> u32 {
    1
}

impl Default for JoinTokenRequest {
    fn default() -> Self {
        Self { role: JoinRole::Node, ttl_ms: join_token_ttl_ms_default(), uses: join_token_uses_default(), name: None }
    }
}

/// The longest life of a join token.
pub const JOIN_TOKEN_TTL_MS_MAX: u64 = 30 * 24 * 3_600_000;
/// The most machines that one join token admits.
pub const JOIN_TOKEN_USES_MAX: u32 = 10_000;

/// What is known about a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenInfo {
    /// Its public part.
    pub id: String,
    /// What it lets machines join as.
    pub role: JoinRole,
    /// Only for the machine of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When it ends, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// How many more machines it admits.
    pub uses_left: u32,
    /// The machines that it has admitted.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// A join token, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinTokenCreated {
    /// The token.
    pub token: String,
    /// The pin of the CA that a joining machine must find.
    pub ca_pin: String,
    /// Where machines join.
    pub urls: Vec<String>,
    /// What is stored of it.
    pub info: JoinTokenInfo,
}

impl fmt::Debug for JoinTokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokenCreated").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What a person may do: `admin`, `deployer:NAMESPACE` or `viewer`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = role_pattern()))]
pub enum Role {
    /// Everything.
    Admin,
    /// Read, and write what belongs to one namespace.
    Deployer {
        /// The namespace.
        namespace: String,
    },
    /// Read.
    Viewer,
}

fn role_pattern() -> String {
    format!("^(admin|viewer|deployer:{})$", LABEL_PATTERN.trim_matches(['^', '$']))
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.pad("admin"),
            Self::Deployer { namespace } => f.pad(&format!("deployer:{namespace}")),
            Self::Viewer => f.pad("viewer"),
        }
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let label = heptad_model::ids::is_label;
        match (text, text.strip_prefix("deployer:")) {
            ("admin", _) => Ok(Self::Admin),
            ("viewer", _) => Ok(Self::Viewer),
            (_, Some(namespace)) if label(namespace) => Ok(Self::Deployer { namespace: namespace.to_owned() }),
            _ => Err(format!("`{text}` is not a role; use admin, viewer or deployer:NAMESPACE")),
        }
    }
}

impl TryFrom<String> for Role {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.to_string()
    }
}

/// The longest name of a person's token.
pub const TOKEN_NAME_BYTES_MAX: usize = 120;

/// A token for a person to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is, for people and the audit log.
    #[schemars(length(max = TOKEN_NAME_BYTES_MAX), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"))]
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// How long it is valid, in milliseconds; absent: until it is revoked.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub ttl_ms: Option<u64>,
}

/// What is known about a person's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// Who made it.
    pub created_by: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When it ends, in milliseconds since the Unix epoch; absent: never.
    pub expires_at_ms: Option<u64>,
}

/// A person's token, shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// The token.
    pub token: String,
    /// What is stored of it.
    pub info: TokenInfo,
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated").field("info", &self.info).finish_non_exhaustive()
    }
}

/// What a CA of the cluster does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityState {
    /// It is trusted everywhere before it signs.
    Next,
    /// It signs.
    Signing,
    /// It no longer signs; what it signed is still trusted.
    Old,
}

impl fmt::Display for AuthorityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Old => "old",
        })
    }
}

/// A CA of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorityInfo {
    /// Its pin.
    pub pin: String,
    /// What it does at present.
    pub state: AuthorityState,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When its own certificate ends, in milliseconds since the Unix epoch.
    pub not_after_ms: u64,
    /// When its role changes next: it begins to sign, or is no longer trusted. In milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

/// The CAs that are trusted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Authorities {
    /// The newest first.
    pub authorities: Vec<AuthorityInfo>,
}

/// The caller, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoAmI {
    /// Such as `person/ID`, `node/NAME`, `server/NAME`, `operator`.
    pub principal: String,
    /// Whose token it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the token allows, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_written_as_they_are_read() {
        for text in ["admin", "viewer", "deployer:shop"] {
            assert_eq!(text.parse::<Role>().map(|role| role.to_string()), Ok(text.to_owned()));
        }
        for bad in ["", "root", "deployer", "deployer:", "deployer:A", "deployer:a/b", "admin "] {
            assert!(bad.parse::<Role>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_of_secrets_is_not_the_secret() {
        let request = JoinRequest {
            token: "id.secret".into(),
            csr_pem: String::new(),
            name: "n1".into(),
            role: JoinRole::Node,
            address: None,
        };
        assert!(!format!("{request:?}").contains("secret"));
    }
}
