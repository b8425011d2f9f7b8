//! How much a server uses while much happens at once.

use heptad_e2e::Platform;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// More containers than threads for them: each takes long to end, and a command checks its health.
const CONTAINERS: usize = 140;
/// Threads beyond those at rest that the work for containers may have: short questions, ends, checks, starts, reads of the
/// state, and a few for files (docs/scale.md).
const THREADS_MORE_MAX: usize = 100;
const LOOK: Duration = Duration::from_millis(5);

#[test]
#[expect(clippy::print_stderr, reason = "what was measured is a result of the test")]
fn many_containers_start_and_end_at_once_on_a_bounded_number_of_threads() {
    // Processes are started faster than containers, and ended the same way.
    let platform = Platform::start(&["--driver", "process"]);
    let at_rest = platform.threads();
    let ended = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Relaxed) {
                most = most.max(platform.threads());
                std::thread::sleep(LOOK);
            }
            most
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let line = "trap 'sleep 5; exit 0' TERM; while :; do sleep 0.2; done";
            platform.apply(&format!(
                "service: slow\nimage: host\ncommand: [/bin/sh, -c, \"{line}\"]\nreplicas: {CONTAINERS}\n\
                 stop_grace_ms: 30000\nresources: {{ cpu: 10m, memory: 16Mi }}\n\
                 health_check: {{ command: ['true'], interval_ms: 60000 }}\n"
            ));
            platform.ok(&["delete", "service", "slow"]);
            platform.await_containers("slow", "all are gone", <[_]>::is_empty);
        }));
        ended.store(true, Relaxed);
        let most = looking.join().expect("it ends");
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        most
    });
    eprintln!("{at_rest} threads at rest, {most} at most with {CONTAINERS} containers");
    assert!(most <= at_rest + THREADS_MORE_MAX, "{most} threads, {at_rest} at rest");
}
