//! The root file system of one container, mounted in a mount namespace of the shim's own: the mounts vanish with the
//! shim and the container, however these end. The current directory is the bundle.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_call};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::bundle::Bundle;
use crate::container::{ContainerSpec, RootFs, User};

const ROOTFS: &str = "rootfs";
/// What a container that sees the host's files may change: only mount points.
const HOST_SCRATCH_OPTIONS: &str = "size=16m,mode=755";
/// Parts of the host's system that are often file systems of their own.
const HOST_SYSTEM_DIRS: &[&str] = &["/usr", "/opt", "/nix"];

/// A mount that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} for the container's root: {source}")]
pub(super) struct RootfsError {
    operation: String,
    source: io::Error,
}

trait Doing<T> {
    fn doing(self, operation: &str) -> Result<T, RootfsError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, operation: &str) -> Result<T, RootfsError> {
        self.map_err(|error| RootfsError { operation: operation.to_owned(), source: error.into() })
    }
}

/// Mounts it and returns its name in the bundle.
pub(super) fn mount(spec: &ContainerSpec) -> Result<&'static str, RootfsError> {
    unshare(CloneFlags::CLONE_NEWNS).doing("make a mount namespace")?;
    // Slave, not private: what the host unmounts must not stay mounted here.
    mount_call(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .doing("leave the host's mount propagation")?;
    fs::create_dir_all(ROOTFS).doing("create the mount point")?;
    match &spec.rootfs {
        RootFs::Overlay { lower_dirs } => mount_layers(lower_dirs)?,
        RootFs::Host => mount_host()?,
    }
    Ok(ROOTFS)
}

/// Layers are named by short links: mount options must fit in one page, and paths may contain `:` and `,`.
fn mount_layers(lower_dirs: &[PathBuf]) -> Result<(), RootfsError> {
    for dir in ["upper", "work", "l"] {
        fs::create_dir_all(dir).doing("create the writable layer")?;
    }
    // The root directory itself comes from the upper layer: it must be as open as the image's.
    fs::set_permissions("upper", fs::Permissions::from_mode(0o755)).doing("open the writable layer")?;
    let mut names = Vec::with_capacity(lower_dirs.len());
    for (number, dir) in lower_dirs.iter().enumerate() {
        let name = format!("l/{number}");
        symlink(dir, &name).doing("name a layer")?;
        names.push(name);
    }
    let options = format!("lowerdir={},upperdir=upper,workdir=work", names.join(":"));
    mount_call(Some("overlay"), ROOTFS, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))
        .doing("mount the layers")
}

fn mount_host() -> Result<(), RootfsError> {
    fs::create_dir_all("scratch").doing("create the scratch directory")?;
    mount_call(Some("tmpfs"), "scratch", Some("tmpfs"), MsFlags::empty(), Some(HOST_SCRATCH_OPTIONS))
        .doing("mount the scratch directory")?;
    for dir in ["scratch/upper", "scratch/work"] {
        fs::create_dir(dir).doing("create the scratch layer")?;
    }
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let options = "lowerdir=/,upperdir=scratch/upper,workdir=scratch/work";
    mount_call(Some("overlay"), ROOTFS, Some("overlay"), flags, Some(options)).doing("mount the host's files")?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for point in mountinfo.lines().filter_map(|line| line.split(' ').nth(4)) {
        if HOST_SYSTEM_DIRS.iter().any(|dir| Path::new(point).starts_with(dir)) {
            bind_host_dir(point)?;
        }
    }
    Ok(())
}

fn bind_host_dir(point: &str) -> Result<(), RootfsError> {
    let target = format!("{ROOTFS}{point}");
    mount_call(Some(point), target.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .doing("show a part of the host's files")?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount_call(None::<&str>, target.as_str(), None::<&str>, flags, None::<&str>)
        .doing("protect a part of the host's files")
}

/// Creates the working directory if the image has none: it belongs to the container's user, its parents to root. No
/// link of the image leads out of the root file system.
pub(super) fn make_cwd(cwd: &Path, user: &User) -> Result<(), String> {
    make_dirs(cwd, user).map_err(|error| {
        let problem = match error {
            rustix::io::Errno::NOTDIR => "a part of it is not a directory in the image".to_owned(),
            rustix::io::Errno::EXIST | rustix::io::Errno::LOOP => {
                "a link of the image on its way leads nowhere".to_owned()
            }
            other => io::Error::from(other).to_string(),
        };
        format!("the working directory {} cannot be used: {problem}", cwd.display())
    })
}

fn make_dirs(cwd: &Path, user: &User) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(ROOTFS, flags, Mode::empty())?;
    let mut parent = root.try_clone().map_err(|_| rustix::io::Errno::MFILE)?;
    let (mut path, mut made) = (PathBuf::new(), false);
    for part in cwd.components().filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None }) {
        path.push(part);
        parent = match open_in(&root, &path) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&parent, part, Mode::from_raw_mode(0o755))?;
                // Regardless of this process's mask.
                rustix::fs::chmodat(&parent, part, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                made = true;
                open_in(&root, &path)?
            }
            found => found?,
        };
    }
    if made {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        rustix::fs::chownat(&parent, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

/// The directory `path` as seen by a process whose root is `root`.
pub(super) fn open_in(root: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Files that are shown in place of the image's.
pub(super) fn write_etc_files(
    bundle: &Bundle,
    spec: &ContainerSpec,
) -> Result<Vec<(PathBuf, &'static str)>, RootfsError> {
    let hostname = format!("{}\n", spec.hostname);
    let wanted = [
        ("hostname", "/etc/hostname", Some(&hostname)),
        ("hosts", "/etc/hosts", spec.hosts.as_ref()),
        ("resolv.conf", "/etc/resolv.conf", spec.resolv_conf.as_ref()),
    ];
    let mut files = Vec::new();
    for (name, target, content) in wanted {
        if let Some(content) = content {
            let path = bundle.path(name);
            fs::write(&path, content).doing("write a file of /etc")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).doing("open a file of /etc")?;
            files.push((path, target));
        }
    }
    Ok(files)
}
