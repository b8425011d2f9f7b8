//! Whether a failed start lies with this node: judged by the system's error numbers, never by text.

use std::error::Error;
use std::io;

use heptad_model::NodeFault;
use libcontainer::error::LibcontainerError;

use crate::error::ExecError;

/// What is wrong with this node if that is why `error` happened; `None` if the container or its image may be the cause.
pub fn node_fault(error: &(dyn Error + 'static)) -> Option<NodeFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = own(error) {
            return Some(fault);
        }
        // The error inside an I/O error is not its `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

/// What one link of the chain says.
fn own(error: &(dyn Error + 'static)) -> Option<NodeFault> {
    match error.downcast_ref::<ExecError>() {
        Some(ExecError::Start { fault, .. }) => return *fault,
        Some(ExecError::NotEnforceable { .. } | ExecError::ShimSilent { .. }) => return Some(NodeFault::Runtime),
        _ => {}
    }
    match error.downcast_ref::<LibcontainerError>() {
        Some(
            LibcontainerError::CgroupManager(_)
            | LibcontainerError::CgroupCreate(_)
            | LibcontainerError::CgroupGet(_)
            | LibcontainerError::OtherCgroup(_),
        ) => return Some(NodeFault::Runtime),
        // Of another version of the library than ours, so its type is not ours.
        Some(LibcontainerError::OtherSyscall(errno)) => return of_errno(*errno as i32),
        _ => {}
    }
    // The error that it wraps is not its `source`.
    if let Some(kind) = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind) {
        return matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            .then_some(NodeFault::DiskFull);
    }
    let io = || error.downcast_ref::<io::Error>()?.raw_os_error();
    let nix = || error.downcast_ref::<nix::errno::Errno>().map(|errno| *errno as i32);
    let rustix = || error.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error());
    of_errno(io().or_else(nix).or_else(rustix)?)
}

/// ENOMEM is not among them: a container that requests too little memory gets it, too.
fn of_errno(errno: i32) -> Option<NodeFault> {
    match errno {
        libc::ENOSPC | libc::EDQUOT => Some(NodeFault::DiskFull),
        libc::EIO | libc::EROFS | libc::EUCLEAN => Some(NodeFault::DiskBroken),
        libc::EAGAIN | libc::EMFILE | libc::ENFILE => Some(NodeFault::Exhausted),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_node_may_do_better_is_the_nodes_fault() {
        let os = io::Error::from_raw_os_error;
        let written = |source| ExecError::Io { operation: "write", path: "/x".into(), source };
        for (error, expected) in [
            (Box::new(written(os(libc::ENOSPC))) as Box<dyn Error>, Some(NodeFault::DiskFull)),
            (Box::new(written(os(libc::EDQUOT))), Some(NodeFault::DiskFull)),
            // As a library wraps it.
            (Box::new(written(io::Error::other(os(libc::EIO)))), Some(NodeFault::DiskBroken)),
            (Box::new(written(nix::errno::Errno::EAGAIN.into())), Some(NodeFault::Exhausted)),
            (Box::new(LibcontainerError::OtherCgroup("no".to_owned())), Some(NodeFault::Runtime)),
            (Box::new(ExecError::NotEnforceable { resource: "CPU", why: String::new() }), Some(NodeFault::Runtime)),
            (Box::new(written(os(libc::ENOENT))), None),
            (Box::new(written(os(libc::ECONNREFUSED))), None),
            (Box::new(io::Error::other("no space left on device")), None),
        ] {
            assert_eq!(node_fault(&*error), expected, "{error:?}");
        }
    }
}
