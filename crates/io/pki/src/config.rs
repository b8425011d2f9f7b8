//! TLS configurations. All are TLS 1.3 of one provider, without resumption: every connection presents its certificate
//! anew, so that a certificate that is no longer trusted opens nothing, nor does one that has ended, unless that is
//! permitted.

use crate::{
    bundle::TrustBundle,
    identity::Shared,
    pin::CaPin,
    verify::{ClientVerifier, Roots, ServerVerifier},
};
use rustls::{
    ClientConfig, ConfigBuilder, ServerConfig, WantsVerifier,
    client::{Resumption, WantsClientCert},
    crypto::CryptoProvider,
    server::NoServerSessionStorage,
    version::TLS13,
};
use std::sync::{Arc, LazyLock};

/// Whether clients must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Without one there is no connection.
    Required,
    /// Clients without one are anonymous until they present a token.
    Optional,
}

/// What happens to a peer whose certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There is no connection.
    Refused,
    /// It connects if its certificate was valid until then. Whoever permits this checks
    /// [`PeerIdentity::not_after_ms`](crate::PeerIdentity::not_after_ms) and its key before it may do anything.
    Passed,
}

/// The one provider, named in every configuration: nothing relies on a default of the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}

const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13];

fn alpn_of(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}

pub(crate) fn server(shared: Arc<Shared>, alpn: &[&[u8]], auth: ClientAuth, ended: Ended) -> Arc<ServerConfig> {
    let builder: ConfigBuilder<ServerConfig, WantsVerifier> = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("the provider has TLS 1.3");
    let verifier = ClientVerifier { shared: shared.clone(), required: auth == ClientAuth::Required, ended };
    let mut config = builder.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(shared);
    config.alpn_protocols = alpn_of(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

fn client_builder(roots: Roots, ended: Ended) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { roots, ended }))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.resumption = Resumption::disabled();
    // Names in the clear would tell nothing: members are found by address.
    config.enable_sni = false;
    Arc::new(config)
}

pub(crate) fn client(shared: Arc<Shared>, alpn: &[&[u8]], ended: Ended) -> Arc<ClientConfig> {
    let mut config = client_builder(Roots::Live(shared.clone()), ended).with_client_cert_resolver(shared);
    config.alpn_protocols = alpn_of(alpn);
    finished(config)
}

/// For a client without a certificate that knows the CA only by its pin: a machine that joins or a person who logs in.
/// The server's chain must contain the CA with that pin and end in it, and its owner must be a control server.
pub fn client_config_pinned(pin: &CaPin) -> Arc<ClientConfig> {
    finished(client_builder(Roots::Pinned(pin.clone()), Ended::Refused).with_no_client_auth())
}

/// For a client without a certificate that knows the roots: people with a token. The owner must be a control server.
pub fn client_config_of(bundle: &TrustBundle) -> Arc<ClientConfig> {
    finished(client_builder(Roots::Fixed(bundle.clone()), Ended::Refused).with_no_client_auth())
}
