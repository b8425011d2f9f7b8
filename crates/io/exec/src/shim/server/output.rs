//! The container's stdout and stderr on their way to the log. Reads what is there and never waits for more.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::logs::{LogStream, LogWriter};

const READ_BYTES: usize = 64 * 1024;
/// Per stream and turn, so that a container that writes endlessly does not keep the shim from its other duties.
const READS_PER_TURN_MAX: usize = 4;
/// For what is left in the pipes when the container has ended.
const DRAIN_TIMEOUT_MS: u64 = 1_000;

pub(super) struct Output {
    log: LogWriter,
    streams: Vec<(LogStream, File)>,
    buffer: Vec<u8>,
}

impl Output {
    pub(super) fn new(log: LogWriter, streams: [(LogStream, OwnedFd); 2]) -> io::Result<Self> {
        for (_, fd) in &streams {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let streams = streams.into_iter().map(|(stream, fd)| (stream, File::from(fd))).collect();
        Ok(Self { log, streams, buffer: vec![0; READ_BYTES] })
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().map(|(_, file)| file.as_fd())
    }

    /// Reads for one turn; returns whether anything came.
    pub(super) fn pump(&mut self) -> bool {
        let Self { log, streams, buffer } = self;
        let mut came = false;
        streams.retain_mut(|(stream, file)| {
            for _ in 0..READS_PER_TURN_MAX {
                match file.read(buffer) {
                    Ok(0) => return false,
                    Ok(bytes) => {
                        came = true;
                        log.take(*stream, &buffer[..bytes]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
            true
        });
        came
    }

    /// After the end: everything that is left in the pipes.
    pub(super) fn drain(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(DRAIN_TIMEOUT_MS);
        while self.pump() && Instant::now() < deadline {}
        self.log.finish();
    }
}
