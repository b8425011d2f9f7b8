//! A container's output as rotated files of JSON lines: the record, the writer (in the shim), the reader (in the
//! driver). Knows no container, only a directory and bounds.

mod reader;
mod writer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use reader::{LogItem, LogReader};
pub(crate) use writer::LogWriter;

/// A longer line is cut into records of this size, all but the last marked `partial`.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The reader joins records to lines of this size at most; a longer line is returned in parts, all but the last marked
/// `partial`.
pub(crate) const LINE_BYTES_MAX: usize = 256 * 1024;

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// RFC 3339, UTC, when the shim read it.
    pub time: String,
    pub stream: LogStream,
    /// Without its line break; bytes that are not UTF-8 are replaced.
    pub log: String,
    /// The line continues in the next record of this stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// The newest file is `container.log`, the one before it `container.log.1`, and so on.
fn file_path(dir: &Path, age: u32) -> PathBuf {
    match age {
        0 => dir.join("container.log"),
        age => dir.join(format!("container.log.{age}")),
    }
}
