//! Where a platform keeps its things, and where the command line looks for a running one.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// The directory of sockets and of what does not outlive a reboot.
pub fn runtime_dir() -> PathBuf {
    if is_root() {
        return PathBuf::from("/run/heptad");
    }
    match env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("heptad"),
        None => env::temp_dir().join(format!("heptad-{}", nix::unistd::getuid())),
    }
}

/// Where platforms that are removed at the end keep their data: on a disk, not in memory as `/run` is.
pub fn runtime_dir_of_data() -> PathBuf {
    if is_root() {
        PathBuf::from("/var/tmp/heptad")
    } else {
        env::temp_dir().join(format!("heptad-data-{}", nix::unistd::getuid()))
    }
}

/// The socket of the platform that this user started last.
pub fn socket_default() -> PathBuf {
    runtime_dir().join("api.sock")
}

/// Whether another user made that directory: in a /tmp that all share, they could answer in the platform's place.
pub fn is_foreign(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(dir).is_ok_and(|found| found.uid() != nix::unistd::geteuid().as_raw())
}

/// Whether this process may make containers, as far as its user decides that.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes a directory that only this user may enter.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if found.uid() != nix::unistd::geteuid().as_raw() || !found.is_dir() {
        let message = "it is not a directory of this user; remove it or choose another with --data-dir";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    // A directory that others use, such as /tmp, must not be closed to them because it was named by mistake.
    if fs::read_dir(dir)?.next().is_some() {
        let message =
            "other users may enter it and it is not empty; choose another, or `chmod 700` it if it is the platform's";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Lets `link` name the socket `target`, so that commands without flags find the platform. A link of another platform that
/// still answers is left alone.
pub fn publish_socket(link: &Path, target: &Path) -> io::Result<bool> {
    if link == target {
        return Ok(true);
    }
    if std::os::unix::net::UnixStream::connect(link).is_ok() {
        return Ok(false);
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, link)?;
    Ok(true)
}

/// Takes the link back if it still names `target`.
pub fn withdraw_socket(link: &Path, target: &Path) {
    if link != target && fs::read_link(link).is_ok_and(|named| named == target) {
        // Gone already is as good.
        let _ = fs::remove_file(link);
    }
}

/// Removes the directories that platforms of this user share, if none uses them any more.
pub fn remove_empty_parents() {
    for dir in [runtime_dir(), runtime_dir_of_data()] {
        // One that is not empty stays.
        let _ = fs::remove_dir(dir);
    }
}
