//! A whole platform: the real program as a server with a directory of its own, commands to it, and its end. When it is
//! dropped, even by a failed test, everything of it leaves the machine.

use crate::{
    machine::{Machine, require_root},
    program::{Program, Said, finish},
};
use heptad_client::Client;
use heptad_model::Container;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 60;
/// How long services may take to reach a state that an otherwise idle machine reaches in a second.
const REACH_SECONDS_MAX: u64 = 120;

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("a listener has an address").port()
}

/// Waits until the condition holds, or fails and says what was awaited.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < until, "not in {} s: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A platform under test.
#[derive(Debug)]
pub struct Platform {
    program: Program,
    args: Vec<String>,
    dir: tempfile::TempDir,
    child: Option<Child>,
    machine: Option<Machine>,
    runtime: tokio::runtime::Runtime,
    /// Where the API listens for programs with a token.
    pub api: SocketAddr,
    /// Where requests from outside arrive.
    pub ingress: SocketAddr,
}

impl Platform {
    /// Starts `heptad server` with these further arguments.
    pub fn start(args: &[&str]) -> Self {
        require_root();
        // Not below /tmp, of which containers see a private one: the platform must hide the data, not chance.
        let dir = tempfile::Builder::new().prefix("heptad-e2e-").tempdir_in("/var/tmp").expect("a directory");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut platform = Self {
            program: Program::find(),
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            dir,
            child: None,
            machine: None,
            runtime: runtime.expect("a runtime"),
            api: nowhere,
            ingress: nowhere,
        };
        platform.launch();
        platform
    }

    fn spawn(&self) -> Child {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).expect("the log is opened");
        let mut command = self.program.command();
        command.args(["server", "--node", "n1", "--data-dir"]).arg(self.data_dir()).args(&self.args);
        command.stdout(Stdio::piped()).stderr(log).spawn().expect("the server starts")
    }

    /// Restarts the server in the same directory, and kills it in the middle of its start.
    pub fn launch_and_kill(&mut self, after: Duration) {
        self.child = Some(self.spawn());
        std::thread::sleep(after);
        self.kill();
    }

    /// Starts the server in the same directory again, and waits until its API answers.
    pub fn launch(&mut self) {
        let mut child = self.spawn();
        let stdout = child.stdout.take().expect("its output is a pipe");
        self.child = Some(child);
        let said = self.description(stdout);
        let address = |key: &str| {
            let line = said.iter().find(|line| line.trim_start().starts_with(key));
            let url = line.and_then(|line| line.split("http://").nth(1)?.split_whitespace().next());
            url.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {key} in {said:#?}"))
        };
        (self.api, self.ingress) = (address("API"), address("Ingress"));
        self.machine = Some(Machine::of(&self.data_dir()));
    }

    /// What the server says at its start, once it has said all.
    fn description(&self, stdout: impl std::io::Read + Send + 'static) -> Vec<String> {
        let (lines, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let mut said: Vec<String> = Vec::new();
        let until = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while !said.last().is_some_and(|line| line.trim_start().starts_with("Data")) {
            match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => said.push(line),
                Err(error) => panic!("the server did not start ({error}); it said {said:#?}\n{}", self.log_text()),
            }
        }
        said
    }

    /// A directory for the test's own files, which vanishes with the platform.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The platform's data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.data_dir().join("api.sock")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// What the server logged so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// What the platform has on this machine.
    pub fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("it was started")
    }

    /// Threads of the server now.
    pub fn threads(&self) -> usize {
        let child = self.child.as_ref().expect("it runs");
        fs::read_dir(format!("/proc/{}/task", child.id())).expect("it lives").count()
    }

    /// Kills the server as a crash would, and nothing else.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
    }

    /// Asks the server to end, and waits until it has; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        crate::run_tool("kill", &["-TERM", &child.id().to_string()]);
        let until = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        loop {
            match child.try_wait().expect("it can be waited for") {
                Some(status) => return status.code(),
                None if Instant::now() > until => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("the server did not end in {STOP_SECONDS_MAX} s\n{}", self.log_text());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// A command to this platform that has not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program.command();
        command.arg("--socket").arg(self.socket()).args(args).current_dir(self.dir());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Said {
        finish(&mut self.command(args), "")
    }

    /// The same with standard input.
    pub fn run_with(&self, args: &[&str], input: &str) -> Said {
        finish(&mut self.command(args), input)
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "heptad {} failed: {}{}", args.join(" "), said.err, said.out);
        said.out
    }

    /// Runs a command that must fail; returns its complaint.
    pub fn refused(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert!(said.code > 0, "heptad {} did not fail ({}): {}{}", args.join(" "), said.code, said.out, said.err);
        said.err
    }

    /// Writes a file of the test.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory is made");
        }
        fs::write(&path, text).expect("a file is written");
        path.display().to_string()
    }

    /// Applies this text and waits until all of it is ready.
    pub fn apply(&self, text: &str) {
        let file = self.write("applied.yaml", text);
        self.ok(&["apply", "--wait", "--timeout", "120", "-f", &file]);
    }

    /// The API's client.
    pub fn client(&self) -> Client {
        Client::unix(self.socket())
    }

    /// Runs something that waits on this platform's client.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The containers of a service, by their names.
    pub fn containers(&self, service: &str) -> Vec<Container> {
        let client = self.client();
        let listed = self.block_on(async { client.list::<Container>().await }).expect("containers are listed");
        let all = listed.items.into_iter().map(|item| item.object);
        let mut own: Vec<Container> = all.filter(|container| container.service.name == service).collect();
        own.sort_by(|a, b| a.id.cmp(&b.id));
        own
    }

    /// Waits until the condition holds for the containers of a service, or fails and reports their state.
    pub fn await_containers(&self, service: &str, what: &str, is_so: impl Fn(&[Container]) -> bool) -> Vec<Container> {
        let until = Instant::now() + Duration::from_secs(REACH_SECONDS_MAX);
        loop {
            let found = self.containers(service);
            if is_so(&found) {
                return found;
            }
            assert!(Instant::now() < until, "{what}: not in {REACH_SECONDS_MAX} s: {found:#?}\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a shell line in a container of the service; returns its exit code and everything that it printed.
    pub fn shell(&self, service: &str, line: &str) -> (i32, String) {
        let said = self.run(&["exec", service, "--", "/bin/sh", "-c", line]);
        (said.code, format!("{}{}", said.out, said.err))
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Including what a failed start had already created.
        let begun = self.data_dir().join("platform.json").is_file();
        if let Some(machine) = self.machine.take().or_else(|| begun.then(|| Machine::of(&self.data_dir()))) {
            machine.remove();
            let left = machine.traces();
            if !left.is_empty() && !std::thread::panicking() {
                panic!("the test could not clean up: {left:#?}");
            }
        }
    }
}
