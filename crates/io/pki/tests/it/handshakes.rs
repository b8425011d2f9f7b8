//! What handshakes accept and refuse.

use crate::world::{ALPN, DOMAIN, HOUR, authority, bundle, mutual, node, now_ms, part, server, shake, signed};
use heptad_pki::{Authority, ClientAuth, KeyPair, SpiffeId, TlsIdentity, client_config_of, client_config_pinned};
use rustls::{AlertDescription, CertificateError, Error};

#[test]
fn both_sides_see_who_the_other_is() {
    let ca = authority();
    let trusted = bundle(&[&ca]);
    let (a, b) = (part(&ca, &node("a"), &trusted), part(&ca, &server("s1"), &trusted));
    let mut pair = mutual(&a, &b).expect("both are of the cluster");
    pair.talk();
    assert_eq!(pair.seen_client(), Some(a.own()));
    assert_eq!(pair.seen_server(), b.own());
    assert_eq!((b.own().id, b.own().trust_domain.as_str()), (SpiffeId::Server("s1".into()), DOMAIN));
    assert_eq!(pair.client.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(pair.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn a_part_of_another_ca_is_refused_by_both_sides() {
    let (ours, theirs) = (authority(), authority());
    let us = part(&ours, &node("a"), &bundle(&[&ours]));
    let them = part(&theirs, &node("a"), &bundle(&[&theirs]));
    let error = mutual(&us, &them).expect_err("the client does not know the server's CA");
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer)), "{error}");
    // A stranger that believes us is still refused by our server.
    let credulous = part(&theirs, &node("a"), &bundle(&[&theirs, &ours]));
    let error = mutual(&credulous, &us).expect_err("the server does not know the client's CA");
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer)), "{error}");
}

#[test]
fn a_ca_of_another_domain_signs_nobody_in() {
    let (ours, theirs) = (authority(), Authority::generate("evil.local", now_ms(), HOUR).expect("a CA"));
    let key = KeyPair::generate().expect("a key");
    let chain = signed(&theirs, &key, &node("a")).chain_pem;
    assert!(TlsIdentity::new(&chain, &key, bundle(&[&ours])).is_err());
    let pem = format!("{}{}", ours.certificate_pem(), theirs.certificate_pem());
    assert!(heptad_pki::TrustBundle::from_pem(&pem).is_err(), "roots are of one domain");
}

#[test]
fn an_expired_certificate_is_refused_on_either_side() {
    let day = 24 * HOUR;
    let before = now_ms() - 2 * 86_400_000;
    let ca = Authority::generate(DOMAIN, before, 30 * day).expect("a CA");
    let trusted = bundle(&[&ca]);
    let key = KeyPair::generate().expect("a key");
    let request = key.csr_pem().expect("a request");
    let old = ca.sign(&request, &node("old"), &[], day, before).expect("signed then");
    let old = TlsIdentity::new(&old.chain_pem, &key, trusted.clone()).expect("an identity");
    let good = part(&ca, &node("good"), &trusted);
    for error in [mutual(&old, &good).expect_err("old client"), mutual(&good, &old).expect_err("old server")] {
        let expired = |e: &Error| {
            matches!(e, Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
        };
        assert!(expired(&error), "{error}");
    }
    assert!(mutual(&good, &good).is_ok());
}

#[test]
fn a_certificate_of_the_future_is_refused_and_clocks_may_differ_a_little() {
    let ca = Authority::generate(DOMAIN, now_ms(), 24 * HOUR).expect("a CA");
    let trusted = bundle(&[&ca]);
    let good = part(&ca, &node("good"), &trusted);
    for (ahead_ms, accepted) in [(120_000, true), (3_600_000, false)] {
        let key = KeyPair::generate().expect("a key");
        let request = key.csr_pem().expect("a request");
        let made = ca.sign(&request, &node("early"), &[], HOUR, now_ms() + ahead_ms).expect("signed");
        let early = TlsIdentity::new(&made.chain_pem, &key, trusted.clone()).expect("an identity");
        assert_eq!(mutual(&early, &good).is_ok(), accepted, "{ahead_ms} ms ahead");
    }
}

#[test]
fn without_a_certificate_one_is_nobody_or_not_connected() {
    let ca = authority();
    let trusted = bundle(&[&ca]);
    let s1 = part(&ca, &server("s1"), &trusted);
    let anonymous = client_config_of(&trusted);
    let mut pair = shake(&anonymous, &s1.server_config(ALPN, ClientAuth::Optional)).expect("nobody may connect here");
    pair.talk();
    assert_eq!(pair.seen_client(), None);
    let error = shake(&anonymous, &s1.server_config(ALPN, ClientAuth::Required)).expect_err("here not");
    assert!(matches!(error, Error::NoCertificatesPresented), "{error}");
    // An optional certificate is still checked if it is presented.
    let stranger = part(&authority(), &node("a"), &trusted);
    assert!(shake(&stranger.client_config(ALPN), &s1.server_config(ALPN, ClientAuth::Optional)).is_err());
}

#[test]
fn who_joins_knows_the_ca_by_its_pin_and_speaks_with_servers_only() {
    let (ca, other) = (authority(), authority());
    let trusted = bundle(&[&ca]);
    let optional = |part: &TlsIdentity| part.server_config(&[], ClientAuth::Optional);
    let s1 = part(&ca, &server("s1"), &trusted);
    let pair = shake(&client_config_pinned(ca.pin()), &optional(&s1)).expect("the pin is right");
    assert_eq!(pair.seen_server().id, server("s1"));
    let error = shake(&client_config_pinned(other.pin()), &optional(&s1)).expect_err("the pin is wrong");
    assert!(matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer)), "{error}");
    // A node holds a good certificate, but must not take join tokens.
    let n1 = part(&ca, &node("n1"), &trusted);
    assert!(shake(&client_config_pinned(ca.pin()), &optional(&n1)).is_err());
    assert!(shake(&client_config_of(&trusted), &optional(&n1)).is_err());
}

#[test]
fn a_pinned_ca_in_the_chain_does_not_help_a_certificate_that_it_did_not_sign() {
    let (ca, evil) = (authority(), authority());
    let key = KeyPair::generate().expect("a key");
    let chain = signed(&evil, &key, &server("s1")).chain_pem + ca.certificate_pem();
    let fake = TlsIdentity::new(&chain, &key, bundle(&[&evil])).expect("an identity");
    let error = shake(&client_config_pinned(ca.pin()), &fake.server_config(&[], ClientAuth::Optional));
    assert!(error.is_err(), "the CA's certificate is public: who shows it has signed nothing with it");
}

#[test]
fn a_rotation_of_the_ca_fails_no_connection() {
    let (old, new) = (authority(), authority());
    let keys: Vec<KeyPair> = (0..2).map(|_| KeyPair::generate().expect("a key")).collect();
    let ids = [node("a"), node("b")];
    let only_old = bundle(&[&old]);
    let parts: Vec<TlsIdentity> = keys
        .iter()
        .zip(&ids)
        .map(|(key, id)| {
            TlsIdentity::new(&signed(&old, key, id).chain_pem, key, only_old.clone()).expect("an identity")
        })
        .collect();
    // Created once, used throughout.
    let servers: Vec<_> = parts.iter().map(|part| part.server_config(ALPN, ClientAuth::Required)).collect();
    let clients: Vec<_> = parts.iter().map(|part| part.client_config(ALPN)).collect();
    let mut opened = Vec::new();
    let mut all_connect = |step: &str| {
        for (client, server) in [(0, 1), (1, 0)] {
            opened.push(shake(&clients[client], &servers[server]).unwrap_or_else(|e| panic!("{step}: {e}")));
        }
        opened.iter_mut().for_each(|pair| pair.talk());
    };
    all_connect("before");
    let both = bundle(&[&new, &old]);
    assert_ne!(both.version(), only_old.version());
    for part in &parts {
        part.replace_bundle(both.clone()).expect("both are trusted");
        all_connect("while roots are spread");
    }
    for ((part, key), id) in parts.iter().zip(&keys).zip(&ids) {
        part.replace(&signed(&new, key, id).chain_pem, key, both.clone()).expect("renewed");
        all_connect("while certificates are renewed");
    }
    for part in &parts {
        part.replace_bundle(bundle(&[&new])).expect("the old one is dropped");
        all_connect("while the old root is dropped");
    }
    let late = part(&old, &node("late"), &both);
    assert!(mutual(&late, &parts[0]).is_err(), "who missed the rotation is a stranger now");
}

#[test]
fn every_connection_shows_its_certificate_anew() {
    let (ca, other) = (authority(), authority());
    let trusted = bundle(&[&ca]);
    let (a, b) = (part(&ca, &node("a"), &trusted), part(&ca, &node("b"), &trusted));
    let (client, server) = (a.client_config(ALPN), b.server_config(ALPN, ClientAuth::Required));
    for _ in 0..2 {
        let pair = shake(&client, &server).expect("connected");
        assert_eq!(pair.server.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
    b.replace_bundle(bundle(&[&other])).expect("replaced");
    let error = shake(&client, &server).expect_err("no ticket of before opens the door");
    assert!(!matches!(error, Error::AlertReceived(AlertDescription::InternalError)), "{error}");
}
