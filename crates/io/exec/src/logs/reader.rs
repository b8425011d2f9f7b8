//! Reads the files of a container's output from oldest to newest, and follows them across rotation. Skips lines torn by
//! a crash.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{LINE_BYTES_MAX, LogRecord, file_path};

const POLL_DELAY_MS: u64 = 50;
/// The size of one record in the file; escapes make it at most six times as long.
const ENTRY_BYTES_MAX: usize = 8 * super::RECORD_BYTES_MAX;
/// The text of one record: bytes that are not UTF-8 become three each.
const RECORD_TEXT_BYTES_MAX: usize = 3 * super::RECORD_BYTES_MAX;
const FILES_MAX: u32 = 100;

/// The reader's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    Record(LogRecord),
    /// Nothing new within the timeout; ask again.
    Waiting,
    /// Everything was read, and nothing more will come (or following was not requested).
    End,
}

/// An open log of one container. Keeps working even if the container is removed meanwhile.
pub struct LogReader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
    inode: u64,
    line: Vec<u8>,
    buffered: VecDeque<LogRecord>,
    /// The line of each stream whose end was not read yet.
    open: [Option<LogRecord>; 2],
    follow: bool,
    ended: Box<dyn Fn() -> bool + Send>,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LogReader").field("dir", &self.dir).field("follow", &self.follow).finish_non_exhaustive()
    }
}

impl LogReader {
    /// `ended` says whether the container has ended, so that nothing more is written.
    pub(crate) fn open(dir: &Path, tail: Option<usize>, follow: bool, ended: Box<dyn Fn() -> bool + Send>) -> Self {
        let mut reader = Self {
            dir: dir.to_owned(),
            file: None,
            inode: 0,
            line: Vec::new(),
            buffered: VecDeque::new(),
            open: [None, None],
            follow,
            ended,
        };
        reader.open_oldest();
        if let Some(tail) = tail {
            reader.skip_to_tail(tail);
        }
        reader
    }

    /// The next record; waits up to `timeout` when following.
    pub fn next(&mut self, timeout: Duration) -> io::Result<LogItem> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(record) = self.buffered.pop_front() {
                return Ok(LogItem::Record(record));
            }
            // Checked before reading: what is written before the end is then always read.
            let ended = (self.ended)();
            if let Some(record) = self.read_line()? {
                return Ok(LogItem::Record(record));
            }
            if !self.follow || ended {
                // The rest of a line without an end.
                return Ok(self.open.iter_mut().find_map(Option::take).map_or(LogItem::End, LogItem::Record));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(LogItem::Waiting);
            }
            std::thread::sleep((deadline - now).min(Duration::from_millis(POLL_DELAY_MS)));
        }
    }

    fn skip_to_tail(&mut self, tail: usize) {
        let mut kept = VecDeque::new();
        while let Ok(Some(record)) = self.read_line() {
            kept.push_back(record);
            if kept.len() > tail {
                kept.pop_front();
            }
        }
        self.buffered = kept;
    }

    /// The next record that ends a line, or fills one up to the bound.
    fn read_line(&mut self) -> io::Result<Option<LogRecord>> {
        while let Some(mut record) = self.read_one()? {
            let open = &mut self.open[record.stream as usize];
            if let Some(mut begun) = open.take() {
                begun.log.push_str(&record.log);
                begun.partial = record.partial;
                record = begun;
            }
            if !record.partial || record.log.len() + RECORD_TEXT_BYTES_MAX > LINE_BYTES_MAX {
                return Ok(Some(record));
            }
            *open = Some(record);
        }
        Ok(None)
    }

    fn read_one(&mut self) -> io::Result<Option<LogRecord>> {
        loop {
            let Some(file) = &mut self.file else {
                self.open_oldest();
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let read = read_line(file, &mut self.line)?;
            if self.line.ends_with(b"\n") {
                let record = serde_json::from_slice(&self.line);
                self.line.clear();
                match record {
                    Ok(record) => return Ok(Some(record)),
                    Err(_) => continue,
                }
            }
            if read == 0 && !self.open_next() {
                return Ok(None);
            }
        }
    }

    fn open_oldest(&mut self) {
        let oldest = (0..FILES_MAX).take_while(|age| file_path(&self.dir, *age).exists()).last();
        if let Some(age) = oldest {
            self.open_age(age);
        }
    }

    /// At the end of a file: moves to the file written after it, if there is one.
    fn open_next(&mut self) -> bool {
        let age = (0..FILES_MAX).find(|age| {
            std::fs::metadata(file_path(&self.dir, *age)).is_ok_and(|metadata| metadata.ino() == self.inode)
        });
        match age {
            Some(0) => false,
            Some(age) => self.open_age(age - 1),
            None => {
                let before = self.inode;
                self.open_oldest();
                self.inode != before
            }
        }
    }

    fn open_age(&mut self, age: u32) -> bool {
        let opened = File::open(file_path(&self.dir, age)).and_then(|file| Ok((file.metadata()?.ino(), file)));
        let Ok((inode, file)) = opened else { return false };
        self.line.clear();
        self.inode = inode;
        self.file = Some(BufReader::new(file));
        true
    }
}

/// Appends up to the next line break; gives up a line that is longer than any record can be.
fn read_line(file: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = 0;
    loop {
        let available = file.fill_buf()?;
        if available.is_empty() {
            return Ok(read);
        }
        let (used, done) = match available.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (available.len(), false),
        };
        if line.len() + used <= ENTRY_BYTES_MAX {
            line.extend_from_slice(&available[..used]);
        } else {
            line.clear();
        }
        file.consume(used);
        read += used;
        if done {
            return Ok(read);
        }
    }
}
