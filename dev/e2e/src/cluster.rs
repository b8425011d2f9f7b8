//! A cluster as a user creates one: `server init`, `server`, one line per node to join; every member on a host of its
//! own. Knows the program only by its command line and its API.

use crate::{Etcd, Host, HostOptions, Lan, Load, Running, Target, program::Said};
use heptad_client::{Client, Options};
use heptad_model::{Container, Node, NodeStatus};
use nix::sys::signal::Signal;
use std::{
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};

const START: Duration = Duration::from_secs(120);
const REACH: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);
/// A server under a fault may not answer at all.
const ANSWER_MS_MAX: u64 = 5_000;
const POLL: Duration = Duration::from_millis(25);
/// Where tests reach the containers that call others for them, on every node.
const CALLER_PORT: u16 = 18_080;

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Servers, which run no containers; more than one needs etcd.
    pub servers: u8,
    /// Nodes that run containers.
    pub agents: u8,
    /// Whether its state is in an etcd cluster of three members, each on a host of its own.
    pub etcd: bool,
    /// Environment variables of the servers.
    pub server_environment: Vec<(String, String)>,
    /// The size of each server's disk, if it is small.
    pub server_disk_mib: Option<u32>,
    /// The size of each etcd member's disk, if it is small.
    pub etcd_disk_mib: Option<u32>,
    /// The size of each other node's disk, if it is small.
    pub agent_disk_mib: Option<u32>,
}

impl ClusterOptions {
    /// One server that keeps its state itself, and this many nodes.
    pub fn small(agents: u8) -> Self {
        Self {
            servers: 1,
            agents,
            etcd: false,
            server_environment: Vec::new(),
            server_disk_mib: None,
            etcd_disk_mib: None,
            agent_disk_mib: None,
        }
    }

    /// Three servers on etcd, and this many nodes.
    pub fn available(agents: u8) -> Self {
        Self { servers: 3, etcd: true, ..Self::small(agents) }
    }
}

/// A server or an agent: a host and the program on it.
#[derive(Debug)]
pub struct Member {
    running: Option<Running>,
    /// How it is started again.
    again: Vec<String>,
    /// Whether it is paused or cut off, so that commands and questions go to others.
    pub away: bool,
    /// Its machine.
    pub host: Host,
}

impl Member {
    fn new(host: Host, role: &str) -> Self {
        let mut again: Vec<String> = [role, "--data-dir"].map(str::to_owned).into();
        again.push(host.data_dir().display().to_string());
        if role == "server" {
            again.push("--no-agent".to_owned());
        }
        Self { running: None, again, away: false, host }
    }

    fn run(&mut self, args: &[String]) {
        assert!(self.running.is_none(), "{} runs already", self.host.name());
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        self.running = Some(self.host.spawn_heptad("heptad", &words));
    }

    /// Restarts its program in the same directory.
    pub fn start(&mut self) {
        self.run(&self.again.clone());
    }

    /// The program.
    pub fn running(&mut self) -> &mut Running {
        let name = self.host.name();
        self.running.as_mut().unwrap_or_else(|| panic!("the program of {name} does not run"))
    }

    /// Kills the program (`kill -9`) and nothing else.
    pub fn kill(&mut self) {
        self.running().kill();
        self.running = None;
    }

    /// Asks the program to end; its exit code.
    pub fn stop(&mut self) -> i32 {
        let code = self.running().stop(STOP);
        self.running = None;
        code
    }

    /// Lets the program replace itself by the file from which it was started, as an upgrade does (SIGHUP).
    pub fn upgrade(&mut self) {
        self.running().signal(Signal::SIGHUP);
    }

    /// Cuts the power of its host.
    pub fn power_cut(&mut self) {
        self.host.power_cut();
        self.running = None;
    }

    /// Powers its host on, and starts the program as a service manager does.
    pub fn power_on(&mut self) {
        self.host.boot();
        self.start();
    }

    /// The API's socket of a server, from outside.
    pub fn socket(&self) -> PathBuf {
        let socket = self.host.data_dir().join("api.sock");
        if socket.exists() { socket } else { self.host.inside(&socket) }
    }

    /// The API of a server.
    pub fn client(&self) -> Client {
        Client::unix(self.socket()).with_options(Options { request_timeout_ms: ANSWER_MS_MAX, ..Options::default() })
    }

    fn is_up(&self) -> bool {
        self.running.is_some() && self.host.is_on() && !self.away
    }
}

/// A running cluster. All of it vanishes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The servers; the first made the cluster.
    pub servers: Vec<Member>,
    /// The other nodes.
    pub agents: Vec<Member>,
    /// What keeps the state, if not the server.
    pub etcd: Option<Etcd>,
    /// Their network.
    pub lan: Lan,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// Makes a cluster and waits until all its nodes are ready.
    pub fn start(options: &ClusterOptions) -> Self {
        let lan = Lan::start();
        let disk = HostOptions { disk_mib: options.etcd_disk_mib, ..HostOptions::default() };
        let etcd = options.etcd.then(|| Etcd::start(&lan, &disk));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut cluster = Self { servers: Vec::new(), agents: Vec::new(), etcd, lan, runtime };
        cluster.init(options);
        (2..=options.servers).for_each(|number| cluster.add_server(number, options));
        if options.agents > 0 {
            let words = cluster.join_words(&["--uses", &options.agents.to_string()]);
            (1..=options.agents).for_each(|number| {
                let disk = HostOptions { disk_mib: options.agent_disk_mib, ..HostOptions::default() };
                cluster.add_agent_on(&format!("n{number}"), &words, disk);
            });
        }
        cluster.await_nodes("all are ready", |nodes| {
            nodes.iter().filter(|node| node.status == NodeStatus::Ready).count() == usize::from(options.agents)
        });
        cluster
    }

    fn server_host(&self, number: u8, options: &ClusterOptions) -> Member {
        let disk = HostOptions { disk_mib: options.server_disk_mib, environment: options.server_environment.clone() };
        Member::new(self.lan.host_with(&format!("s{number}"), disk), "server")
    }

    fn init(&mut self, options: &ClusterOptions) {
        let mut first = self.server_host(1, options);
        let (dir, address) = (first.host.data_dir().display().to_string(), first.host.address().to_string());
        let mut args = vec!["server", "init", "--data-dir", &dir, "--advertise", &address];
        let urls = self.etcd.as_ref().map(|etcd| etcd.urls().join(","));
        if let Some(urls) = &urls {
            args.extend(["--etcd", urls]);
        }
        let said = first.host.heptad(&args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.err, said.out);
        first.start();
        self.servers.push(first);
        self.await_server(0);
    }

    /// Waits until that server answers.
    pub fn await_server(&mut self, at: usize) {
        let until = Instant::now() + START;
        loop {
            let client = self.servers[at].client();
            if self.runtime.block_on(async { client.list::<Node>().await }).is_ok() {
                return;
            }
            let running = self.servers[at].running();
            assert!(
                running.is_running() && Instant::now() < until,
                "a server does not answer:\n{}",
                running.log_text()
            );
            std::thread::sleep(POLL);
        }
    }

    fn add_server(&mut self, number: u8, options: &ClusterOptions) {
        let mut server = self.server_host(number, options);
        let address = server.host.address().to_string();
        let mut words = self.join_words(&["--role", "server"]);
        let dir = server.host.data_dir().display().to_string();
        words.extend(["--data-dir", &dir, "--advertise", &address, "--no-agent"].map(str::to_owned));
        server.run(&words);
        self.servers.push(server);
        self.await_server(self.servers.len() - 1);
    }

    /// The arguments of a new member after the program's name.
    pub fn join_words(&self, args: &[&str]) -> Vec<String> {
        let said = self.ok(&[&["node", "join-token"], args].concat());
        let line = said.lines().find(|line| line.contains(" join https://"));
        let line = line.unwrap_or_else(|| panic!("no line to join with: {said}"));
        line.split_whitespace().skip_while(|word| !word.ends_with("heptad")).skip(1).map(str::to_owned).collect()
    }

    /// A new host joins with these words.
    pub fn add_agent(&mut self, name: &str, words: &[String]) {
        self.add_agent_on(name, words, HostOptions::default());
    }

    fn add_agent_on(&mut self, name: &str, words: &[String], options: HostOptions) {
        let mut agent = Member::new(self.lan.host_with(name, options), "agent");
        let dir = agent.host.data_dir().display().to_string();
        agent.run(&[words, &["--data-dir".to_owned(), dir]].concat());
        self.agents.push(agent);
    }

    fn a_server(&self) -> &Member {
        self.servers.iter().find(|server| server.is_up()).expect("a server runs")
    }

    /// A command on the host of a server.
    pub fn heptad(&self, args: &[&str]) -> Said {
        let server = self.a_server();
        let socket = server.host.data_dir().join("api.sock").display().to_string();
        server.host.heptad(&[&["--socket", &socket], args].concat())
    }

    /// The same; it must succeed. Returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.heptad(args);
        assert_eq!(said.code, 0, "heptad {} failed: {}{}", args.join(" "), said.err, said.out);
        said.out
    }

    /// Writes a file that every host sees.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.lan.dir().join(name);
        std::fs::write(&path, text).expect("a file is written");
        path.display().to_string()
    }

    /// Applies this text and waits until all of it is ready.
    pub fn apply(&self, text: &str) {
        let file = self.write("applied.yaml", text);
        self.ok(&["apply", "--wait", "--timeout", "120", "-f", &file]);
    }

    /// Runs something that waits.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The client of a server that runs.
    pub fn client(&self) -> Client {
        self.a_server().client()
    }

    /// The leading server, according to one of them.
    pub fn leader(&self) -> Option<usize> {
        let client = self.client();
        let name = self.block_on(async { client.cluster().await }).ok()?.leader?;
        self.servers.iter().position(|server| server.host.name() == name)
    }

    /// The sockets of all servers.
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.servers.iter().map(Member::socket).collect()
    }

    /// The member of that name.
    pub fn agent(&mut self, name: &str) -> &mut Member {
        let found = self.agents.iter_mut().find(|agent| agent.host.name() == name);
        found.unwrap_or_else(|| panic!("no agent {name}"))
    }

    /// The nodes as the servers see them; empty if none answers.
    pub fn nodes(&self) -> Vec<Node> {
        let client = self.client();
        let listed = self.block_on(async { client.list::<Node>().await });
        listed.map(|listed| listed.items.into_iter().map(|item| item.object).collect()).unwrap_or_default()
    }

    /// The containers of a service, by their names.
    pub fn containers(&self, service: &str) -> Vec<Container> {
        let client = self.client();
        let listed = self.block_on(async { client.list::<Container>().await });
        let all = listed.map(|listed| listed.items).unwrap_or_default().into_iter().map(|item| item.object);
        let mut own: Vec<Container> = all.filter(|container| container.service.name == service).collect();
        own.sort_by(|a, b| a.id.cmp(&b.id));
        own
    }

    /// Waits until the condition holds for the nodes.
    pub fn await_nodes(&self, what: &str, is_so: impl Fn(&[Node]) -> bool) -> Vec<Node> {
        self.reach(what, || self.nodes(), |nodes| is_so(nodes))
    }

    /// Waits until the condition holds for the containers of a service.
    pub fn await_containers(&self, service: &str, what: &str, is_so: impl Fn(&[Container]) -> bool) -> Vec<Container> {
        self.reach(what, || self.containers(service), |containers| is_so(containers))
    }

    fn reach<T: std::fmt::Debug>(&self, what: &str, look: impl Fn() -> T, is_so: impl Fn(&T) -> bool) -> T {
        let until = Instant::now() + REACH;
        loop {
            let found = look();
            if is_so(&found) {
                return found;
            }
            assert!(Instant::now() < until, "not in {REACH:?}: {what}: {found:#?}\n{}", self.events());
            std::thread::sleep(POLL);
        }
    }

    fn events(&self) -> String {
        let said = self.heptad(&["events"]);
        said.out.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// A service on every agent whose containers call others when they are asked to.
    pub fn start_callers(&self) {
        self.apply(&format!(
            "service: caller\nimage: host\ncommand: [heptad, example-service, web]\nreplicas: {}\n\
             ports: [{{ container_port: 8080, host_port: {CALLER_PORT} }}]\nresources: {{ cpu: 100m, memory: 64Mi }}\n\
             health_check: {{ http: {{ path: /healthz }}, interval_ms: 500 }}\n",
            self.agents.len()
        ));
    }

    /// A call of a service, by its name, from the caller on that host.
    pub fn call_from(&self, host: Ipv4Addr, service: &str) -> Target {
        let path = format!("/call?to={service}&times=1");
        let good = Some(r#""statuses":{"200":1}"#.to_owned());
        Target { path, good, from: Some(self.lan.network()), ..Target::new((host, CALLER_PORT).into(), "caller") }
    }

    /// Calls of a service from the callers on these agents, one after the other on each.
    pub fn call_always(&self, agents: &[usize], service: &str, rest: Duration) -> Vec<Load> {
        let targets = agents.iter().map(|at| self.call_from(self.agents[*at].host.address(), service));
        targets.map(|target| Load::start(&target, 1, rest)).collect()
    }

    /// What people see of a service's containers: names, nodes, restarts.
    pub fn essence(&self, service: &str) -> Vec<(String, Option<String>, u32)> {
        let all = self.containers(service).into_iter();
        all.map(|c| (c.id.to_string(), c.node.map(|node| node.to_string()), c.restarts)).collect()
    }

    /// Takes what it is told from every guarantee that is checked on the live state.
    pub fn assert_verified(&self) {
        let said = self.ok(&["verify"]);
        assert!(said.contains("holds") && !said.contains("BROKEN"), "{said}");
    }
}

/// Waits until the condition holds; returns how long that took.
pub fn time_until(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "not in {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
    began.elapsed()
}
