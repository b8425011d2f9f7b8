//! The engine's directory: lock, owner, identity, names of files, and whether it is still there. Knows no records.

use crate::{BlobError, Result};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const FORMAT: &str = "heptad-blob/1";
const OWNER_FILE: &str = "FORMAT";

/// A directory that this engine holds locked.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    lock: File,
    /// Who this directory is: another one, also an empty one in its place, has another number.
    pub(crate) identity: u128,
    /// Differs from opening to opening.
    pub(crate) opening: u128,
}

impl Directory {
    /// Creates the directory if needed, locks it and checks that it is that of the storage node `name`.
    pub(crate) fn open(root: &Path, name: &str) -> Result<Self> {
        let segments = root.join("segments");
        fs::create_dir_all(&segments).map_err(BlobError::io("creating directory", &segments))?;
        let path = root.join("LOCK");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(BlobError::io("opening", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BlobError::Locked { dir: root.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(BlobError::io("locking", &path)(source)),
        }
        let mut directory = Self { root: root.to_owned(), lock, identity: 0, opening: draw(root)? };
        directory.check_owner(name)?;
        directory.identity = directory.identity()?;
        sync_directory(root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
        Ok(directory)
    }

    fn check_owner(&self, name: &str) -> Result<()> {
        let path = self.root.join(OWNER_FILE);
        let expected = format!("{FORMAT} {name}");
        match fs::read_to_string(&path) {
            Ok(found) if found.trim_end() == expected => Ok(()),
            Ok(found) => {
                Err(BlobError::Foreign { dir: self.root.clone(), found: found.trim_end().to_owned(), expected })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                replace_file(&path, format!("{expected}\n").as_bytes())
            }
            Err(source) => Err(BlobError::io("reading", &path)(source)),
        }
    }

    /// The number in the file `ID`; drawn when there is none that can be read.
    fn identity(&self) -> Result<u128> {
        let path = self.root.join("ID");
        let found = match fs::read(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(BlobError::io("reading", &path)(error));
            }
            found => String::from_utf8_lossy(&found.unwrap_or_default()).into_owned(),
        };
        match u128::from_str_radix(found.trim_end(), 16).ok() {
            Some(identity) => Ok(identity),
            None => {
                let fresh = draw(&self.root)?;
                replace_file(&path, format!("{fresh:032x}\n").as_bytes()).map(|()| fresh)
            }
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn segment(&self, number: u32) -> PathBuf {
        self.root.join(format!("segments/{number:010}.seg"))
    }

    pub(crate) fn summary(&self, number: u32) -> PathBuf {
        self.root.join(format!("segments/{number:010}.idx"))
    }

    /// The numbers of all segment files, ascending; leftovers of interrupted work are removed.
    pub(crate) fn segment_numbers(&self) -> Result<Vec<u32>> {
        let dir = self.segments();
        let mut numbers = Vec::new();
        for item in fs::read_dir(&dir).map_err(BlobError::io("listing", &dir))? {
            let path = item.map_err(BlobError::io("listing", &dir))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            match (path.extension().and_then(|extension| extension.to_str()), stem) {
                (Some("seg"), Some(number)) => numbers.push(number),
                (Some("tmp"), _) => fs::remove_file(&path).map_err(BlobError::io("removing", &path))?,
                _ => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether the locked directory still is what its path leads to.
    pub(crate) fn is_there(&self) -> bool {
        same_file(&self.lock, &self.root.join("LOCK"))
    }

    pub(crate) fn unlock(&self) {
        // A failure leaves the lock to the closing of the file.
        let _ = self.lock.unlock();
    }
}

fn draw(root: &Path) -> Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| BlobError::io("drawing a number for", root)(std::io::Error::other(error.to_string())))?;
    Ok(u128::from_le_bytes(bytes))
}

/// Whether `path` leads to the open `file`.
pub(crate) fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Whether no engine was ever open on the directory `root`.
pub fn is_new(root: &Path) -> bool {
    !root.join(OWNER_FILE).exists()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(BlobError::io("syncing directory", path))
}

/// Writes a file as a whole or not at all, durably.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(BlobError::io("writing", path))?;
    path.parent().map_or(Ok(()), sync_directory)
}
