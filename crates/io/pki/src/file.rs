//! Files that only their owner may read: written completely or not at all, refused if others could have read them.

use crate::error::{Error, Result};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};
use zeroize::Zeroizing;

/// The largest file that is read as a key, a keyring or a bundle.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Writes a file with mode 0600 under a temporary name and renames it: nobody ever reads half of it, and it survives a
/// crash.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |source| Error::File {
        operation: "write",
        path: path.to_owned(),
        remedy: "look at the owner and mode of its directory, and at the disk's free space",
        source,
    };
    write(path, bytes).map_err(failed)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one that matters.
        let _ = fs::remove_file(&beside);
    }
    written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(directory)?.sync_all()
}

/// Reads a file that only its owner may read; refuses one that others may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |remedy| move |source| Error::File { operation: "read", path: path.to_owned(), remedy, source };
    let about = fs::metadata(path).map_err(failed("is this the data directory that was made by init or join?"))?;
    if about.permissions().mode() & 0o077 != 0 {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, format!("its mode is {:o}", about.mode() & 0o777));
        return Err(failed("other users may read it: treat what it holds as known, or `chmod 600` it")(source));
    }
    if about.len() > FILE_BYTES_MAX {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("it has {} bytes", about.len()));
        return Err(failed("it is too large to be what it should be")(source));
    }
    fs::read(path).map(Zeroizing::new).map_err(failed("only its owner may read it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_stays_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        write_private(&path, b"one").expect("written");
        write_private(&path, b"two").expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(*read_private(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");
        let error = read_private(&path).expect_err("others may read it").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        assert!(read_private(&dir.path().join("none")).is_err());
    }
}
