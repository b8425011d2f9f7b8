//! Rotation of the CA: while it goes on, every connection succeeds.

use super::{cluster::Cluster, refusal};
use heptad_api::{
    ErrorCode,
    trust::{AuthorityState, JoinTokenRequest},
};
use heptad_control::TrustOptions;
use heptad_pki::{CLOCK_SKEW_MS_MAX, KeyPair, TrustBundle};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_cas_are_trusted_while_parts_change_over() {
    let options = TrustOptions { authority_spread_ms: 1_500, maintain_interval_ms: 20, ..TrustOptions::default() };
    let cluster = Cluster::with(options, |_| {}).await;
    let stop = CancellationToken::new();
    let key = KeyPair::generate().expect("a key");
    let hosts = vec![super::cluster::HOST.to_owned()];
    let kept = cluster.trust.clone().maintain(cluster.identity.clone(), "s1".into(), key, hosts, stop.clone());
    let kept = tokio::spawn(kept);
    let admin = cluster.admin();
    let node = cluster.node("n1").await;
    let mut bundle_pem = node.answer.trust_bundle_pem.clone();
    let mut certificate_pem = node.answer.certificate_pem.clone();

    let rotated = admin.rotate_authority().await.expect("rotated").authorities;
    let states: Vec<_> = rotated.iter().map(|info| info.state).collect();
    assert_eq!(states, [AuthorityState::Next, AuthorityState::Signing]);
    assert_eq!(refusal(admin.rotate_authority().await), ErrorCode::Conflict, "one after the other");
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut asked, mut renewed) = (0, false);
    loop {
        // A node that fetches the roots now and then, and connects anew each time.
        let client = cluster.certified(&certificate_pem, &bundle_pem, &node.key);
        client.whoami().await.unwrap_or_else(|error| panic!("after {asked} connections: {error:?}"));
        bundle_pem = client.trust_bundle().await.expect("the roots").trust_bundle_pem;
        assert_eq!(TrustBundle::from_pem(&bundle_pem).expect("roots").pins().len(), 2);
        asked += 1;
        let infos = client_infos(&cluster).await;
        if infos[0].state == AuthorityState::Signing {
            if renewed {
                break;
            }
            let csr = node.key.csr_pem().expect("a request");
            certificate_pem = client.renew_certificate(&csr).await.expect("renewed").certificate_pem;
            renewed = true;
        }
        assert!(Instant::now() < deadline, "the new CA never signs: {infos:?}");
    }
    assert!(asked > 3, "it was tried all the way");
    let infos = client_infos(&cluster).await;
    assert_eq!(infos[1].state, AuthorityState::Old);
    let until = infos[1].until_ms.expect("it is dropped some day");
    assert!(until > infos[0].created_at_ms + 24 * 3_600_000 + CLOCK_SKEW_MS_MAX, "not before its children ended");
    // Machines join by the new pin.
    let token = admin.create_join_token(&JoinTokenRequest::default()).await;
    assert_eq!(token.expect("a token").ca_pin, infos[0].pin);
    let deadline = Instant::now() + Duration::from_secs(10);
    while cluster.stranger().cluster().await.is_err_and(|error| error.code().is_some()) {
        assert!(Instant::now() < deadline, "the server still shows the old CA to who knows the old pin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    kept.await.expect("it ends");
}

async fn client_infos(cluster: &Cluster) -> Vec<heptad_api::trust::AuthorityInfo> {
    cluster.operator.authorities().await.expect("listed").authorities
}
