//! The effects of a fault: when it was noticed, when all was well again, what was lost meanwhile. Printed for people
//! and as one line of JSON; the file named by `HEPTAD_FAULT_REPORT` gets that line too, so that many runs can be
//! tabulated.

use crate::{Ledger, Tally};
use serde_json::json;
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// One fault and its consequences.
#[derive(Debug)]
pub struct Fault {
    name: String,
    began: Instant,
    noticed: Option<Duration>,
    recovered: Option<Duration>,
    requests: Option<(u64, u64)>,
    writes: Option<(usize, usize)>,
    pause: Option<Duration>,
    restarted: Option<usize>,
}

impl Fault {
    /// The fault happens now.
    pub fn begin(name: &str) -> Self {
        let (noticed, recovered, requests, writes, pause, restarted) = (None, None, None, None, None, None);
        Self { name: name.to_owned(), began: Instant::now(), noticed, recovered, requests, writes, pause, restarted }
    }

    /// The time since it happened.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The platform knows of it now.
    pub fn noticed(&mut self) {
        self.noticed = Some(self.elapsed());
    }

    /// Everything is as wanted again now.
    pub fn recovered(&mut self) {
        self.recovered = Some(self.elapsed());
    }

    /// The outcome of requests meanwhile.
    pub fn requests(&mut self, tally: &Tally) {
        let (bad, all) = self.requests.unwrap_or_default();
        self.requests = Some((bad + tally.bad, all + tally.bad + tally.good));
    }

    /// The outcome of writes meanwhile.
    pub fn writes(&mut self, ledger: &Ledger, lost: usize) {
        self.writes = Some((lost, ledger.acknowledged()));
        self.pause = Some(ledger.longest_pause());
    }

    /// How many unrelated containers were restarted or replaced.
    pub fn restarted(&mut self, count: usize) {
        self.restarted = Some(count);
    }

    /// Fails if it took longer than is promised.
    pub fn assert_within(&self, noticed: Option<Duration>, recovered: Option<Duration>) {
        for (what, limit, was) in [("noticed", noticed, self.noticed), ("recovered", recovered, self.recovered)] {
            if let Some(limit) = limit {
                let was = was.unwrap_or_else(|| panic!("{}: never {what}", self.name));
                assert!(was <= limit, "{}: {what} after {was:?}, promised are {limit:?}", self.name);
            }
        }
    }

    /// Reports the effects.
    #[expect(clippy::print_stderr, reason = "what was measured is a result of the test")]
    pub fn report(&self) {
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let of = |pair: Option<(u64, u64)>| pair.map_or("-".to_owned(), |(bad, all)| format!("{bad} of {all}"));
        let seconds =
            |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        eprintln!(
            "{}: noticed {}, recovered {}, requests failed {}, writes lost {}, longest pause of writes {}, restarted {}",
            self.name,
            seconds(self.noticed),
            seconds(self.recovered),
            of(self.requests),
            self.writes.map_or("-".to_owned(), |(lost, all)| format!("{lost} of {all}")),
            seconds(self.pause),
            self.restarted.map_or("-".to_owned(), |count| count.to_string()),
        );
        let line = json!({
            "fault": self.name,
            "noticed_ms": ms(self.noticed),
            "recovered_ms": ms(self.recovered),
            "requests_failed": self.requests.map(|(bad, _)| bad),
            "requests": self.requests.map(|(_, all)| all),
            "writes_lost": self.writes.map(|(lost, _)| lost),
            "writes": self.writes.map(|(_, all)| all),
            "writes_pause_ms": ms(self.pause),
            "restarted": self.restarted,
        });
        eprintln!("fault-report {line}");
        if let Some(path) = std::env::var_os("HEPTAD_FAULT_REPORT") {
            let file = std::fs::File::options().create(true).append(true).open(&path);
            let written = file.and_then(|mut file| writeln!(file, "{line}"));
            written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}
