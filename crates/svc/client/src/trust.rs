//! Operations around identity: joining, renewing certificates, tokens, and the cluster's CAs.

use crate::{
    client::{Call, Client, encoded},
    error::Result,
};
use heptad_api::trust::{
    Authorities, CertificateRequest, CertificateResponse, ClusterInfo, JoinRequest, JoinResponse, JoinTokenCreated,
    JoinTokenInfo, JoinTokenRequest, TokenCreated, TokenInfo, TokenRequest, TrustBundleResponse, WhoAmI,
};
use http::Method;

impl Client {
    /// The caller's identity as the server sees it.
    pub async fn whoami(&self) -> Result<WhoAmI> {
        self.json(Call::new(Method::GET, "/v1/whoami")).await
    }

    /// What the cluster is, and its servers.
    pub async fn cluster(&self) -> Result<ClusterInfo> {
        self.json(Call::new(Method::GET, "/v1/cluster")).await
    }

    /// Joins the cluster. Repeating the request with the same key after a lost answer does not use the token twice.
    pub async fn join(&self, request: &JoinRequest) -> Result<JoinResponse> {
        self.json(Call::new(Method::POST, "/v1/join").json(request)).await
    }

    /// A new certificate for the key of the present one, which the connection presents.
    pub async fn renew_certificate(&self, csr_pem: &str) -> Result<CertificateResponse> {
        let request = CertificateRequest { csr_pem: csr_pem.to_owned() };
        self.json(Call::new(Method::POST, "/v1/certificates").json(&request)).await
    }

    /// The roots that are trusted now.
    pub async fn trust_bundle(&self) -> Result<TrustBundleResponse> {
        self.json(Call::new(Method::GET, "/v1/trust-bundle")).await
    }

    /// The CAs of the cluster.
    pub async fn authorities(&self) -> Result<Authorities> {
        self.json(Call::new(Method::GET, "/v1/authorities")).await
    }

    /// Creates a new CA, which signs once it is trusted everywhere.
    pub async fn rotate_authority(&self) -> Result<Authorities> {
        self.json(Call::new(Method::POST, "/v1/authorities/rotate")).await
    }

    /// Makes a token with which machines join.
    pub async fn create_join_token(&self, request: &JoinTokenRequest) -> Result<JoinTokenCreated> {
        self.json(Call::new(Method::POST, "/v1/join-tokens").json(request)).await
    }

    /// The join tokens.
    pub async fn join_tokens(&self) -> Result<Vec<JoinTokenInfo>> {
        self.json(Call::new(Method::GET, "/v1/join-tokens")).await
    }

    /// Deletes a join token.
    pub async fn delete_join_token(&self, id: &str) -> Result<()> {
        let path = format!("/v1/join-tokens/{}", encoded(id, false));
        self.whole(Call::new(Method::DELETE, path)).await.map(|_| ())
    }

    /// Makes a token for a person.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenCreated> {
        self.json(Call::new(Method::POST, "/v1/tokens").json(request)).await
    }

    /// The tokens of people.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        self.json(Call::new(Method::GET, "/v1/tokens")).await
    }

    /// Revokes a person's token.
    pub async fn delete_token(&self, id: &str) -> Result<()> {
        let path = format!("/v1/tokens/{}", encoded(id, false));
        self.whole(Call::new(Method::DELETE, path)).await.map(|_| ())
    }
}
