//! What an authority signs, and what it takes from a request: only the public key.

use crate::world::{DOMAIN, HOUR, authority, bundle, node, now_ms, part, server, signed};
use heptad_pki::{Authority, KeyPair, SpiffeId, TlsIdentity, TrustBundle};
use proptest::prelude::*;

#[test]
fn who_asks_for_another_name_gets_only_what_is_granted() {
    let ca = authority();
    let key = KeyPair::generate().expect("a key");
    let request = key.csr_pem_asking_for("spiffe://cluster.local/server/s1").expect("a request");
    let made = ca.sign(&request, &node("mallory"), &[], HOUR, now_ms()).expect("signed");
    let identity = TlsIdentity::new(&made.chain_pem, &key, bundle(&[&ca])).expect("an identity");
    assert_eq!(identity.own().id, node("mallory"));
    assert_eq!(identity.own().key_sha256, made.key_sha256);
    assert_eq!(made.key_sha256, key.sha256());
    assert_eq!(identity.own().not_after_ms, made.not_after_ms);
}

#[test]
fn a_request_without_the_key_or_unreadable_is_refused() {
    let ca = authority();
    let request = KeyPair::generate().expect("a key").csr_pem().expect("a request");
    let signs = |csr: &str| ca.sign(csr, &node("a"), &[], HOUR, now_ms());
    assert!(signs(&request).is_ok());
    for i in (40..request.len() - 40).step_by(7) {
        let mut changed = request.clone().into_bytes();
        changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("text");
        if changed != request && signs(&changed).is_ok() {
            panic!("a changed request was signed: byte {i}");
        }
    }
    assert!(signs("").is_err() && signs(&"x".repeat(100_000)).is_err());
    assert!(ca.sign(&request, &SpiffeId::Node("A B".into()), &[], HOUR, now_ms()).is_err());
}

#[test]
fn nothing_outlives_its_ca() {
    let ca = Authority::generate(DOMAIN, now_ms(), HOUR).expect("a CA");
    let request = KeyPair::generate().expect("a key").csr_pem().expect("a request");
    let made = ca.sign(&request, &node("a"), &[], 24 * HOUR, now_ms()).expect("signed");
    assert!(made.not_after_ms <= ca.not_after_ms());
    assert!(ca.sign(&request, &node("a"), &[], HOUR, now_ms() + 7_200_000).is_err(), "the CA has ended then");
}

#[test]
fn an_authority_is_kept_as_pem() {
    let ca = authority();
    let again = Authority::from_pem(ca.certificate_pem(), &ca.key_pem()).expect("read");
    assert_eq!((again.pin(), again.trust_domain()), (ca.pin(), DOMAIN));
    let key = KeyPair::generate().expect("a key");
    assert!(TlsIdentity::new(&signed(&again, &key, &node("a")).chain_pem, &key, bundle(&[&ca])).is_ok());
    assert!(Authority::from_pem(ca.certificate_pem(), &key.to_pem()).is_err(), "another's key");
    for bad in ["", "cluster..local", "Cluster", "a/b", &"x".repeat(64)] {
        assert!(Authority::generate(bad, now_ms(), HOUR).is_err(), "{bad}");
    }
}

#[test]
fn a_bundle_has_one_to_three_roots_and_a_version() {
    let cas: Vec<Authority> = (0..4).map(|_| authority()).collect();
    let pem = |which: &[usize]| which.iter().map(|i| cas[*i].certificate_pem()).collect::<String>();
    let of = |which: &[usize]| TrustBundle::from_pem(&pem(which));
    let three = of(&[0, 1, 2]).expect("three");
    assert_eq!(three, of(&[2, 0, 1, 1]).expect("in another order"), "the order and repetitions do not matter");
    assert_eq!(three, TrustBundle::from_pem(three.to_pem()).expect("read again"));
    assert!(three.pins().contains(cas[1].pin()) && three.pins().len() == 3);
    assert!(of(&[]).is_err() && of(&[0, 1, 2, 3]).is_err());
    assert_ne!(three.version(), of(&[0, 1]).expect("two").version());
    let key = KeyPair::generate().expect("a key");
    let leaf = signed(&cas[0], &key, &server("s1")).chain_pem;
    assert!(TrustBundle::from_pem(&leaf).is_err(), "a part's certificate is no root");
}

#[test]
fn an_identity_needs_its_own_key() {
    let ca = authority();
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let chain = signed(&ca, &key, &node("a")).chain_pem;
    let identity = part(&ca, &node("a"), &bundle(&[&ca]));
    let before = identity.own();
    assert!(identity.replace(&chain, &other, bundle(&[&ca])).is_err());
    assert_eq!(identity.own(), before, "nothing changed");
    assert!(TlsIdentity::new("", &key, bundle(&[&ca])).is_err());
}

#[test]
fn a_key_survives_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.key");
    let key = KeyPair::generate().expect("a key");
    key.save(&path).expect("written");
    assert_eq!(KeyPair::load(&path).expect("read").sha256(), key.sha256());
    assert!(!format!("{key:?}").contains("PRIVATE"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn foreign_text_never_panics(text in ".{0,200}", base64 in "[A-Za-z0-9+/=\n]{0,400}") {
        for label in ["CERTIFICATE", "CERTIFICATE REQUEST", "PRIVATE KEY"] {
            let pem = format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n");
            for text in [&text, &pem] {
                let _ = TrustBundle::from_pem(text);
                let _ = KeyPair::from_pem(text);
                prop_assert!(Authority::from_pem(text, text).is_err());
            }
        }
    }
}
