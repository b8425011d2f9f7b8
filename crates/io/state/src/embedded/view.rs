//! One immutable, durable state of the store: all reads of one request come from the same one.
//! Never sees what is not flushed, and never writes.

use super::{
    merge::{Item, merge},
    rows::{self, LogEntry, Span},
};
use crate::{
    Error, Event, EventKind, FIRST_REVISION, KeyRange, KeyValue, Limits, RangeRequest, RangeResponse, Result, Revision,
    ring::Changes,
};
use bytes::Bytes;
use fjall::{Keyspace, Readable, Snapshot};
use std::sync::Arc;

pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) rows: Keyspace,
    pub(super) revision: Revision,
    pub(super) compact_revision: Revision,
}

impl View {
    /// The current state of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<KeyValue>> {
        let row_key = rows::current_key(key);
        let row = self.row(&row_key, "a key")?;
        row.map(|row| rows::decode_current(&row_key, &row)).transpose()
    }

    pub(super) fn number(&self, name: &[u8]) -> Result<Option<u64>> {
        self.row(name, "a number about the store")?.map(|row| rows::decode_number(&row)).transpose()
    }

    fn row(&self, row_key: &[u8], subject: &'static str) -> Result<Option<fjall::UserValue>> {
        self.snapshot.get(&self.rows, row_key).map_err(|error| read_error(subject, error))
    }

    fn scan(&self, (start, end): Span) -> impl Iterator<Item = Result<fjall::KvPair>> + use<> {
        let span = if start < end { start..end } else { end.clone()..end };
        self.snapshot.range(&self.rows, span).map(|row| row.into_inner().map_err(|error| read_error("a range", error)))
    }

    /// The existing keys of a range, now, in byte order.
    pub(super) fn current(&self, range: &KeyRange) -> impl Iterator<Item = Item> + use<> {
        self.scan(rows::current_span(range)).map(|row| {
            let (row_key, row) = row?;
            let kv = rows::decode_current(&row_key, &row)?;
            Ok((kv.key.clone(), Some(kv)))
        })
    }

    /// Superseded states that were the current ones at a revision, in byte order of their keys.
    fn superseded(&self, range: &KeyRange, at: Revision) -> impl Iterator<Item = Item> + use<> {
        self.scan(rows::history_span(range)).filter_map(move |row| {
            let decoded = row.and_then(|(row_key, row)| rows::decode_history(&row_key, &row));
            match decoded {
                Ok((kv, end)) if kv.mod_revision <= at && at < end => Some(Ok((kv.key.clone(), Some(kv)))),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            }
        })
    }

    pub(super) fn check_revision(&self, requested: Option<Revision>) -> Result<Revision> {
        let requested = requested.unwrap_or(self.revision);
        if requested > self.revision {
            return Err(Error::FutureRevision { requested, current: self.revision });
        }
        if requested < self.compact_revision {
            return Err(Error::Compacted { requested, compact_revision: self.compact_revision });
        }
        Ok(requested)
    }

    pub(super) fn range(&self, request: &RangeRequest, limits: &Limits) -> Result<RangeResponse> {
        let at = self.check_revision(request.revision)?;
        let mut page = Page::new(request.limit, request.keys_only, limits);
        if at == self.revision {
            match &request.range {
                KeyRange::Key(key) => page.fill(self.get(key)?.map(Ok).into_iter())?,
                range => page.fill(merge(self.current(range), std::iter::empty()))?,
            }
        } else {
            let current = self.current(&request.range).filter(move |item| match item {
                Ok((_, Some(kv))) => kv.mod_revision <= at,
                _ => true,
            });
            page.fill(merge(current, self.superseded(&request.range, at)))?;
        }
        Ok(page.response(self.revision))
    }

    /// The logs of the revisions from `from` on, oldest first. Every revision has one.
    pub(super) fn logs(&self, from: Revision) -> impl Iterator<Item = Result<(Revision, Vec<LogEntry>)>> + use<> {
        let mut expected = from.max(FIRST_REVISION + 1);
        let end = self.revision.saturating_add(1).max(expected);
        self.scan((rows::log_key(expected).to_vec(), rows::log_key(end).to_vec())).map(move |row| {
            let (row_key, row) = row?;
            let (revision, entries) = rows::decode_log(&row_key, &row)?;
            if revision != expected {
                return Err(Error::Corrupt { subject: "the log of changes", reason: "a revision is missing" });
            }
            expected += 1;
            Ok((revision, entries))
        })
    }

    /// Changes of watched keys from `from` on, with what was there before, until `bytes_max` are read or
    /// `revisions_max` were looked at; and the last revision that was looked at.
    pub(super) fn changes(
        &self,
        range: &KeyRange,
        from: Revision,
        bytes_max: usize,
        revisions_max: usize,
    ) -> Result<(Vec<Changes>, Revision)> {
        let mut found = Vec::new();
        let (mut bytes, mut through) = (0, self.revision);
        for (count, log) in self.logs(from).enumerate() {
            let (revision, entries) = log?;
            let entries = entries.into_iter().filter(|entry| range.contains(&entry.key));
            let events: Vec<Event> = entries.map(|entry| self.event(entry, revision)).collect::<Result<_>>()?;
            if !events.is_empty() {
                let changes = Changes { revision, events };
                bytes += changes.bytes();
                found.push(changes);
            }
            if bytes >= bytes_max || count + 1 >= revisions_max {
                through = revision;
                break;
            }
        }
        Ok((found, through))
    }

    fn event(&self, entry: LogEntry, revision: Revision) -> Result<Event> {
        let value = match entry.kind {
            EventKind::Put => self.state_of(&entry.key, revision)?.ok_or(LOST_STATE)?.value,
            EventKind::Delete => Bytes::new(),
        };
        let prev_kv = match entry.prev_revision {
            0 => None,
            prev_revision => self.history(&entry.key, prev_revision)?,
        };
        let kv = KeyValue {
            key: entry.key,
            value,
            create_revision: entry.create_revision,
            mod_revision: revision,
            version: entry.version,
        };
        Ok(Event { kind: entry.kind, kv, prev_kv })
    }

    /// The state that a revision gave to a key.
    fn state_of(&self, key: &[u8], revision: Revision) -> Result<Option<KeyValue>> {
        match self.get(key)? {
            Some(kv) if kv.mod_revision == revision => Ok(Some(kv)),
            _ => self.history(key, revision),
        }
    }

    fn history(&self, key: &[u8], revision: Revision) -> Result<Option<KeyValue>> {
        let row_key = rows::history_key(key, revision);
        let row = self.row(&row_key, "a superseded state")?;
        row.map(|row| rows::decode_history(&row_key, &row).map(|(kv, _)| kv)).transpose()
    }
}

const LOST_STATE: Error =
    Error::Corrupt { subject: "a key's state", reason: "the log of changes names it but it is not there" };

pub(super) fn read_error(subject: &'static str, error: fjall::Error) -> Error {
    Error::Read { subject, source: Arc::new(error) }
}

/// A range response that is being filled up to its limits.
pub(super) struct Page {
    response: RangeResponse,
    keys_max: usize,
    bytes_max: usize,
    bytes: usize,
    keys_only: bool,
}

impl Page {
    pub(super) fn new(limit: Option<usize>, keys_only: bool, limits: &Limits) -> Self {
        let keys_max = limit.unwrap_or(usize::MAX).min(limits.range_keys_max);
        let response = RangeResponse::default();
        Self { response, keys_max, bytes_max: limits.range_bytes_max, bytes: 0, keys_only }
    }

    pub(super) fn fill(&mut self, kvs: impl Iterator<Item = Result<KeyValue>>) -> Result<()> {
        for kv in kvs {
            let mut kv = kv?;
            if self.response.kvs.len() >= self.keys_max || self.bytes >= self.bytes_max {
                self.response.more = true;
                break;
            }
            self.bytes += kv.bytes();
            if self.keys_only {
                kv.value.clear();
            }
            self.response.kvs.push(kv);
        }
        Ok(())
    }

    pub(super) fn response(mut self, revision: Revision) -> RangeResponse {
        self.response.revision = revision;
        self.response
    }
}
