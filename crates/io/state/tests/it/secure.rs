//! etcd with TLS, client certificates and a user. Needs Debian's `etcd-server` and `etcd-client`.

use crate::{etcd::Cluster, support::temp_dir};
use heptad_state::{Error, EtcdOptions, EtcdStore, EtcdUser, KeyRange, Store, StoreExt, WatchRequest};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A CA, and certificates of it for a member and for a client.
fn make_certificates(dir: &Path) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = ca.self_signed(&ca_key).expect("a certificate");
    fs::write(dir.join("ca.pem"), certificate.pem()).expect("written");
    let issuer = Issuer::new(ca, ca_key);
    for name in ["member", "client"] {
        let key = KeyPair::generate().expect("a key");
        let mut own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        own.distinguished_name.push(DnType::CommonName, name);
        let signed = own.signed_by(&key, &issuer).expect("a certificate");
        fs::write(dir.join(format!("{name}.pem")), signed.pem()).expect("written");
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_tls_and_users() {
    let dir = temp_dir();
    make_certificates(dir.path());
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let text = |name: &str| path(name).display().to_string();
    let flags = [
        "--max-txn-ops=4096".to_owned(),
        format!("--cert-file={}", text("member.pem")),
        format!("--key-file={}", text("member.key")),
        format!("--trusted-ca-file={}", text("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let cluster = Cluster::start(1, "https", |_| flags.to_vec());
    let secure = EtcdOptions {
        ca_file: Some(path("ca.pem")),
        cert_file: Some(path("client.pem")),
        key_file: Some(path("client.key")),
        ..cluster.options()
    };
    let store = cluster.open_with(secure.clone()).await;
    store.put("k", "1").await.expect("written");
    let stranger = EtcdOptions { cert_file: None, key_file: None, retry_ms_max: 500, ..secure.clone() };
    assert!(matches!(EtcdStore::open(stranger).await, Err(Error::Etcd { .. })), "a certificate is asked");
    let blind = EtcdOptions { ca_file: None, ..secure.clone() };
    assert!(matches!(EtcdStore::open(blind).await, Err(Error::EtcdOption { option: "ca_file", .. })));
    let etcdctl = |args: &[&str]| {
        let done = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &cluster.members[0].client, "--cacert", &text("ca.pem")])
            .args(["--cert", &text("client.pem"), "--key", &text("client.key")])
            .args(args)
            .output()
            .expect("etcdctl is missing: apt-get install etcd-client");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    etcdctl(&["user", "add", "root:secret"]);
    etcdctl(&["user", "grant-role", "root", "root"]);
    etcdctl(&["auth", "enable"]);
    let user = |password: &str| Some(EtcdUser { name: "root".to_owned(), password: password.to_owned() });
    let wrong = EtcdOptions { user: user("guess"), ..secure.clone() };
    let refused = EtcdStore::open(wrong).await.expect_err("the password is wrong");
    assert!(!format!("{refused:?}").contains("guess"), "{refused:?}");
    let known = cluster.open_with(EtcdOptions { user: user("secret"), ..secure }).await;
    assert_eq!(known.get("k").await.expect("read").map(|kv| kv.value), Some("1".into()));
    let mut watch = known.watch(WatchRequest::new(KeyRange::all())).await.expect("a watch");
    let revision = known.put("k", "2").await.expect("written");
    assert_eq!(crate::support::next_batch(&mut watch).await.revision, revision);
}
