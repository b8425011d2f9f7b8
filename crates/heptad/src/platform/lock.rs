//! The lock of a data directory: one process uses it at a time, and its lock file says which.

use super::{PlatformError, paths};
use heptad_member::{handover, unix_ms};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

const FILE: &str = "lock";

/// A data directory that this process has locked. Dropping it releases the lock.
#[derive(Debug)]
pub struct DataLock(#[allow(dead_code, reason = "held, never used")] Flock<File>);

/// The process that uses a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its id.
    pub pid: i32,
    /// When its program started, in milliseconds since 1970.
    pub started_ms: u64,
    /// The version of its program.
    pub version: String,
    /// Why the last attempt to start its program file anew failed.
    #[serde(default)]
    pub refused: Option<Refusal>,
}

/// A failed attempt to start the program anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why.
    pub why: String,
}

/// Creates the data directory and locks it for this process.
pub fn take(dir: &Path) -> Result<DataLock, PlatformError> {
    let unusable = |source: io::Error| PlatformError::Directory { dir: dir.to_owned(), source };
    paths::private_dir(dir).map_err(unusable)?;
    // Not truncated before it is locked: it names the owner.
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(FILE));
    let mut lock = Flock::lock(opened.map_err(unusable)?, FlockArg::LockExclusiveNonblock)
        .map_err(|_| PlatformError::InUse { dir: dir.to_owned() })?;
    let own = Running {
        pid: nix::unistd::getpid().as_raw(),
        started_ms: unix_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        refused: handover::failure().map(|why| Refusal { at_ms: unix_ms(), why }),
    };
    let text = serde_json::to_vec(&own).expect("numbers and a text serialize");
    lock.set_len(0).and_then(|()| lock.write_all(&text)).map_err(unusable)?;
    Ok(DataLock(lock))
}

impl Running {
    /// Records in this process's directory that the program was not started anew.
    pub fn refuse(dir: &Path, why: String) -> io::Result<()> {
        let path = dir.join(FILE);
        let mut own: Self = serde_json::from_slice(&std::fs::read(&path)?)?;
        own.refused = Some(Refusal { at_ms: unix_ms(), why });
        // In place, because the lock is on this very file.
        std::fs::write(path, serde_json::to_vec(&own).expect("numbers and texts serialize"))
    }

    /// The process that uses the directory now; `None` if there is none.
    pub fn of(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if Flock::lock(file, FlockArg::LockSharedNonblock).is_ok() {
            return Ok(None);
        }
        // Between locking and writing, the text is incomplete.
        Ok(serde_json::from_slice(&std::fs::read(path)?).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_uses_a_directory_and_says_who_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        assert_eq!(Running::of(&data).expect("readable"), None);
        let lock = take(&data).expect("free");
        assert!(matches!(take(&data), Err(PlatformError::InUse { .. })));
        let running = Running::of(&data).expect("readable").expect("somebody");
        assert_eq!(running.pid, i32::try_from(std::process::id()).expect("a pid"));
        Running::refuse(&data, "it is cut".to_owned()).expect("written");
        let refused = Running::of(&data).expect("readable").expect("somebody").refused.expect("it was refused");
        assert_eq!(refused.why, "it is cut");
        drop(lock);
        assert_eq!(Running::of(&data).expect("readable"), None, "the file alone says nothing");
        assert!(take(&data).is_ok());
    }
}
