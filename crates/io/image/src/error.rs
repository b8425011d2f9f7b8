//! Errors of the image store: each names the operation, the image and, where there is one, the layer and path.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::reference::ReferenceError;

/// Why an image could not be opened, pulled, read or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The text names no image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Another process holds the store.
    #[error("image store {} is in use by another process; stop that process or choose another directory", path.display())]
    StoreBusy {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store's own files cannot be read or written.
    #[error("cannot {operation} {} of the image store", path.display())]
    Store {
        /// The operation.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A record in the store is not what this version writes.
    #[error("record {} of the image store is damaged; remove it and pull the image again", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// Images can only be unpacked by root.
    #[error(
        "cannot unpack image {image} without root: owners, whiteout devices and trusted attributes need it; run as root, or use image `host`"
    )]
    NeedsRoot {
        /// The reference.
        image: String,
    },
    /// The policy says never to pull, and the image is not there.
    #[error("image {image} is not present and the pull policy is Never; pull it first or choose IfNotPresent")]
    Absent {
        /// The reference.
        image: String,
    },
    /// A registry could not be reached, or refused.
    #[error("cannot {operation} of image {image}{hint}")]
    Registry {
        /// The operation.
        operation: String,
        /// The reference.
        image: String,
        /// The remedy, with a leading separator; may be empty.
        hint: &'static str,
        /// The cause.
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// The file with the passwords of registries cannot be used.
    #[error("cannot read the password for image {image} from {} (--registry-auth)", path.display())]
    AuthFile {
        /// The reference.
        image: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A download broke off, even when retried.
    #[error("download of layer {layer} of image {image} broke off after {attempts} attempts")]
    Download {
        /// The reference.
        image: String,
        /// The compressed layer.
        layer: Digest,
        /// The number of attempts.
        attempts: u32,
        /// The last cause.
        source: io::Error,
    },
    /// A layout or archive on disk cannot be read.
    #[error("cannot read {} for image {image}", path.display())]
    Source {
        /// The reference.
        image: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A layout or archive does not hold the image.
    #[error("image {image} was not found: {problem}")]
    NotFound {
        /// The reference.
        image: String,
        /// What was found instead.
        problem: String,
    },
    /// The image exists, but not for this machine.
    #[error("image {image} has no variant for {wanted}; it offers {offered}")]
    Platform {
        /// The reference.
        image: String,
        /// This machine's platform.
        wanted: String,
        /// The image's platforms.
        offered: String,
    },
    /// A document of the image is not JSON of the right form.
    #[error("the {document} of image {image} is not valid")]
    Document {
        /// The reference.
        image: String,
        /// Which document.
        document: &'static str,
        /// The cause.
        source: serde_json::Error,
    },
    /// A document of the image contradicts itself or exceeds a limit.
    #[error("the {document} of image {image} is refused: {problem}")]
    Refused {
        /// The reference.
        image: String,
        /// Which document.
        document: &'static str,
        /// Why.
        problem: String,
    },
    /// The bytes do not match their digest.
    #[error(
        "the {subject} of image {image} does not match its digest: expected {expected}, got {actual}; the source is damaged or was tampered with"
    )]
    DigestMismatch {
        /// The reference.
        image: String,
        /// Manifest, configuration or layer.
        subject: &'static str,
        /// The digest that was named.
        expected: Box<Digest>,
        /// The digest of the bytes.
        actual: String,
    },
    /// Something is larger than its declared size or a limit.
    #[error("{subject} of image {image} has more than {max_bytes} bytes")]
    TooLarge {
        /// The reference.
        image: String,
        /// What.
        subject: String,
        /// The bound.
        max_bytes: u64,
    },
    /// A layer was refused or could not be written; nothing of it stays.
    #[error("cannot unpack layer {layer} of image {image} at path {}", path.display())]
    Unpack {
        /// The reference.
        image: String,
        /// Digest of the unpacked layer.
        layer: Box<Digest>,
        /// The entry (empty: the layer as a whole).
        path: PathBuf,
        /// What is wrong.
        source: Violation,
    },
    /// A part of the work ended early.
    #[error("the pull of image {image} was stopped")]
    Stopped {
        /// The reference.
        image: String,
    },
}

/// What is wrong with an entry of a layer, or with a layer as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The name has a `..` component.
    #[error("the path has a `..` component")]
    ParentComponent,
    /// The name is empty where one is needed, or contains a NUL byte.
    #[error("the name is not usable")]
    BadName,
    /// Too many components.
    #[error("the path has more than {max} components")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// Too many entries in the image.
    #[error("the image has more than {max} entries")]
    TooManyEntries {
        /// The bound.
        max: u64,
    },
    /// The image unpacks to too much.
    #[error("the image unpacks to more than {max} bytes")]
    TooManyBytes {
        /// The bound.
        max: u64,
    },
    /// The layer expands too much: a decompression bomb.
    #[error(
        "the layer has more than {free_bytes} bytes, and more than {ratio_max} times its compressed size of {compressed_bytes} bytes: \
         no compression of useful data does that"
    )]
    CompressionRatio {
        /// Bytes up to which the ratio does not matter.
        free_bytes: u64,
        /// The bound.
        ratio_max: u64,
        /// Size of the blob.
        compressed_bytes: u64,
    },
    /// The map of a sparse file is invalid.
    #[error("the map of the sparse file is refused: {problem}; make the archive without sparse files")]
    Sparse {
        /// What is wrong.
        problem: &'static str,
    },
    /// Headers and extensions before one entry are too long.
    #[error("the headers before one entry have more than {max} bytes")]
    HeaderTooLarge {
        /// The bound.
        max: u64,
    },
    /// A parent of the entry is not a directory.
    #[error("a parent of the path is not a directory, or its symbolic links lead nowhere")]
    ParentNotDirectory,
    /// The hard link's target is not in the image.
    #[error("the target {} of the hard link is not in the image", target.display())]
    LinkTargetMissing {
        /// The target.
        target: PathBuf,
    },
    /// The hard link's target cannot be linked to.
    #[error("the target {} of the hard link is a directory or device, or its name leads out of the image", target.display())]
    LinkTargetRefused {
        /// The target.
        target: PathBuf,
    },
    /// The owner does not fit this system's 32 bits.
    #[error("the owner {owner} is out of range")]
    Owner {
        /// The user or group id.
        owner: u64,
    },
    /// A kind of entry that layers do not have.
    #[error("entries of type {kind:?} are not known")]
    EntryKind {
        /// The type byte of the tar header.
        kind: char,
    },
    /// The unpacked bytes do not match the image configuration.
    #[error("the unpacked layer has digest {actual}; the layer is damaged or was tampered with")]
    DiffId {
        /// The digest of the bytes.
        actual: Box<Digest>,
    },
    /// The archive or its compression is damaged.
    #[error("the archive is damaged")]
    Malformed(#[source] io::Error),
    /// A file could not be written.
    #[error("the entry cannot be written")]
    Write(#[source] io::Error),
}
