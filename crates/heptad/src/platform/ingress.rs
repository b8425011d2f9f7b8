//! The address for requests from outside: the one given, else the same one at each start in a directory.

use super::{
    PlatformError,
    settings::{INGRESS_DEFAULT, Identity, Settings},
};
use nix::sys::socket::{Backlog, listen};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Connections that may wait to be accepted; the kernel limits it further.
const BACKLOG_MAX: i32 = 4_096;

/// Opens the address, and remembers it if the platform chose it.
pub(super) fn open(settings: &Settings, identity: &mut Identity) -> Result<TcpListener, PlatformError> {
    let failed =
        |address| move |source| PlatformError::Listen { address, what: "requests to exposed services", source };
    if let Some(wanted) = settings.ingress {
        return bind(wanted).map_err(failed(wanted));
    }
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let opened = identity.ingress.into_iter().chain([INGRESS_DEFAULT]).find_map(|address| bind(address).ok());
    let listener = opened.map_or_else(|| bind(any), Ok).map_err(failed(any))?;
    let address = listener.local_addr().map_err(failed(any))?;
    if let Some(before) = identity.ingress.filter(|before| *before != address) {
        tracing::warn!(%before, now = %address, "the ingress moves: another program has its address");
    }
    if identity.ingress != Some(address) {
        identity.ingress = Some(address);
        identity.save(&settings.data_dir)?;
    }
    Ok(listener)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // The library's own backlog is too short for a moment in which nobody accepts.
    listen(&listener, Backlog::new(BACKLOG_MAX)?)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().expect("it is bound")
    }

    #[test]
    fn a_directory_keeps_its_address_and_moves_only_from_one_that_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = Settings::new(dir.path());
        let again = || {
            let mut identity = Identity::load(dir.path()).expect("an identity");
            open(&settings, &mut identity).expect("an address")
        };
        // Even if another process now has the default address, the first choice is kept.
        let first = address_of(&again());
        assert!(first.ip().is_loopback() && first.port() != 0);
        let second = again();
        assert_eq!(address_of(&second), first);
        let moved = again();
        assert_ne!(address_of(&moved), first, "it is taken");
        let now = address_of(&moved);
        drop((second, moved));
        assert_eq!(address_of(&again()), now);
    }

    #[test]
    fn an_address_that_was_asked_for_is_that_or_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let settings = Settings { ingress: Some(address_of(&taken)), ..Settings::new(dir.path()) };
        let mut identity = Identity::load(dir.path()).expect("an identity");
        let error = open(&settings, &mut identity).expect_err("it is taken");
        assert!(error.to_string().contains(&address_of(&taken).to_string()), "{error}");
        assert_eq!(identity.ingress, None);
    }
}
