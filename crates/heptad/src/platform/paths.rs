//! Where a platform keeps its files, and the link by which the command line finds a running one.

use heptad_client::local::{is_root, runtime_dir};
use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Where platforms that are removed at the end keep their data: on a disk, not in memory as `/run` is.
pub fn runtime_dir_of_data() -> PathBuf {
    if is_root() {
        PathBuf::from("/var/tmp/heptad")
    } else {
        env::temp_dir().join(format!("heptad-data-{}", nix::unistd::getuid()))
    }
}

/// Creates a directory that only this user may enter, or accepts an existing one of this kind.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    let mode = own_dir(dir)?;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // A directory that others use, such as /tmp, must not be closed to them just because somebody named it by mistake.
    if fs::read_dir(dir)?.next().is_some() {
        return Err(refusal(
            "other users may enter it and it is not empty; choose another, or `chmod 700` it if it is the platform's",
        ));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Creates one of the directories that this user's platforms share, or accepts one in which no other user can put
/// anything.
pub fn shared_dir(dir: &Path) -> io::Result<()> {
    match own_dir(dir)? & 0o022 {
        0 => Ok(()),
        _ => Err(refusal("other users may write to it; remove it")),
    }
}

/// Creates a directory, closed to others, if it is missing. Returns its mode; fails if it is another user's.
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

/// Points `link` at the socket `target`, so that commands without flags find the platform. Leaves the link of another
/// platform alone if that platform still answers.
pub fn publish_socket(link: &Path, target: &Path) -> io::Result<bool> {
    // A killed platform of this directory leaves its link, which is now right again.
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

/// Removes the link if it still names `target`.
pub fn withdraw_socket(link: &Path, target: &Path) {
    if link != target && fs::read_link(link).is_ok_and(|named| named == target) {
        // If it is already gone, all is well.
        let _ = fs::remove_file(link);
    }
}

/// Removes the directories that this user's platforms share, if no platform uses them any more.
pub fn remove_empty_parents() {
    for dir in [runtime_dir(), runtime_dir_of_data()] {
        // A directory that is not empty stays.
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
