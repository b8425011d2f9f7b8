//! The way to the API of a cluster's servers, for members with a certificate and for people with a token.

use crate::{Spoken, Wires, connect::dial};
use heptad_client::{BoxFuture, Connector, Io};
use heptad_pki::{CaPin, SpiffeId, TrustBundle, client_config_of, client_config_pinned};
use rustls::ClientConfig;
use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
};

/// The known servers, shared by all who ask.
#[derive(Clone, Debug, Default)]
pub struct ServerList {
    known: Arc<RwLock<Vec<String>>>,
    /// The one that is asked before all others.
    first: Option<String>,
}

impl ServerList {
    /// These.
    pub fn new(urls: Vec<String>) -> Self {
        Self { known: Arc::new(RwLock::new(urls)), first: None }
    }

    /// For a node beside the server `own`: what the node needs first after a start must not wait for another machine,
    /// which may be silent.
    pub fn beside(self, own: Option<String>) -> Self {
        Self { first: own, ..self }
    }

    /// All known servers; the one asked first comes first.
    pub fn get(&self) -> Vec<String> {
        let mut urls = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(at) = urls.iter().position(|url| Some(url) == self.first.as_ref()) {
            urls[..=at].rotate_right(1);
        }
        urls
    }

    /// Takes over another list, unless it is empty. Returns whether the list changed.
    pub fn set(&self, urls: Vec<String>) -> bool {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let changed = !urls.is_empty() && *known != urls;
        if changed {
            *known = urls;
        }
        changed
    }
}

/// `HOST:PORT` of a server's URL.
pub(crate) fn authority(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    rest.trim_end_matches('/')
}

/// Connects to a server; to one of any trust domain if none is known yet.
async fn connect(endpoint: String, config: Arc<ClientConfig>, trust_domain: Option<String>) -> io::Result<Box<dyn Io>> {
    let (stream, peer) = dial(authority(&endpoint), config).await?;
    match peer.id {
        SpiffeId::Server(_) if trust_domain.is_none_or(|own| own == peer.trust_domain) => Ok(Box::new(stream)),
        other => {
            let text = format!("{endpoint} is {other} of {}, not a server of this cluster", peer.trust_domain);
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }
}

/// The remedy for a failed connection to a server.
fn remedy(error: &io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let tls = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    match (tls, error.kind()) {
        (Some(Error::InvalidCertificate(wrong)), _) => match wrong {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "the clocks of this machine and the server differ, or its certificate has ended; set the clocks"
            }
            _ => {
                "this server is not of the cluster that the pin or the kept roots name; is it the right address? Copy the \
                 line from `heptad node join-token` again"
            }
        },
        (Some(_), _) => "is this the port of the API of a server (7443 unless it was changed)?",
        (None, io::ErrorKind::ConnectionRefused) => "is the server running, and is this its address?",
        (None, io::ErrorKind::TimedOut) => "is the machine up, and does its firewall let this port through?",
        (None, _) => "is the server running and reachable from here?",
    }
}

/// For members: presents their certificate.
#[derive(Debug)]
pub struct ServerConnector {
    /// The servers.
    pub servers: ServerList,
    /// The identity that is presented.
    pub wires: Wires,
}

impl Connector for ServerConnector {
    fn endpoints(&self) -> Vec<String> {
        self.servers.get()
    }

    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        let trust_domain = self.wires.identity.own().trust_domain;
        Box::pin(connect(endpoint.to_owned(), self.wires.config(Spoken::Api), Some(trust_domain)))
    }

    fn remedy(&self, error: &io::Error) -> &'static str {
        remedy(error)
    }
}

/// For people, who present their token, and for machines that are about to join.
pub struct PersonConnector {
    servers: Vec<String>,
    token: Option<String>,
    trust_domain: Option<String>,
    config: Arc<ClientConfig>,
}

impl fmt::Debug for PersonConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersonConnector").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl PersonConnector {
    /// For a person who knows the roots.
    pub fn new(servers: Vec<String>, token: String, bundle: &TrustBundle) -> Self {
        let trust_domain = Some(bundle.trust_domain().to_owned());
        Self { servers, token: Some(token), trust_domain, config: client_config_of(bundle) }
    }

    /// For a person who knows only the pin of the CA.
    pub fn pinned(server: &str, token: Option<String>, pin: &CaPin) -> Self {
        Self { servers: vec![server.to_owned()], token, trust_domain: None, config: client_config_pinned(pin) }
    }
}

impl Connector for PersonConnector {
    fn endpoints(&self) -> Vec<String> {
        self.servers.clone()
    }

    fn connect(&self, endpoint: &str) -> BoxFuture<'_, io::Result<Box<dyn Io>>> {
        Box::pin(connect(endpoint.to_owned(), self.config.clone(), self.trust_domain.clone()))
    }

    fn token(&self) -> Option<String> {
        self.token.clone()
    }

    fn remedy(&self, error: &io::Error) -> &'static str {
        remedy(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_beside_a_server_asks_that_one_first_whatever_the_list_says() {
        let urls = |names: &str| names.chars().map(|name| name.to_string()).collect::<Vec<_>>();
        let list = ServerList::new(urls("abc")).beside(Some("c".to_owned()));
        assert_eq!(list.get(), urls("cab"));
        assert!(!list.set(urls("abc")), "it is the same list");
        assert!(list.set(urls("xcb")));
        assert_eq!(list.get(), urls("cxb"));
        assert!(list.set(urls("ab")));
        assert_eq!(list.get(), urls("ab"));
        assert_eq!(ServerList::new(urls("ba")).get(), urls("ba"));
    }
}
