//! Manifests and indexes, parsed from bytes of either format (OCI, Docker), and the choice of the platform.

use serde::Deserialize;

use super::{LayerAt, Manifest};
use crate::digest::{Digest, DigestError};
use crate::error::ImageError;

/// The annotation that holds the name of an image in a layout's index.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The kind of document that a manifest's bytes contain.
pub(super) enum Document {
    Image(Manifest),
    Index(Index),
}

/// Several manifests, usually one per platform.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<IndexEntry>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct IndexEntry {
    digest: String,
    #[serde(default)]
    pub(super) annotations: Option<std::collections::BTreeMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    #[serde(default)]
    schema_version: u32,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<IndexEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
}

/// Parses a manifest whose bytes have `digest`.
pub(super) fn parse(image: &str, digest: Digest, bytes: &[u8], layers_max: usize) -> Result<Document, ImageError> {
    let raw: RawManifest = json(image, "manifest", bytes)?;
    let refused = |problem: String| refuse(image, "manifest", problem);
    match raw {
        RawManifest { schema_version, .. } if schema_version != 2 => {
            Err(refused(format!("schema version {schema_version} is not 2")))
        }
        // A document that is both would mean different things to different readers.
        RawManifest { config: None, layers: None, manifests: Some(manifests), .. } => {
            Ok(Document::Index(Index { manifests }))
        }
        RawManifest { config: Some(config), layers: Some(layers), manifests: None, .. } => {
            if layers.is_empty() || layers.len() > layers_max {
                return Err(refused(format!("it has {} layers; from 1 to {layers_max} are possible", layers.len())));
            }
            let layers = layers.into_iter().map(|l| layer(image, l)).collect::<Result<_, _>>()?;
            let config = config.digest.parse().map_err(|e: DigestError| refused(e.to_string()))?;
            Ok(Document::Image(Manifest { digest, config, layers }))
        }
        _ => Err(refused("it is neither an image nor an index".to_owned())),
    }
}

fn layer(image: &str, descriptor: Descriptor) -> Result<LayerAt, ImageError> {
    if descriptor.media_type.ends_with("+encrypted") {
        return Err(refuse(image, "manifest", "its layers are encrypted".to_owned()));
    }
    let digest = descriptor.digest.parse().map_err(|e: DigestError| refuse(image, "manifest", e.to_string()))?;
    Ok(LayerAt::Blob { digest, size: descriptor.size })
}

pub(super) fn refuse(image: &str, document: &'static str, problem: String) -> ImageError {
    ImageError::Refused { image: image.to_owned(), document, problem }
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    image: &str,
    document: &'static str,
    bytes: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document { image: image.to_owned(), document, source })
}

impl IndexEntry {
    pub(super) fn digest(&self, image: &str) -> Result<Digest, ImageError> {
        self.digest.parse().map_err(|e: DigestError| refuse(image, "index", e.to_string()))
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }

    fn is_for(&self, architecture: &str) -> bool {
        self.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == architecture)
    }
}

impl Index {
    /// The manifest for this machine. An entry that names no platform is accepted only if it is the only one.
    pub(super) fn select(&self, image: &str) -> Result<Digest, ImageError> {
        let wanted = architecture();
        if let Some(entry) = self.manifests.iter().find(|e| e.is_for(wanted)) {
            return entry.digest(image);
        }
        match &self.manifests[..] {
            [only] if only.platform.is_none() => only.digest(image),
            entries => {
                let named = entries.iter().filter_map(|e| e.platform.as_ref());
                let offered: Vec<String> = named.map(|p| format!("{}/{}", p.os, p.architecture)).take(20).collect();
                Err(wrong_platform(image, &offered.join(", ")))
            }
        }
    }
}

pub(crate) fn wrong_platform(image: &str, offered: &str) -> ImageError {
    ImageError::Platform {
        image: image.to_owned(),
        wanted: format!("linux/{}", architecture()),
        offered: if offered.is_empty() { "none".to_owned() } else { offered.to_owned() },
    }
}

/// This machine's architecture in the words of OCI (which are those of Go).
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> String {
        format!("sha256:{}", c.to_string().repeat(64))
    }

    fn parse_text(text: &str) -> Result<Document, ImageError> {
        parse("img", Digest::sha256(b""), text.as_bytes(), 3)
    }

    #[test]
    fn tells_images_from_indexes() {
        let layer = format!(r#"{{"mediaType":"x","digest":"{}","size":5}}"#, digest('b'));
        let image =
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":1}},"layers":[{layer}]}}"#, digest('a'));
        let Ok(Document::Image(manifest)) = parse_text(&image) else { panic!("an image") };
        assert_eq!((manifest.layers.len(), manifest.layers[0].size()), (1, 5));
        assert!(matches!(parse_text(r#"{"schemaVersion":2,"manifests":[]}"#), Ok(Document::Index(_))));
        for bad in [
            r#"{"schemaVersion":1}"#.to_owned(),
            r#"{"schemaVersion":2}"#.to_owned(),
            image.replace(r#""layers""#, r#""manifests":[],"layers""#),
            image.replace(&layer, ""),
            image.replace(&layer, &[layer.as_str(); 4].join(",")),
            image.replace(&digest('b'), "sha256:../../x"),
            image.replace(r#""mediaType":"x""#, r#""mediaType":"x+encrypted""#),
        ] {
            assert!(matches!(parse_text(&bad), Err(ImageError::Refused { .. })), "{bad}");
        }
        assert!(matches!(parse_text("{"), Err(ImageError::Document { .. })));
    }

    #[test]
    fn selects_this_platform() {
        let entry = |c: char, arch: &str| {
            format!(r#"{{"digest":"{}","platform":{{"architecture":"{arch}","os":"linux"}}}}"#, digest(c))
        };
        let index = |entries: &str| -> Index {
            serde_json::from_str(&format!(r#"{{"manifests":[{entries}]}}"#)).expect("valid")
        };
        let both = index(&format!("{},{}", entry('a', "other"), entry('b', architecture())));
        assert_eq!(both.select("img").expect("found").to_string(), digest('b'));
        let error = index(&entry('a', "other")).select("img").expect_err("not for us").to_string();
        assert!(error.contains("linux/other"), "{error}");
        let bare = index(&format!(r#"{{"digest":"{}"}}"#, digest('c')));
        assert_eq!(bare.select("img").expect("alone").to_string(), digest('c'));
    }
}
