//! Identifies the caller: by the way on which a connection came, by its certificate, or by a token. Decides no
//! permission.

use super::{App, Shared, local};
use crate::{
    authorize::Principal,
    budget::Caller,
    clock::now_ms,
    error::{Error, Result},
    objects::Objects,
    trust::{Standing, Trust},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use heptad_api::ErrorCode;
use heptad_model::{Node, NodeName};
use heptad_pki::{PeerIdentity, SpiffeId, peer_identity};
use http::{HeaderMap, header};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;

/// How a request arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over the Unix socket, or another way that only a permitted user can take.
    Unix,
    /// Over TCP, from anybody on this machine.
    Tcp,
    /// Over TLS, from anywhere: with a verified certificate, or without one.
    Tls(Option<Arc<PeerIdentity>>),
}

impl Peer {
    /// The peer of a TLS connection whose certificates were verified against the cluster's roots.
    pub fn of(certificates: Option<&[CertificateDer<'_>]>) -> heptad_pki::Result<Self> {
        Ok(Self::Tls(certificates.map(peer_identity).transpose()?.map(Arc::new)))
    }
}

fn unauthorized(detail: impl Into<String>) -> Error {
    Error::refused(ErrorCode::Unauthorized, detail)
}

/// The one bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => match one.as_bytes().strip_prefix(b"Bearer ") {
            Some(token) => Ok(Some(token)),
            None => Err(unauthorized("the header must be `Authorization: Bearer TOKEN`")),
        },
        _ => Err(unauthorized("there are several Authorization headers")),
    }
}

impl App {
    /// The cluster's identity.
    pub(super) fn trust(&self) -> Result<&Arc<Trust>> {
        self.parts.trust.as_ref().ok_or_else(|| {
            let detail =
                "this platform is of one machine and has no identity; make a cluster with `heptad server init`";
            Error::refused(ErrorCode::NotFound, detail)
        })
    }

    /// Identifies the caller.
    pub(super) async fn authenticate(&self, peer: &Peer, uri: &http::Uri, headers: &HeaderMap) -> Result<Principal> {
        match peer {
            Peer::Unix => Ok(Principal::Operator),
            Peer::Tcp => local::permitted(uri, headers, self.token.as_ref()).map(|()| Principal::Operator),
            Peer::Tls(Some(identity)) => self.of_certificate(identity).await,
            Peer::Tls(None) => match bearer(headers)? {
                Some(token) => Ok(Principal::Person(self.trust()?.person(token).await?)),
                None => Ok(Principal::Anonymous),
            },
        }
    }

    async fn of_certificate(&self, identity: &PeerIdentity) -> Result<Principal> {
        let trust = self.trust()?;
        if identity.trust_domain != trust.cluster().trust_domain {
            return Err(unauthorized(format!("the certificate is of another cluster: {}", identity.trust_domain)));
        }
        let ended = identity.not_after_ms <= now_ms();
        match &identity.id {
            SpiffeId::Server(_) if ended => {
                Err(unauthorized("the certificate of this connection has ended; connect with a new one"))
            }
            SpiffeId::Server(name) => Ok(Principal::Server(name.clone())),
            SpiffeId::Node(name) => {
                let good = match trust.roster().standing(name, &identity.key_sha256) {
                    Standing::Good => true,
                    // The list may be older than the node's join, and a node that is refused for long stops everything.
                    Standing::Refused | Standing::Unknown => {
                        key_of(&self.objects, name).await?.as_ref() == Some(&identity.key_sha256)
                    }
                };
                match good {
                    true if ended => Ok(Principal::Ended(name.clone())),
                    true => Ok(Principal::Node(name.clone())),
                    false => Err(removed(name)),
                }
            }
            SpiffeId::Service(key) => {
                let detail = format!("service {key} speaks with services; the API takes nodes, servers and people");
                Err(Error::refused(ErrorCode::Forbidden, detail))
            }
        }
    }
}

async fn key_of(objects: &Objects, name: &NodeName) -> Result<Option<String>> {
    let row = objects.find_row::<Node>(&crate::keys::node(name)).await?;
    Ok(row.and_then(|row| row.object.key_sha256))
}

fn removed(name: &NodeName) -> Error {
    let detail = format!(
        "node/{name} was removed, or joined anew with another key; let this machine join again with a new join token"
    );
    Error::refused(ErrorCode::NodeRemoved, detail)
}

/// The account, for handlers that hold something of which callers have shares.
impl FromRequestParts<Shared> for Caller {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(|| Self::of(&Principal::Anonymous, "")))
    }
}

/// The caller, for handlers that look at more than the path.
pub(super) struct Asking(pub(super) Principal);

impl FromRequestParts<Shared> for Asking {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self> {
        // A request that did not pass the guard has no caller.
        Ok(Self(parts.extensions.get().cloned().unwrap_or(Principal::Anonymous)))
    }
}
