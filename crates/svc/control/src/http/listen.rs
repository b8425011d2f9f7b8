//! Sockets to listen on: a Unix socket that only its owner can use, TCP on loopback only, and any address for TLS.

use crate::error::{Error, Result};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Longest wait for an answer from a server that may still live behind a socket.
const PROBE_TIMEOUT_MS: u64 = 1_000;

/// A Unix socket that is listened on; its file goes with it.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    inode: u64,
    /// The user that owns the socket, which is the one that this server runs as.
    pub(crate) uid: u32,
}

impl Drop for UnixSocket {
    /// Removes the file unless another server has put its own there.
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|about| about.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn failed(operation: &'static str, path: &Path, remedy: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Listen { operation, path: path.to_owned(), remedy, source }
}

/// Listens on a Unix socket. A socket that a dead server left is replaced; a live one, or another file, is not.
pub(crate) async fn unix(path: &Path) -> Result<UnixSocket> {
    refuse_live(path).await?;
    let bad = "its directory must exist and be writable, and the path be shorter than 100 bytes";
    // Bound beside and renamed: the socket is never there with a wider mode.
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
    Ok(UnixSocket { listener, path: path.to_owned(), inode: about.ino(), uid: about.uid() })
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
pub(crate) async fn tcp(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        let reason = format!("{address} is not a loopback address; use 127.0.0.1 or [::1]");
        return Err(Error::Option { option: "tcp", reason });
    }
    bound(address).await
}

/// Listens on any address, for TLS.
pub(crate) async fn bound(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen {
        operation: "bind address",
        path: address.to_string().into(),
        remedy: "another program may listen there; choose another port, or 0 for any",
        source,
    })
}
