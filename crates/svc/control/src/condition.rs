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
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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

/// What becomes of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stay,
    GiveUp,
    Make,
}

/// Decides from the disk, whether there is a reserve, and whether a write failed for want of room.
fn step(disk: Disk, held: bool, refused: bool) -> Step {
    let size = disk.reserve_bytes();
    match held {
        true if refused || disk.free_bytes < size / 2 => Step::GiveUp,
        false if !refused && disk.free_bytes >= size.saturating_mul(RESERVE_ROOM) => Step::Make,
        _ => Step::Stay,
    }
}

/// What is in the way, from what was seen.
fn found(
    dir: &Path,
    disk: Option<(Disk, bool)>,
    read_only: Option<&heptad_state::Error>,
    silent: bool,
) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    if let Some((disk, held)) = disk {
        let (dir, room) = (dir.display(), disk.shown());
        if disk.is_low() || !held {
            found.push((Kind::DiskPressure, format!("the disk of {dir} fills up: {room}; make room")));
        }
        if !held {
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
            && ["apply", "services", "configs", "secrets", "policies", "rules", "quotas"]
                .contains(&asked.kind.as_str());
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
    if made.is_err() {
        // The error that matters is the first.
        let _ = fs::remove_file(file);
    }
    made
}

/// Looks at the disk of `dir`, and does what follows for the reserve. Returns also whether there is one.
fn look(dir: &Path, refused: bool) -> io::Result<(Disk, bool)> {
    let file = dir.join(RESERVE_FILE);
    let disk = Disk::of(dir)?;
    let has = |found: fs::Metadata| found.blocks() * 512 >= RESERVE_BYTES_MIN;
    let held = fs::metadata(&file).is_ok_and(has);
    match step(disk, held, refused) {
        Step::Stay => Ok((disk, held)),
        Step::GiveUp => {
            fs::remove_file(&file)?;
            Ok((Disk::of(dir)?, false))
        }
        Step::Make => {
            make(&file, disk.reserve_bytes())?;
            Ok((Disk::of(dir)?, true))
        }
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
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let changed = self.look(&mut untold).await;
            recorded = recorded && !changed;
            if !untold.is_empty() || !recorded {
                recorded = self.tell(&mut untold).await;
            }
        }
    }

    /// Returns whether something came or went.
    async fn look(&self, untold: &mut VecDeque<(EventKind, String, String)>) -> bool {
        let read_only = self.objects.store().read_only();
        let refused = matches!(read_only, Some(heptad_state::Error::Full { .. }));
        let dir = self.options.disk_dir.clone();
        let disk = match dir.clone() {
            None => None,
            Some(dir) => match spawn_blocking(move || look(&dir, refused)).await.map_err(io::Error::other).flatten() {
                Ok(seen) => Some(seen),
                Err(error) => {
                    tracing::debug!(%error, "the disk of the data cannot be looked at");
                    None
                }
            },
        };
        let silent = *self.leader.store_is_silent().borrow();
        let found = found(&dir.unwrap_or_default(), disk, read_only.as_ref(), silent);
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
        assert_eq!(step(full, true, false), Step::GiveUp);
        assert_eq!(step(disk(5_000, 10_000), true, true), Step::GiveUp, "a write failed all the same");
        assert_eq!(step(disk(64, 10_000), true, false), Step::Stay);
        assert_eq!(step(disk(64, 10_000), false, false), Step::Stay, "it would be given up again at once");
        assert_eq!(step(disk(192, 10_000), false, true), Step::Stay);
        assert_eq!(step(disk(192, 10_000), false, false), Step::Make);
        for free in 0..200 {
            // What is made leaves so much that it is not given up again.
            if step(disk(free, 10_000), false, false) == Step::Make {
                assert_eq!(step(disk(free - 64, 10_000), true, false), Step::Stay, "{free}");
            }
        }
    }

    #[test]
    fn a_reserve_takes_its_room_and_gives_it_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (_, held) = look(dir.path(), false).expect("looked");
        let size = fs::metadata(dir.path().join(RESERVE_FILE)).map(|found| found.blocks() * 512).unwrap_or(0);
        assert!(!held || size >= RESERVE_BYTES_MIN, "{size}");
        let (_, held) = look(dir.path(), true).expect("looked");
        assert!(!held && !dir.path().join(RESERVE_FILE).exists());
    }

    #[test]
    fn what_grows_is_refused_while_the_disk_is_full_and_deletions_are_not() {
        let conditions = Conditions::default();
        let may = |verb, kind: &str, principal: &Principal| {
            let asked = Asked { verb, ..Asked::update(kind, "default", "x") };
            conditions.admit(principal, &asked).is_ok()
        };
        assert!(may(Verb::Create, "apply", &Principal::Operator));
        let (came, gone) = conditions.replace(found(Path::new("/d"), Some((disk(1, 1_000), false)), None, false));
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
