//! Load: threads that ask again and again over HTTP/1.1, each request with a connection of its own, and count what became
//! of every single one.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const TIMEOUT_SECONDS: u64 = 10;
const FAILURES_KEPT_MAX: usize = 20;
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// The name in the `Host` header.
    pub host: String,
    /// The path.
    pub path: String,
}

impl Target {
    /// `GET /` of that address under that name.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.to_owned(), path: "/".to_owned() }
    }

    /// Asks once: status and body, of an answer that came wholly.
    pub fn ask(&self) -> io::Result<(u16, String)> {
        let limit = Duration::from_secs(TIMEOUT_SECONDS);
        let mut stream = TcpStream::connect_timeout(&self.address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let Self { path, host, .. } = self;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        parse(&answer)
    }
}

/// Status and body; an answer that is shorter than it says is an error.
fn parse(answer: &[u8]) -> io::Result<(u16, String)> {
    let broken = |what: &str| io::Error::new(io::ErrorKind::UnexpectedEof, format!("{what} of {} bytes", answer.len()));
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| broken("an answer without an end of its head"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| broken("an answer without status"))?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = length.and_then(|(_, value)| value.trim().parse().ok());
    match length {
        Some(length) if body.len() != length => Err(broken("an answer with a torn body")),
        _ => Ok((status, body.to_owned())),
    }
}

/// What became of the requests.
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
    fn count(&mut self, began: Instant, asked: Instant, result: io::Result<(u16, String)>) {
        self.longest = self.longest.max(asked.elapsed());
        let failure = match result {
            Ok((200, body)) => {
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

    /// Says what was measured, and fails if a request was lost or none was made.
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
    workers: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// So many threads, each resting so long between two requests.
    pub fn start(target: &Target, threads: usize, rest: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let worker = |_| {
            let (stop, target) = (stop.clone(), target.clone());
            std::thread::spawn(move || {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let result = target.ask();
                    tally.count(began, asked, result);
                    std::thread::sleep(rest);
                }
                tally
            })
        };
        let workers = (0..threads).map(worker).collect();
        Self { stop, workers }
    }

    /// Ends it and says what became of the requests.
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
