//! What an agent keeps running when no server answers, or when all say that its node was removed; with a driver in
//! memory.

use super::*;
use crate::fake::{self, FakeDriver, seen};
use heptad_api::{ErrorCode, Object, ProblemDetails};
use heptad_client::Error;
use heptad_model::lease::{LOOK_INTERVAL_MS, NEVER_TWICE_LEASE_MS, REMOVED_MS};
use std::time::Duration;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// From a check of the lease to the end of a container without requests.
const STOP_MS_MAX: u64 = 2 * LOOK_INTERVAL_MS;

struct Bench {
    _dir: tempfile::TempDir,
    driver: Arc<FakeDriver>,
    context: Arc<Context>,
    began: Instant,
    work: JoinHandle<()>,
}

fn services() -> [Service; 2] {
    let service = |name: &str, never_twice| Service {
        never_twice,
        command: vec!["/bin/true".to_owned()],
        ..Service::new(name, "host")
    };
    [service("once", true), service("web", false)]
}

fn view() -> View<Container> {
    let container = |service: Service| {
        let id = format!("{}-1", service.name);
        Container { node: Some("n1".into()), ..Container::pending(id.into(), &service, 0) }
    };
    let containers = services().into_iter().map(container);
    let objects = containers.map(|object| (object.id.to_string(), Object { revision: 1, object }));
    View { revision: 1, synced: true, error: None, objects: objects.collect() }
}

/// Runs both containers on a node on which only the lease changes.
async fn work(context: Arc<Context>) {
    let (view, mut permits) = (view(), context.lease.permits());
    let mut workers = Workers { context: context.clone(), alive: BTreeMap::new(), tasks: JoinSet::new() };
    workers.take(&view);
    loop {
        tokio::select! {
            () = context.lease.look(&context.options) => {}
            Ok(()) = permits.changed() => workers.take(&view),
            Some(ended) = workers.tasks.join_next_with_id() => workers.take_end(ended, &view),
        }
    }
}

fn answered() -> Result<(), Error> {
    Ok(())
}

fn refused(code: ErrorCode) -> Result<(), Error> {
    Err(ProblemDetails::new(code, "it is refused").into())
}

impl Bench {
    async fn new() -> Self {
        let (dir, driver, _, context) = fake::node();
        context.services.replace(services().map(|service| (service.key(), service)).into());
        let (began, work) = (Instant::now(), tokio::spawn(work(context.clone())));
        let bench = Self { _dir: dir, driver, context, began, work };
        bench.done("start once-1.0", 1).await;
        bench.done("start web-1.0", 1).await;
        bench
    }

    async fn done(&self, what: &str, times: usize) {
        let often = |done: &[String]| (done.iter().filter(|one| *one == what).count() >= times).then_some(());
        seen(&self.driver.done, what, often).await;
    }

    fn was_done(&self, what: &str) -> bool {
        self.driver.done.borrow().iter().any(|one| one == what)
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_what_must_never_run_twice_stops_and_runs_again_with_one() {
    let bench = Bench::new().await;
    sleep(Duration::from_millis(5_000)).await;
    let asked = Instant::now();
    bench.context.lease.hear(asked, &answered());
    bench.done("remove once-1.0", 1).await;
    let silent_ms = u64::try_from(asked.elapsed().as_millis()).expect("short");
    assert!((NEVER_TWICE_LEASE_MS..NEVER_TWICE_LEASE_MS + STOP_MS_MAX).contains(&silent_ms), "after {silent_ms} ms");
    assert_eq!(bench.driver.ids(), ["web-1.0"]);
    bench.context.lease.hear(Instant::now(), &answered());
    bench.done("start once-1.0", 2).await;
    assert!(!bench.was_done("stop web-1.0"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_servers_go_on_to_call_removed_stops_everything() {
    let bench = Bench::new().await;
    let lease = &bench.context.lease;
    // First a server that does not know it yet, then one that does.
    lease.hear(Instant::now(), &refused(ErrorCode::NodeRemoved));
    sleep(Duration::from_millis(REMOVED_MS - LOOK_INTERVAL_MS)).await;
    lease.hear(Instant::now(), &answered());
    sleep(Duration::from_millis(2 * REMOVED_MS)).await;
    // A certificate that has ended, or a server that forgot the node, does not mean removal.
    for code in [ErrorCode::Unauthorized, ErrorCode::Forbidden, ErrorCode::NotFound, ErrorCode::Unavailable] {
        lease.hear(Instant::now(), &refused(code));
        sleep(Duration::from_millis(2 * REMOVED_MS)).await;
    }
    assert_eq!(bench.driver.ids(), ["once-1.0", "web-1.0"]);
    assert_eq!(lease.permit(), Permit::All);
    // Nor does one message followed by silence.
    let since = Instant::now();
    lease.hear(since, &refused(ErrorCode::NodeRemoved));
    sleep(Duration::from_millis(REMOVED_MS - 1)).await;
    lease.hear(Instant::now(), &refused(ErrorCode::NodeRemoved));
    sleep(Duration::from_millis(LOOK_INTERVAL_MS)).await;
    assert_eq!(lease.permit(), Permit::All);
    lease.hear(Instant::now(), &refused(ErrorCode::NodeRemoved));
    bench.done("remove once-1.0", 1).await;
    bench.done("remove web-1.0", 1).await;
    let lasted_ms = u64::try_from(since.elapsed().as_millis()).expect("short");
    assert!((REMOVED_MS..REMOVED_MS + STOP_MS_MAX).contains(&lasted_ms), "after {lasted_ms} ms");
    assert!(bench.driver.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_while_no_server_answers_ends_what_must_never_run_twice() {
    let mut bench = Bench::new().await;
    bench.work.abort();
    assert!((&mut bench.work).await.is_err_and(|error| error.is_cancelled()));
    // What it knew about services is gone too.
    bench.context.services.replace(BTreeMap::new());
    let next = async {
        tokio::join!(
            bench.context.lease.look(&bench.context.options),
            follow(bench.context.clone(), watch::channel(Arc::default()).0)
        )
    };
    tokio::select! {
        _ = next => unreachable!("an agent never ends by itself"),
        () = bench.done("remove once-1.0", 1) => {}
    }
    assert!(bench.began.elapsed() >= Duration::from_millis(NEVER_TWICE_LEASE_MS));
    assert_eq!(bench.driver.ids(), ["web-1.0"]);
}
