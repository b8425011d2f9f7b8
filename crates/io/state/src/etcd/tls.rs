//! TLS to etcd's members: which certificates are trusted, which one is shown. Files are read anew for each connection,
//! so that renewed ones are taken up. Knows no HTTP.

use super::options::EtcdOptions;
use crate::{Error, Result};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

fn unusable(file: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::TlsFile { file: file.to_owned(), source: Arc::new(source) }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = found.map_err(|source| unusable(file, source))?;
    if found.is_empty() {
        return Err(unusable(file, std::io::Error::other("it has no certificate")));
    }
    Ok(found)
}

/// What connections over TLS begin with.
pub(super) fn config(options: &EtcdOptions) -> Result<Arc<ClientConfig>> {
    let missing = |what| Error::EtcdOption { option: what, reason: "it is needed for https".to_owned() };
    let ca_file = options.ca_file.as_deref().ok_or_else(|| missing("ca_file"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_file)? {
        roots.add(certificate).map_err(|source| unusable(ca_file, source))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| unusable(ca_file, source))?
        .with_root_certificates(roots);
    let pair: (Option<&PathBuf>, Option<&PathBuf>) = (options.cert_file.as_ref(), options.key_file.as_ref());
    let mut config = match pair {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let own = PrivateKeyDer::from_pem_file(key).map_err(|source| unusable(key, source))?;
            builder.with_client_auth_cert(certificates(cert)?, own).map_err(|source| unusable(cert, source))?
        }
        (Some(_), None) => return Err(missing("key_file")),
        (None, Some(_)) => return Err(missing("cert_file")),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
