//! Listening sockets that outlive their program: the same process starts its program file anew and finds them again, so
//! no connection is refused meanwhile. They travel in a socket that becomes the new program's standard input. If the
//! new program does not start, the old one does, with the same sockets. Knows nothing of who listens.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{TcpListener, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The flag that tells the new program that sockets wait on its standard input.
pub const FLAG: &str = "--handover";
/// The variable that says why the new program did not start and the old one did.
const FAILED_VARIABLE: &str = "HEPTAD_HANDOVER_FAILED";
/// The program of this process, even if its file has been replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// How many sockets one message carries; the kernel permits 253.
const SOCKETS_PER_MESSAGE_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const LAST: &[u8] = b"last";

/// Sockets by name, which listeners take.
#[derive(Clone, Debug, Default)]
pub struct Inherited(Arc<Mutex<BTreeMap<String, OwnedFd>>>);

impl Inherited {
    /// These sockets.
    pub fn new(sockets: BTreeMap<String, OwnedFd>) -> Self {
        Self(Arc::new(Mutex::new(sockets)))
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, name: &str) -> Option<OwnedFd> {
        self.sockets().remove(name)
    }

    /// The TCP socket of that name.
    pub fn tcp(&self, name: &str) -> Option<TcpListener> {
        self.take(name).map(TcpListener::from)
    }

    /// The UDP socket of that name.
    pub fn udp(&self, name: &str) -> Option<UdpSocket> {
        self.take(name).map(UdpSocket::from)
    }

    /// Closes those that nobody has taken.
    pub fn close_rest(&self) {
        self.sockets().clear();
    }

    /// All sockets whose names have this prefix, by the rest of their names.
    pub fn below(&self, prefix: &str) -> BTreeMap<String, OwnedFd> {
        let mut sockets = self.sockets();
        let (below, rest) = std::mem::take(&mut *sockets).into_iter().partition(|(name, _)| name.starts_with(prefix));
        *sockets = rest;
        let below: BTreeMap<String, OwnedFd> = below;
        below.into_iter().map(|(name, socket)| (name[prefix.len()..].to_owned(), socket)).collect()
    }
}

fn send(to: BorrowedFd<'_>, names: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets in one message"));
    }
    // Both ends are in this process: waiting on a full buffer would never end.
    sendmsg(to, &[IoSlice::new(names)], &mut control, SendFlags::DONTWAIT)?;
    Ok(())
}

/// Sockets on their way to the next program.
#[derive(Debug)]
pub struct Parcel(OwnedFd);

impl Parcel {
    /// From copies of these sockets.
    pub fn of(sockets: &BTreeMap<String, OwnedFd>) -> io::Result<Self> {
        packed(sockets).map(Self)
    }
}

/// A socket in which these sockets wait to be received.
fn packed(sockets: &BTreeMap<String, OwnedFd>) -> io::Result<OwnedFd> {
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let all: Vec<(&String, &OwnedFd)> = sockets.iter().collect();
    for some in all.chunks(SOCKETS_PER_MESSAGE_MAX) {
        let names: Vec<&str> = some.iter().map(|(name, _)| name.as_str()).collect();
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(|(_, socket)| socket.as_fd()).collect();
        send(here.as_fd(), names.join("\n").as_bytes(), &fds)?;
    }
    send(here.as_fd(), LAST, &[])?;
    Ok(there)
}

fn unpacked(from: BorrowedFd<'_>) -> io::Result<BTreeMap<String, OwnedFd>> {
    let mut out = BTreeMap::new();
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        let text = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                sockets.extend(fds);
            }
        }
        if sockets.is_empty() {
            let whole = text.as_bytes() == LAST;
            return if whole { Ok(out) } else { Err(io::Error::other("the handed sockets ended too early")) };
        }
        out.extend(text.split('\n').map(str::to_owned).zip(sockets));
    }
}

/// The sockets that the previous program left on the standard input.
pub fn receive() -> io::Result<Inherited> {
    Ok(Inherited::new(unpacked(io::stdin().as_fd())?))
}

/// The file of this program, as it was started: whatever is there later is what starts anew.
pub fn program_file() -> io::Result<PathBuf> {
    match std::env::args_os().next().map(PathBuf::from) {
        // As named, not as resolved: an upgrade may point a link elsewhere.
        Some(named) if named.components().count() > 1 => std::path::absolute(named),
        _ => std::env::current_exe(),
    }
}

/// The longest time in which a program must print its version.
const CHECK_MS_MAX: u64 = 2_000;
/// The pause between two checks of whether it has.
const CHECK_LOOK_MS: u64 = 10;

/// Whether the file is a program that starts. Blocks for `CHECK_MS_MAX` milliseconds at most, and leaves nothing
/// running.
pub fn check(program: &Path) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // In a process group of its own, which is killed as a whole.
    let mut ran = command.process_group(0).spawn()?;
    let limit = Instant::now() + Duration::from_millis(CHECK_MS_MAX);
    let ended = loop {
        match ran.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() >= limit => break None,
            None => std::thread::sleep(Duration::from_millis(CHECK_LOOK_MS)),
        }
    };
    if let Some(group) = i32::try_from(ran.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let shown = program.display();
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(io::Error::other(format!("`{shown} --version` ended with {status}"))),
        None => {
            ran.wait()?;
            Err(io::Error::other(format!("`{shown} --version` did not end in {CHECK_MS_MAX} ms")))
        }
    }
}

/// The arguments of this process with the flag, exactly once.
fn arguments() -> Vec<OsString> {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).filter(|arg| arg != FLAG).collect();
    args.push(FLAG.into());
    args
}

/// Replaces this process by the program in that file, with the same arguments and these sockets. If that does not
/// start, this very program starts anew and reports the cause by `failure`. Returns only if neither starts.
pub fn become_program(program: &Path, Parcel(sockets): Parcel) -> io::Error {
    let error = match sockets.try_clone() {
        Ok(stdin) => Command::new(program).args(arguments()).env_remove(FAILED_VARIABLE).stdin(stdin).exec(),
        Err(error) => error,
    };
    let why = format!("{} cannot be started: {error}", program.display());
    Command::new(THIS_PROGRAM).arg0(program).args(arguments()).env(FAILED_VARIABLE, why).stdin(sockets).exec()
}

/// Why this is the old program, if it has started anew because the new one did not start.
pub fn failure() -> Option<String> {
    std::env::var(FAILED_VARIABLE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn sockets_travel_with_their_names_and_queues() {
        let listeners: BTreeMap<String, TcpListener> = (0..300)
            .map(|n| (format!("proxy/{n}"), TcpListener::bind(("127.0.0.1", 0)).expect("a free port")))
            .collect();
        let address = listeners["proxy/299"].local_addr().expect("an address");
        let mut client = std::net::TcpStream::connect(address).expect("it waits in the queue");
        let mut sockets: BTreeMap<String, OwnedFd> =
            listeners.into_iter().map(|(name, listener)| (name, listener.into())).collect();
        sockets.insert("dns".to_owned(), UdpSocket::bind(("127.0.0.1", 0)).expect("a free port").into());
        let packed = packed(&sockets).expect("packed");
        drop(sockets);
        let inherited = Inherited::new(unpacked(packed.as_fd()).expect("unpacked"));
        assert!(inherited.udp("dns").is_some() && inherited.udp("dns").is_none());
        let below = inherited.below("proxy/");
        assert!(below.len() == 300 && inherited.below("proxy/").is_empty());
        let mut below: BTreeMap<String, TcpListener> =
            below.into_iter().map(|(name, socket)| (name, socket.into())).collect();
        let (mut served, _) = below.remove("299").expect("there").accept().expect("it waited");
        served.write_all(b"x").expect("sent");
        let mut one = [0];
        client.read_exact(&mut one).expect("received");
        assert_eq!(below["7"].local_addr().expect("an address").ip(), address.ip());
    }

    #[test]
    fn a_file_that_does_not_start_is_told_soon_and_nothing_of_it_goes_on() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let pid_file = dir.path().join("pid");
        let sleeps = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        for (name, text, said) in [
            ("fine", "#!/bin/sh\nexit 0", None),
            ("fails", "#!/bin/sh\nexit 1", Some("exit status: 1")),
            ("cut", "\u{7f}ELF", Some("")),
            ("empty", "", Some("")),
            ("hangs", &format!("#!/bin/sh\n{sleeps}"), Some("did not end")),
        ] {
            let file = dir.path().join(name);
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
            match (check(&file), said) {
                (Ok(()), None) => {}
                (Err(error), Some(said)) => assert!(error.to_string().contains(said), "{name}: {error}"),
                (checked, _) => panic!("{name}: {checked:?}"),
            }
        }
        assert!(check(&dir.path().join("none")).is_err());
        let pid: i32 = std::fs::read_to_string(&pid_file).expect("it began").trim().parse().expect("a pid");
        let limit = Instant::now() + Duration::from_secs(30);
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Gone, or a zombie that nobody has waited for yet.
        while !state().is_empty() && !state().contains(") Z ") {
            assert!(Instant::now() < limit, "its child goes on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_no_handover_is_refused() {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
        send(here.as_fd(), b"something", &[]).expect("sent");
        assert!(unpacked(there.as_fd()).is_err());
        assert!(unpacked(there.as_fd()).is_err(), "nothing there is not waited for");
    }
}
