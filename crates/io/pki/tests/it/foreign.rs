//! OpenSSL as the other implementation: it makes a request, checks what we signed, and shakes hands with us.

use crate::world::{HOUR, authority, bundle, node, now_ms, part, server};
use heptad_pki::{ClientAuth, peer_identity};
use rustls::{ServerConnection, StreamOwned};
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

fn openssl(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("openssl").args(args).current_dir(dir).stdin(Stdio::null()).output();
    let out = out.expect("the program openssl is needed; install the package openssl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "openssl {args:?}: {text}");
    text
}

#[test]
fn openssl_asks_verifies_and_connects() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let ca = authority();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
    write("ca.pem", ca.certificate_pem());
    let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    openssl(dir, &[&["genpkey", "-out", "key.pem"][..], &curve].concat());
    openssl(dir, &["req", "-new", "-key", "key.pem", "-subj", "/CN=root", "-out", "request.pem"]);
    let request = std::fs::read_to_string(dir.join("request.pem")).expect("made");
    let made = ca.sign(&request, &node("foreign"), &[], HOUR, now_ms()).expect("signed");
    write("chain.pem", &made.chain_pem);
    openssl(dir, &["verify", "-CAfile", "ca.pem", "-purpose", "sslclient", "-x509_strict", "chain.pem"]);
    let shown = openssl(dir, &["x509", "-in", "chain.pem", "-noout", "-text"]);
    assert!(shown.contains("URI:spiffe://cluster.local/node/foreign"), "{shown}");
    assert!(shown.contains("CA:FALSE") && !shown.contains("CN = root"), "{shown}");

    let identity = part(&ca, &server("s1"), &bundle(&[&ca]));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-tls1_3", "-CAfile", "ca.pem", "-verify_return_error", "-quiet"])
        .args(["-cert", "chain.pem", "-key", "key.pem"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut client = client.expect("openssl is started");
    client.stdin.as_mut().expect("piped").write_all(b"ping\n").expect("written");
    let (socket, _) = listener.accept().expect("accepted");
    let config = identity.server_config(&[], ClientAuth::Required);
    let mut stream = StreamOwned::new(ServerConnection::new(config).expect("a connection"), socket);
    let mut word = [0; 5];
    stream.read_exact(&mut word).expect("read");
    assert_eq!(&word, b"ping\n");
    let peer = peer_identity(stream.conn.peer_certificates().expect("it showed one")).expect("an identity");
    assert_eq!((peer.id, peer.key_sha256), (node("foreign"), made.key_sha256));
    stream.write_all(b"pong").expect("written");
    stream.conn.send_close_notify();
    stream.flush().expect("sent");
    drop(stream);
    let mut answer = String::new();
    client.stdout.as_mut().expect("piped").read_to_string(&mut answer).expect("read");
    assert!(answer.contains("pong"), "{answer}");
    client.wait().expect("it ends");
}
