//! Names of images: parses what users write. Touches no file and no network.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::digest::Digest;

/// The longest reference that is parsed.
const REFERENCE_BYTES_MAX: usize = 4096;

/// Where an image is and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// `[docker://][REGISTRY/]REPOSITORY[:TAG][@DIGEST]`
    Registry {
        /// `host[:port]`, `docker.io` if none was given.
        registry: String,
        /// Path in the registry, with `library/` where Docker Hub means it.
        repository: String,
        /// The tag; `latest` if neither a tag nor a digest was given.
        tag: Option<String>,
        /// The digest that the manifest must have.
        digest: Option<Digest>,
    },
    /// `oci:DIR[:TAG][@DIGEST]`: an OCI image layout.
    OciLayout {
        /// The layout's directory.
        dir: PathBuf,
        /// The name of the image in the layout's index.
        tag: Option<String>,
        /// The digest that its manifest or index must have.
        digest: Option<Digest>,
    },
    /// `docker-archive:FILE[:NAME][@DIGEST]`: what `docker save` writes.
    DockerArchive {
        /// The tar file.
        file: PathBuf,
        /// The name of the image in the archive, with its tag.
        name: Option<String>,
        /// The digest that its configuration must have.
        digest: Option<Digest>,
    },
    /// `host`: the host's own root filesystem; nothing is pulled or unpacked.
    Host,
}

/// The text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image reference {reference:?}: {problem}; expected NAME[:TAG][@DIGEST], oci:DIR[:TAG], docker-archive:FILE[:NAME] or host"
)]
pub struct ReferenceError {
    /// What was given (its beginning).
    pub reference: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Reference {
    /// Whether it always means the same image.
    pub fn is_pinned(&self) -> bool {
        *self == Self::Host || self.digest().is_some()
    }

    /// The same place, but only the image with this digest.
    pub fn pinned(mut self, wanted: Digest) -> Self {
        match &mut self {
            Self::Registry { digest, .. } | Self::OciLayout { digest, .. } | Self::DockerArchive { digest, .. } => {
                *digest = Some(wanted);
            }
            Self::Host => {}
        }
        self
    }

    /// The digest that the image must have.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Registry { digest, .. } | Self::OciLayout { digest, .. } | Self::DockerArchive { digest, .. } => {
                digest.as_ref()
            }
            Self::Host => None,
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let parsed = check_text(text).and_then(|()| {
            if text == "host" {
                Ok(Self::Host)
            } else if let Some(rest) = text.strip_prefix("oci:") {
                let (rest, digest) = without_digest(rest);
                let (path, tag) = path_and_name(rest, "oci:DIR[:TAG]")?;
                Ok(Self::OciLayout { dir: path, tag, digest })
            } else if let Some(rest) = text.strip_prefix("docker-archive:") {
                let (rest, digest) = without_digest(rest);
                let (path, name) = path_and_name(rest, "docker-archive:FILE[:NAME]")?;
                Ok(Self::DockerArchive { file: path, name, digest })
            } else {
                registry(text.strip_prefix("docker://").unwrap_or(text))
            }
        });
        parsed.map_err(|problem| ReferenceError { reference: text.chars().take(200).collect(), problem })
    }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > REFERENCE_BYTES_MAX {
        return Err(format!("it is longer than {REFERENCE_BYTES_MAX} bytes"));
    }
    match text.chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(c) => Err(format!("it holds the character {c:?}")),
        None => Ok(()),
    }
}

/// A path may contain `@` as well; only a digest after it counts as one.
fn without_digest(rest: &str) -> (&str, Option<Digest>) {
    let split = rest.rsplit_once('@').and_then(|(before, digest)| Some((before, digest.parse().ok()?)));
    split.map_or((rest, None), |(before, digest)| (before, Some(digest)))
}

fn path_and_name(rest: &str, form: &str) -> Result<(PathBuf, Option<String>), String> {
    let (path, name) = match rest.split_once(':') {
        Some((path, name)) => (path, Some(name)),
        None => (rest, None),
    };
    if path.is_empty() {
        return Err(format!("{form} has no path"));
    }
    if name == Some("") {
        return Err("there is nothing after its last colon".to_owned());
    }
    Ok((PathBuf::from(path), name.map(str::to_owned)))
}

fn registry(text: &str) -> Result<Reference, String> {
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("the scheme {scheme:?} is not known"));
    }
    let parsed: oci_client::Reference = text.parse().map_err(|e: oci_client::ParseError| e.to_string())?;
    if !parsed.repository().split('/').all(is_name_part) {
        return Err(format!(
            "{:?} is not a repository; it takes lower-case letters, digits and . _ - /",
            parsed.repository()
        ));
    }
    let digest = match parsed.digest() {
        Some(digest) => Some(digest.parse::<Digest>().map_err(|e| e.to_string())?),
        None => None,
    };
    Ok(Reference::Registry {
        registry: parsed.registry().to_owned(),
        repository: parsed.repository().to_owned(),
        tag: parsed.tag().map(str::to_owned),
        digest,
    })
}

fn is_name_part(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| is_word(*first) && is_word(*last))
        && bytes.iter().all(|b| is_word(*b) || b"._-".contains(b))
}

/// Writes the full name: parsing it again gives the same reference.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { registry, repository, tag, digest } => {
                write!(f, "{registry}/{repository}")?;
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                match digest {
                    Some(digest) => write!(f, "@{digest}"),
                    None => Ok(()),
                }
            }
            Self::OciLayout { dir, tag, digest } => named_path(f, "oci", dir, tag.as_deref(), digest.as_ref()),
            Self::DockerArchive { file, name, digest } => {
                named_path(f, "docker-archive", file, name.as_deref(), digest.as_ref())
            }
            Self::Host => f.write_str("host"),
        }
    }
}

fn named_path(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    path: &std::path::Path,
    name: Option<&str>,
    digest: Option<&Digest>,
) -> fmt::Result {
    write!(f, "{kind}:{}", path.display())?;
    name.map_or(Ok(()), |name| write!(f, ":{name}"))?;
    digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().map(|r| r.to_string()).unwrap_or_else(|e| format!("ERROR {e}"))
    }

    #[test]
    fn completes_names_as_docker_does() {
        let hex = "a".repeat(64);
        let cases = [
            ("nginx".to_owned(), "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27".into(), "docker.io/library/nginx:1.27".into()),
            ("docker://nginx:1.27".into(), "docker.io/library/nginx:1.27".into()),
            ("docker.io/library/nginx:1.27".into(), "docker.io/library/nginx:1.27".into()),
            ("me/app".into(), "docker.io/me/app:latest".into()),
            ("localhost:5000/x:1".into(), "localhost:5000/x:1".into()),
            (format!("localhost:5000/x@sha256:{hex}"), format!("localhost:5000/x@sha256:{hex}")),
            (format!("q.io/a/b:v@sha256:{hex}"), format!("q.io/a/b:v@sha256:{hex}")),
            ("oci:/srv/img".into(), "oci:/srv/img".into()),
            ("oci:/srv/img:v1".into(), "oci:/srv/img:v1".into()),
            (
                "docker-archive:/a.tar:docker.io/library/b:1".into(),
                "docker-archive:/a.tar:docker.io/library/b:1".into(),
            ),
            (format!("oci:/srv/i@b:v1@sha256:{hex}"), format!("oci:/srv/i@b:v1@sha256:{hex}")),
            (format!("docker-archive:/a.tar@sha256:{hex}"), format!("docker-archive:/a.tar@sha256:{hex}")),
            ("host".into(), "host".into()),
            ("docker://host".into(), "docker.io/library/host:latest".into()),
        ];
        for (text, want) in cases {
            assert_eq!(full(&text), want, "{text}");
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("oci:", "no path"),
            ("oci:/x:", "after its last colon"),
            ("docker-archive:", "no path"),
            ("https://x/y", "scheme \"https\""),
            ("a b", "' '"),
            ("UPPER/case", "expected NAME"),
            ("x@sha256:12", "expected NAME"),
            ("x:", "expected NAME"),
            ("../../etc/passwd", "expected NAME"),
        ] {
            let shown = full(text);
            assert!(shown.starts_with("ERROR") && shown.contains(reason), "{text:?} -> {shown}");
        }
        assert!(full(&"a".repeat(5000)).contains("longer than"));
    }

    proptest! {
        #[test]
        fn never_panics_and_display_round_trips(text in "\\PC{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference));
            }
        }

        #[test]
        fn well_formed_names_parse_to_their_parts(
            host in "[a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{1,3})?",
            repository in "[a-z0-9]{1,8}(/[a-z0-9]{1,6}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            hex in proptest::option::of("[0-9a-f]{64}"),
        ) {
            prop_assume!(host != "index.docker.io" && host != "docker.io");
            let mut text = format!("docker://{host}/{repository}");
            if let Some(tag) = &tag { text += &format!(":{tag}"); }
            if let Some(hex) = &hex { text += &format!("@sha256:{hex}"); }
            let want_tag = tag.or(if hex.is_none() { Some("latest".to_owned()) } else { None });
            match text.parse::<Reference>() {
                Ok(Reference::Registry { registry, repository: got, tag, digest }) => {
                    prop_assert_eq!((registry, got, tag), (host, repository, want_tag));
                    prop_assert_eq!(digest.map(|d| d.hex().to_owned()), hex);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
