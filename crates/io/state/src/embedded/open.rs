//! Opening the directory: one process at a time, created whole or not at all, its format checked. Answers no request.

use super::{Options, rows, view::View, view::read_error};
use crate::{Cause, Error, FIRST_REVISION, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// An open engine and the lock on its directory. Fields drop in order: the lock goes last.
pub(super) struct Opened {
    pub(super) rows: Keyspace,
    pub(super) database: Database,
    pub(super) dir: PathBuf,
    _lock: DirLock,
}

/// The lock on the directory. Closing the file would not be enough: a child process that is just being started
/// has a copy of it until it executes its program.
struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(error = %error, "cannot unlock the state directory");
        }
    }
}

/// The directory without its engine, which is opened anew.
pub(super) struct Closed {
    pub(super) dir: PathBuf,
    lock: DirLock,
}

const ENGINE: &str = "engine";
/// A file that is written to see whether there is room again.
const PROBE: &str = "probe";
/// So much room there must be before the engine is opened again.
const PROBE_BYTES: usize = 2 << 20;
/// The engine's background says that it failed and not why. With less room than this it is the room: a merge of tables takes
/// about as much as the tables do.
const SCARCE_BYTES: u64 = 256 << 20;
const ENGINE_NEW: &str = "engine.new";
const LOCK: &str = "lock";
const LOCK_RETRIES_MAX: usize = 50;
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Worker threads of the engine. With more than one, the engine's first worker hands merges on to the others and
/// spins while they are busy: measured with two, half as much CPU time again per transaction.
const ENGINE_THREADS: usize = 1;
/// The smallest bounds that the engine takes for its write-ahead log and its open files.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
const OPEN_FILES_MAX: usize = 64;

pub(super) fn open(dir: &Path, options: &Options) -> Result<Opened> {
    let fail = |source: Cause| Error::Open { dir: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(|error| fail(Arc::new(error)))?;
    let lock = lock(dir)?;
    if !dir.join(ENGINE).is_dir() {
        create(dir, options).map_err(fail)?;
    }
    let (database, rows) = open_engine(&dir.join(ENGINE), options).map_err(|error| fail(Arc::new(error)))?;
    Ok(Opened { rows, database, dir: dir.to_owned(), _lock: lock })
}

fn lock(dir: &Path) -> Result<DirLock> {
    let fail = |error: io::Error| Error::Open { dir: dir.to_owned(), source: Arc::new(error) };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(fail)?;
    // The last owner may be just ending.
    for _ in 0..LOCK_RETRIES_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(DirLock(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY_DELAY),
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
    }
    Err(Error::Locked { dir: dir.to_owned() })
}

/// A process that dies in the middle leaves only a directory that the next one removes.
fn create(dir: &Path, options: &Options) -> std::result::Result<(), Cause> {
    let (new, done) = (dir.join(ENGINE_NEW), dir.join(ENGINE));
    let io = |error: io::Error| -> Cause { Arc::new(error) };
    let engine = |error: fjall::Error| -> Cause { Arc::new(error) };
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let (database, rows) = open_engine(&new, options).map_err(engine)?;
    rows.insert(rows::META_FORMAT, rows::FORMAT.to_be_bytes()).map_err(engine)?;
    database.persist(PersistMode::SyncAll).map_err(engine)?;
    drop((rows, database));
    fs::rename(&new, &done).map_err(io)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

fn open_engine(dir: &Path, options: &Options) -> fjall::Result<(Database, Keyspace)> {
    let database = Database::builder(dir)
        .cache_size(options.block_cache_bytes)
        .worker_threads(ENGINE_THREADS)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .max_cached_files(Some(OPEN_FILES_MAX))
        .open()?;
    let rows =
        database.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes))?;
    Ok((database, rows))
}

/// Whether a write to `dir` failed because the disk, or what this user may have of it, is full.
pub(super) fn is_full(error: &(dyn std::error::Error + 'static), dir: &Path) -> bool {
    let room = || nix::sys::statvfs::statvfs(dir).map_or(u64::MAX, |fs| fs.blocks_available() * fs.fragment_size());
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let in_background = matches!(cause.downcast_ref(), Some(fjall::Error::Poisoned));
        matches!(io, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            || (in_background && room() < SCARCE_BYTES)
    })
}

/// Writes some bytes and takes them away again.
pub(super) fn probe(dir: &Path) -> io::Result<()> {
    let file = dir.join(PROBE);
    let written = File::create(&file).and_then(|mut probe| {
        probe.write_all(&vec![0; PROBE_BYTES])?;
        probe.sync_all()
    });
    fs::remove_file(&file)?;
    written
}

impl Closed {
    /// Opens the engine again, and makes durable what it finds.
    pub(super) fn reopen(&self, options: &Options) -> fjall::Result<(Database, Keyspace)> {
        let (database, rows) = open_engine(&self.dir.join(ENGINE), options)?;
        database.persist(PersistMode::SyncAll)?;
        Ok((database, rows))
    }

    pub(super) fn with(self, (database, rows): (Database, Keyspace)) -> Opened {
        Opened { rows, database, dir: self.dir, _lock: self.lock }
    }
}

impl Opened {
    /// Closes the engine and keeps the directory.
    pub(super) fn close(self) -> Closed {
        Closed { dir: self.dir, lock: self._lock }
    }

    /// The state that was last made durable.
    pub(super) fn view(&self) -> Result<View> {
        let snapshot = self.database.snapshot();
        let mut view = View { snapshot, rows: self.rows.clone(), revision: FIRST_REVISION, compact_revision: 0 };
        let found = view.number(rows::META_FORMAT)?.unwrap_or(0);
        if found != rows::FORMAT {
            return Err(Error::Format { dir: self.dir.clone(), found, supported: rows::FORMAT });
        }
        view.compact_revision = view.number(rows::META_COMPACT)?.unwrap_or(0);
        let logs = rows::log_key(0)..=rows::log_key(u64::MAX);
        if let Some(newest) = view.snapshot.range(&self.rows, logs).next_back() {
            let (row_key, row) = newest.into_inner().map_err(|error| read_error("the newest revision", error))?;
            view.revision = rows::decode_log(&row_key, &row)?.0;
        }
        Ok(view)
    }
}
