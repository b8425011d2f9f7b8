//! Images in a registry, through `oci-client`. Bytes are counted and hashed as they arrive; a broken download resumes
//! where it stopped.

use std::io;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use futures_util::StreamExt as _;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::documents::{self, Document};
use super::{Blob, LayerAt, Manifest, mismatch, verify};
use crate::auth_file;
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;
use crate::options::Options;
use crate::progress::LayerReporter;
use crate::reference::Reference;

/// An index may name an index; deeper nesting is refused.
const INDEX_DEPTH_MAX: usize = 3;
const WRITE_BUFFER_BYTES: usize = 1 << 20;
const ACCEPTED: &[&str] = &[
    oci_client::manifest::OCI_IMAGE_MEDIA_TYPE,
    oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE,
    oci_client::manifest::IMAGE_MANIFEST_MEDIA_TYPE,
    oci_client::manifest::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// A client for all registries. Installs the process's TLS provider if nobody did.
pub(crate) fn client(options: &Options) -> Result<oci_client::Client, OciDistributionError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error means that another part of the process has chosen one, which works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    oci_client::Client::try_from(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(options.insecure_registries.clone()),
        connect_timeout: Some(Duration::from_millis(options.connect_timeout_ms)),
        read_timeout: Some(Duration::from_millis(options.read_timeout_ms)),
        user_agent: concat!("heptad/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    })
}

fn own_client(reference: &Reference, options: &Options) -> Result<oci_client::Client, ImageError> {
    client(options).map_err(|source| ImageError::Registry {
        operation: "prepare the download".to_owned(),
        image: reference.to_string(),
        hint: "",
        source: Box::new(source),
    })
}

pub(crate) struct RegistrySource {
    image: String,
    client: oci_client::Client,
    at: oci_client::Reference,
    wanted: Option<Digest>,
    auth: RegistryAuth,
    options: Options,
    temp_dir: PathBuf,
}

/// How a part of a download ended.
enum Broken {
    /// Trying again may help.
    Off(io::Error),
    Failed(ImageError),
}

struct Download {
    file: tokio::io::BufWriter<tokio::fs::File>,
    hasher: Hasher,
    done: u64,
}

impl RegistrySource {
    pub(super) fn new(
        reference: &Reference,
        client: oci_client::Client,
        options: &Options,
        temp_dir: PathBuf,
    ) -> Result<Self, ImageError> {
        let Reference::Registry { registry, repository, tag, digest } = reference else {
            unreachable!("only registry references come here")
        };
        let (registry, repository) = (registry.clone(), repository.clone());
        let mut credentials = options.credentials.get(&registry).cloned();
        if let (None, Some(file)) = (&credentials, &options.auth_file) {
            credentials = auth_file::credentials(file, &registry).map_err(|source| ImageError::AuthFile {
                image: reference.to_string(),
                path: file.clone(),
                source,
            })?;
        }
        let (auth, client) = match credentials {
            // A client keeps the first password that it was given for a registry; this one may be newer.
            Some(c) => (RegistryAuth::Basic(c.username, c.password), own_client(reference, options)?),
            None => (RegistryAuth::Anonymous, client),
        };
        let at = match (digest, tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (None, tag) => {
                let tag = tag.clone().unwrap_or_else(|| "latest".to_owned());
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        };
        let image = reference.to_string();
        Ok(Self { image, client, at, wanted: digest.clone(), auth, options: options.clone(), temp_dir })
    }

    /// What the registry currently has under the tag; a digest needs no request.
    pub(super) async fn digest(&self) -> Result<Digest, ImageError> {
        match &self.wanted {
            Some(wanted) => Ok(wanted.clone()),
            None => Ok(Digest::sha256(&self.document(&self.at).await?)),
        }
    }

    /// A manifest or an index, not checked yet.
    async fn document(&self, at: &oci_client::Reference) -> Result<Vec<u8>, ImageError> {
        let got = self.client.pull_manifest_raw(at, &self.auth, ACCEPTED).await;
        let (bytes, _) = got.map_err(|e| self.error("get the manifest", e))?;
        self.bounded("the manifest", bytes.len() as u64, self.options.manifest_bytes_max)?;
        Ok(bytes.to_vec())
    }

    pub(super) async fn manifest(&self) -> Result<Manifest, ImageError> {
        let mut at = self.at.clone();
        let mut wanted = self.wanted.clone();
        for _ in 0..INDEX_DEPTH_MAX {
            let bytes = self.document(&at).await?;
            if let Some(wanted) = &wanted {
                verify(&self.image, "manifest", wanted, &bytes)?;
            }
            let digest = wanted.take().unwrap_or_else(|| Digest::sha256(&bytes));
            match documents::parse(&self.image, digest, &bytes, self.options.layers_max)? {
                Document::Image(manifest) => return Ok(manifest),
                Document::Index(index) => {
                    let selected = index.select(&self.image)?;
                    at = at.clone_with_digest(selected.to_string());
                    wanted = Some(selected);
                }
            }
        }
        Err(documents::refuse(&self.image, "manifest", "its indexes are nested too deep".to_owned()))
    }

    pub(super) async fn config(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let failed = |e| self.error("get the configuration", e);
        let mut stream = self.client.pull_blob_stream(&self.at, digest.as_str()).await.map_err(failed)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(e) if is_mismatch(&e) => break,
                Err(e) => return Err(failed(OciDistributionError::IoError(e))),
            }
            self.bounded("the configuration", bytes.len() as u64, self.options.manifest_bytes_max)?;
        }
        verify(&self.image, "configuration", digest, &bytes)?;
        Ok(bytes)
    }

    pub(super) async fn fetch(&self, digest: &Digest, size: u64, report: &LayerReporter) -> Result<Blob, ImageError> {
        self.bounded(&format!("layer {digest}"), size, self.options.layer_download_bytes_max)?;
        let file = tempfile::tempfile_in(&self.temp_dir).map_err(|e| self.temp_error(e))?;
        let file = tokio::io::BufWriter::with_capacity(WRITE_BUFFER_BYTES, tokio::fs::File::from_std(file));
        let mut download = Download { file, hasher: digest.hasher(), done: 0 };
        let mut attempts = 0;
        while download.done < size {
            match self.download(digest, size, &mut download, report).await {
                Ok(()) => break,
                Err(Broken::Failed(e)) => return Err(e),
                Err(Broken::Off(source)) => {
                    attempts += 1;
                    if attempts > self.options.download_retries_max {
                        let (image, layer) = (self.image.clone(), digest.clone());
                        return Err(ImageError::Download { image, layer, attempts, source });
                    }
                    tracing::debug!(image = %self.image, layer = %digest, error = %source, "download broke off; trying again");
                    let factor = 1_u64 << (attempts - 1).min(10);
                    let delay_ms = self.options.download_retry_delay_ms.saturating_mul(factor);
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                }
            }
        }
        download.file.flush().await.map_err(|e| self.temp_error(e))?;
        mismatch(&self.image, "layer", digest, download.hasher.finish())?;
        let file = download.file.into_inner().into_std().await;
        Ok(Blob { file, offset: 0, size })
    }

    /// From where the download stands to its end.
    async fn download(
        &self,
        digest: &Digest,
        size: u64,
        download: &mut Download,
        report: &LayerReporter,
    ) -> Result<(), Broken> {
        let response = self.client.pull_blob_stream_partial(&self.at, digest.as_str(), download.done, None).await;
        let mut stream = match response.map_err(|e| self.classify(e))? {
            BlobResponse::Partial(stream) => stream,
            BlobResponse::Full(stream) => {
                self.restart(digest, download).await?;
                stream
            }
        };
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // All bytes are here; the caller's own check says what is wrong with them.
                Err(e) if is_mismatch(&e) => return Ok(()),
                Err(e) => return Err(Broken::Off(e)),
            };
            download.done += chunk.len() as u64;
            self.bounded(&format!("layer {digest}"), download.done, size).map_err(Broken::Failed)?;
            download.hasher.update(&chunk);
            download.file.write_all(&chunk).await.map_err(|e| Broken::Failed(self.temp_error(e)))?;
            report.bytes(download.done);
        }
        if download.done < size {
            return Err(Broken::Off(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// The registry sends everything again.
    async fn restart(&self, digest: &Digest, download: &mut Download) -> Result<(), Broken> {
        if download.done == 0 {
            return Ok(());
        }
        let rewind = async {
            download.file.rewind().await?;
            download.file.get_mut().set_len(0).await
        };
        rewind.await.map_err(|e| Broken::Failed(self.temp_error(e)))?;
        download.done = 0;
        download.hasher = digest.hasher();
        Ok(())
    }

    fn classify(&self, error: OciDistributionError) -> Broken {
        match error {
            OciDistributionError::IoError(e) => Broken::Off(e),
            OciDistributionError::RequestError(e) => Broken::Off(io::Error::other(e)),
            OciDistributionError::ServerError { code, .. } if code >= 500 || code == 429 => {
                Broken::Off(io::Error::other(error))
            }
            other => Broken::Failed(self.error("get a layer", other)),
        }
    }

    fn error(&self, operation: &str, source: OciDistributionError) -> ImageError {
        let secure = !self.options.insecure_registries.iter().any(|r| r == self.at.resolve_registry());
        let hint = match &source {
            OciDistributionError::RequestError(error) if secure && speaks_no_tls(error) => {
                "; if its registry speaks plain http, start the node with --insecure-registry HOST"
            }
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                match self.auth {
                    RegistryAuth::Anonymous => {
                        "; check the name; if its registry wants a password, write one with `docker login` or `skopeo login` and \
                         start the node with --registry-auth FILE"
                    }
                    _ => "; check the name, and the user name and password that --registry-auth has for its registry",
                }
            }
            _ => "",
        };
        ImageError::Registry {
            operation: operation.to_owned(),
            image: self.image.clone(),
            hint,
            source: Box::new(source),
        }
    }

    fn bounded(&self, subject: &str, size: u64, max_bytes: u64) -> Result<(), ImageError> {
        if size <= max_bytes {
            return Ok(());
        }
        Err(ImageError::TooLarge { image: self.image.clone(), subject: subject.to_owned(), max_bytes })
    }

    fn temp_error(&self, source: io::Error) -> ImageError {
        ImageError::Store { operation: "write a temporary file in", path: self.temp_dir.clone(), source }
    }
}

fn is_mismatch(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<oci_client::errors::DigestError>())
}

impl LayerAt {
    /// The digest under which a registry or layout keeps the layer.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Blob { digest, .. } => Some(digest),
            Self::Slice { .. } => None,
        }
    }
}

/// Whether somebody answered, but not in TLS.
fn speaks_no_tls(error: &impl std::fmt::Debug) -> bool {
    // The cause is wrapped so deep that only its text leads there.
    let told = format!("{error:?}");
    ["InvalidMessage", "InvalidContentType", "UnexpectedEof"].iter().any(|cause| told.contains(cause))
}
