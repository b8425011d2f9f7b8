//! Writes output as JSON lines into files that rotate. A full disk loses records, never the container: lost records are
//! counted, and reported when writing works again.

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
                let whole = whole_characters(&pending);
                encode(&mut out, &time, stream, &pending[..whole], true);
                records += 1;
                pending.drain(..whole);
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

/// How many bytes come before a UTF-8 character that is truncated at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    let continued = bytes.iter().rev().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    let Some(lead) = bytes.len().checked_sub(continued + 1) else { return bytes.len() };
    let wanted = bytes[lead].leading_ones() as usize;
    if (2..=4).contains(&wanted) && wanted > continued + 1 { lead } else { bytes.len() }
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

    use crate::logs::{LINE_BYTES_MAX, LogItem, LogReader};

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
        assert_eq!(fs::read_to_string(file_path(dir.path(), 0)).expect("a file").lines().count(), 3);
        let sizes: Vec<_> = read_all(dir.path()).iter().map(|record| (record.log.len(), record.partial)).collect();
        assert_eq!(sizes, [(RECORD_BYTES_MAX * 2 + 5, false)], "the reader joins it");
    }

    #[test]
    fn a_line_beyond_the_bound_is_told_in_marked_parts_and_tail_counts_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), LogLimits::default()).expect("a file");
        let text = format!("x{}", "ä漢🚀".repeat(60_000));
        log.take(LogStream::Stdout, b"first\n");
        for piece in text.as_bytes().chunks(40_000) {
            log.take(LogStream::Stdout, piece);
            log.take(LogStream::Stderr, b"between\n");
        }
        log.take(LogStream::Stdout, b"\nnext\n");
        log.finish();
        let records: Vec<_> = read_all(dir.path()).into_iter().filter(|r| r.stream == LogStream::Stdout).collect();
        let (long, partial): (Vec<_>, Vec<_>) =
            records[1..records.len() - 1].iter().map(|record| (record.log.as_str(), record.partial)).unzip();
        assert_eq!(long.concat(), text, "no character is torn");
        assert!(long.len() > 1 && long.iter().all(|part| part.len() <= LINE_BYTES_MAX), "{}", long.len());
        assert!(partial.split_last().is_some_and(|(last, before)| !last && before.iter().all(|partial| *partial)));

        let short = "y".repeat(40_000);
        log.take(LogStream::Stdout, format!("{short}\nlast\nopen").as_bytes());
        let mut tail = LogReader::open(dir.path(), Some(2), false, Box::new(|| true));
        let mut told = || match tail.next(Duration::ZERO).expect("readable") {
            LogItem::Record(record) => record.log,
            other => format!("{other:?}"),
        };
        assert_eq!([told(), told(), told()], [short, "last".to_owned(), "End".to_owned()]);
    }

    #[test]
    fn a_line_without_an_end_is_told_as_far_as_it_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = LogWriter::open(dir.path(), LogLimits::default()).expect("a file");
        log.take(LogStream::Stdout, &vec![b'x'; RECORD_BYTES_MAX + 5]);
        let sizes: Vec<_> = read_all(dir.path()).iter().map(|record| (record.log.len(), record.partial)).collect();
        assert_eq!(sizes, [(RECORD_BYTES_MAX, true)]);
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
