//! A real etcd cluster of three members, each on a host of its own.

use crate::{Host, HostOptions, Lan, Running, wait_until};
use std::time::Duration;

const MEMBERS: usize = 3;
const START: Duration = Duration::from_secs(120);
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// Removed with its handle.
#[derive(Debug)]
pub struct Etcd {
    running: Vec<Option<Running>>,
    /// The members' machines.
    pub hosts: Vec<Host>,
}

impl Etcd {
    /// Starts it on three new hosts, and waits until it takes writes.
    pub fn start(lan: &Lan, options: &HostOptions) -> Self {
        let host = |number: usize| lan.host_with(&format!("e{number}"), options.clone());
        let hosts = (1..=MEMBERS).map(host).collect();
        let mut etcd = Self { running: (0..MEMBERS).map(|_| None).collect(), hosts };
        (0..MEMBERS).for_each(|at| etcd.start_member(at));
        wait_until("etcd takes writes", START, || etcd.takes_writes());
        etcd
    }

    /// Starts a member, also one that ran before.
    pub fn start_member(&mut self, at: usize) {
        assert!(self.running[at].is_none(), "it runs already");
        let host = &self.hosts[at];
        let url = |port: u16| format!("http://{}:{port}", host.address());
        let peer = |host: &Host| format!("{}=http://{}:{PEER_PORT}", host.name(), host.address());
        let cluster = self.hosts.iter().map(peer).collect::<Vec<_>>().join(",");
        let (data, clients, peers) = (host.data_dir().join("etcd"), url(CLIENT_PORT), url(PEER_PORT));
        let words = [
            "etcd",
            "--name",
            host.name(),
            "--data-dir",
            &data.display().to_string(),
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
            "--initial-cluster",
            &cluster,
            "--initial-cluster-state",
            "new",
            "--max-txn-ops=4096",
            "--max-request-bytes=8388608",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=10m",
            "--logger",
            "zap",
            "--log-level",
            "warn",
        ];
        self.running[at] = Some(host.spawn("etcd", &words));
    }

    /// Kills a member (`kill -9`).
    pub fn kill_member(&mut self, at: usize) {
        self.running[at].take().expect("it runs").kill();
    }

    /// The members as clients name them.
    pub fn urls(&self) -> Vec<String> {
        self.hosts.iter().map(|host| format!("http://{}:{CLIENT_PORT}", host.address())).collect()
    }

    /// Whether a majority of it works.
    pub fn takes_writes(&self) -> bool {
        let host = self.hosts.iter().find(|host| host.is_on()).expect("one is on");
        let urls = self.urls().join(",");
        let words =
            ["env", "ETCDCTL_API=3", "etcdctl", "--endpoints", &urls, "--command-timeout=2s", "put", "probe", "1"];
        host.run(&words).code == 0
    }
}
