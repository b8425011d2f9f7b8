//! Many seeds: each in a process of its own, so that nothing of one run is left for the next; some at once, within a time.

use anyhow::{Context, Result, ensure};
use std::{
    ops::Range,
    process::{Command, Output, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What to run.
#[derive(Debug)]
pub(crate) struct Many {
    pub(crate) seeds: Range<u64>,
    pub(crate) jobs: usize,
    pub(crate) time_limit: Duration,
    /// Arguments beside the seed.
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Default)]
struct Tally {
    done: u64,
    failed: Vec<u64>,
}

/// Runs all seeds, or as many as the time allows; seeds that fail are shown whole.
pub(crate) fn run(many: &Many) -> Result<()> {
    let begun = Instant::now();
    let next = AtomicU64::new(many.seeds.start);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        let work = || work(many, begun, &next, &tally);
        let workers: Vec<_> = (0..many.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let asked = many.seeds.end.saturating_sub(many.seeds.start);
    println!(
        "{} of {asked} seeds in {:.1} s, {} failed",
        tally.done,
        begun.elapsed().as_secs_f64(),
        tally.failed.len()
    );
    ensure!(tally.failed.is_empty(), "failed seeds: {:?}", tally.failed);
    ensure!(tally.done == asked, "only {} of {asked} seeds were run in {} s", tally.done, many.time_limit.as_secs());
    Ok(())
}

fn work(many: &Many, begun: Instant, next: &AtomicU64, tally: &Mutex<Tally>) -> Result<()> {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= many.seeds.end || begun.elapsed() > many.time_limit {
            return Ok(());
        }
        let output = one(seed, &many.arguments)?;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.done += 1;
        if !output.status.success() {
            tally.failed.push(seed);
            print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// One seed in a process of its own.
fn one(seed: u64, arguments: &[String]) -> Result<Output> {
    let program = std::env::current_exe().context("cannot find the own program")?;
    Command::new(program)
        .args(["--seed", &seed.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run the own program again")
}
