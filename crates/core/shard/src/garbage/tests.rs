//! A model of servers that upload, commit, replace and crash while others collect, every step by itself: nothing that a record
//! names is ever collected, and in the end everything else is.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SERVERS: usize = 3;
const COLLECTORS: usize = 2;
const OBJECTS: u8 = 3;
const CHUNKS_MAX: u8 = 3;
const GRACE_MS: u64 = 3;
const SILENCE_MS_MAX: u64 = 6;

/// What is planted to see that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    NoFence,
    NoSecondLook,
    CommitWithoutRow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Blob {
    upload: u64,
    object: u8,
    index: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    Fence(u64),
    Row(u64),
}

#[derive(Clone, Copy, Debug)]
struct Writer {
    upload: u64,
    object: u8,
    chunks: u8,
    written: u8,
    guard: Guard,
    /// The version of the record, read before the commit.
    record: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Server {
    fence: Option<u64>,
    writers: Vec<Writer>,
}

/// What a collector is about to do.
#[derive(Clone, Debug)]
enum Job {
    Scan(Blob, Naming),
    Raise,
    Ask(Blob, Naming),
    Delete(Blob),
    End(u64, u64),
}

#[derive(Clone, Debug, Default)]
struct Collector {
    suspects: Suspects<Blob>,
    progress: Progress<u64>,
    jobs: Vec<Job>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    upload: u64,
    chunks: u8,
    version: u64,
}

struct World {
    flaw: Flaw,
    now_ms: u64,
    drawn: u64,
    fence: u64,
    records: BTreeMap<u8, Record>,
    rows: BTreeMap<u64, u64>,
    blobs: BTreeSet<Blob>,
    servers: Vec<Server>,
    collectors: Vec<Collector>,
    /// Copies and commits whose sender is gone; they may arrive at any time, or never.
    late_blobs: Vec<Blob>,
    late_commits: Vec<Writer>,
}

impl World {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            now_ms: 0,
            drawn: 0,
            fence: 0,
            records: BTreeMap::new(),
            rows: BTreeMap::new(),
            blobs: BTreeSet::new(),
            servers: vec![Server::default(); SERVERS],
            collectors: vec![Collector::default(); COLLECTORS],
            late_blobs: Vec::new(),
            late_commits: Vec::new(),
        }
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn step(&mut self, what: u8, which: u16) {
        let server = which as usize % SERVERS;
        let writers = self.servers[server].writers.len().max(1);
        let (writer, part) = (which as usize / SERVERS % writers, (which >> 8) as u8);
        let collector = which as usize % COLLECTORS;
        match what % 64 {
            0..4 => self.begin(server, part % OBJECTS, part / OBJECTS % CHUNKS_MAX + 1),
            4..14 => self.write(server, writer),
            14..16 => self.touch(server, writer),
            16..24 => self.commit(server, writer),
            24 => self.leave_commit(server, writer),
            25 => self.abort(server, writer),
            26 => self.crash(server),
            27 => self.delete(part % OBJECTS),
            28..30 => self.arrive(which as usize),
            30..33 => self.now_ms += u64::from(part) % GRACE_MS + 1,
            33 if part < 64 => self.collectors[collector] = Collector::default(),
            34..38 => self.plan(collector),
            _ => self.collect(collector),
        }
    }

    fn begin(&mut self, server: usize, object: u8, chunks: u8) {
        let upload = self.draw();
        let guard = if chunks > 1 {
            let version = self.draw();
            self.rows.insert(upload, version);
            Guard::Row(version)
        } else {
            Guard::Fence(*self.servers[server].fence.get_or_insert(self.fence))
        };
        self.servers[server].writers.push(Writer { upload, object, chunks, written: 0, guard, record: None });
    }

    fn write(&mut self, server: usize, writer: usize) {
        let Some(writer) = self.servers[server].writers.get_mut(writer) else { return };
        if writer.written < writer.chunks {
            let Writer { upload, object, written, .. } = *writer;
            self.blobs.insert(Blob { upload, object, index: written });
            writer.written += 1;
        }
    }

    /// Progress is written down; an upload that was ended hears of it.
    fn touch(&mut self, server: usize, writer: usize) {
        let version = self.draw();
        let writers = &mut self.servers[server].writers;
        let Some(Writer { upload, guard: Guard::Row(known), .. }) = writers.get_mut(writer) else { return };
        match self.rows.get_mut(upload) {
            Some(row) => {
                *row = version;
                *known = version;
            }
            None => drop(writers.remove(writer)),
        }
    }

    /// Reads the record at the first call, and commits at the second.
    fn commit(&mut self, server: usize, index: usize) {
        let Some(writer) = self.servers[server].writers.get_mut(index) else { return };
        if writer.written < writer.chunks {
            return;
        }
        let now = self.records.get(&writer.object).map_or(0, |record| record.version);
        let Some(_) = writer.record.replace(now) else { return };
        let writer = self.servers[server].writers.remove(index);
        if !self.committed(writer) && matches!(writer.guard, Guard::Fence(_)) {
            // It is written once more, under the fence of now.
            self.servers[server].fence = None;
            self.begin(server, writer.object, writer.chunks);
        }
    }

    /// One transaction.
    fn committed(&mut self, writer: Writer) -> bool {
        let holds = match writer.guard {
            Guard::Fence(fence) => fence == self.fence,
            Guard::Row(version) => {
                self.flaw == Flaw::CommitWithoutRow || self.rows.get(&writer.upload) == Some(&version)
            }
        };
        let version = self.records.get(&writer.object).map_or(0, |record| record.version);
        if !holds || writer.record != Some(version) {
            return false;
        }
        self.rows.remove(&writer.upload);
        let version = self.draw();
        self.records.insert(writer.object, Record { upload: writer.upload, chunks: writer.chunks, version });
        true
    }

    fn leave_commit(&mut self, server: usize, index: usize) {
        let writers = &mut self.servers[server].writers;
        if writers.get(index).is_some_and(|writer| writer.record.is_some()) {
            self.late_commits.push(writers.remove(index));
        }
    }

    /// Whoever gives up ends the upload, then removes what it wrote.
    fn abort(&mut self, server: usize, index: usize) {
        if index < self.servers[server].writers.len() {
            let writer = self.servers[server].writers.remove(index);
            self.rows.remove(&writer.upload);
            self.blobs.retain(|blob| blob.upload != writer.upload);
        }
    }

    fn crash(&mut self, server: usize) {
        for writer in std::mem::take(&mut self.servers[server]).writers {
            let Writer { upload, object, written, chunks, .. } = writer;
            if written < chunks {
                self.late_blobs.push(Blob { upload, object, index: written });
            } else {
                self.late_commits.push(writer);
            }
        }
    }

    fn delete(&mut self, object: u8) {
        self.records.remove(&object);
    }

    fn arrive(&mut self, which: usize) {
        if let Some(blob) = self.late_blobs.pop_if(|_| which.is_multiple_of(2)) {
            self.blobs.insert(blob);
        } else if let Some(writer) = self.late_commits.pop() {
            self.committed(writer);
        }
    }

    fn plan(&mut self, which: usize) {
        let (now, rows) = (self.now_ms, self.rows.clone());
        let collector = &mut self.collectors[which];
        if !collector.jobs.is_empty() {
            return;
        }
        let ended = collector.progress.note(rows, now, SILENCE_MS_MAX);
        collector.jobs.extend(ended.into_iter().map(|(upload, version)| Job::End(upload, version)));
        collector.jobs.extend(self.blobs.iter().map(|blob| Job::Scan(*blob, Naming::default())));
        let due = collector.suspects.due(now, GRACE_MS);
        collector.jobs.extend(due.into_iter().map(|blob| match self.flaw {
            Flaw::NoSecondLook => Job::Delete(blob),
            _ => Job::Ask(blob, Naming::default()),
        }));
        if collector.suspects.wants_fence(now, GRACE_MS) && self.flaw != Flaw::NoFence {
            collector.jobs.push(Job::Raise);
        }
    }

    /// The last job goes first.
    fn collect(&mut self, which: usize) {
        let Some(job) = self.collectors[which].jobs.pop() else { return };
        match job {
            Job::Raise => {
                self.fence = self.draw();
                self.collectors[which].suspects.fenced();
            }
            Job::Scan(blob, naming) => match self.ask(blob, naming) {
                Continue(next) => self.collectors[which].jobs.push(Job::Scan(blob, next)),
                Break(is_named) if !is_named => self.collectors[which].suspects.add(blob, self.now_ms),
                Break(_) => {}
            },
            Job::Ask(blob, naming) => match self.ask(blob, naming) {
                Continue(next) => self.collectors[which].jobs.push(Job::Ask(blob, next)),
                Break(true) => self.collectors[which].suspects.remove(&blob),
                Break(false) => self.collectors[which].jobs.push(Job::Delete(blob)),
            },
            Job::Delete(blob) => {
                self.blobs.remove(&blob);
                self.collectors[which].suspects.remove(&blob);
            }
            Job::End(upload, version) => {
                if self.rows.get(&upload) == Some(&version) {
                    self.rows.remove(&upload);
                }
            }
        }
    }

    fn ask(&self, blob: Blob, naming: Naming) -> ControlFlow<bool, Naming> {
        let yes = match naming {
            Naming::Record => self.records.get(&blob.object).is_some_and(|record| record.upload == blob.upload),
            Naming::Upload => self.rows.contains_key(&blob.upload),
        };
        naming.answered(yes)
    }

    fn named(&self) -> BTreeSet<Blob> {
        let of = |(object, record): (&u8, &Record)| {
            let (upload, object) = (record.upload, *object);
            (0..record.chunks).map(move |index| Blob { upload, object, index })
        };
        self.records.iter().flat_map(of).collect()
    }

    /// All servers are gone, everything late has arrived, and one collector goes on for long enough.
    fn settle(&mut self) {
        (0..SERVERS).for_each(|server| self.crash(server));
        while !self.late_blobs.is_empty() || !self.late_commits.is_empty() {
            (0..2).for_each(|which| self.arrive(which));
        }
        for _ in 0..SILENCE_MS_MAX + 2 * GRACE_MS + 4 {
            self.plan(0);
            while !self.collectors[0].jobs.is_empty() {
                self.collect(0);
            }
            self.now_ms += 1;
        }
    }
}

fn run(flaw: Flaw, steps: impl IntoIterator<Item = (u8, u16)>) -> Result<(), String> {
    let mut world = World::new(flaw);
    for (number, (what, which)) in steps.into_iter().enumerate() {
        world.step(what, which);
        if !world.named().is_subset(&world.blobs) {
            return Err(format!("step {number}: named data was collected: {:?}", world.records));
        }
    }
    world.settle();
    if world.blobs != world.named() {
        return Err(format!("{:?} are there, {:?} are named", world.blobs, world.named()));
    }
    world.rows.is_empty().then_some(()).ok_or_else(|| format!("uploads are left: {:?}", world.rows))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_named_stays_and_all_else_goes(steps in prop::collection::vec(any::<(u8, u16)>(), 0..800)) {
        prop_assert_eq!(run(Flaw::None, steps), Ok(()));
    }
}

#[test]
fn the_model_notices_what_is_done_wrong() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let steps = prop::collection::vec(any::<(u8, u16)>(), 800);
    for flaw in [Flaw::NoFence, Flaw::NoSecondLook, Flaw::CommitWithoutRow] {
        let mut draw = || steps.new_tree(&mut runner).expect("steps").current();
        assert!((0..5_000).any(|_| run(flaw, draw()).is_err()), "{flaw:?} is not noticed");
    }
}

#[test]
fn only_a_row_that_stands_still_is_over() {
    let mut progress = Progress::default();
    assert!(progress.note([("a", 1), ("b", 2)], 10, 5).is_empty());
    assert!(progress.note([("a", 1), ("b", 3)], 14, 5).is_empty());
    assert_eq!(progress.note([("a", 1), ("b", 3)], 15, 5), [("a", 1)]);
    assert_eq!(progress.note([("b", 3)], 19, 5), [("b", 3)], "who has gone is forgotten");
    assert!(progress.note([("a", 1)], 20, 5).is_empty());
}

#[test]
fn suspects_are_fenced_once() {
    let mut suspects = Suspects::default();
    suspects.add("a", 10);
    assert!(!suspects.wants_fence(12, 3) && suspects.wants_fence(13, 3));
    suspects.fenced();
    suspects.add("b", 14);
    suspects.add("a", 15);
    assert!(!suspects.wants_fence(16, 3) && suspects.wants_fence(17, 3));
    assert_eq!((suspects.due(16, 3), suspects.due(17, 3)), (vec!["a"], vec!["a", "b"]));
}
