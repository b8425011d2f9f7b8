//! A whole store in one file, as of one revision, and back; and from one store to another. What is read back is
//! compared. Knows rows as bytes only, and no directory layout of any backend.

mod file;

use crate::{
    Error, KeyRange, KeyValue, Op, RangeRequest, Result, Revision, Store, StoreExt, Txn,
    backup::file::{Encoder, Reader},
    migration::{self, MARK_KEY},
};
use bytes::Bytes;
use std::{collections::VecDeque, fmt, path::Path, sync::Arc};
use tokio::task::JoinSet;

pub use file::Receiver;

/// Bytes of rows that one transaction of a restore carries, if the store takes so many.
const CHUNK_BYTES: usize = 512 << 10;
/// Rows that are read at once.
const PAGE_ROWS: usize = 1_000;
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

/// All rows of a store at one revision, but for the mark of a migration.
struct Rows {
    request: RangeRequest,
    revision: Revision,
    page: VecDeque<KeyValue>,
    ended: bool,
}

impl Rows {
    async fn of(store: &dyn Store) -> Result<Self> {
        let revision = store.current_revision().await?;
        let request = RangeRequest::new(KeyRange::all()).at(revision).limit(PAGE_ROWS);
        Ok(Self { request, revision, page: VecDeque::new(), ended: false })
    }

    /// The next row; none at the end.
    async fn next(&mut self, store: &dyn Store) -> Result<Option<KeyValue>> {
        loop {
            match self.page.pop_front() {
                Some(row) if row.key == MARK_KEY => {}
                Some(row) => return Ok(Some(row)),
                None if self.ended => return Ok(None),
                None => {
                    let page = store.range(self.request.clone()).await?;
                    self.ended = !page.more;
                    if let Some(last) = page.kvs.last() {
                        self.request.range = self.request.range.after(&last.key);
                    }
                    self.page = page.kvs.into();
                }
            }
        }
    }
}

/// A backup that is made while it is taken, as of the revision at which it began. Others may use the store meanwhile.
pub struct Export {
    store: Arc<dyn Store>,
    rows: Rows,
    /// None after the end.
    encoder: Option<Encoder>,
    /// What was encoded and not yet taken.
    bytes: Vec<u8>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("revision", &self.rows.revision).finish_non_exhaustive()
    }
}

impl Export {
    /// Begins. A store that does not count, since its state is elsewhere, is refused.
    pub async fn begin(store: Arc<dyn Store>) -> Result<Self> {
        migration::check(&*store).await?;
        let (rows, mut bytes) = (Rows::of(&*store).await?, Vec::new());
        let encoder = Some(Encoder::begin(rows.revision, &mut bytes));
        Ok(Self { store, rows, encoder, bytes })
    }

    /// The next bytes, some hundred KiB; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.bytes.len() < CHUNK_BYTES {
            let Some(encoder) = &mut self.encoder else { break };
            match self.rows.next(&*self.store).await? {
                Some(kv) => encoder.row(&kv.key, &kv.value, &mut self.bytes)?,
                None => {
                    if let Some(encoder) = self.encoder.take() {
                        encoder.end(&mut self.bytes);
                    }
                }
            }
        }
        Ok((!self.bytes.is_empty()).then(|| std::mem::take(&mut self.bytes).into()))
    }
}

/// Writes everything to `file`, as it is at one revision. The file is there whole or not at all.
pub async fn backup(store: Arc<dyn Store>, file: &Path) -> Result<Saved> {
    let mut export = Export::begin(store).await?;
    let mut receiver = Receiver::create(file)?;
    while let Some(chunk) = export.next().await? {
        receiver.chunk(&chunk)?;
    }
    receiver.finish()
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

/// Writes a backup into a store that nobody else uses meanwhile, and compares what is then there with the file. Until that is
/// done the store is marked, so that half of a backup is never taken for the state.
pub async fn restore(store: &Arc<dyn Store>, file: &Path, target: Target) -> Result<Saved> {
    // Nothing is touched for a file that is not whole.
    verify(file)?;
    if target == Target::Empty {
        migration::check_not_left(&**store).await?;
    }
    let place = format!("the backup {}", file.display());
    let (target, arriving) = migration::arrive(&**store, "restore", &place, target).await?;
    clear(&**store, target).await?;
    let mut reader = Reader::open(file)?;
    let mut loader = Loader { store: &**store, ops: Vec::new(), bytes: 0 };
    while let Some((key, value)) = reader.row()? {
        loader.row(key, value).await?;
    }
    loader.flush().await?;
    move_on(store, reader.saved().revision).await?;
    let saved = compare_with_file(&**store, file).await?;
    migration::store_counts(&**store, arriving).await?;
    Ok(saved)
}

/// Copies everything from one store to another, which nobody else uses meanwhile, and compares what is then there.
pub async fn copy(from: &dyn Store, to: &Arc<dyn Store>, target: Target) -> Result<Saved> {
    clear(&**to, target).await?;
    let mut rows = Rows::of(from).await?;
    let revision = rows.revision;
    let mut loader = Loader { store: &**to, ops: Vec::new(), bytes: 0 };
    while let Some(kv) = rows.next(from).await? {
        loader.row(kv.key, kv.value).await?;
    }
    loader.flush().await?;
    move_on(to, revision).await?;
    if from.current_revision().await? != revision {
        return Err(Error::Restore { reason: "the store that was copied was changed meanwhile; stop its servers" });
    }
    let (mut left, mut right) = (Rows::of(from).await?, Rows::of(&**to).await?);
    let mut saved = Saved { revision, rows: 0, bytes: 0 };
    loop {
        match (left.next(from).await?, right.next(&**to).await?) {
            (None, None) => return Ok(saved),
            (Some(a), Some(b)) if a.key == b.key && a.value == b.value => {
                saved.rows += 1;
                saved.bytes += a.bytes() as u64;
            }
            _ => return Err(Error::Restore { reason: "what was written is not what was read; try it again" }),
        }
    }
}

async fn clear(store: &dyn Store, target: Target) -> Result<()> {
    loop {
        let mut rows = store.range(RangeRequest::new(KeyRange::all()).keys_only().limit(CHUNK_ROWS)).await?.kvs;
        rows.retain(|kv| kv.key != MARK_KEY);
        if rows.is_empty() {
            return Ok(());
        }
        if target == Target::Empty {
            return Err(Error::Restore { reason: "the store has rows; only an empty one is written without --force" });
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
    let (mut reader, mut rows) = (Reader::open(file)?, Rows::of(store).await?);
    while let Some(kv) = rows.next(store).await? {
        let expected = reader.row()?;
        if expected.is_none_or(|(key, value)| key != kv.key || value != kv.value) {
            return Err(DIFFERENT);
        }
    }
    match reader.row()? {
        None => Ok(reader.saved()),
        Some(_) => Err(DIFFERENT),
    }
}
