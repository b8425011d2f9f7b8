//! Network namespaces pinned by a bind mount, so that they outlive the process that created them. A namespace belongs
//! to a thread: it is entered only on threads that live for that purpose alone, never on tokio's.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};
use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use crate::{Error, Result, links::Links, sysctl};

const THREAD_NETNS: &str = "/proc/thread-self/ns/net";
/// A path may carry several mounts after crashes; more than this are not ours.
const STACKED_MOUNTS_MAX: usize = 16;

/// Switches of every container namespace: unprivileged processes may open ports below 1024 and send echo requests,
/// which is harmless in a namespace of their own, and `eth0` speaks IPv4 only, like the node's rules.
const CONTAINER_SYSCTLS: [(&str, &str); 3] = [
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv6/conf/default/disable_ipv6", "1"),
];

/// How long another platform of this namespace may take to choose its ranges.
const TURN_ATTEMPTS_MAX: usize = 600;
const TURN_RETRY_DELAY_MS: u64 = 50;

/// The right to choose address ranges in this process's namespace, held by one process at a time while the file is
/// open. The lock is on the namespace itself, so no file is left anywhere.
pub(crate) async fn turn() -> Result<File> {
    let namespace = "/proc/self/ns/net";
    let file = File::open(namespace).map_err(Error::io("open", namespace))?;
    for _ in 0..TURN_ATTEMPTS_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(TURN_RETRY_DELAY_MS)).await,
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", namespace)(source)),
        }
    }
    Err(Error::Busy { dir: namespace.into() })
}

/// A new namespace: the file refers to it, the links are those inside.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) file: File,
    pub(crate) links: Links,
}

/// Creates a namespace and pins it at `path`, replacing what a crash left there.
pub(crate) async fn create(path: PathBuf) -> Result<Namespace> {
    let runtime = Handle::current();
    on_own_thread("create a network namespace", move || build(&path, &runtime)).await
}

fn build(path: &Path, runtime: &Handle) -> Result<Namespace> {
    unpin(path)?;
    enter_new(path)?;
    for (name, value) in CONTAINER_SYSCTLS {
        sysctl::write_if_present(name, value)?;
    }
    File::create(path).map_err(Error::io("create", path))?;
    bind(path)?;
    let file = File::open(THREAD_NETNS).map_err(Error::io("open", THREAD_NETNS))?;
    let links = Links::open_on(runtime)?;
    Ok(Namespace { file, links })
}

/// Runs `work` on a thread in a temporary namespace.
pub(crate) async fn in_scratch<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    on_own_thread("try the network in a scratch namespace", move || {
        enter_new(Path::new(THREAD_NETNS))?;
        work()
    })
    .await
}

fn enter_new(path: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from).map_err(Error::io("make namespace for", path))
}

fn bind(path: &Path) -> Result<()> {
    let none: Option<&str> = None;
    mount(Some(THREAD_NETNS), path, none, MsFlags::MS_BIND, none)
        .map_err(io::Error::from)
        .map_err(Error::io("pin namespace at", path))
}

/// Whether a namespace is pinned at `path`.
pub(crate) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Removes the pin, if present; the namespace ends with its last process.
pub(crate) fn unpin(path: &Path) -> Result<()> {
    for _ in 0..STACKED_MOUNTS_MAX {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(Error::io("unmount", path)(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

async fn on_own_thread<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (done, answer) = oneshot::channel();
    thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            // A cancelled caller may have dropped the receiver: then nobody waits for the answer.
            let _ = done.send(work());
        })
        .map_err(Error::io("start thread for", THREAD_NETNS))?;
    answer.await.map_err(|_| Error::ThreadLost { operation })?
}
