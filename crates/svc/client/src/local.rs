//! How the platform of this machine is found when none is named: by the socket of this user's platform. Knows no
//! request.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The directory of sockets and of whatever does not outlive a reboot.
pub fn runtime_dir() -> PathBuf {
    if is_root() {
        return PathBuf::from("/run/heptad");
    }
    match env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("heptad"),
        None => env::temp_dir().join(format!("heptad-{}", rustix::process::getuid().as_raw())),
    }
}

/// The socket of the platform that this user started last.
pub fn socket_default() -> PathBuf {
    runtime_dir().join("api.sock")
}

/// Whether another user made that directory: in a shared /tmp, that user could answer in the platform's place.
pub fn is_foreign(dir: &Path) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|found| found.uid() != rustix::process::geteuid().as_raw())
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
