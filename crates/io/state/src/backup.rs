//! A whole store in one file, as of one revision, and back; and from one store to another. What is read back is
//! compared. Knows rows as bytes only, and no directory layout of any backend.

mod file;

use crate::{
    Error, KeyRange, KeyValue, Op, RangeRequest, Result, Revision, Store, StoreExt, Txn,
    backup::file::{Reader, Writer},
};
use bytes::Bytes;
use std::{path::Path, sync::Arc};
use tokio::task::JoinSet;

/// Bytes of rows that one transaction of a restore carries, if the store takes so many.
const CHUNK_BYTES: usize = 512 << 10;
/// Rows that one transaction of a restore carries, if the store takes so many.
const CHUNK_ROWS: usize = 128;
/// Transactions at once that move the restored store on to the revision of the other one.
const STEPS_AT_ONCE: usize = 64;
/// The key that these change; it is deleted at the end.
const STEP_KEY: &str = "/restoring";

/// What was saved, restored or copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The revision of the store that was read.
    pub revision: Revision,
    /// How many rows there are.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// Into what is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The store must have no row.
    Empty,
    /// All rows that are there are deleted first.
    Replaced,
}

/// All rows of a store at one revision, page by page.
struct Pages<'a> {
    store: &'a dyn Store,
    request: RangeRequest,
    revision: Revision,
    ended: bool,
}

impl<'a> Pages<'a> {
    async fn of(store: &'a dyn Store) -> Result<Self> {
        let revision = store.current_revision().await?;
        let request = RangeRequest::new(KeyRange::all()).at(revision).limit(1_000);
        Ok(Self { store, request, revision, ended: false })
    }

    /// The next rows; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<KeyValue>>> {
        if self.ended {
            return Ok(None);
        }
        let page = self.store.range(self.request.clone()).await?;
        self.ended = !page.more;
        if let Some(last) = page.kvs.last() {
            self.request.range = self.request.range.after(&last.key);
        }
        Ok(Some(page.kvs))
    }
}

/// Writes everything to `file`, as it is at one revision. The file is there whole or not at all.
pub async fn backup(store: &dyn Store, file: &Path) -> Result<Saved> {
    let mut pages = Pages::of(store).await?;
    let mut writer = Writer::create(file, pages.revision)?;
    while let Some(rows) = pages.next().await? {
        for kv in rows {
            writer.row(&kv.key, &kv.value)?;
        }
    }
    writer.finish()
}

/// Reads a backup whole and says what is in it; a file that was cut or changed is refused.
pub fn verify(file: &Path) -> Result<Saved> {
    let mut reader = Reader::open(file)?;
    while reader.row()?.is_some() {}
    Ok(reader.saved())
}

/// Rows that are put many at a time.
struct Loader<'a> {
    store: &'a dyn Store,
    ops: Vec<Op>,
    bytes: usize,
}

impl Loader<'_> {
    async fn row(&mut self, key: Bytes, value: Bytes) -> Result<()> {
        let limits = self.store.limits();
        let (bytes, ops_max) = (key.len() + value.len(), CHUNK_ROWS.min(limits.txn_ops_max));
        let bytes_max = CHUNK_BYTES.min(limits.txn_bytes_max);
        if !self.ops.is_empty() && (self.bytes + bytes > bytes_max || self.ops.len() >= ops_max) {
            self.flush().await?;
        }
        self.bytes += bytes;
        self.ops.push(Op::put(key, value));
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.bytes = 0;
        let ops = std::mem::take(&mut self.ops);
        if ops.is_empty() { Ok(()) } else { self.store.txn(Txn::new().then(ops)).await.map(|_| ()) }
    }
}

/// Writes a backup into a store that nobody else uses meanwhile, and compares what is then there with the file.
pub async fn restore(store: &Arc<dyn Store>, file: &Path, target: Target) -> Result<Saved> {
    // Nothing is touched for a file that is not whole.
    verify(file)?;
    clear(&**store, target).await?;
    let mut reader = Reader::open(file)?;
    let mut loader = Loader { store: &**store, ops: Vec::new(), bytes: 0 };
    while let Some((key, value)) = reader.row()? {
        loader.row(key, value).await?;
    }
    loader.flush().await?;
    move_on(store, reader.saved().revision).await?;
    compare_with_file(&**store, file).await
}

/// Copies everything from one store to another, which nobody else uses meanwhile, and compares what is then there.
pub async fn copy(from: &dyn Store, to: &Arc<dyn Store>, target: Target) -> Result<Saved> {
    clear(&**to, target).await?;
    let mut pages = Pages::of(from).await?;
    let revision = pages.revision;
    let mut loader = Loader { store: &**to, ops: Vec::new(), bytes: 0 };
    while let Some(rows) = pages.next().await? {
        for kv in rows {
            loader.row(kv.key, kv.value).await?;
        }
    }
    loader.flush().await?;
    move_on(to, revision).await?;
    if from.current_revision().await? != revision {
        return Err(Error::Restore { reason: "the store that was copied was changed meanwhile; stop its servers" });
    }
    let (mut left, mut right) = (Pages::of(from).await?, Pages::of(&**to).await?);
    let mut saved = Saved { revision, rows: 0, bytes: 0 };
    loop {
        match (left.next().await?, right.next().await?) {
            (None, None) => return Ok(saved),
            (Some(a), Some(b)) if same(&a, &b) => {
                saved.rows += a.len() as u64;
                saved.bytes += a.iter().map(|kv| kv.bytes() as u64).sum::<u64>();
            }
            _ => return Err(Error::Restore { reason: "what was written is not what was read; try it again" }),
        }
    }
}

fn same(a: &[KeyValue], b: &[KeyValue]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && a.value == b.value)
}

async fn clear(store: &dyn Store, target: Target) -> Result<()> {
    loop {
        let rows = store.range(RangeRequest::new(KeyRange::all()).keys_only().limit(CHUNK_ROWS)).await?.kvs;
        if rows.is_empty() {
            return Ok(());
        }
        if target == Target::Empty {
            return Err(Error::Restore { reason: "the store has rows; only an empty one is written without force" });
        }
        let ops_max = store.limits().txn_ops_max;
        store.txn(Txn::new().then(rows.into_iter().take(ops_max).map(|kv| Op::delete(kv.key)))).await?;
    }
}

/// Clients resume their watches behind the newest revision that they saw: the store must stand beyond it, or they would
/// wait for, and miss, what happens before.
async fn move_on(store: &Arc<dyn Store>, revision: Revision) -> Result<()> {
    let left = (revision + 1).saturating_sub(store.current_revision().await?);
    let mut steps = JoinSet::new();
    for step in 0..left {
        if steps.len() >= STEPS_AT_ONCE {
            stepped(steps.join_next().await)?;
        }
        let store = Arc::clone(store);
        steps.spawn(async move { store.put(STEP_KEY, step.to_string()).await });
    }
    while let Some(done) = steps.join_next().await {
        stepped(Some(done))?;
    }
    store.delete(STEP_KEY).await.map(|_| ())
}

fn stepped(done: Option<std::result::Result<Result<Revision>, tokio::task::JoinError>>) -> Result<()> {
    match done {
        Some(Ok(done)) => done.map(|_| ()),
        Some(Err(_)) => Err(Error::Closed),
        None => Ok(()),
    }
}

async fn compare_with_file(store: &dyn Store, file: &Path) -> Result<Saved> {
    const DIFFERENT: Error = Error::Restore { reason: "what was written is not what the backup has; try it again" };
    let (mut reader, mut pages) = (Reader::open(file)?, Pages::of(store).await?);
    while let Some(rows) = pages.next().await? {
        for kv in rows {
            let expected = reader.row()?;
            if expected.is_none_or(|(key, value)| key != kv.key || value != kv.value) {
                return Err(DIFFERENT);
            }
        }
    }
    match reader.row()? {
        None => Ok(reader.saved()),
        Some(_) => Err(DIFFERENT),
    }
}
