//! The few system calls that no safe library offers, each wrapped so that its caller needs no `unsafe`.
//! Decides nothing.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use nix::unistd::ForkResult;

use crate::driver::ExitKind;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Gives memory that this process has freed back to the system. Glibc keeps most of it, in an arena for each of many
/// threads.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it concerns only what the allocator itself holds free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Forks; the caller has made sure that this process has one thread, so that the child may allocate.
pub(crate) fn fork_single_threaded() -> io::Result<ForkResult> {
    if thread_count()? != 1 {
        return Err(io::Error::other("a process with several threads must not fork"));
    }
    // SAFETY: with one thread no lock can be held by a thread that the child lacks.
    unsafe { nix::unistd::fork() }.map_err(io::Error::from)
}

/// Threads of this process.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) {
    // SAFETY: called by a process that has just been forked or executed for one purpose and owns none of them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) };
    if closed != 0 {
        for fd in first..65_536 {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Closes every descriptor from `first` on when this process executes another program. Safe after fork.
pub(crate) fn close_from_on_exec(first: RawFd) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only sets a flag on descriptors.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, flags) })?;
    Ok(())
}

/// Sends any signal, real-time ones too; a negative pid is a process group.
pub(crate) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: takes and returns integers.
    nix::errno::Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The next signal of the set, which is blocked.
pub(crate) fn wait_signal(set: &nix::sys::signal::SigSet) -> i32 {
    loop {
        // SAFETY: the set outlives the call, and no details are asked for.
        let signal = unsafe { libc::sigwaitinfo(set.as_ref(), std::ptr::null_mut()) };
        if signal > 0 {
            return signal;
        }
    }
}

/// The next child that has ended, if any; with `wait`, blocks until one does. `None` also if there are no children.
pub(crate) fn reap(wait: bool) -> Option<(i32, ExitKind)> {
    let flags = if wait { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        return match pid {
            0 => None,
            pid if pid < 0 && nix::errno::Errno::last() == nix::errno::Errno::EINTR => continue,
            pid if pid < 0 => None,
            pid if libc::WIFEXITED(status) => Some((pid, ExitKind::Code(libc::WEXITSTATUS(status)))),
            pid if libc::WIFSIGNALED(status) => Some((pid, ExitKind::Signal(libc::WTERMSIG(status)))),
            _ => continue,
        };
    }
}

/// Empties `/proc/PID/cmdline` of this process: it may name directories of the host.
pub(crate) fn clear_command_line() {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let address = |index: usize| fields.get(index).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let (start, end) = (address(45), address(46));
    if start > 0 && end > start {
        // SAFETY: the kernel says that this process's own arguments are there; nothing of it reads them any more.
        unsafe { std::ptr::write_bytes(std::ptr::with_exposed_provenance_mut::<u8>(start), 0, end - start) };
    }
}

/// A handle of a process that can never refer to another one.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes and returns integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Signals the process behind a pidfd.
pub(crate) fn pidfd_send_signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means the plain `kill` form.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) })?;
    Ok(())
}

/// All signals default and none blocked, as a program expects at its start. Safe after fork.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; numbers that cannot be set only give an error.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// A dump of this process would contain secrets from its environment; this also refuses ptrace by a container's
/// process.
pub(crate) fn set_not_dumpable() {
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Opens a file through a private read-only mount of it, so that nobody who obtains the descriptor, or `/proc/PID/exe`
/// of a process executed from it, can open the file for writing.
pub(crate) fn open_on_read_only_mount(path: &Path) -> io::Result<File> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: `name` outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, name.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is empty (AT_EMPTY_PATH), the attributes live on this stack, their true size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    File::open(format!("/proc/self/fd/{}", tree.as_raw_fd()))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// A copy of a file in sealed memory: for kernels without the mount calls above.
pub(crate) fn copy_to_sealed_memory(path: &Path) -> io::Result<File> {
    // SAFETY: the name is a C string; the result is checked.
    let fd = check(unsafe {
        libc::memfd_create(c"heptad-shim".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING).into()
    })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let mut copy = unsafe { File::from_raw_fd(fd as RawFd) };
    io::copy(&mut File::open(path)?, &mut copy)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: adds seals to a descriptor that we own.
    check(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())?;
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))
}
