//! Load: threads that send requests repeatedly over HTTP/1.1, with a connection for each request or one for all, and
//! count the outcome of every single request.

use crate::{Network, wait_until};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const TIMEOUT_SECONDS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);
const FAILURES_KEPT_MAX: usize = 20;
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The target of the requests.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// The name in the `Host` header.
    pub host: String,
    /// The path.
    pub path: String,
    /// The network from which requests come, if not the machine's.
    pub from: Option<Network>,
    /// What the body of a good answer contains, if status 200 is not enough.
    pub good: Option<String>,
}

impl Target {
    /// `GET /` of that address under that name.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.to_owned(), path: "/".to_owned(), from: None, good: None }
    }

    /// Sends one request on a connection of its own: status and body of a complete answer.
    pub fn ask(&self) -> io::Result<(u16, String)> {
        match &self.from {
            Some(network) => network.enter(|| self.ask_from_here()),
            None => self.ask_from_here(),
        }
    }

    /// The same in the network of this thread.
    fn ask_from_here(&self) -> io::Result<(u16, String)> {
        let mut connection = self.connect()?;
        self.ask_on(&mut connection, "close")
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let limit = Duration::from_secs(TIMEOUT_SECONDS);
        let stream = TcpStream::connect_timeout(&self.address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(BufReader::new(stream))
    }

    fn ask_on(&self, connection: &mut BufReader<TcpStream>, then: &str) -> io::Result<(u16, String)> {
        let Self { path, host, .. } = self;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {then}\r\n\r\n");
        connection.get_mut().write_all(request.as_bytes())?;
        answer(connection)
    }
}

/// Status and body; an answer that is shorter than it says is an error.
fn answer(from: &mut impl BufRead) -> io::Result<(u16, String)> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the answer broke off after {head:?}")));
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no status in {head:?}")))?;
    let field = |name: &str| {
        let fields = head.iter().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let mut body = Vec::new();
    match field("content-length").and_then(|value| value.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            from.read_exact(&mut body)?;
        }
        // Ended by the end of the connection.
        None => drop(from.take(ANSWER_BYTES_MAX).read_to_end(&mut body)?),
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The outcome of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered with 200 and a whole body.
    pub good: u64,
    /// All others.
    pub bad: u64,
    /// Some of these in words, with milliseconds since the start.
    pub failures: Vec<String>,
    /// How often each body came; for JSON, each `version`.
    pub answers: BTreeMap<String, u64>,
    /// The longest time until an answer.
    pub longest: Duration,
}

impl Tally {
    fn count(&mut self, began: Instant, asked: Instant, good: Option<&str>, result: io::Result<(u16, String)>) {
        self.longest = self.longest.max(asked.elapsed());
        let failure = match result {
            Ok((200, body)) if good.is_none_or(|good| body.contains(good)) => {
                self.good += 1;
                let json: Option<serde_json::Value> = serde_json::from_str(&body).ok();
                let version = json.and_then(|value| Some(value["version"].as_str()?.to_owned()));
                *self.answers.entry(version.unwrap_or_else(|| body.trim().to_owned())).or_default() += 1;
                return;
            }
            Ok((status, body)) => format!("status {status}: {}", body.trim()),
            Err(error) => error.to_string(),
        };
        self.bad += 1;
        if self.failures.len() < FAILURES_KEPT_MAX {
            self.failures.push(format!("at {} ms: {failure}", began.elapsed().as_millis()));
        }
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.bad += other.bad;
        self.failures.extend(other.failures);
        self.longest = self.longest.max(other.longest);
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
    }

    /// Reports what was measured, and fails if a request was lost or none was made.
    #[expect(clippy::print_stderr, reason = "what was measured is a result of the test")]
    pub fn assert_none_lost(&self, what: &str) {
        eprintln!("{what}: {} of {} requests failed, longest {:?}", self.bad, self.good + self.bad, self.longest);
        assert_eq!(self.bad, 0, "{what}: {} requests failed beside {} good: {:#?}", self.bad, self.good, self.failures);
        assert!(self.good > 0, "{what}: no request was made");
    }
}

/// Running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// This many threads, each pausing this long between two requests, each request on a connection of its own.
    pub fn start(target: &Target, threads: usize, rest: Duration) -> Self {
        Self::run(target, threads, rest, |target| move || target.ask_from_here())
    }

    /// The same with one connection per thread for all its requests; it is not opened again when it breaks.
    pub fn start_on_kept_connections(target: &Target, threads: usize, rest: Duration) -> Self {
        Self::run(target, threads, rest, |target| {
            let mut connection = target.connect().expect("a connection is opened");
            move || target.ask_on(&mut connection, "keep-alive")
        })
    }

    fn run<A>(target: &Target, threads: usize, rest: Duration, asker: fn(Target) -> A) -> Self
    where
        A: FnMut() -> io::Result<(u16, String)> + 'static,
    {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let began = Instant::now();
        let worker = |_| {
            let (stop, answered, target) = (stop.clone(), answered.clone(), target.clone());
            std::thread::spawn(move || {
                if let Some(network) = &target.from {
                    network.enter_with_this_thread();
                }
                let good = target.good.clone();
                let mut ask = asker(target);
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let result = ask();
                    tally.count(began, asked, good.as_deref(), result);
                    answered.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(rest);
                }
                tally
            })
        };
        let workers = (0..threads).map(worker).collect();
        Self { stop, answered, workers }
    }

    /// Waits until this many more requests have ended, well or not.
    pub fn go_on(&self, requests: u64) {
        let wanted = self.answered.load(Ordering::Relaxed) + requests;
        wait_until("the load goes on", PATIENCE, || self.answered.load(Ordering::Relaxed) >= wanted);
    }

    /// Stops and returns the outcome of the requests.
    pub fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        for worker in self.workers.drain(..) {
            total.add(worker.join().expect("a thread of the load ends"));
        }
        total
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
