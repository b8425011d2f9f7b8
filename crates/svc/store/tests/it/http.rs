//! The HTTP front with curl as the client.

use crate::support::{Random, World, blob_options};
use heptad_store::Options;
use std::{fs, path::Path, process::Output};

async fn curl(arguments: &[&str]) -> Output {
    let output = tokio::process::Command::new("curl").args(["-sS", "--path-as-is"]).args(arguments).output().await;
    output.expect("these tests need curl; install the package `curl`")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

async fn serve(world: &World) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().nest("/v1/storage", world.storage.router());
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1/storage")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_stores_and_reads_objects() {
    let world = World::with(blob_options(), Options::default()).await;
    let url = serve(&world).await;
    let (file, back) = (world.dir.path().join("in"), world.dir.path().join("out"));
    let content = vec![Random(5).bytes(3 << 20); 2].concat();
    fs::write(&file, &content).unwrap();
    let object = format!("{url}/photos/2024/a%20b/%2e%2e/%C3%A9.jpg");
    let put = curl(&["-T", path(&file), "-H", "content-type: image/jpeg", "-w", "%{http_code}", &object]).await;
    assert!(text(&put).ends_with("201"), "{}", text(&put));
    let got = curl(&["-D", "-", "-o", path(&back), &object]).await;
    let headers = text(&got).to_lowercase();
    let checksum = blake3::hash(&content).to_hex().to_string();
    for header in [
        "http/1.1 200".to_owned(),
        format!("content-length: {}", content.len()),
        format!("etag: \"{checksum}\""),
        format!("x-heptad-blake3: {checksum}"),
        "content-type: image/jpeg".to_owned(),
    ] {
        assert!(headers.contains(&header), "{header} in {headers}");
    }
    assert_eq!(fs::read(&back).unwrap(), content);
    let known = curl(&["-H", &format!("if-none-match: \"{checksum}\""), "-w", "%{http_code}", &object]).await;
    assert_eq!(text(&known), "304");
    let head = curl(&["-I", &object]).await;
    assert!(text(&head).to_lowercase().contains(&format!("content-length: {}", content.len())));
    let list: serde_json::Value =
        serde_json::from_slice(&curl(&[&format!("{url}/photos?prefix=2024/")]).await.stdout).unwrap();
    assert_eq!(list["objects"][0]["key"], "2024/a b/../é.jpg");
    let status: serde_json::Value = serde_json::from_slice(&curl(&[&url]).await.stdout).unwrap();
    assert_eq!((status["shards_total"].as_u64(), status["nodes"].as_array().map(Vec::len)), (Some(1000), Some(3)));
    assert_eq!(text(&curl(&["-X", "DELETE", "-w", "%{http_code}", &object]).await), "204");
    let gone: serde_json::Value = serde_json::from_slice(&curl(&[&object]).await.stdout).unwrap();
    assert_eq!((gone["status"].as_u64(), gone["code"].as_str()), (Some(404), Some("not-found")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_is_told_what_is_wrong() {
    let world = World::new().await;
    let url = serve(&world).await;
    let cases = [
        (vec!["-X", "PUT", "-d", "x"], "Bad_Bucket/key".to_owned(), 400),
        (vec!["-X", "PUT", "-d", "x"], format!("data/{}", "k".repeat(1025)), 400),
        (vec!["-X", "PUT", "-d", "x", "-H", "x-heptad-blake3: 00"], "data/key".to_owned(), 400),
        (vec![], "data/absent".to_owned(), 404),
        (vec![], "data?limit=0".to_owned(), 400),
    ];
    for (arguments, path, status) in cases {
        let url = format!("{url}/{path}");
        let output = curl(&[&arguments[..], &[&url]].concat()).await;
        let problem: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a problem");
        assert_eq!(problem["status"].as_u64(), Some(status), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    world.lose(0);
    world.lose(1);
    let output = curl(&["-X", "PUT", "-d", "x", &format!("{url}/data/key")]).await;
    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a problem");
    assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(503), Some("unavailable")), "{problem}");
}
