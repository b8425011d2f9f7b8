//! Where a platform keeps its things, and where the command line looks for a running one.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
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
    fs::symlink_metadata(dir).is_ok_and(|found| found.uid() != nix::unistd::geteuid().as_raw())
}

/// Whether this process may make containers, as far as its user decides that.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Makes a directory that only this user may enter, or takes one that is so.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    let mode = own_dir(dir)?;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // A directory that others use, such as /tmp, must not be closed to them because it was named by mistake.
    if fs::read_dir(dir)?.next().is_some() {
        return Err(refusal(
            "other users may enter it and it is not empty; choose another, or `chmod 700` it if it is the platform's",
        ));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Makes one of the directories that platforms of this user share, or takes one in which no other user can put anything.
pub fn shared_dir(dir: &Path) -> io::Result<()> {
    match own_dir(dir)? & 0o022 {
        0 => Ok(()),
        _ => Err(refusal("other users may write to it; remove it")),
    }
}

/// Makes a directory, closed to others, unless it is there. Returns its mode; an error if it is another user's.
fn own_dir(dir: &Path) -> io::Result<u32> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if found.uid() != nix::unistd::geteuid().as_raw() || !found.is_dir() {
        return Err(refusal("it is not a directory of this user; remove it or choose another with --data-dir"));
    }
    Ok(found.mode())
}

fn refusal(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

/// Lets `link` name the socket `target`, so that commands without flags find the platform. A link of another platform that
/// still answers is left alone.
pub fn publish_socket(link: &Path, target: &Path) -> io::Result<bool> {
    // A killed platform of this directory leaves its link, which is right again.
    if link == target || fs::read_link(link).is_ok_and(|named| named == target) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("something"), "").expect("written");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("its mode is set");
        dir
    }

    #[test]
    fn a_shared_directory_may_be_seen_but_not_written_by_others() {
        assert!(shared_dir(dir_with(0o755).path()).is_ok(), "the container network makes its part of it first");
        assert!(shared_dir(dir_with(0o777).path()).is_err());
    }

    #[test]
    fn a_data_directory_in_use_by_others_is_not_closed_to_them() {
        let dir = dir_with(0o755);
        assert!(private_dir(dir.path()).is_err());
        assert_eq!(fs::metadata(dir.path()).expect("it is there").mode() & 0o777, 0o755);
        assert!(private_dir(&dir.path().join("new/one")).is_ok());
    }
}
