//! Who may drive the API: the sockets' modes and owners, the token, hosts and origins; and sockets that outlive their server.

use crate::common::{World, options};
use heptad_client::Client;
use heptad_control::{Control, Error, Options, ServerParts};
use heptad_state::MemoryStore;
use std::{net::SocketAddr, os::unix::fs::PermissionsExt, process::Command, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::sync::CancellationToken;

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
    // A killed server leaves a socket on which nobody listens.
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

/// Sends requests repeatedly, each on a connection of its own, until `stop`; returns the errors, and the number of
/// answers.
async fn ask_always(client: impl Fn() -> Client, stop: CancellationToken) -> (Vec<String>, usize) {
    let (mut errors, mut good) = (Vec::new(), 0);
    while !stop.is_cancelled() {
        match client().version().await {
            Ok(_) => good += 1,
            Err(error) => errors.push(error.to_string()),
        }
    }
    (errors, good)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_handovers_nobody_is_refused_and_no_request_breaks_off() {
    let store = Arc::new(MemoryStore::new());
    let world = World::with(store.clone(), |_| {}, ServerParts::default()).await;
    let (token, stop) = (world.token(), CancellationToken::new());
    let World { dir, mut control, client } = world;
    let (address, socket) = (control.tcp().expect("an address"), control.socket().expect("a socket").to_owned());
    let unix = tokio::spawn(ask_always(move || Client::unix(&socket), stop.clone()));
    let tcp = tokio::spawn(ask_always(move || Client::tcp(address, token.clone()), stop.clone()));
    let kept = tokio::spawn(ask_always(
        {
            let client = client.clone();
            move || client.clone()
        },
        stop.clone(),
    ));
    for _ in 0..5 {
        let inherited = control.sockets().expect("copies");
        control.hand_over().await;
        let parts = ServerParts { inherited, ..ServerParts::default() };
        control = Control::start(options(&dir), store.clone(), parts).await.expect("it takes the sockets over");
        assert_eq!(control.tcp(), Some(address));
        for _ in 0..20 {
            client.version().await.expect("it answers");
        }
    }
    stop.cancel();
    for (what, load) in [("unix", unix), ("tcp", tcp), ("kept", kept)] {
        let (errors, good) = load.await.expect("a load ends");
        assert!(errors.is_empty() && good > 5, "{what}: {good} good, {errors:#?}");
    }
    let socket = control.socket().expect("a socket").to_owned();
    control.shutdown().await;
    assert!(!socket.exists(), "the last one takes its file along");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_before_a_handover_is_answered_and_told_to_come_again() {
    let patient = |options: &mut Options| options.drain_idle_ms_max = 3_000;
    let world = World::with(Arc::new(MemoryStore::new()), patient, ServerParts::default()).await;
    let World { dir: _dir, control, client } = world;
    let socket = control.socket().expect("a socket").to_owned();
    let ask = async |stream: &mut UnixStream| {
        stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sent");
        let mut head = vec![0; 4_096];
        let read = stream.read(&mut head).await.expect("an answer");
        String::from_utf8_lossy(&head[..read]).to_lowercase()
    };
    let mut kept = UnixStream::connect(&socket).await.expect("connected");
    let first = ask(&mut kept).await;
    assert!(first.starts_with("http/1.1 200") && !first.contains("connection: close"), "{first}");
    let mut silent = UnixStream::connect(&socket).await.expect("connected");
    let mut watch = client.watch::<heptad_model::Node>(None).await.expect("a watch, accepted after the others");
    let held = control.sockets().expect("copies");
    let handing_over = tokio::spawn(control.hand_over());
    let mut last = ask(&mut kept).await;
    while !last.contains("connection: close") {
        last = ask(&mut kept).await;
    }
    assert!(last.starts_with("http/1.1 200"), "{last}");
    assert_eq!(kept.read(&mut [0]).await.expect("the end"), 0);
    let only = ask(&mut silent).await;
    assert!(only.starts_with("http/1.1 200") && only.contains("connection: close"), "{only}");
    while watch.next().await.expect("no error").is_some() {}
    handing_over.await.expect("handed over");
    // New connections wait for the next holder of the sockets.
    let mut late = UnixStream::connect(&socket).await.expect("not refused");
    let (_, unix) = held.into_iter().find(|(name, _)| name == "unix").expect("it is among them");
    let next = std::os::unix::net::UnixListener::from(unix);
    let (mut served, _) = next.accept().expect("it waited");
    std::io::Write::write_all(&mut served, b"x").expect("sent");
    assert_eq!(late.read(&mut [0]).await.expect("an answer"), 1);
}
