//! Probes a container's health: by a command inside, an HTTP request or a connection. Does not judge the result.

use crate::context::on_thread;
use heptad_exec::{Driver, ExecRequest, ExitKind};
use heptad_model::{Container, Probe, signal_name};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

/// Probes once. `Err` is a sentence on what was wrong.
pub(crate) async fn ask(
    probe: &Probe,
    limit: Duration,
    (driver, turns): (&Arc<dyn Driver>, [Arc<Semaphore>; 2]),
    run: &str,
    addresses: &BTreeMap<u16, SocketAddr>,
) -> Result<(), String> {
    match probe {
        // The driver keeps the time limit, which begins when the command starts, and kills the command at its end.
        Probe::Command(words) => command(driver, turns, run, words.clone(), limit).await,
        Probe::Http { path, port } => in_time(limit, http_get(address(addresses, *port)?, path)).await,
        Probe::Tcp { port } => in_time(limit, connect(address(addresses, *port)?)).await.map(drop),
    }
}

async fn in_time<T>(limit: Duration, asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(limit, asked).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}

fn address(addresses: &BTreeMap<u16, SocketAddr>, port: Option<u16>) -> Result<SocketAddr, String> {
    match port {
        Some(port) => addresses.get(&port).copied(),
        None => addresses.values().next().copied(),
    }
    .ok_or_else(|| "the container has no such port".to_owned())
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("connecting to {address}: {error}"))
}

async fn http_get(address: SocketAddr, path: &str) -> Result<(), String> {
    let stream = connect(address).await?;
    let told = |error: &dyn std::fmt::Display| format!("GET http://{address}{path}: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    // Dropped, and so closed, when this function returns.
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "heptad-health-check")
        .body(Empty::<Bytes>::new())
        .map_err(|error| told(&error))?;
    let status = sender.send_request(request).await.map_err(|error| told(&error))?.status();
    if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(told(&format_args!("status {status}"))) }
}

async fn command(
    driver: &Arc<dyn Driver>,
    [own, common]: [Arc<Semaphore>; 2],
    run: &str,
    words: Vec<String>,
    limit: Duration,
) -> Result<(), String> {
    let (driver, run) = (driver.clone(), run.to_owned());
    let mut request = ExecRequest { timeout: limit, output_bytes_max: 4096, ..ExecRequest::new(words) };
    request.command.ends_all = true;
    // Never closed.
    let turn = own.acquire_owned().await;
    let exec = move || {
        let _turn = turn;
        driver.exec(&run, &request)
    };
    let output = on_thread(&common, exec).await.map_err(|error| error.to_string())?;
    let output = output.map_err(|error| error.to_string())?;
    let how = match output.how {
        _ if output.timed_out => format!("the command had not ended after {} ms and was killed", limit.as_millis()),
        ExitKind::Code(0) => return Ok(()),
        ExitKind::Code(code) => format!("the command ended with exit code {code}"),
        ExitKind::Signal(signal) => format!("the command was ended by {}", signal_name(signal)),
        ExitKind::Unknown => "the container ended before the command".to_owned(),
    };
    let said = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    Err(said.into_iter().filter(|text| !text.is_empty()).fold(how, |text, said| format!("{text}: {said}")))
}

/// The probe of a container, if it has one.
pub(crate) fn probe_of(container: &Container) -> Option<(&Probe, Duration)> {
    let check = container.template.health_check.as_ref()?;
    Some((&check.probe, Duration::from_millis(check.timeout_ms)))
}
