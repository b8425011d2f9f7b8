//! A real etcd of three members on loopback, for the whole suite. It ends with this process, however that ends.
//! Needs Debian's `etcd-server`.

use crate::support::temp_dir;
use heptad_state::{EtcdOptions, EtcdStore, Limits, Op, Store, StoreExt, Txn};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Longest wait for a cluster that starts, or starts again.
const START_S_MAX: u64 = 30;
/// What each member is started with, as the documentation says.
pub(crate) const FLAGS: [&str; 4] = ["--max-txn-ops", "4096", "--max-request-bytes", "8388608"];
/// Runs what follows, says its process, and ends it when its own input ends; removes its directory if not told to keep it.
const KEEPER: &str = r#"dir="$1"; shift; "$@" >>"$dir/log" 2>&1 </dev/null & echo $!
read -r word; kill -9 $! 2>/dev/null; wait; [ "$word" = keep ] || rm -rf "$dir"; rmdir "${dir%/*}" 2>/dev/null"#;

/// A member: `sh` keeps it, so that it cannot outlive this process.
pub(crate) struct Member {
    name: String,
    dir: PathBuf,
    pub(crate) client: String,
    peer: String,
    flags: Vec<String>,
    keeper: Option<(Child, String)>,
}

impl Member {
    fn start(&mut self, all: &str) {
        assert!(self.keeper.is_none(), "{} runs already", self.name);
        let own = [("--listen-client-urls", &self.client), ("--advertise-client-urls", &self.client)];
        let peer = [("--listen-peer-urls", &self.peer), ("--initial-advertise-peer-urls", &self.peer)];
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(&self.dir)
            .args(["etcd", "--name", &self.name, "--initial-cluster", all, "--logger", "zap"])
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .args(own.iter().chain(&peer).flat_map(|(flag, value)| [*flag, value.as_str()]))
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut pid = String::new();
        BufReader::new(keeper.stdout.take().expect("it is piped")).read_line(&mut pid).expect("the process is said");
        self.keeper = Some((keeper, pid.trim().to_owned()));
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.end();
    }

    /// A signal of that name.
    pub(crate) fn signal(&self, signal: &str) {
        let (_, pid) = self.keeper.as_ref().expect("it runs");
        let sent = Command::new("kill").args([signal, pid]).status().expect("kill runs");
        assert!(sent.success(), "kill {signal} {pid}: etcd does not run; see {}", self.log());
    }

    fn end(&mut self) {
        if let Some((mut keeper, _)) = self.keeper.take() {
            if let Some(mut input) = keeper.stdin.take() {
                let _ = input.write_all(b"keep\n");
            }
            let _ = keeper.wait();
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end();
    }
}

/// Members of one cluster.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    all: String,
    _dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port()
}

impl Cluster {
    /// Starts members with these flags; `scheme` is that of their clients.
    pub(crate) fn start(count: usize, scheme: &str, flags: impl Fn(&Path) -> Vec<String>) -> Self {
        let version = Command::new("etcd").arg("--version").output();
        assert!(version.is_ok_and(|version| version.status.success()), "etcd is missing: apt-get install etcd-server");
        // The members' directories lie beside each other; each is removed with its member.
        let dir = temp_dir();
        let members = (1..=count).map(|number| {
            let name = format!("m{number}");
            let own = dir.path().join(&name);
            std::fs::create_dir(&own).expect("a directory");
            Member {
                client: format!("{scheme}://127.0.0.1:{}", free_port()),
                peer: format!("http://127.0.0.1:{}", free_port()),
                flags: flags(&own),
                dir: own,
                name,
                keeper: None,
            }
        });
        let members: Vec<Member> = members.collect();
        let all: Vec<String> = members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
        let mut cluster = Self { members, all: all.join(","), _dir: dir };
        (0..count).for_each(|index| cluster.restart(index));
        cluster
    }

    /// Three members as the documentation says.
    pub(crate) fn three() -> Self {
        Self::start(3, "http", |_| FLAGS.map(str::to_owned).to_vec())
    }

    pub(crate) fn restart(&mut self, index: usize) {
        self.members[index].start(&self.all);
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        let endpoints = self.members.iter().map(|member| member.client.clone()).collect();
        // Small enough that the bounds can be reached in a test.
        let limits = Limits { txn_bytes_max: 4 << 20, ..Limits::default() };
        EtcdOptions { endpoints, limits, watch_progress_revisions: 1_000, ..EtcdOptions::default() }
    }

    /// Opens it as soon as the cluster works.
    pub(crate) async fn open_with(&self, options: EtcdOptions) -> EtcdStore {
        let deadline = Instant::now() + Duration::from_secs(START_S_MAX);
        loop {
            match EtcdStore::open(options.clone()).await {
                Ok(store) => return store,
                Err(error) if Instant::now() > deadline => {
                    let logs: Vec<String> = self.members.iter().map(Member::log).collect();
                    panic!("etcd does not start: {error:?}\n{}", logs.join("\n"))
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// One cluster for all tests that leave it as it is, one after the other.
pub(crate) type Shared = OwnedMutexGuard<Cluster>;

pub(crate) async fn shared() -> Shared {
    static CLUSTER: OnceLock<Arc<Mutex<Cluster>>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Arc::new(Mutex::new(Cluster::three())));
    Arc::clone(cluster).lock_owned().await
}

/// An empty store, which nobody else uses meanwhile.
pub(crate) async fn empty(options: impl FnOnce(&mut EtcdOptions)) -> (EtcdStore, Shared) {
    let cluster = shared().await;
    // A busy disk is no fault of the store; tests of faults choose their own time.
    let mut own = EtcdOptions { write_timeout_ms: 30_000, ..cluster.options() };
    options(&mut own);
    let store = cluster.open_with(own).await;
    while !store.list("").await.expect("read").0.is_empty() {
        // More than one transaction may delete.
        let (keys, _) = store.list("").await.expect("read");
        let some = keys.into_iter().take(store.limits().txn_ops_max).map(|kv| Op::delete(kv.key));
        store.txn(Txn::new().then(some)).await.expect("deleted");
    }
    (store, cluster)
}

pub(crate) async fn fresh() -> (Arc<dyn Store>, Shared) {
    let (store, alive) = empty(|_| {}).await;
    (Arc::new(store), alive)
}

/// Nothing is kept in memory, so that every watch of the past asks etcd itself.
pub(crate) async fn fresh_without_memory() -> (Arc<dyn Store>, Shared) {
    let (store, alive) = empty(|options| options.recent_bytes_max = 0).await;
    (Arc::new(store), alive)
}
