//! Images in a docker archive: one tar file with `manifest.json`, configurations and layers. It contains no digests of
//! its layers, so those in the configuration (of the unpacked layers) protect them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::layout::open_regular;
use super::{Blob, LayerAt, Manifest, documents, verify};
use crate::decode;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::options::Options;

/// How many members of an archive are examined.
const MEMBERS_MAX: usize = 65_536;
/// How many links from member to member are followed.
const LINKS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchivedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

pub(crate) struct ArchiveSource {
    image: String,
    path: PathBuf,
    file: File,
    config: Vec<u8>,
    manifest: Manifest,
}

/// An archive whose members are known.
struct Indexed<'a> {
    image: &'a str,
    path: &'a Path,
    file: &'a File,
    members: BTreeMap<String, Member>,
}

impl ArchiveSource {
    pub(super) fn open(
        image: String,
        path: PathBuf,
        name: Option<String>,
        options: &Options,
        temp_dir: &Path,
    ) -> Result<Self, ImageError> {
        let fail = |source| ImageError::Source { image: image.clone(), path: path.clone(), source };
        let file = open_regular(&path).map_err(fail)?;
        let file = plain(&image, &path, file, options.unpack_bytes_max, temp_dir)?;
        let members = index(&file).map_err(fail)?;
        let indexed = Indexed { image: &image, path: &path, file: &file, members };
        let images = indexed.read("manifest.json", options.manifest_bytes_max)?;
        let images: Vec<ArchivedImage> = documents::json(&image, "manifest.json", &images)?;
        let chosen = choose(&image, images, name.as_deref())?;
        let config = indexed.read(&chosen.config, options.manifest_bytes_max)?;
        let manifest = indexed.manifest(&chosen, &config, options)?;
        Ok(Self { image, path, file, config, manifest })
    }

    pub(super) fn manifest(&self) -> Manifest {
        self.manifest.clone()
    }

    pub(super) fn config(&self) -> Vec<u8> {
        self.config.clone()
    }

    /// A separate handle, because layers are read at the same time.
    pub(super) fn fetch(&self, offset: u64, size: u64) -> Result<Blob, ImageError> {
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
        let file = File::open(own).map_err(|source| ImageError::Source {
            image: self.image.clone(),
            path: self.path.clone(),
            source,
        })?;
        Ok(Blob { file, offset, size })
    }
}

impl Indexed<'_> {
    fn manifest(&self, chosen: &ArchivedImage, config: &[u8], options: &Options) -> Result<Manifest, ImageError> {
        let refused = |problem| documents::refuse(self.image, "manifest.json", problem);
        let count = chosen.layers.len();
        if count == 0 || count > options.layers_max {
            return Err(refused(format!("it has {count} layers; from 1 to {} are possible", options.layers_max)));
        }
        let mut layers = Vec::with_capacity(count);
        for name in &chosen.layers {
            let (offset, size) = self.locate(name)?;
            layers.push(LayerAt::Slice { offset, size });
        }
        let digest = Digest::sha256(config);
        // Both common writers name the configuration by its digest.
        let stem = chosen.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if let Ok(named) = format!("sha256:{stem}").parse::<Digest>() {
            verify(self.image, "configuration", &named, config)?;
        }
        Ok(Manifest { digest: digest.clone(), config: digest, layers })
    }

    fn locate(&self, name: &str) -> Result<(u64, u64), ImageError> {
        let mut name = normal(name);
        for _ in 0..LINKS_MAX {
            match self.members.get(&name) {
                Some(Member::File { offset, size }) => return Ok((*offset, *size)),
                Some(Member::Link(target)) => name = target.clone(),
                None => break,
            }
        }
        let problem = format!("the archive has no file {name:?}");
        Err(ImageError::NotFound { image: self.image.to_owned(), problem })
    }

    fn read(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>, ImageError> {
        let (offset, size) = self.locate(name)?;
        if size > max_bytes {
            let (image, subject) = (self.image.to_owned(), format!("file {name}"));
            return Err(ImageError::TooLarge { image, subject, max_bytes });
        }
        let mut bytes = Vec::new();
        let mut file = self.file;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.take(size).read_to_end(&mut bytes));
        read.map_err(|source| ImageError::Source { image: self.image.to_owned(), path: self.path.to_owned(), source })?;
        Ok(bytes)
    }
}

fn choose(image: &str, images: Vec<ArchivedImage>, name: Option<&str>) -> Result<ArchivedImage, ImageError> {
    let tags = |i: &ArchivedImage| i.repo_tags.clone().unwrap_or_default();
    let all: Vec<String> = images.iter().flat_map(&tags).take(20).collect();
    let count = images.len();
    let found = match name {
        None if count == 1 => images.into_iter().next(),
        None => None,
        Some(name) => images.into_iter().find(|i| tags(i).iter().any(|tag| is_named(tag, name))),
    };
    let problem = || format!("the archive has {count} images, named: {}", all.join(", "));
    found.ok_or_else(|| ImageError::NotFound { image: image.to_owned(), problem: problem() })
}

/// `busybox:1` and `docker.io/library/busybox:1` are the same name.
fn is_named(tag: &str, name: &str) -> bool {
    let full = |text: &str| text.parse::<oci_client::Reference>().map(|r| r.whole()).ok();
    tag == name || (full(tag).is_some() && full(tag) == full(name))
}

/// Where each member's bytes are. Only headers are read.
fn index(file: &File) -> io::Result<BTreeMap<String, Member>> {
    let mut members = BTreeMap::new();
    let mut own = file;
    own.rewind()?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if members.len() >= MEMBERS_MAX {
            return Err(io::Error::other(format!("the archive has more than {MEMBERS_MAX} members")));
        }
        let name = normal(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_file() {
            members.insert(name, Member::File { offset: entry.raw_file_position(), size: entry.size() });
        } else if kind.is_symlink() || kind.is_hard_link() {
            let target = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
            let target = if kind.is_symlink() { beside(&name, &target) } else { normal(&target) };
            members.insert(name, Member::Link(target));
        }
    }
    Ok(members)
}

/// The archive's file, or an unnamed decompressed copy of it.
fn plain(image: &str, path: &Path, mut file: File, bytes_max: u64, temp_dir: &Path) -> Result<File, ImageError> {
    let fail = |source| ImageError::Source { image: image.to_owned(), path: path.to_owned(), source };
    let mut head = Vec::new();
    (&file).take(4).read_to_end(&mut head).map_err(fail)?;
    file.rewind().map_err(fail)?;
    if !decode::is_compressed(&head) {
        return Ok(file);
    }
    let mut copy = tempfile::tempfile_in(temp_dir).map_err(|source| ImageError::Store {
        operation: "write a temporary file in",
        path: temp_dir.to_owned(),
        source,
    })?;
    let reader = decode::decompress(BufReader::new(file)).map_err(fail)?;
    let bytes = io::copy(&mut reader.take(bytes_max + 1), &mut copy).map_err(fail)?;
    if bytes > bytes_max {
        let (image, subject) = (image.to_owned(), "the decompressed archive".to_owned());
        return Err(ImageError::TooLarge { image, subject, max_bytes: bytes_max });
    }
    Ok(copy)
}

/// A member's name without `.`, `..` and needless slashes: only a key of a map, never a path.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn beside(name: &str, target: &str) -> String {
    match name.rsplit_once('/') {
        Some((dir, _)) => normal(&format!("{dir}/{target}")),
        None => normal(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members() {
        assert_eq!(normal("./a//b/../c"), "a/c");
        assert_eq!(beside("x/layer.tar", "../y/layer.tar"), "y/layer.tar");
        assert!(is_named("docker.io/library/busybox:1", "busybox:1") && !is_named("a:1", "a:2"));
    }
}
