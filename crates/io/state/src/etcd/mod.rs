//! A store on an etcd v3 cluster. Reads and transactions go to one member at a time; watches of this process share one
//! watch of etcd. No etcd type leaves this module. Needs the whole key space, and a user who may read and write it.

mod channel;
mod convert;
mod errors;
mod feed;
mod grpc;
mod messages;
mod options;
mod tls;
mod watcher;

pub use options::{EtcdOptions, EtcdUser};

use crate::{
    BoxFuture, Error, KeyRange, Limits, Op, RangeRequest, RangeResponse, Result, Revision, Store, Txn, TxnResponse,
    WatchRequest, WatchStream,
};
use bytes::Bytes;
use channel::Channel;
use feed::{AllKeys, Feed, Next};
use grpc::CallError;
use messages as wire;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};
use watcher::Watcher;

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// Bytes that one page of a read should have.
const PAGE_BYTES: usize = 4 << 20;
/// Keys of the first page of a read, and most and fewest of the others.
const PAGE_KEYS_FIRST: usize = 512;
const PAGE_KEYS_MAX: usize = 8_192;
const PAGE_KEYS_MIN: usize = 8;
/// Reads of the present that are begun anew because their revision was compacted meanwhile.
const READ_TRIES_MAX: usize = 8;

/// A store on an etcd cluster. Clones share everything.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    channel: Arc<Channel>,
    feed: Arc<Feed>,
    follows: JoinHandle<()>,
    /// The oldest readable revision, as far as this process knows.
    compacted: AtomicU64,
}

impl Inner {
    fn compacted(&self) -> Revision {
        self.compacted.load(Ordering::Acquire)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follows.abort();
    }
}

/// The newest revision that is committed.
async fn newest(channel: &Channel) -> std::result::Result<Revision, CallError> {
    let request = wire::RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..Default::default() };
    let answer: wire::RangeResponse = channel.read(RANGE, &request).await?;
    Ok(convert::revision(answer.header))
}

/// The oldest revision that can be read; 0 if nothing was compacted. Only a watch of the past is told.
async fn oldest(channel: &Channel) -> Result<Revision> {
    let broken = |error| errors::refused(&channel.names(), error, 0);
    let mut past = AllKeys::open(channel, 1).await.map_err(broken)?;
    let bound = channel.options.read_timeout_ms;
    match timeout(Duration::from_millis(bound), past.next()).await {
        Ok(Ok(Next::Compacted(revision))) => Ok(revision),
        Ok(Ok(Next::Changes(_))) | Err(_) => Ok(0),
        Ok(Err(error)) => Err(broken(error)),
    }
}

impl EtcdStore {
    /// Connects, and checks that the members that can be reached take transactions of the size that is allowed here.
    pub async fn open(options: EtcdOptions) -> Result<Self> {
        let channel = Arc::new(Channel::new(options)?);
        let refused = |error| errors::refused(&channel.names(), error, 0);
        channel.log_in().await.map_err(refused)?;
        let revision = newest(&channel).await.map_err(refused)?;
        check_members(&channel).await?;
        let feed = Arc::new(Feed::new(channel.options.recent_bytes_max, revision));
        let follows = tokio::spawn(Arc::clone(&feed).run(Arc::clone(&channel)));
        Ok(Self { inner: Arc::new(Inner { channel, feed, follows, compacted: AtomicU64::new(0) }) })
    }

    fn channel(&self) -> &Channel {
        &self.inner.channel
    }

    fn own_limits(&self) -> &Limits {
        &self.inner.channel.options.limits
    }

    /// An error of a call that changed nothing.
    async fn explained(&self, error: CallError, requested: Revision) -> Error {
        if errors::is_compacted(&error) {
            return match oldest(self.channel()).await {
                Ok(compact_revision) => errors::compacted(requested, compact_revision),
                Err(error) => error,
            };
        }
        if errors::is_future(&error) {
            return match newest(self.channel()).await {
                Ok(current) => Error::FutureRevision { requested, current },
                Err(error) => self.refused(error),
            };
        }
        self.refused(error)
    }

    fn refused(&self, error: CallError) -> Error {
        errors::refused(&self.channel().names(), error, self.own_limits().txn_ops_max)
    }

    async fn range_now(&self, request: RangeRequest) -> Result<RangeResponse> {
        self.own_limits().check_range(&request.range)?;
        if request.revision == Some(0) {
            // etcd takes it for the present.
            let compact_revision = oldest(self.channel()).await?;
            if compact_revision > 0 {
                return Err(errors::compacted(0, compact_revision));
            }
            let revision = newest(self.channel()).await.map_err(|error| self.refused(error))?;
            return Ok(RangeResponse { revision, ..RangeResponse::default() });
        }
        for _ in 0..READ_TRIES_MAX {
            match self.pages(&request).await {
                // The revision of the first page was compacted before the last one was read.
                Err(error) if errors::is_compacted(&error) && request.revision.is_none() => {}
                Err(error) => return Err(self.explained(error, request.revision.unwrap_or(0)).await),
                Ok(response) => return Ok(response),
            }
        }
        let current = newest(self.channel()).await.map_err(|error| self.refused(error))?;
        Err(errors::compacted(0, current))
    }

    /// Page after page, all at one revision, up to the bounds.
    async fn pages(&self, request: &RangeRequest) -> std::result::Result<RangeResponse, CallError> {
        let limits = self.own_limits();
        let keys_max = request.limit.unwrap_or(usize::MAX).min(limits.range_keys_max);
        let mut out = RangeResponse::default();
        let (mut range, mut at, mut bytes, mut page_keys) =
            (request.range.clone(), request.revision, 0, PAGE_KEYS_FIRST);
        loop {
            let limit = page_keys.min(keys_max - out.kvs.len());
            let page = self.page(&range, at, limit, request.keys_only).await?;
            if out.revision == 0 {
                out.revision = page.revision;
                at = at.or(Some(page.revision));
            }
            for kv in page.kvs {
                if bytes >= limits.range_bytes_max {
                    out.more = true;
                    return Ok(out);
                }
                bytes += kv.bytes();
                out.kvs.push(kv);
            }
            let Some(last) = out.kvs.last().filter(|_| page.more && out.kvs.len() < keys_max) else {
                out.more = page.more;
                return Ok(out);
            };
            range = request.range.after(&last.key);
            page_keys = (PAGE_BYTES * out.kvs.len() / bytes.max(1)).clamp(PAGE_KEYS_MIN, PAGE_KEYS_MAX);
        }
    }

    async fn page(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        limit: usize,
        keys_only: bool,
    ) -> std::result::Result<RangeResponse, CallError> {
        let (key, range_end) = convert::bounds(range);
        let revision = convert::signed(at.unwrap_or(0));
        let asked = convert::asked_limit(limit);
        let request = wire::RangeRequest { key, range_end, limit: asked, revision, keys_only, count_only: false };
        let answer: wire::RangeResponse = self.channel().read(RANGE, &request).await?;
        let (mut kvs, mut more) = (answer.kvs.into_iter().map(convert::key_value).collect(), answer.more);
        convert::cut(&mut kvs, &mut more, limit);
        Ok(RangeResponse { kvs, more, revision: convert::revision(answer.header) })
    }

    async fn txn_now(&self, txn: Txn) -> Result<TxnResponse> {
        let limits = self.own_limits();
        limits.check_txn(&txn)?;
        self.check_deletes(&txn.then).await?;
        self.check_deletes(&txn.else_).await?;
        let request = convert::txn(&txn, limits);
        let names = self.channel().names();
        let only_reads = |ops: &[Op]| ops.iter().all(|op| matches!(op, Op::Range { .. }));
        let answer = if only_reads(&txn.then) && only_reads(&txn.else_) {
            self.channel().read(TXN, &request).await
        } else {
            self.channel().write(TXN, &request).await
        };
        let answer = answer.map_err(|error| errors::unwritten(&names, error, limits.txn_ops_max))?;
        convert::txn_response(answer, &txn, limits)
            .map_err(|error| Error::Ambiguous { endpoints: names, source: Arc::new(error) })
    }

    /// Deletes of ranges can touch any number of keys: they are counted before, in either branch.
    async fn check_deletes(&self, ops: &[Op]) -> Result<()> {
        let ranges = ops.iter().filter_map(|op| match op {
            Op::Delete { range } if !matches!(range, KeyRange::Key(_)) => Some(range),
            _ => None,
        });
        let mut keys = ops.iter().filter(|op| matches!(op, Op::Put { .. })).count();
        for range in ranges {
            let (key, range_end) = convert::bounds(range);
            let request = wire::RangeRequest { key, range_end, count_only: true, ..Default::default() };
            let answer = self.channel().read::<wire::RangeResponse>(RANGE, &request).await;
            let answer = answer.map_err(|error| self.refused(error))?;
            keys += usize::try_from(answer.count).unwrap_or(usize::MAX);
        }
        self.own_limits().check_keys(keys)
    }

    async fn watch_now(&self, request: WatchRequest) -> Result<WatchStream> {
        self.own_limits().check_range(&request.range)?;
        let newest = newest(self.channel()).await.map_err(|error| self.refused(error))?;
        Ok(WatchStream::new(Watcher::new(&self.inner, request, newest)))
    }

    async fn compact_now(&self, revision: Revision) -> Result<()> {
        let request = wire::CompactionRequest { revision: convert::signed(revision) };
        let done = self.channel().read::<wire::CompactionResponse>(COMPACT, &request).await;
        match done {
            Ok(_) => {}
            // It is so already.
            Err(error) if errors::is_compacted(&error) && oldest(self.channel()).await? <= revision => {}
            Err(error) => return Err(self.explained(error, revision).await),
        }
        self.inner.compacted.fetch_max(revision, Ordering::AcqRel);
        Ok(())
    }
}

/// Each member that can be reached must take transactions of the largest size.
async fn check_members(channel: &Channel) -> Result<()> {
    let ops_max = channel.options.limits.txn_ops_max;
    let absent = crate::Compare::absent(Bytes::from_static(b"\0"));
    let largest = Txn::new().when(std::iter::repeat_n(absent, ops_max));
    let request = convert::txn(&largest, &channel.options.limits);
    for at in channel.endpoints() {
        match channel.ask::<wire::TxnResponse>(at, TXN, &request).await {
            Err(error) if errors::is_too_many_ops(&error) => {
                return Err(errors::refused(&at.to_string(), error, ops_max));
            }
            Err(error) => tracing::debug!(endpoint = %at, %error, "an etcd member was not checked"),
            Ok(_) => {}
        }
    }
    Ok(())
}

impl Store for EtcdStore {
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Box::pin(self.range_now(request))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(self.txn_now(txn))
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<WatchStream>> {
        Box::pin(self.watch_now(request))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.compact_now(revision))
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async { newest(self.channel()).await.map_err(|error| self.refused(error)) })
    }

    fn limits(&self) -> &Limits {
        self.own_limits()
    }
}
