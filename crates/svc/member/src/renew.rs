//! Keeps a member's certificate, roots and list of servers fresh while it runs. Replacements are used from the next
//! handshake on; open connections go on.

use crate::{Loaded, MemberFiles, ServerList, unix_ms};
use anyhow::Context;
use heptad_client::Client;
use heptad_pki::{TlsIdentity, TrustBundle};
use std::time::Duration;

/// How often the servers and roots are fetched.
const LOOK_MS: u64 = 10_000;
/// The wait after a failed renewal.
const RETRY_MS: u64 = 30_000;
/// No certificate is renewed more often than this.
const RENEW_MS_MIN: u64 = 5_000;

/// When a certificate seen now that ends at that time is to be renewed: when half of the time is over.
fn renew_in_ms(now_ms: u64, not_after_ms: u64) -> u64 {
    (not_after_ms.saturating_sub(now_ms) / 2).max(RENEW_MS_MIN)
}

/// When a certificate found at a start is renewed: at once if it has ended.
fn first_renewal_ms(now_ms: u64, not_after_ms: u64) -> u64 {
    if not_after_ms <= now_ms { now_ms } else { now_ms + renew_in_ms(now_ms, not_after_ms) }
}

/// Renews for ever.
pub async fn keep_fresh(files: MemberFiles, mut loaded: Loaded, servers: ServerList, client: Client) {
    let mut renew_at_ms = first_renewal_ms(unix_ms(), loaded.identity.own().not_after_ms);
    loop {
        let now_ms = unix_ms();
        if now_ms >= renew_at_ms {
            let wait_ms = match renew(&files, &loaded, &client).await {
                Ok(()) => {
                    tracing::info!(id = %loaded.identity.own().id, "the certificate was renewed");
                    renew_in_ms(now_ms, loaded.identity.own().not_after_ms)
                }
                Err(error) => {
                    let left_ms = loaded.identity.own().not_after_ms.saturating_sub(now_ms);
                    tracing::warn!(error = format!("{error:#}"), left_ms, "the certificate was not renewed");
                    RETRY_MS.min(renew_in_ms(now_ms, loaded.identity.own().not_after_ms))
                }
            };
            renew_at_ms = now_ms + wait_ms;
        }
        if let Err(error) = look(&files, &mut loaded, &servers, &client).await {
            tracing::debug!(error = format!("{error:#}"), "servers and roots could not be asked for");
        }
        let wait_ms = LOOK_MS.min(renew_at_ms.saturating_sub(unix_ms()).max(100));
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

async fn renew(files: &MemberFiles, loaded: &Loaded, client: &Client) -> anyhow::Result<()> {
    let answer = client.renew_certificate(&loaded.key.csr_pem()?).await.context("asking for a certificate")?;
    let bundle = TrustBundle::from_pem(&answer.trust_bundle_pem)?;
    loaded.identity.replace(&answer.certificate_pem, &loaded.key, bundle)?;
    files.save_certificate(&answer.certificate_pem, &answer.trust_bundle_pem)?;
    Ok(())
}

/// Takes over the current servers and roots.
async fn look(files: &MemberFiles, loaded: &mut Loaded, servers: &ServerList, client: &Client) -> anyhow::Result<()> {
    let info = client.cluster().await?;
    if servers.set(info.servers.into_iter().map(|server| server.url).collect()) {
        loaded.member.servers = servers.get();
        files.save_member(&loaded.member)?;
    }
    let roots = client.trust_bundle().await?;
    take_bundle(files, &loaded.identity, &roots.trust_bundle_pem)
}

fn take_bundle(files: &MemberFiles, identity: &TlsIdentity, pem: &str) -> anyhow::Result<()> {
    let bundle = TrustBundle::from_pem(pem)?;
    if bundle != identity.bundle() {
        tracing::info!(version = bundle.version(), roots = bundle.pins().len(), "other roots are trusted");
        identity.replace_bundle(bundle)?;
        files.save_bundle(pem)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_when_half_of_their_time_is_over_and_never_all_the_time() {
        let day_ms = 24 * 3_600_000;
        assert_eq!(renew_in_ms(1_000, 1_000 + day_ms), day_ms / 2);
        assert_eq!(renew_in_ms(10, 10), RENEW_MS_MIN);
        assert_eq!(renew_in_ms(10, 0), RENEW_MS_MIN, "one that has ended is tried often, but not in a loop");
        assert_eq!([first_renewal_ms(10, 10), first_renewal_ms(10, day_ms + 10)], [10, 10 + day_ms / 2]);
    }
}
