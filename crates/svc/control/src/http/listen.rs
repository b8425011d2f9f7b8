//! Sockets to listen on: a Unix socket that only its owner can use, TCP on loopback only, and any address for TLS. The
//! previous program's sockets are used as they are.

use crate::error::{Error, Result};
use std::{
    fs, io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// The longest wait for an answer from a server that may still live behind a socket.
const PROBE_TIMEOUT_MS: u64 = 1_000;

/// A listening Unix socket; its file is removed with it, unless another program continues to listen.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    inode: u64,
    left: AtomicBool,
    /// The user that owns the socket, as whom this server runs.
    pub(crate) uid: u32,
}

impl UnixSocket {
    fn new(listener: UnixListener, path: &Path, about: &fs::Metadata) -> Self {
        let (path, left) = (path.to_owned(), AtomicBool::new(false));
        Self { listener, path, inode: about.ino(), left, uid: about.uid() }
    }

    /// Leaves the file to the next program.
    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }
}

impl Drop for UnixSocket {
    /// Removes the file unless another server has put its own there.
    fn drop(&mut self) {
        if !self.left.load(Relaxed) && fs::symlink_metadata(&self.path).is_ok_and(|about| about.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(operation: &'static str, path: &Path, remedy: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Listen { operation, path: path.to_owned(), remedy, source }
}

/// Listens on a Unix socket. Replaces a socket that a dead server left, but not a live one or another file.
pub(crate) async fn unix(path: &Path, inherited: Option<OwnedFd>) -> Result<UnixSocket> {
    let bad = "its directory must exist and be writable, and the path be shorter than 100 bytes";
    // A socket whose file is gone cannot be reached.
    let named = fs::symlink_metadata(path).ok().filter(|about| about.file_type().is_socket());
    if let Some((socket, about)) = inherited.zip(named) {
        let socket = std::os::unix::net::UnixListener::from(socket);
        let listener = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
        return Ok(UnixSocket::new(listener.map_err(failed("adopt socket", path, bad))?, path, &about));
    }
    refuse_live(path).await?;
    // Bound under a temporary name and renamed: the socket never exists with a wider mode.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(failed("bind socket", path, bad))?;
    let ready = || {
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, path)?;
        fs::symlink_metadata(path)
    };
    let about = ready().map_err(failed("bind socket", path, bad))?;
    Ok(UnixSocket::new(listener, path, &about))
}

async fn refuse_live(path: &Path) -> Result<()> {
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about.map_err(failed("look at socket", path, "its directory must be readable"))?,
    };
    if !about.file_type().is_socket() {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(failed("bind socket", path, "another file is there; remove it or choose another path")(source));
    }
    let probe = tokio::time::timeout(Duration::from_millis(PROBE_TIMEOUT_MS), UnixStream::connect(path)).await;
    match probe {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) => Err(failed("bind socket", path, "a socket is there that cannot be asked")(error)),
        Ok(Ok(_)) | Err(_) => {
            let source = io::Error::from(io::ErrorKind::AddrInUse);
            Err(failed("bind socket", path, "another server answers there; stop it or choose another path")(source))
        }
    }
}

/// Listens on a loopback address.
pub(crate) async fn tcp(address: SocketAddr, inherited: Option<OwnedFd>) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        let reason = format!("{address} is not a loopback address; use 127.0.0.1 or [::1]");
        return Err(Error::Option { option: "tcp", reason });
    }
    bound(address, inherited).await
}

/// Listens on any address, for TLS.
pub(crate) async fn bound(address: SocketAddr, inherited: Option<OwnedFd>) -> Result<TcpListener> {
    let opened = match inherited.map(std::net::TcpListener::from) {
        Some(socket) => socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)),
        None => TcpListener::bind(address).await,
    };
    opened.map_err(|source| Error::Listen {
        operation: "bind address",
        path: address.to_string().into(),
        remedy: "another program may listen there; choose another port, or 0 for any",
        source,
    })
}
