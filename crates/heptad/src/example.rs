//! The services of the example shop: small HTTP servers that call each other by name. They live in the program so that
//! the demo needs nothing else; they know nothing of the platform but its names and variables.

use anyhow::{Context, bail};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use heptad_cli::{args::ExampleService, output::say};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, env, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

const PORT_DEFAULT: u16 = 8080;
const CALL_SECONDS_MAX: u64 = 5;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The most calls that one request can cause.
const TIMES_MAX: u32 = 2_000;

#[derive(Debug)]
struct Shop {
    name: String,
    version: String,
    container: String,
}

/// Serves until SIGTERM.
pub(crate) async fn serve(args: ExampleService) -> anyhow::Result<ExitCode> {
    let known = ["web", "catalog", "cart", "stock"];
    if !known.contains(&args.name.as_str()) {
        bail!("`{}` is not a service of the shop; possible: {}", args.name, known.join(", "));
    }
    let shop = Shop {
        name: args.name,
        version: args.version,
        container: env::var("HEPTAD_CONTAINER").unwrap_or_else(|_| "local".to_owned()),
    };
    // In a network of its own, the service is called from elsewhere; with PORT it shares the host's loopback.
    let address = match env::var("PORT") {
        Ok(port) => SocketAddr::from(([127, 0, 0, 1], port.parse().context("PORT is not a port")?)),
        Err(_) => SocketAddr::from(([0, 0, 0, 0], PORT_DEFAULT)),
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    say(format!("{} version {} listens on {address}\n", shop.name, shop.version))?;
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/", get(front))
        .route("/call", get(call))
        .with_state(Arc::new(shop));
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(ExitCode::SUCCESS)
}

/// Which services a service calls for its own answer.
fn needs(name: &str) -> &'static [&'static str] {
    match name {
        "web" => &["catalog", "cart"],
        "cart" => &["stock"],
        _ => &[],
    }
}

async fn front(State(shop): State<Arc<Shop>>) -> Response {
    let mut parts = BTreeMap::new();
    for needed in needs(&shop.name) {
        match ask(needed, "/").await {
            Ok((StatusCode::OK, body)) => {
                parts.insert(*needed, serde_json::from_slice(&body).unwrap_or(Value::Null));
            }
            Ok((status, body)) => return broken(needed, &format!("{status}: {}", String::from_utf8_lossy(&body))),
            Err(error) => return broken(needed, &format!("{error:#}")),
        }
    }
    Json(json!({
        "service": shop.name,
        "version": shop.version,
        "container": shop.container,
        "parts": parts,
    }))
    .into_response()
}

fn broken(needed: &str, why: &str) -> Response {
    (StatusCode::BAD_GATEWAY, format!("{needed} did not answer: {why}\n")).into_response()
}

#[derive(Debug, Deserialize)]
struct Calls {
    to: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default = "one")]
    times: u32,
}

fn root() -> String {
    "/".to_owned()
}

fn one() -> u32 {
    1
}

/// Calls another service, perhaps many times, and counts what came back: by status and by version.
async fn call(Query(calls): Query<Calls>) -> Response {
    let mut statuses: BTreeMap<String, u32> = BTreeMap::new();
    let mut versions: BTreeMap<String, u32> = BTreeMap::new();
    let mut last = String::new();
    let mut kept = None;
    for _ in 0..calls.times.min(TIMES_MAX) {
        let status = match ask_kept(&mut kept, &calls.to, &calls.path).await {
            Ok((status, body)) => {
                let version = serde_json::from_slice::<Value>(&body).ok();
                if let Some(version) = version.as_ref().and_then(|v| v["version"].as_str()) {
                    *versions.entry(version.to_owned()).or_default() += 1;
                }
                last = String::from_utf8_lossy(&body).into_owned();
                status.as_u16().to_string()
            }
            Err(error) => {
                last = format!("{error:#}");
                "none".to_owned()
            }
        };
        *statuses.entry(status).or_default() += 1;
    }
    Json(json!({ "to": calls.to, "statuses": statuses, "versions": versions, "last": last })).into_response()
}

/// Where a service is found: by its DNS name; without a network of our own, by the variables that the platform sets.
fn address_of(service: &str) -> (String, String) {
    let prefix = service.to_ascii_uppercase().replace('-', "_");
    let namespace = env::var("HEPTAD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let name = format!("{service}.{namespace}.internal");
    match (env::var(format!("{prefix}_SERVICE_HOST")), env::var(format!("{prefix}_SERVICE_PORT"))) {
        (Ok(host), Ok(port)) => (format!("{host}:{port}"), name),
        _ => (format!("{name}:{PORT_DEFAULT}"), name),
    }
}

/// A connection to a service, kept as long as it works.
struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
    host: String,
    _driver: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl Connection {
    async fn open(service: &str) -> anyhow::Result<Self> {
        let (address, host) = address_of(service);
        let stream = TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, host, _driver: AbortOnDropHandle::new(tokio::spawn(driver)) })
    }

    async fn ask(&mut self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let host = self.host.clone();
        let request = http::Request::get(path).header(http::header::HOST, &host).body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.with_context(|| format!("asking {host}"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("reading from {host}: {error}"))?;
        Ok((status, body.to_bytes()))
    }
}

/// Asks over `kept` if it still works, else over a new connection, which is then kept.
async fn ask_kept(kept: &mut Option<Connection>, service: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let asked = async {
        let mut connection = match kept.take().filter(|connection| !connection.sender.is_closed()) {
            Some(connection) => connection,
            None => Connection::open(service).await?,
        };
        let answer = connection.ask(path).await?;
        *kept = Some(connection);
        Ok(answer)
    };
    let limit = Duration::from_secs(CALL_SECONDS_MAX);
    timeout(limit, asked).await.with_context(|| format!("{service} did not answer within {CALL_SECONDS_MAX} s"))?
}

async fn ask(service: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    ask_kept(&mut None, service, path).await
}
