//! Keeps a server's own identity valid: its certificate is renewed at half its life and when another CA signs, and its
//! roots follow the cluster's. The server holds the keyring, so it asks nobody.

use super::Trust;
use crate::{
    clock::now_ms,
    error::{Result, with_causes},
};
use heptad_pki::{KeyPair, TlsIdentity};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

impl Trust {
    /// A new identity of the server `name`, whose API is reached by `hosts`.
    pub async fn server_identity(&self, name: &str, key: &KeyPair, hosts: &[String]) -> Result<TlsIdentity> {
        let made = super::failed("make the server's identity");
        let csr = key.csr_pem().map_err(&made)?;
        let answer = self.sign_server(name, &csr, hosts).await?;
        TlsIdentity::new(&answer.certificate_pem, key, self.bundle().await?).map_err(&made)
    }

    /// Keeps the identity from [`Trust::server_identity`] valid, until `stop`.
    pub async fn maintain(
        self: Arc<Self>,
        identity: TlsIdentity,
        name: String,
        key: KeyPair,
        hosts: Vec<String>,
        stop: CancellationToken,
    ) {
        let mut signer = None;
        let interval = Duration::from_millis(self.options.maintain_interval_ms.max(1));
        loop {
            match self.maintain_once(&identity, &name, &key, &hosts, signer.take()).await {
                Ok(by) => signer = Some(by),
                Err(error) => {
                    tracing::error!(error = with_causes(&error), "the server's certificate could not be looked after");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Checks once; returns which CA signed the certificate.
    async fn maintain_once(
        &self,
        identity: &TlsIdentity,
        name: &str,
        key: &KeyPair,
        hosts: &[String],
        signer: Option<String>,
    ) -> Result<String> {
        let signing = self.signing().await?.pin().to_string();
        let left_ms = identity.own().not_after_ms.saturating_sub(now_ms());
        if signer.as_ref() != Some(&signing) || left_ms < self.options.certificate_ttl_ms / 2 {
            let fresh = self.server_identity(name, key, hosts).await?;
            identity.adopt(&fresh);
            tracing::info!(name, signer = signing, "the server's certificate was renewed");
        } else {
            let bundle = self.bundle().await?;
            if bundle != identity.bundle() {
                tracing::info!(version = bundle.version(), "the roots were replaced");
                identity.replace_bundle(bundle).map_err(super::failed("replace the roots"))?;
            }
        }
        Ok(signing)
    }
}
