//! The protocol between a driver and a shim: one JSON message per packet of a Unix seqpacket socket, with descriptors.
//! Knows how to send and receive messages, not what they do.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use heptad_model::NodeFault;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    sendmsg, socket, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bundle::Started;
use crate::driver::{ExecCommand, Exit, ExitKind};

/// A message is one packet; the largest is an exec with its environment (96 KiB of strings, escaped).
const MESSAGE_BYTES_MAX: usize = 192 * 1024;
const DESCRIPTORS_MAX: usize = 3;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answered with `Started` now and `Exited` at the end.
    Watch,
    Signal {
        signal: i32,
    },
    /// SIGTERM now, SIGKILL of everything later; continues even if the requester goes away.
    Stop {
        grace_ms: u64,
    },
    /// With three descriptors. Answered with `ExecStarted`, then `ExecExited`; closing the connection kills it.
    Exec {
        command: ExecCommand,
    },
    /// What the process driver cannot read from a control group.
    Usage,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    Started {
        started: Started,
    },
    /// The container could not be created; nothing of it is left.
    Failed {
        reason: String,
        /// Set if another node may be able to create it.
        #[serde(default)]
        fault: Option<NodeFault>,
    },
    Exited {
        exit: Exit,
    },
    Done,
    Refused {
        reason: String,
    },
    ExecStarted,
    ExecExited {
        how: ExitKind,
    },
    Usage {
        memory_bytes: u64,
        cpu_usec: u64,
        pids: u64,
    },
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    fd: OwnedFd,
}

/// The result of `receive`.
#[derive(Debug)]
pub(crate) enum Received<T> {
    Message(T, Vec<OwnedFd>),
    /// Nothing within the time.
    Nothing,
    /// The other end is gone.
    Closed,
}

impl Connection {
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Both ends, closed on exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { fd: left }, Self { fd: right }))
    }

    /// Connects to a socket through a directory handle, since the path may be longer than a socket address can hold.
    pub(crate) fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        let dir = File::open(dir)?;
        let address = UnixAddr::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())?;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &address)?;
        Ok(Self { fd })
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn send<T: Serialize>(&self, message: &T, descriptors: &[RawFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other(format!("a message of {} bytes is too long", bytes.len())));
        }
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Sends without ever waiting, even for a reader that does not read.
    pub(crate) fn send_now<T: Serialize>(&self, message: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(&bytes)], &[], flags, None)?;
        Ok(())
    }

    pub(crate) fn receive<T: DeserializeOwned>(&self, timeout: Duration) -> io::Result<Received<T>> {
        if !self.readable(timeout)? {
            return Ok(Received::Nothing);
        }
        let mut buffer = vec![0_u8; MESSAGE_BYTES_MAX];
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let (length, truncated, descriptors) = {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            match recvmsg::<()>(self.fd.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(got) => (got.bytes, got.flags.contains(MsgFlags::MSG_TRUNC), owned(got.cmsgs()?)),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(Received::Nothing),
                Err(nix::errno::Errno::ECONNRESET) => return Ok(Received::Closed),
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Ok(Received::Closed);
        }
        if truncated {
            return Err(io::Error::other("a message was longer than allowed"));
        }
        let message = serde_json::from_slice(&buffer[..length]).map_err(io::Error::other)?;
        Ok(Received::Message(message, descriptors))
    }

    fn readable(&self, timeout: Duration) -> io::Result<bool> {
        let millis = timeout.as_millis().min(1_000_000_000) as i32;
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn owned(messages: nix::sys::socket::CmsgIterator<'_>) -> Vec<OwnedFd> {
    let mut found = Vec::new();
    for message in messages {
        if let ControlMessageOwned::ScmRights(fds) = message {
            // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows them.
            found.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_descriptors() {
        let (left, right) = Connection::pair().expect("a pair");
        left.send(&Request::Signal { signal: 15 }, &[]).expect("sent");
        left.send(&Request::Exec { command: ExecCommand::default() }, &[0, 1, 2]).expect("sent");
        let first = right.receive::<Request>(Duration::ZERO).expect("received");
        assert!(matches!(first, Received::Message(Request::Signal { signal: 15 }, fds) if fds.is_empty()));
        let second = right.receive::<Request>(Duration::ZERO).expect("received");
        assert!(matches!(second, Received::Message(Request::Exec { .. }, fds) if fds.len() == 3));
        assert!(matches!(right.receive::<Request>(Duration::ZERO).expect("none"), Received::Nothing));
        drop(left);
        assert!(matches!(right.receive::<Request>(Duration::ZERO).expect("end"), Received::Closed));
    }
}
