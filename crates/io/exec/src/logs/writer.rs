//! Writes output as JSON lines into files that rotate. A full disk loses records, never the container: what could not be
//! written is counted, and told when writing works again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{LogRecord, LogStream, RECORD_BYTES_MAX, file_path};
use crate::container::LogLimits;

/// Writer of one container's two streams.
pub(crate) struct LogWriter {
    dir: PathBuf,
    limits: LogLimits,
    file: File,
    file_bytes: u64,
    /// The unfinished line of each stream; at most one record long.
    pending: [Vec<u8>; 2],
    lost_records: u64,
}

impl LogWriter {
    pub(crate) fn open(dir: &Path, limits: LogLimits) -> io::Result<Self> {
        let file = open_append(&file_path(dir, 0))?;
        let file_bytes = file.metadata()?.len();
        let pending = [Vec::new(), Vec::new()];
        Ok(Self { dir: dir.to_owned(), limits, file, file_bytes, pending, lost_records: 0 })
    }

    /// Takes bytes as they were read; writes the lines that they complete.
    pub(crate) fn take(&mut self, stream: LogStream, bytes: &[u8]) {
        let time = now_text();
        let mut out = Vec::with_capacity(bytes.len() + 128);
        let mut records = 0;
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let mut rest = text;
            while pending.len() + rest.len() > RECORD_BYTES_MAX {
                let (now, later) = rest.split_at(RECORD_BYTES_MAX - pending.len());
                pending.extend_from_slice(now);
                rest = later;
                encode(&mut out, &time, stream, &pending, true);
                records += 1;
                pending.clear();
            }
            pending.extend_from_slice(rest);
            if ended {
                encode(&mut out, &time, stream, &pending, false);
                records += 1;
                pending.clear();
            }
        }
        self.pending[stream as usize] = pending;
        self.write(&out, records);
    }

    /// Writes what has no line break yet; nothing more will come.
    pub(crate) fn finish(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() {
                let mut out = Vec::new();
                encode(&mut out, &now_text(), stream, &pending, false);
                self.write(&out, 1);
            }
        }
    }

    fn write(&mut self, out: &[u8], records: u64) {
        if out.is_empty() {
            return;
        }
        if self.lost_records > 0 {
            let mut note = Vec::new();
            let text = format!("[{} records were lost: the log could not be written]", self.lost_records);
            encode(&mut note, &now_text(), LogStream::Stderr, text.as_bytes(), false);
            if self.append(&note).is_ok() {
                self.lost_records = 0;
            }
        }
        let whole = out.len() as u64 <= self.limits.file_bytes_max;
        let written = if whole { self.append(out) } else { self.append_each(out) };
        if written.is_err() {
            self.lost_records += records;
        }
    }

    fn append_each(&mut self, out: &[u8]) -> io::Result<()> {
        out.split_inclusive(|byte| *byte == b'\n').try_for_each(|record| self.append(record))
    }

    fn append(&mut self, out: &[u8]) -> io::Result<()> {
        if self.file_bytes > 0 && self.file_bytes + out.len() as u64 > self.limits.file_bytes_max {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(out) {
            // A torn record would spoil the next one.
            self.file.set_len(self.file_bytes)?;
            return Err(error);
        }
        self.file_bytes += out.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let oldest = self.limits.files_max.saturating_sub(1);
        if oldest == 0 {
            self.file.set_len(0)?;
        } else {
            for age in (0..oldest).rev() {
                match fs::rename(file_path(&self.dir, age), file_path(&self.dir, age + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = open_append(&file_path(&self.dir, 0))?;
        }
        self.file_bytes = 0;
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn encode(out: &mut Vec<u8>, time: &str, stream: LogStream, text: &[u8], partial: bool) {
    let log = String::from_utf8_lossy(text).into_owned();
    let record = LogRecord { time: time.to_owned(), stream, log, partial };
    serde_json::to_writer(&mut *out, &record).expect("a record of strings is JSON, and a Vec takes all writes");
    out.push(b'\n');
}

fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::logs::{LogItem, LogReader};

    fn read_all(dir: &Path) -> Vec<LogRecord> {
        let mut reader = LogReader::open(dir, None, false, Box::new(|| true));
        let mut records = Vec::new();
        while let LogItem::Record(record) = reader.next(Duration::ZERO).expect("readable") {
            records.push(record);
        }
        records
    }

    #[test]
    fn lines_are_joined_over_reads_and_kept_per_stream() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), LogLimits::default()).expect("a file");
        log.take(LogStream::Stdout, b"one\ntw");
        log.take(LogStream::Stderr, b"bad \xff\n");
        log.take(LogStream::Stdout, b"o\nrest");
        log.finish();
        let texts: Vec<_> = read_all(dir.path()).into_iter().map(|record| (record.stream, record.log)).collect();
        let expected = [
            (LogStream::Stdout, "one".to_owned()),
            (LogStream::Stderr, "bad \u{fffd}".to_owned()),
            (LogStream::Stdout, "two".to_owned()),
            (LogStream::Stdout, "rest".to_owned()),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_long_line_is_cut_and_marked() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), LogLimits::default()).expect("a file");
        let line = vec![b'x'; RECORD_BYTES_MAX * 2 + 5];
        log.take(LogStream::Stdout, &line);
        log.take(LogStream::Stdout, b"\n");
        let sizes: Vec<_> = read_all(dir.path()).iter().map(|record| (record.log.len(), record.partial)).collect();
        assert_eq!(sizes, [(RECORD_BYTES_MAX, true), (RECORD_BYTES_MAX, true), (5, false)]);
    }

    #[test]
    fn files_rotate_within_their_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = LogLimits { file_bytes_max: 4_096, files_max: 3 };
        let mut log = LogWriter::open(dir.path(), limits).expect("a file");
        for number in 0..1_000 {
            log.take(LogStream::Stdout, format!("line {number}\n").as_bytes());
        }
        let bytes: u64 = fs::read_dir(dir.path())
            .expect("listable")
            .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len())
            .sum();
        assert!(bytes <= 3 * 4_096, "{bytes}");
        let records = read_all(dir.path());
        let last: Vec<_> = (1_000 - records.len()..1_000).map(|number| format!("line {number}")).collect();
        assert_eq!(records.into_iter().map(|record| record.log).collect::<Vec<_>>(), last);
    }
}
