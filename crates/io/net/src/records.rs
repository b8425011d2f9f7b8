//! What must be known after a crash: one file for the instance, one per container, each replaced atomically. An
//! unreadable file counts as absent: what it described is then removed as a leftover.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::sleep;

use crate::{Attachment, Error, Result, options::check_container_id};

const LOCK_ATTEMPTS_MAX: usize = 40;
const LOCK_RETRY_DELAY_MS: u64 = 50;

/// The instance: its ranges, and what it changed on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) subnet: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    /// Value of `net.ipv4.ip_forward` before this instance set it.
    pub(crate) ip_forward_before: Option<String>,
}

/// The directory, locked for this process.
#[derive(Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    _lock: File,
}

impl Records {
    /// Waits a moment for the lock: a former owner may be about to end, and a child of it between fork and exec also
    /// holds the lock.
    pub(crate) async fn open(dir: &Path) -> Result<Self> {
        for dir in [dir.join("containers"), dir.join("ns")] {
            fs::create_dir_all(&dir).map_err(Error::io("create directory", dir))?;
        }
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(Error::io("create", path.clone()))?;
        for _ in 0..LOCK_ATTEMPTS_MAX {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { dir: dir.to_owned(), _lock: lock }),
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(LOCK_RETRY_DELAY_MS)).await,
                Err(TryLockError::Error(source)) => return Err(Error::Io { operation: "lock", path, source }),
            }
        }
        Err(Error::Busy { dir: dir.to_owned() })
    }

    pub(crate) fn instance(&self) -> Option<Instance> {
        read(&self.dir.join("instance.json"))
    }

    pub(crate) fn put_instance(&self, instance: &Instance) -> Result<()> {
        write(&self.dir.join("instance.json"), instance)
    }

    pub(crate) fn containers(&self) -> Result<Vec<Attachment>> {
        let names = list(&self.dir.join("containers"))?;
        Ok(names.iter().filter_map(|name| self.container(name.strip_suffix(".json")?)).collect())
    }

    pub(crate) fn container(&self, id: &str) -> Option<Attachment> {
        read::<Attachment>(&self.container_path(id)).filter(|record| record.id == id && check_container_id(id).is_ok())
    }

    pub(crate) fn put_container(&self, record: &Attachment) -> Result<()> {
        write(&self.container_path(&record.id), record)
    }

    pub(crate) fn remove_container(&self, id: &str) -> Result<()> {
        remove(&self.container_path(id))
    }

    /// Names of the pinned namespaces, with or without a record.
    pub(crate) fn namespaces(&self) -> Result<Vec<String>> {
        list(&self.dir.join("ns"))
    }

    /// Record files that describe none of the containers: torn, foreign or left over.
    pub(crate) fn remove_others(&self, keep: impl Fn(&str) -> bool) -> Result<()> {
        let dir = self.dir.join("containers");
        for name in list(&dir)? {
            if !name.strip_suffix(".json").is_some_and(&keep) {
                remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Ends the instance. The lock file stays: removing it would let two processes hold locks on different files.
    pub(crate) fn clear(&self) -> Result<()> {
        self.remove_others(|_| false)?;
        remove(&self.dir.join("instance.json"))
    }

    fn container_path(&self, id: &str) -> PathBuf {
        self.dir.join("containers").join(format!("{id}.json"))
    }
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "network record is unreadable and is ignored");
            None
        }
    }
}

/// No fsync: the record describes kernel objects that do not outlive a power cut either.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let temp = path.with_extension("tmp");
    let bytes = serde_json::to_vec(value).map_err(io::Error::from).map_err(Error::io("encode", path))?;
    let mut file = File::create(&temp).map_err(Error::io("create", temp.clone()))?;
    file.write_all(&bytes).map_err(Error::io("write", temp.clone()))?;
    fs::rename(&temp, path).map_err(Error::io("rename to", path))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
