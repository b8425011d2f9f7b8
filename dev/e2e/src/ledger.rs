//! A writer that keeps a record of acknowledged writes, so that each can be checked afterwards. It moves from server to
//! server when one does not answer. Its writes are network policies of a namespace of its own, which affect nobody.

use heptad_client::{Client, Options};
use heptad_model::{Namespace, NetworkPolicy};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const NAMESPACE: &str = "ledger";
const WRITE_MS_MAX: u64 = 2_000;
const REST: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Book {
    acknowledged: BTreeSet<String>,
    longest_pause: Duration,
    last: Option<Instant>,
    /// Why a write was not acknowledged, the last time.
    refusal: Option<String>,
}

/// A running or ended writer.
#[derive(Debug)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Begins to write to the first of these servers' sockets that answers.
    pub fn start(sockets: Vec<PathBuf>) -> Self {
        let (book, stop) = (Arc::<Mutex<Book>>::default(), Arc::<AtomicBool>::default());
        let (pages, ended) = (book.clone(), stop.clone());
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(write_on(&sockets, &pages, &ended));
        });
        Self { book, stop, worker: Some(worker) }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.book().acknowledged.len()
    }

    /// The longest time between two acknowledged writes.
    pub fn longest_pause(&self) -> Duration {
        self.book().longest_pause
    }

    /// Forgets the longest pause so far: only what follows counts.
    pub fn forget_pauses(&self) {
        self.book().longest_pause = Duration::ZERO;
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            worker.join().expect("the writer ends");
        }
    }

    /// The acknowledged writes that this server does not know.
    pub async fn lost(&self, client: &Client) -> heptad_client::Result<Vec<String>> {
        assert!(self.acknowledged() > 0, "no write was acknowledged: {:?}", self.book().refusal);
        // First the acknowledged writes, then the known ones: the writer continues meanwhile.
        let acknowledged = self.book().acknowledged.clone();
        let known = client.list_in::<NetworkPolicy>(&Namespace::from(NAMESPACE)).await?;
        let known: BTreeSet<String> = known.items.into_iter().map(|item| item.object.name).collect();
        Ok(acknowledged.difference(&known).cloned().collect())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn write_on(sockets: &[PathBuf], book: &Mutex<Book>, stop: &AtomicBool) {
    let limit = Duration::from_millis(WRITE_MS_MAX);
    let options = Options { request_timeout_ms: WRITE_MS_MAX, ..Options::default() };
    let clients: Vec<Client> =
        sockets.iter().map(|socket| Client::unix(socket).with_options(options.clone())).collect();
    let (mut count, mut at) = (0_u64, 0);
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let name = format!("w{count}");
        let policy = policy(&name);
        match tokio::time::timeout(limit, clients[at % clients.len()].create(&policy)).await {
            Ok(Ok(_)) => note(&mut book.lock().unwrap_or_else(PoisonError::into_inner), name),
            // It may have been written all the same; nobody said so.
            Ok(Err(error)) => {
                at += 1;
                book.lock().unwrap_or_else(PoisonError::into_inner).refusal = Some(format!("{error:?}"));
            }
            Err(_) => at += 1,
        }
        tokio::time::sleep(REST).await;
    }
}

fn note(book: &mut Book, name: String) {
    let now = Instant::now();
    let pause = book.last.map_or(Duration::ZERO, |last| now - last);
    book.longest_pause = book.longest_pause.max(pause);
    book.last = Some(now);
    book.acknowledged.insert(name);
}

fn policy(name: &str) -> NetworkPolicy {
    let value = serde_json::json!({ "name": name, "namespace": NAMESPACE, "ingress": [] });
    serde_json::from_value(value).expect("it is a policy")
}
