//! What is in this server's way: a disk that fills up, a state that is not written. It looks again and again, keeps a
//! reserve on the disk that is given up when it is full, so that deletions, reports and the audit log go on, and tells people.

use crate::{
    authorize::{Asked, Principal, Verb},
    clock::now_ms,
    error::{Error, Result, with_causes},
    leader::Leader,
    objects::{Objects, Pending},
    options::Options,
    servers::Servers,
};
use heptad_api::{
    ErrorCode,
    servers::{ServerCondition, ServerConditionKind as Kind},
};
use heptad_model::EventKind;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK_INTERVAL_MS: u64 = 250;
/// The reserve's file in the data directory.
const RESERVE_FILE: &str = "reserve";
/// The reserve is this part of the disk, within bounds.
const RESERVE_PART: u64 = 64;
const RESERVE_BYTES_MIN: u64 = 4 << 20;
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// So many times its size must be free before a reserve is made.
const RESERVE_ROOM: u64 = 3;
/// After a reserve could not be made it is tried again no sooner.
const RESERVE_RETRY_MS: u64 = 60_000;
/// A disk is under pressure below a tenth, of a large one below this.
const LOW_BYTES_MAX: u64 = 10 << 30;
/// Events that could not be recorded yet.
const UNTOLD_MAX: usize = 16;

/// How much room a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disk {
    free_bytes: u64,
    total_bytes: u64,
}

impl Disk {
    fn of(dir: &Path) -> io::Result<Self> {
        let fs = nix::sys::statvfs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(fs.fragment_size());
        Ok(Self { free_bytes: bytes(fs.blocks_available()), total_bytes: bytes(fs.blocks()) })
    }

    fn is_low(self) -> bool {
        self.free_bytes < (self.total_bytes / 10).min(LOW_BYTES_MAX)
    }

    fn reserve_bytes(self) -> u64 {
        (self.total_bytes / RESERVE_PART).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX)
    }

    fn shown(self) -> String {
        let percent = self.free_bytes.saturating_mul(100) / self.total_bytes.max(1);
        format!("{} MiB of {} MiB are free ({percent} %)", self.free_bytes >> 20, self.total_bytes >> 20)
    }
}

/// What there is of the reserve. One that was given up leaves an empty file, so that this is known after a restart too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserve {
    /// There never was room for it, or the file system does not give it.
    Absent,
    Held,
    GivenUp,
}

impl Reserve {
    fn of(file: &Path) -> Self {
        match fs::metadata(file) {
            Ok(found) if found.blocks() * 512 >= RESERVE_BYTES_MIN => Self::Held,
            Ok(_) => Self::GivenUp,
            Err(_) => Self::Absent,
        }
    }
}

/// What becomes of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stay,
    GiveUp,
    Make,
}

/// Decides from the disk, what there is of the reserve, and whether a write failed for want of room.
fn step(disk: Disk, reserve: Reserve, refused: bool) -> Step {
    let size = disk.reserve_bytes();
    match reserve {
        Reserve::Held if refused || disk.free_bytes < size / 2 => Step::GiveUp,
        Reserve::Held => Step::Stay,
        _ if !refused && disk.free_bytes >= size.saturating_mul(RESERVE_ROOM) => Step::Make,
        _ => Step::Stay,
    }
}

/// What was seen of a disk.
#[derive(Clone, Debug)]
struct Seen {
    disk: Disk,
    reserve: Reserve,
    /// Whether a write failed for want of room.
    refused: bool,
    /// Why there is no reserve although there is room for it.
    failed: Option<String>,
}

impl Seen {
    fn is_full(&self) -> bool {
        self.refused || self.reserve == Reserve::GivenUp || self.disk.free_bytes < self.disk.reserve_bytes() / 2
    }

    /// Why the disk is under pressure.
    fn pressure(&self, dir: &Path) -> Option<String> {
        let (dir, room) = (dir.display(), self.disk.shown());
        match &self.failed {
            _ if self.disk.is_low() || self.is_full() => Some(format!("the disk of {dir} fills up: {room}; make room")),
            Some(error) => Some(format!(
                "no reserve can be kept on the disk of {dir}: {error}; look at its quotas and at its file system, since \
                 without a reserve nothing is left when it is full"
            )),
            None if self.reserve == Reserve::Absent => {
                Some(format!("the disk of {dir} has no room for a reserve: {room}; make room"))
            }
            None => None,
        }
    }
}

/// What is in the way, from what was seen.
fn found(
    dir: &Path,
    seen: Option<&Seen>,
    read_only: Option<&heptad_state::Error>,
    silent: bool,
) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    if let Some(seen) = seen {
        found.extend(seen.pressure(dir).map(|message| (Kind::DiskPressure, message)));
        if seen.is_full() {
            let (dir, room) = (dir.display(), seen.disk.shown());
            let message = format!("the disk of {dir} is full: {room}; new objects are refused until there is room");
            found.push((Kind::DiskFull, message));
        }
    }
    found.extend(read_only.map(|error| (Kind::StateReadOnly, with_causes(error))));
    let message = "this server does not reach the state of the cluster; look at etcd and the network".to_owned();
    found.extend(silent.then_some((Kind::StateUnreachable, message)));
    found
}

/// What is in this server's way now.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Mutex<Vec<ServerCondition>>);

impl Conditions {
    fn lock(&self) -> MutexGuard<'_, Vec<ServerCondition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Vec<ServerCondition> {
        self.lock().clone()
    }

    /// An error if the server cannot do what it is there for.
    pub(crate) fn ready(&self) -> Result<()> {
        let now = self.lock();
        let words: Vec<_> = now.iter().filter(|one| one.kind.stops_work()).map(|one| one.message.clone()).collect();
        if words.is_empty() { Ok(()) } else { Err(Error::refused(ErrorCode::Unavailable, words.join("; "))) }
    }

    /// What makes the state grow is refused while the disk is full.
    pub(crate) fn admit(&self, principal: &Principal, asked: &Asked) -> Result<()> {
        let grows = matches!(asked.verb, Verb::Create | Verb::Update)
            && !matches!(principal, Principal::Node(_) | Principal::Server(_))
            && (asked.kind == "apply"
                || heptad_api::Kind::of_plural(&asked.kind).is_some_and(|kind| kind.head().is_some()));
        match self.lock().iter().find(|one| one.kind == Kind::DiskFull) {
            Some(full) if grows => Err(Error::refused(ErrorCode::InsufficientSpace, full.message.clone())),
            _ => Ok(()),
        }
    }

    /// Takes over what was found; returns what came and what went.
    fn replace(&self, found: Vec<(Kind, String)>) -> (Vec<ServerCondition>, Vec<Kind>) {
        let mut now = self.lock();
        let since = |kind| now.iter().find(|one| one.kind == kind).map(|one| one.since_ms);
        let next: Vec<_> = found
            .into_iter()
            .map(|(kind, message)| ServerCondition { kind, message, since_ms: since(kind).unwrap_or_else(now_ms) })
            .collect();
        let came = next.iter().filter(|one| since(one.kind).is_none()).cloned().collect();
        let gone = now.iter().map(|one| one.kind).filter(|kind| next.iter().all(|one| one.kind != *kind)).collect();
        *now = next;
        (came, gone)
    }
}

/// Takes the room of the reserve, on the disk and not only by name.
fn make(file: &Path, bytes: u64) -> io::Result<()> {
    let made = File::create(file).and_then(|reserve| {
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        nix::fcntl::posix_fallocate(&reserve, 0, length)?;
        reserve.sync_all()
    });
    let made = made.and_then(|()| match Reserve::of(file) {
        Reserve::Held => Ok(()),
        _ => Err(io::Error::other("the file system takes no room for it")),
    });
    if made.is_err() {
        // The error that matters is the first.
        let _ = fs::remove_file(file);
    }
    made
}

/// Who keeps the reserve on the disk of a directory.
#[derive(Clone, Debug)]
struct Keeper {
    dir: PathBuf,
    make: fn(&Path, u64) -> io::Result<()>,
    /// When the last step failed, and why.
    failed: Option<(Instant, String)>,
}

impl Keeper {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), make, failed: None }
    }

    /// Looks at the disk, and does what follows for the reserve. Whether that succeeds does not change what is seen.
    fn look(&mut self, refused: bool) -> io::Result<Seen> {
        let file = self.dir.join(RESERVE_FILE);
        let disk = Disk::of(&self.dir)?;
        let retry = Duration::from_millis(RESERVE_RETRY_MS);
        match step(disk, Reserve::of(&file), refused) {
            Step::Stay => {}
            // Also on a full disk, where a rename or another file would need room.
            Step::GiveUp => self.done(File::create(&file).map(drop)),
            Step::Make if self.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < retry) => {}
            Step::Make => self.done((self.make)(&file, disk.reserve_bytes())),
        }
        let failed = self.failed.as_ref().map(|(_, error)| error.clone());
        Ok(Seen { disk: Disk::of(&self.dir)?, reserve: Reserve::of(&file), refused, failed })
    }

    fn done(&mut self, done: io::Result<()>) {
        let failed = done.err().map(|error| (Instant::now(), error.to_string()));
        if let (None, Some((_, error))) = (&self.failed, &failed) {
            tracing::warn!(dir = %self.dir.display(), error, "the reserve on the disk cannot be made or given up");
        }
        self.failed = failed;
    }
}

/// The loop that looks.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) conditions: Arc<Conditions>,
    pub(crate) objects: Objects,
    pub(crate) leader: Arc<Leader>,
    pub(crate) options: Arc<Options>,
}

impl Watcher {
    /// Looks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(LOOK_INTERVAL_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut untold, mut recorded) = (VecDeque::new(), true);
        let mut keeper = self.options.disk_dir.as_deref().map(Keeper::new);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let changed = self.look(&mut keeper, &mut untold).await;
            recorded = recorded && !changed;
            if !untold.is_empty() || !recorded {
                recorded = self.tell(&mut untold).await;
            }
        }
    }

    /// Returns whether something came or went.
    async fn look(&self, keeper: &mut Option<Keeper>, untold: &mut VecDeque<(EventKind, String, String)>) -> bool {
        let read_only = self.objects.store().read_only();
        let refused = matches!(read_only, Some(heptad_state::Error::Full { .. }));
        let mut seen = None;
        if let Some(mut looking) = keeper.clone() {
            let looked = spawn_blocking(move || (looking.look(refused), looking)).await;
            match looked.map_err(io::Error::other).and_then(|(looked, kept)| {
                *keeper = Some(kept);
                looked
            }) {
                Ok(found) => seen = Some(found),
                Err(error) => tracing::debug!(%error, "the disk of the data cannot be looked at"),
            }
        }
        let silent = *self.leader.store_is_silent().borrow();
        let dir = self.options.disk_dir.as_deref().unwrap_or(Path::new(""));
        let found = found(dir, seen.as_ref(), read_only.as_ref(), silent);
        let (came, gone) = self.conditions.replace(found);
        for one in &came {
            tracing::warn!(condition = %one.kind, message = one.message, "something is in this server's way");
            untold.push_back((EventKind::Warning, one.kind.to_string(), one.message.clone()));
        }
        for kind in &gone {
            tracing::info!(condition = %kind, "it is no longer in this server's way");
            untold.push_back((EventKind::Normal, format!("{kind}Ended"), "it is no longer in its way".to_owned()));
        }
        untold.drain(..untold.len().saturating_sub(UNTOLD_MAX));
        !came.is_empty() || !gone.is_empty()
    }

    /// Records events, and in a cluster the conditions themselves, for the other servers to show. Returns whether all is.
    async fn tell(&self, untold: &mut VecDeque<(EventKind, String, String)>) -> bool {
        if self.objects.store().read_only().is_some() {
            return false;
        }
        let name = &self.options.server_name;
        while let Some((kind, reason, message)) = untold.front() {
            let recorded = async {
                let mut pending = Pending::default();
                pending.event(&self.objects.event(*kind, reason, &format!("server/{name}"), message)?);
                pending.commit(&**self.objects.store()).await
            };
            if recorded.await.is_err() {
                return false;
            }
            untold.pop_front();
        }
        if self.options.server_url.is_none() {
            return true;
        }
        Servers::new(self.objects.store().clone()).tell(name, self.conditions.now()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(free_mib: u64, total_mib: u64) -> Disk {
        Disk { free_bytes: free_mib * MIB, total_bytes: total_mib * MIB }
    }

    #[test]
    fn pressure_is_a_tenth_and_of_large_disks_ten_gib() {
        assert!(disk(99, 1_000).is_low() && !disk(100, 1_000).is_low());
        assert!(disk(10 * 1_024 - 1, 1 << 20).is_low() && !disk(10 * 1_024, 1 << 20).is_low());
    }

    #[test]
    fn the_reserve_is_given_up_when_it_is_needed_and_made_again_with_room() {
        let full = disk(10, 10_000);
        assert_eq!(full.reserve_bytes(), 64 * MIB);
        assert_eq!(step(full, Reserve::Held, false), Step::GiveUp);
        assert_eq!(step(disk(5_000, 10_000), Reserve::Held, true), Step::GiveUp, "a write failed all the same");
        assert_eq!(step(disk(64, 10_000), Reserve::Held, false), Step::Stay);
        for none in [Reserve::Absent, Reserve::GivenUp] {
            assert_eq!(step(disk(64, 10_000), none, false), Step::Stay, "it would be given up again at once");
            assert_eq!(step(disk(192, 10_000), none, true), Step::Stay);
            assert_eq!(step(disk(192, 10_000), none, false), Step::Make);
        }
        for free in 0..200 {
            // What is made leaves so much that it is not given up again.
            if step(disk(free, 10_000), Reserve::Absent, false) == Step::Make {
                assert_eq!(step(disk(free - 64, 10_000), Reserve::Held, false), Step::Stay, "{free}");
            }
        }
    }

    fn kinds(disk: Disk, reserve: Reserve, refused: bool) -> Vec<Kind> {
        let seen = Seen { disk, reserve, refused, failed: None };
        found(Path::new("/d"), Some(&seen), None, false).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_disk_is_full_when_little_is_left_and_not_for_want_of_a_reserve() {
        let pressure = [Kind::DiskPressure];
        let full = [Kind::DiskPressure, Kind::DiskFull];
        assert_eq!(kinds(disk(5_000, 10_000), Reserve::Held, false), []);
        assert_eq!(kinds(disk(150, 10_240), Reserve::Absent, false), pressure, "the first start on such a disk");
        assert_eq!(kinds(disk(9, 10), Reserve::Absent, false), pressure, "it is too small for a reserve");
        assert_eq!(kinds(disk(5_000, 10_000), Reserve::Absent, false), pressure, "the file system gives none");
        assert_eq!(kinds(disk(150, 10_240), Reserve::GivenUp, false), full);
        assert_eq!(kinds(disk(31, 10_240), Reserve::Absent, false), full);
        assert_eq!(kinds(disk(1, 10), Reserve::Absent, false), full);
        assert_eq!(kinds(disk(5_000, 10_000), Reserve::Absent, true), full, "a write failed for want of room");
    }

    /// A keeper in a directory, with a reserve of any size.
    fn keeper(make: fn(&Path, u64) -> io::Result<()>) -> (tempfile::TempDir, Keeper) {
        let dir = tempfile::tempdir().expect("a directory");
        let keeper = Keeper { make, ..Keeper::new(dir.path()) };
        (dir, keeper)
    }

    #[test]
    fn a_reserve_takes_its_room_and_gives_it_back() {
        let (dir, mut keeper) = keeper(|file, _| make(file, RESERVE_BYTES_MIN));
        let seen = keeper.look(false).expect("looked");
        let size = || fs::metadata(dir.path().join(RESERVE_FILE)).expect("it is there").blocks() * 512;
        assert!(seen.reserve == Reserve::Held && size() >= RESERVE_BYTES_MIN, "{seen:?}");
        let seen = keeper.look(true).expect("looked");
        assert!(seen.reserve == Reserve::GivenUp && size() == 0, "{seen:?}");
        // A server that starts now knows it too.
        let seen = Keeper::new(dir.path()).look(true).expect("looked");
        assert_eq!(seen.reserve, Reserve::GivenUp);
        assert_eq!(keeper.look(false).expect("looked").reserve, Reserve::Held, "with room it is made again");
    }

    #[test]
    fn a_disk_that_gives_no_reserve_is_looked_at_all_the_same() {
        static TRIES: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let (dir, mut keeper) = keeper(|_, _| {
            TRIES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Err(nix::errno::Errno::EDQUOT.into())
        });
        for _ in 0..3 {
            let seen = keeper.look(false).expect("looked");
            assert_eq!((seen.reserve, seen.is_full()), (Reserve::Absent, false), "{seen:?}");
            let pressure = Seen { disk: disk(5_000, 10_000), ..seen }.pressure(dir.path()).expect("it is told");
            assert!(pressure.contains("no reserve can be kept") && pressure.contains("quota exceeded"), "{pressure}");
        }
        assert_eq!(TRIES.load(std::sync::atomic::Ordering::Relaxed), 1, "not at every look");
        assert!(keeper.look(true).expect("looked").is_full());
        keeper.make = |file, _| make(file, RESERVE_BYTES_MIN);
        keeper.failed = None;
        assert_eq!(keeper.look(false).expect("looked").reserve, Reserve::Held);
    }

    #[test]
    fn what_grows_is_refused_while_the_disk_is_full_and_deletions_are_not() {
        let conditions = Conditions::default();
        let may = |verb, kind: &str, principal: &Principal| {
            let asked = Asked { verb, kind: kind.to_owned(), ..Asked::of("PUT", "") };
            conditions.admit(principal, &asked).is_ok()
        };
        assert!(may(Verb::Create, "apply", &Principal::Operator));
        let seen = Seen { disk: disk(1, 1_000), reserve: Reserve::GivenUp, refused: false, failed: None };
        let (came, gone) = conditions.replace(found(Path::new("/d"), Some(&seen), None, false));
        assert_eq!((came.len(), gone.len()), (2, 0));
        assert!(
            !may(Verb::Create, "apply", &Principal::Operator) && !may(Verb::Update, "services", &Principal::Operator)
        );
        assert!(
            may(Verb::Delete, "services", &Principal::Operator) && may(Verb::Patch, "services", &Principal::Operator)
        );
        assert!(may(Verb::Create, "events", &Principal::Operator) && may(Verb::Update, "nodes", &Principal::Operator));
        assert!(conditions.ready().is_ok(), "it still does its work");
        let error = heptad_state::Error::Closed;
        conditions.replace(found(Path::new("/d"), None, Some(&error), false));
        assert!(conditions.ready().is_err_and(|error| error.code() == ErrorCode::Unavailable));
        assert!(may(Verb::Create, "apply", &Principal::Operator));
    }
}
