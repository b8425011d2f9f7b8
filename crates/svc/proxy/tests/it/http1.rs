//! HTTP/1.1 as clients see it: heads, bodies, pipelining, upgrades, curl.

use crate::support::*;
use futures_util::StreamExt;
use heptad_proxy::Options;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use std::{
    convert::Infallible,
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn heads_pass_as_a_gateway_should_let_them() {
    let (_proxy, address) = World::new().service("web", &[mirror().await]).serve("web").await;
    let request = Request::get("/a?b=c")
        .header("host", "shop.example.com")
        .header("x-own", "1")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-forwarded-for", "10.9.9.9")
        .body(String::new())
        .expect("a request");
    let (status, text) = Client::connect(address).await.send(request).await.expect("a response");
    assert_eq!(status, 200);
    assert!(text.starts_with("GET /a?b=c\n"), "{text}");
    for line in ["host: shop.example.com\n", "x-own: 1\n", "x-forwarded-for: 10.9.9.9, 127.0.0.1\n", "x-request-id: "] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
    assert!(!text.contains("x-hop"), "{text}");
}

#[tokio::test]
async fn conditions_on_the_path_choose_the_backend() {
    let world = World::new().service("web", &[named("one").await]).service("web-v2", &[named("two").await]);
    let (_proxy, address) = world.split("web", "/new", &[("web-v2", 1)]).serve("web").await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/old").await, (200, "one".to_owned()));
    assert_eq!(client.get("/new/x").await, (200, "two".to_owned()));
    assert_eq!(client.get("/old").await, (200, "one".to_owned()));
}

#[tokio::test]
async fn weights_hold_for_requests() {
    let seed = std::process::id().into();
    println!("draw_seed {seed}");
    let world = World::new().service("web", &[named("one").await]).service("web-v2", &[named("two").await]);
    let world = world.split("web", "/", &[("web", 90), ("web-v2", 10)]);
    let (_proxy, address) = world.serve_with("web", Options { draw_seed: Some(seed), ..Options::default() }).await;
    let mut client = Client::connect(address).await;
    let mut second = 0;
    for _ in 0..2_000 {
        second += u32::from(client.get("/").await.1 == "two");
    }
    // Five standard deviations of a binomial distribution are 67.
    assert!((133..=267).contains(&second), "{second} of 2000, 200 expected");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (_proxy, address) = World::new().service("web", &[mirror().await]).serve("web").await;
    let mut requests: String = (0..19).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: web\r\n\r\n")).collect();
    requests += "GET /19 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    let text = raw(address, requests.as_bytes(), PATIENCE).await;
    let places: Vec<_> = (0..20).map(|number| text.find(&format!("GET /{number}\n"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
}

#[tokio::test]
async fn http_1_0_and_head_are_served() {
    let (_proxy, address) = World::new().service("web", &[mirror().await]).serve("web").await;
    let text = raw(address, b"GET / HTTP/1.0\r\n\r\n", PATIENCE).await;
    assert!(text.starts_with("HTTP/1.0 200") && text.contains("host: web.default.internal"), "{text}");
    let text = raw(address, b"HEAD / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", PATIENCE).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("content-length: "), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn large_bodies_stream_without_being_gathered() {
    static SENT: AtomicU64 = AtomicU64::new(0);
    let (endpoint, _server) = http_server(|_| async {
        let chunks = futures_util::stream::iter(0..64).map(|_| {
            SENT.fetch_add(1, Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7_u8; MIB])))
        });
        Response::new(StreamBody::new(chunks))
    })
    .await;
    let (_proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let mut stream = connect_from("127.0.0.1", address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await.expect("it reads");
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What the kernel holds in four socket buffers, which may be some MiB each; the proxy itself holds much less.
    let held = SENT.load(Relaxed);
    assert!(held < 40, "{held} MiB were taken from the endpoint though the client read nothing");
    let mut buffer = vec![0; MIB];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).await.expect("it goes on") {
            0 => break,
            count => received += count,
        }
    }
    assert!(received > 64 * MIB, "{received} bytes");
}

#[tokio::test]
async fn request_bodies_stream_both_ways_at_once() {
    let (_proxy, address) = World::new().service("web", &[echo().await]).serve("web").await;
    let stream = connect_from("127.0.0.1", address).await;
    let (mut read, mut write) = stream.into_split();
    let head = format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", 64 * MIB);
    let sending = tokio::spawn(async move {
        write.write_all(head.as_bytes()).await.expect("it reads");
        for _ in 0..64 {
            write.write_all(&vec![9; MIB]).await.expect("it reads");
        }
        write
    });
    let mut buffer = vec![0; MIB];
    let mut nines = 0_usize;
    while let count @ 1.. = read.read(&mut buffer).await.expect("it goes on") {
        nines += buffer[..count].iter().filter(|&&byte| byte == 9).count();
    }
    sending.await.expect("it was sent");
    assert_eq!(nines, 64 * MIB);
}

#[tokio::test]
async fn upgrades_pass() {
    let (endpoint, _server) = http_server(|mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.expect("the proxy passes the upgrade"));
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                io.write_all(&buffer[..count].to_ascii_uppercase()).await.expect("it reads");
            }
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        response.body(String::new()).expect("a response")
    })
    .await;
    let (proxy, address) = World::new().service("web", &[endpoint]).serve("web").await;
    let mut stream = connect_from("127.0.0.1", address).await;
    let head = b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head).await.expect("it reads");
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut text).await.expect("a response"), 0);
    }
    assert!(text.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&text));
    for word in [&b"hello"[..], b"again"] {
        stream.write_all(word).await.expect("it reads");
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).await.expect("an echo");
        assert_eq!(reply.to_vec(), word.to_ascii_uppercase());
    }
    assert_eq!(proxy.status().connections_open, 1, "an upgraded connection counts");
    // An upgraded connection does not outlive the proxy.
    assert!(!proxy.shutdown(100).await);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn curl_is_served() {
    let (_proxy, address) = World::new().service("web", &[echo().await]).serve("web").await;
    let output = tokio::task::spawn_blocking(move || {
        let url = format!("http://{address}/");
        let mut curl = Command::new("curl")
            .args(["-sS", "--http1.1", "-T", "-", "-w", "\n%{http_code} %{num_connects}", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl is installed (Debian package curl)");
        let mut input = curl.stdin.take().expect("it is piped");
        std::thread::spawn(move || input.write_all(&vec![b'x'; 3 * MIB]));
        curl.wait_with_output().expect("curl ends")
    });
    let output = output.await.expect("no panic").stdout;
    let text = String::from_utf8_lossy(&output);
    assert!(text.ends_with("\n200 1"), "{}", &text[text.len().saturating_sub(200)..]);
    assert_eq!(output.iter().filter(|&&byte| byte == b'x').count(), 3 * MIB);
}

#[tokio::test]
async fn exposed_services_are_told_apart_by_host() {
    let mut world = World::new().service("web", &[mirror().await]).service("api", &[named("api").await]);
    for service in &mut world.services {
        let host = format!("{}.example.com", service.name);
        service.expose = Some(heptad_model::Expose { host, port: Some(80) });
    }
    let options = Options { ingress: Some(([127, 0, 0, 1], 0).into()), ..Options::default() };
    let proxy = world.allow("api", &["web"]).start(options).await;
    let mut client = Client::connect(proxy.ingress_address().expect("it listens")).await;
    let get = |host: &str| {
        let request = Request::get("/").header("host", host).header("x-forwarded-for", "1.2.3.4");
        request.body(String::new()).expect("a request")
    };
    let (status, text) = client.send(get("WEB.example.com:8080")).await.expect("a response");
    assert_eq!(status, 200);
    // An outside client's account of earlier hops is not believed.
    assert!(text.contains("x-forwarded-for: 127.0.0.1\n"), "{text}");
    let of_hops = [
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4;proto=https"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "1.2.3.4"),
        ("x_real_ip", "1.2.3.4"),
        ("x_forwarded_proto", "https"),
        ("x-original-url", "/evil"),
        ("heptad-caller", "operator"),
    ];
    let request = of_hops.iter().fold(Request::get("/").header("host", "web.example.com"), |request, (name, value)| {
        request.header(*name, *value)
    });
    let (_, text) = client.send(request.body(String::new()).expect("a request")).await.expect("a response");
    for forged in ["evil", "1.2.3.4", "https", "x-forwarded-port", "heptad-"] {
        assert!(!text.contains(forged), "{forged} is in {text}");
    }
    for own in [
        "forwarded: for=127.0.0.1;host=\"web.example.com\";proto=http\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: web.example.com\n",
    ] {
        assert!(text.contains(own), "{own} is missing in {text}");
    }
    assert_eq!(client.send(get("api.example.com")).await.expect("a response").0, 403);
    let (status, text) = client.send(get("other.example.com")).await.expect("a response");
    assert_eq!(status, 404);
    assert!(text.contains("no service is exposed as `other.example.com`"), "{text}");
}

#[tokio::test]
async fn trailing_chunks_pass() {
    let (_proxy, address) = World::new().service("web", &[echo().await]).serve("web").await;
    let request = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                    3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let text = raw(address, request, PATIENCE).await;
    assert!(text.contains("abc") && text.contains("defg") && text.ends_with("0\r\n\r\n"), "{text}");
    let body = heptad_proxy::Body::from("x").collect().await.expect("a body").to_bytes();
    assert_eq!(body, Arc::<[u8]>::from(&b"x"[..])[..]);
}

#[tokio::test]
async fn of_two_lengths_one_counts_and_nothing_comes_after_it() {
    let (_proxy, address) = World::new().service("web", &[mirror().await]).serve("web").await;
    let next = "GET /next HTTP/1.1\r\nHost: web\r\n\r\n";
    for lengths in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\nContent-Length: 5",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: web\r\n{lengths}\r\n\r\n0\r\n\r\n{next}");
        let text = raw(address, request.as_bytes(), PATIENCE).await;
        let (_, seen) = text.split_once("\r\n\r\n").expect("a response");
        assert!(seen.starts_with("POST /\n") && !seen.contains("content-length"), "{lengths}: {text}");
        assert!(!text.contains("/next"), "{lengths}: {text}");
    }
    let request =
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    let text = raw(address, request.as_bytes(), PATIENCE).await;
    let (_, seen) = text.split_once("\r\n\r\n").expect("a response");
    assert_eq!(seen.matches("content-length").count(), 1, "{text}");
}
