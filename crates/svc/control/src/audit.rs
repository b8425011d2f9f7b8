//! The audit log: a line of JSON for every call that could change something: who, what, when, with what result. No
//! bodies, no secrets. A line is written before the call is answered, and soon synced to disk together with others.

use crate::error::{Error, Result, with_causes};
use heptad_api::trust::Role;
use serde::Serialize;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

/// Lines that wait to be written; a call whose line does not fit waits.
const LINES_WAITING_MAX: usize = 1_024;
/// Lines that are written at once.
const LINES_TOGETHER_MAX: usize = 256;

/// What is logged about a call.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) time: String,
    /// The server that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    pub(crate) principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<Role>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) verb: &'static str,
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) object: String,
    pub(crate) status: u16,
    pub(crate) duration_ms: u64,
    /// Earlier refused calls of this principal that have no line of their own.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) left_out: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How many refused calls of one principal have lines of their own, per period.
const REFUSED_LINES_MAX: u32 = 30;
/// The length of that period.
const REFUSED_WINDOW: Duration = Duration::from_secs(60);

/// Whose refused calls are logged one by one: a principal that is refused repeatedly must not push others' lines out of
/// the log.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<HashMap<String, Refusals>>);

#[derive(Debug)]
struct Refusals {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Refused {
    /// Whether this call of `principal` gets a line, and if so how many before it got none.
    pub(crate) fn line(&self, principal: &str, refused: bool, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Entries that are over and have nothing to report are removed, so the map stays as small as there are busy
        // callers.
        all.retain(|_, one| one.left_out > 0 || now < one.since + REFUSED_WINDOW);
        if !refused {
            return Some(all.get_mut(principal).map_or(0, |one| std::mem::take(&mut one.left_out)));
        }
        let fresh = || Refusals { since: now, lines: 0, left_out: 0 };
        let one = all.entry(principal.to_owned()).or_insert_with(fresh);
        if now >= one.since + REFUSED_WINDOW {
            (one.since, one.lines) = (now, 0);
        }
        if one.lines >= REFUSED_LINES_MAX {
            one.left_out += 1;
            return None;
        }
        one.lines += 1;
        Some(std::mem::take(&mut one.left_out))
    }
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) file_bytes_max: u64,
    pub(crate) files_max: usize,
    pub(crate) sync_delay_ms_max: u64,
}

enum Message {
    Line(Vec<u8>, oneshot::Sender<()>),
    Sync(oneshot::Sender<()>),
}

/// The handle of the log. Clones write to the same log.
#[derive(Clone, Debug)]
pub(crate) struct Audit(mpsc::Sender<Message>);

impl Audit {
    /// Opens the log in `dir`, which is made with mode 0700.
    pub(crate) fn open(dir: &Path, bounds: Bounds) -> Result<Self> {
        let files = Files::open(dir, bounds).map_err(|source| Error::Listen {
            operation: "open the audit log",
            path: dir.to_owned(),
            remedy: "look at the directory's owner and mode, and at the disk's free space",
            source,
        })?;
        let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
        tokio::spawn(write(files, receiver));
        Ok(Self(sender))
    }

    /// Writes a line. When it returns, the line survives the end of this process, and soon after that of the machine.
    pub(crate) async fn log(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).expect("a line has string keys and serializes");
        text.push(b'\n');
        let (done, written) = oneshot::channel();
        if self.0.send(Message::Line(text, done)).await.is_ok() {
            // If the writer failed, it has already reported why.
            let _ = written.await;
        }
    }

    /// Waits until all is on disk.
    pub(crate) async fn sync(&self) {
        let (done, synced) = oneshot::channel();
        if self.0.send(Message::Sync(done)).await.is_ok() {
            let _ = synced.await;
        }
    }
}

/// The current file, and how many bytes are in it.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    bounds: Bounds,
    file: File,
    bytes: u64,
    lost: u64,
}

fn numbered(dir: &Path, number: usize) -> PathBuf {
    dir.join(if number == 0 { "audit.jsonl".to_owned() } else { format!("audit.{number}.jsonl") })
}

fn appended(dir: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(numbered(dir, 0))
}

impl Files {
    fn open(dir: &Path, bounds: Bounds) -> io::Result<Self> {
        std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700).create(dir)?;
        let file = appended(dir)?;
        let mut bytes = file.metadata()?.len();
        if bytes > 0 && !fs::read(numbered(dir, 0))?.ends_with(b"\n") {
            // A line that a crash truncated ends here, so that it spoils no other.
            (&file).write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Self { dir: dir.to_owned(), bounds, file, bytes, lost: 0 })
    }

    fn append(&mut self, lines: &[u8], count: u64) {
        let written = self.rotate_if_full().and_then(|()| self.file.write_all(lines));
        match written {
            Ok(()) => self.bytes += lines.len() as u64,
            Err(error) => {
                self.lost += count;
                tracing::error!(%error, lost = self.lost, "the audit log cannot be written");
            }
        }
    }

    /// Begins a new file when this one is full; the oldest is removed.
    fn rotate_if_full(&mut self) -> io::Result<()> {
        if self.bytes < self.bounds.file_bytes_max {
            return Ok(());
        }
        self.file.sync_data()?;
        let last = self.bounds.files_max.max(2) - 1;
        for number in (0..last).rev() {
            match fs::rename(numbered(&self.dir, number), numbered(&self.dir, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = appended(&self.dir)?;
        self.bytes = 0;
        File::open(&self.dir)?.sync_all()
    }

    fn sync(&mut self) {
        if let Err(error) = self.file.sync_data() {
            tracing::error!(%error, "the audit log cannot be synced");
        }
    }
}

/// Runs blocking work on the files.
async fn blocking(mut files: Files, work: impl FnOnce(&mut Files) + Send + 'static) -> Option<Files> {
    let done = tokio::task::spawn_blocking(move || {
        work(&mut files);
        files
    });
    match done.await {
        Ok(files) => Some(files),
        Err(error) => {
            tracing::error!(error = with_causes(&error), "the audit log broke off");
            None
        }
    }
}

/// Writes what arrives until nobody can send any more.
async fn write(mut files: Files, mut receiver: mpsc::Receiver<Message>) {
    let mut due: Option<Instant> = None;
    let mut batch = Vec::new();
    loop {
        let count = tokio::select! {
            count = receiver.recv_many(&mut batch, LINES_TOGETHER_MAX) => count,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => 0,
        };
        let overdue = due.is_some_and(|due| due <= Instant::now());
        let ended = count == 0 && !overdue;
        let (mut text, mut lines, mut waiting, mut syncing) = (Vec::new(), 0, Vec::new(), Vec::new());
        for message in batch.drain(..) {
            match message {
                Message::Line(line, done) => {
                    text.extend(line);
                    lines += 1;
                    waiting.push(done);
                }
                Message::Sync(done) => syncing.push(done),
            }
        }
        let sync = overdue || ended || !syncing.is_empty();
        let worked = blocking(files, move |files| {
            if lines > 0 {
                files.append(&text, lines);
            }
            if sync {
                files.sync();
            }
        });
        let Some(back) = worked.await else { return };
        files = back;
        // Nobody may be waiting any more.
        waiting.into_iter().chain(syncing).for_each(|done| _ = done.send(()));
        if ended {
            return;
        }
        due = match (sync, lines) {
            (true, _) => None,
            (false, 0) => due,
            (false, _) => due.or(Some(Instant::now() + Duration::from_millis(files.bounds.sync_delay_ms_max))),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(object: &str) -> Line {
        Line {
            time: "2026-01-01T00:00:00Z".into(),
            server: None,
            principal: "person/x".into(),
            name: Some("alice".into()),
            role: Some(Role::Admin),
            method: "PUT".into(),
            path: "/v1/nodes/n1".into(),
            verb: "update",
            kind: "nodes".into(),
            namespace: String::new(),
            object: object.into(),
            status: 200,
            duration_ms: 1,
            left_out: 0,
        }
    }

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let mut all = Vec::new();
        for number in (0..20).rev() {
            let text = fs::read_to_string(numbered(dir, number)).unwrap_or_default();
            all.extend(text.lines().map(|line| serde_json::from_str(line).unwrap_or(serde_json::Value::Null)));
        }
        all
    }

    #[test]
    fn who_is_refused_again_and_again_has_a_few_lines_and_they_say_how_many_are_left_out() {
        let refused = Refused::default();
        let begun = Instant::now();
        let lines = (0..1_000).filter(|_| refused.line("person/v", true, begun).is_some()).count();
        assert_eq!(lines, REFUSED_LINES_MAX as usize);
        assert_eq!(refused.line("person/w", true, begun), Some(0), "another one has lines");
        assert_eq!(refused.line("person/w", false, begun), Some(0), "and what is done always");
        let later = begun + REFUSED_WINDOW;
        assert_eq!(refused.line("person/v", true, later), Some(1_000 - u64::from(REFUSED_LINES_MAX)));
        assert_eq!(refused.line("person/v", false, later), Some(0), "told once");
        refused.line("person/x", true, later + 2 * REFUSED_WINDOW);
        assert_eq!(refused.0.lock().expect("nobody panics").len(), 1, "the others are forgotten");
    }

    #[tokio::test]
    async fn lines_are_complete_in_order_and_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = &dir.path().join("audit");
        let bounds = Bounds { file_bytes_max: 2_000, files_max: 3, sync_delay_ms_max: 5 };
        let audit = Audit::open(dir, bounds).expect("opened");
        for i in 0..100 {
            audit.log(&line(&i.to_string())).await;
            let last = lines(dir).pop().expect("it is written when the call returns");
            assert_eq!(last["object"], i.to_string());
        }
        audit.sync().await;
        let kept = lines(dir);
        let numbers: Vec<u64> =
            kept.iter().map(|l| l["object"].as_str().expect("a word").parse().expect("a number")).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        assert_eq!(fs::read_dir(dir).expect("read").count(), 3);
        assert!(kept.len() < 40, "the oldest are gone");
    }

    #[tokio::test]
    async fn many_at_once_are_all_there_and_a_cut_line_spoils_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(numbered(dir.path(), 0), "{\"half").expect("written");
        let bounds = Bounds { file_bytes_max: 1 << 20, files_max: 3, sync_delay_ms_max: 5 };
        let audit = Audit::open(dir.path(), bounds).expect("opened");
        let all: Vec<Line> = (0..500).map(|i| line(&i.to_string())).collect();
        futures_util::future::join_all(all.iter().map(|line| audit.log(line))).await;
        let kept = lines(dir.path());
        assert_eq!(kept.len(), 501);
        assert!(kept[0].is_null() && kept[1..].iter().all(|line| line["principal"] == "person/x"));
    }
}
