//! Who may drive the API: the sockets' modes and owners, the token, hosts and origins.

use crate::common::{World, options};
use heptad_client::Client;
use heptad_control::{Control, Error, ServerParts};
use heptad_state::MemoryStore;
use std::{net::SocketAddr, os::unix::fs::PermissionsExt, process::Command, sync::Arc};

fn status(arguments: &[String]) -> u16 {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(arguments)
        .output()
        .expect("this test needs curl: apt-get install curl");
    String::from_utf8_lossy(&output.stdout).parse().expect("a status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_needs_the_token_and_an_own_host_and_origin() {
    let world = World::new().await;
    let address = world.control.tcp().expect("it listens on TCP");
    let (url, port, token) = (format!("http://{address}/v1/version"), address.port(), world.token());
    let ask = |headers: &[String]| {
        let mut arguments = vec![url.clone()];
        arguments.extend(headers.iter().flat_map(|header| ["-H".to_owned(), header.clone()]));
        status(&arguments)
    };
    let auth = format!("Authorization: Bearer {token}");
    assert_eq!(ask(std::slice::from_ref(&auth)), 200);
    assert_eq!(ask(&[]), 401);
    assert_eq!(ask(&["Authorization: Bearer x".into()]), 401);
    assert_eq!(ask(&[format!("Authorization: Basic {token}")]), 401);
    assert_eq!(ask(&[auth.clone(), format!("Host: localhost:{port}")]), 200);
    assert_eq!(ask(&[auth.clone(), format!("Host: [::1]:{port}")]), 200);
    assert_eq!(ask(&[auth.clone(), "Host: evil.example.com".into()]), 403);
    assert_eq!(ask(&[auth.clone(), format!("Host: evil.example.com:{port}")]), 403);
    assert_eq!(ask(&["Host: evil.example.com".into()]), 403);
    assert_eq!(ask(&[auth.clone(), format!("Origin: http://{address}")]), 200);
    assert_eq!(ask(&[auth.clone(), "Origin: http://evil.example.com".into()]), 403);
    assert_eq!(ask(&[auth.clone(), "Origin: null".into()]), 403);
    assert_eq!(ask(&[auth, format!("Origin: https://{address}")]), 403);
    let client = Client::tcp(address, token);
    assert_eq!(client.version().await.expect("it answers").api, "v1");
    let stranger = Client::tcp(address, "wrong");
    let error = stranger.version().await.expect_err("no token");
    assert_eq!(error.code(), Some(heptad_api::ErrorCode::Unauthorized));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_private_replaced_when_stale_and_never_taken_from_a_live_server() {
    let world = World::new().await;
    let socket = world.control.socket().expect("it has a socket").to_owned();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(world.control.token_file().expect("made"))), (0o600, 0o600));
    let start = || Control::start(options(&world.dir), Arc::new(MemoryStore::new()), ServerParts::default());
    let error = start().await.expect_err("another server answers there");
    assert!(error.to_string().contains("another server answers"), "{error}");
    assert!(world.client.version().await.is_ok());

    let token = world.token();
    let World { dir, control, client } = world;
    control.shutdown().await;
    assert!(!socket.exists());
    let error = client.version().await.expect_err("nobody is there");
    assert!(error.to_string().contains("is `heptad dev` running"), "{error}");
    // A socket that nobody listens on is what a killed server leaves.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let again = Control::start(options(&dir), Arc::new(MemoryStore::new()), ServerParts::default()).await;
    let again = again.expect("the stale socket is replaced");
    assert!(client.version().await.is_ok());
    let kept = std::fs::read_to_string(again.token_file().expect("made")).expect("readable");
    assert_eq!(kept.trim(), token);
    again.shutdown().await;
    std::fs::write(&socket, "a file").expect("written");
    let error = Control::start(options(&dir), Arc::new(MemoryStore::new()), ServerParts::default()).await;
    assert!(error.expect_err("a file is no socket").to_string().contains("another file"));
}

#[tokio::test]
async fn other_addresses_than_loopback_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = options(&dir);
    options.tcp = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    let error = Control::start(options, Arc::new(MemoryStore::new()), ServerParts::default()).await;
    assert!(matches!(error, Err(Error::Option { option: "tcp", .. })), "{error:?}");
}
