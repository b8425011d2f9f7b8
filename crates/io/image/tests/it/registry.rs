//! A real registry on a free loopback port, and a proxy before it that breaks connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::run;

/// User name and password of a guarded registry.
pub(super) const LOGIN: &str = "me:secret$word";
const LOGIN_HASH: &str = "me:$2b$05$abcdefghijklmnopqrstuuOfoWXr5CK9sbsnoVFHrS0Fqa4cq51x2\n";

/// Ended by its handle when dropped, also after a failed test.
pub(super) struct Registry {
    child: Child,
    dir: tempfile::TempDir,
    pub(super) address: String,
}

impl Registry {
    pub(super) fn start() -> Self {
        Self::start_with("")
    }

    /// One that wants [`LOGIN`].
    pub(super) fn guarded() -> Self {
        Self::start_with("auth: {htpasswd: {realm: test, path: htpasswd}}\n")
    }

    fn start_with(auth: &str) -> Self {
        // Another process may take the port between choosing and using it.
        (0..5).find_map(|_| Self::try_start(auth)).expect("docker-registry answers on loopback")
    }

    fn try_start(auth: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("temporary directory");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {root}}}\nhttp: {{addr: '{address}'}}\n{auth}",
            root = dir.path().join("data").display(),
        );
        let passwords = dir.path().join("htpasswd");
        let config = config.replace("path: htpasswd", &format!("path: {}", passwords.display()));
        std::fs::write(passwords, LOGIN_HASH).expect("passwords");
        std::fs::write(dir.path().join("config.yml"), config).expect("configuration");
        let log = std::fs::File::create(dir.path().join("log")).expect("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run docker-registry ({e}): install the Debian package docker-registry"));
        let mut registry = Self { child, dir, address };
        registry.wait().then_some(registry)
    }

    fn wait(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            if self.answers() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return false };
        let request = format!("GET /v2/ HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        let mut answer = [0; 15];
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && (answer.ends_with(b"200 OK") || answer.ends_with(b"401 Un"))
    }

    /// Pushes an image of a layout; `extra` are options of `skopeo copy`.
    pub(super) fn push(&self, layout: &str, name: &str, extra: &[&str]) -> String {
        let target = format!("docker://{}/{name}", self.address);
        let mut args = vec!["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"];
        args.extend_from_slice(extra);
        args.extend_from_slice(&[layout, &target]);
        run("skopeo", &args);
        format!("{}/{name}", self.address)
    }

    /// How often blobs of a repository were asked for.
    pub(super) fn blob_requests(&self, repository: &str) -> usize {
        let log = std::fs::read_to_string(self.dir.path().join("log")).expect("log");
        let wanted = format!("\"GET /v2/{repository}/blobs/");
        log.lines().filter(|line| line.contains(&wanted)).count()
    }

    /// The file in which the registry keeps a blob.
    pub(super) fn blob(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes connections on, and breaks the one on which so many bytes have come back, once.
pub(super) struct Breaker {
    pub(super) address: String,
    left: Arc<AtomicI64>,
}

impl Breaker {
    pub(super) fn before(registry: &Registry, bytes: i64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("address").to_string();
        let left = Arc::new(AtomicI64::new(bytes));
        let (upstream, budget) = (registry.address.clone(), Arc::clone(&left));
        // Ends with the process: it only waits.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&upstream) else { continue };
                let budget = Arc::clone(&budget);
                std::thread::spawn(move || pass(&client, &server, &budget));
            }
        });
        Self { address, left }
    }

    pub(super) fn has_broken(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

fn pass(client: &TcpStream, server: &TcpStream, budget: &AtomicI64) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::copy(&mut &*client, &mut &*server);
            let _ = server.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 16 << 10];
        while let Ok(n @ 1..) = (&mut &*server).read(&mut buffer) {
            let before = budget.fetch_sub(n as i64, Ordering::SeqCst);
            let breaks = before >= 0 && before < n as i64;
            if breaks || (&mut &*client).write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}
