//! One etcd member as a target: started on loopback in a temporary directory, driven over its own gRPC with a few
//! shared HTTP/2 connections, ended with this value. The one message that is needed is written by hand.

use super::load::{Client, Target};
use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::net::TcpStream;

const START_TIME_MAX: Duration = Duration::from_secs(20);

pub(super) struct Etcd {
    process: Child,
    connections: Vec<Connection>,
    _dir: TempDir,
}

type Connection = SendRequest<Full<Bytes>>;

impl Etcd {
    pub(super) async fn start(program: &Path, parent: &Path, connections: usize) -> Result<Self> {
        let dir = TempDir::with_prefix_in("heptad-bench-etcd-", parent)?;
        let (client, peer) = (free_address()?, free_address()?);
        let process = spawn(program, dir.path(), client, peer)?;
        let mut etcd = Self { process, connections: Vec::new(), _dir: dir };
        etcd.wait_until_ready(client).await?;
        for _ in 0..connections.max(1) {
            etcd.connections.push(connect(client).await?);
        }
        Ok(etcd)
    }

    /// It is ready when it has done a write.
    async fn wait_until_ready(&mut self, address: SocketAddr) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_TIME_MAX {
            if let Some(status) = self.process.try_wait()? {
                bail!("etcd ended at once ({status})");
            }
            if let Ok(mut connection) = connect(address).await
                && connection.put(b"bench/ready".to_vec(), Vec::new()).await.is_ok()
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("etcd at {address} does not answer within {START_TIME_MAX:?}")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// History is kept about as long as the embedded store keeps it, and no quota stops the run.
fn spawn(program: &Path, dir: &Path, client: SocketAddr, peer: SocketAddr) -> Result<Child> {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let mut command = Command::new(program);
    command.arg("--name=bench").arg("--data-dir").arg(dir);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("bench={peer}")]);
    command.args(["--auto-compaction-mode=revision", "--auto-compaction-retention=10000"]);
    command.args(["--quota-backend-bytes=8589934592", "--log-level=error", "--logger=zap"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let remedy = "install Debian's `etcd-server` or name another program with --etcd";
    command.spawn().with_context(|| format!("cannot start {}; {remedy}", program.display()))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn connect(address: SocketAddr) -> Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Target for Etcd {
    type Client = Connection;

    fn client(&self, index: usize) -> Self::Client {
        self.connections[index % self.connections.len()].clone()
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Client for Connection {
    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let request = Request::post("http://etcd/etcdserverpb.KV/Put")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(put_message(&key, &value)))?;
        self.ready().await?;
        let response = self.send_request(request).await?;
        ensure!(response.status().is_success(), "etcd answered {}", response.status());
        let head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned()).or(head);
        ensure!(status.as_ref().is_some_and(|status| status == "0"), "etcd refused a put: {status:?}");
        Ok(())
    }
}

/// `PutRequest { key = 1, value = 2 }` in gRPC's frame: not compressed, length, message.
fn put_message(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(key.len() + value.len() + 16);
    for (tag, field) in [(0x0a, key), (0x12, value)] {
        message.push(tag);
        push_varint(&mut message, field.len());
        message.extend_from_slice(field);
    }
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(0);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    frame.into()
}

fn push_varint(message: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_put_message_is_protobuf_in_a_grpc_frame() {
        let frame = super::put_message(b"k", &[7; 200]);
        assert_eq!(&frame[..12], &[0, 0, 0, 0, 206, 0x0a, 1, b'k', 0x12, 0xc8, 1, 7]);
        assert_eq!(frame.len(), 5 + 206);
    }
}
