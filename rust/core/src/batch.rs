//! A commit batch on its way into the log: the requests, the versions that their events get, and the resulting rows.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::LogError;
use crate::hash::Digest;
use crate::hyper::Entry;
use crate::log_id::LogId;
use crate::proof::Snapshot;
use crate::rows::{self, TILE, TILE_DIGESTS};
use crate::store::{Table, WriteBatch};
use crate::trees::TreesChange;

/// Events that one client wants to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Digests of the events, at least one.
    pub digests: Vec<Digest>,
    /// If true, an event that is already in the log is not added again; its first snapshot is returned instead.
    pub if_absent: bool,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// One snapshot per event, in the order of the request.
    pub snapshots: Vec<Snapshot>,
    /// The versions that the request added; empty if it added nothing.
    pub added: Range<u64>,
}

/// Require that each request contains at least one event.
pub(crate) fn require_events(requests: &[Request]) -> Result<(), LogError> {
    let is_empty = |request: &Request| request.digests.is_empty();
    if requests.iter().any(is_empty) { Err(LogError::EmptyRequest) } else { Ok(()) }
}

/// A commit batch before anything is hashed.
pub(crate) struct Draft {
    pub(crate) base: u64,
    /// The events to add, in the order of their versions.
    pub(crate) digests: Vec<Digest>,
    /// Where the events of each request are.
    pub(crate) placed: Vec<Placed>,
    /// What the hyper tree will show for each of them.
    pub(crate) shown: HashMap<Digest, Shown>,
    /// Occurrences in this batch that an occurrence in a later request of the same batch replaces.
    earlier: Vec<Entry>,
    /// Occurrences of events that occur earlier in the same request.
    repeats: Vec<Entry>,
}

/// The outcome of a request in a draft.
pub(crate) struct Placed {
    /// The version of each event, in the order of the request.
    pub(crate) versions: Vec<u64>,
    /// The versions that were assigned for this request. A request may also be answered with versions that were assigned for another
    /// request of the same batch; those do not count.
    pub(crate) added: Range<u64>,
}

#[derive(Clone, Copy)]
pub(crate) struct Shown {
    /// The version that the hyper tree will show.
    pub(crate) version: u64,
    /// The event's first version in this batch.
    pub(crate) first: u64,
    /// The request that `version` was assigned for.
    request: usize,
}

impl Draft {
    /// Return a draft without events, for a batch that begins at version `base` and adds at most the events of `requests`.
    pub(crate) fn new(base: u64, requests: &[Request]) -> Self {
        let count = requests.iter().map(|request| request.digests.len()).sum();
        Self {
            base,
            digests: Vec::with_capacity(count),
            placed: Vec::with_capacity(requests.len()),
            shown: HashMap::with_capacity(count),
            earlier: Vec::new(),
            repeats: Vec::new(),
        }
    }

    /// Return the entries that the hyper tree is to show, sorted by key.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<_> =
            self.shown.iter().map(|(&key, shown)| Entry { key, version: shown.version }).collect();
        entries.sort_unstable();
        entries
    }

    /// Return the versions of events that occur earlier in the same request, in ascending order.
    pub(crate) fn repeats(&self) -> Vec<u64> {
        self.repeats.iter().map(|repeat| repeat.version).collect()
    }

    /// Return the version after the last one that is assigned.
    pub(crate) const fn end(&self) -> u64 {
        self.base + self.digests.len() as u64
    }

    /// Assign the next version to an event.
    pub(crate) fn assign(&mut self, digest: &Digest, request: usize) -> u64 {
        let version = self.end();
        self.digests.push(*digest);
        match self.shown.get_mut(digest) {
            None => {
                self.shown.insert(*digest, Shown { version, first: version, request });
            }
            Some(shown) if shown.request == request => self.repeats.push(Entry { key: *digest, version }),
            Some(shown) => {
                self.earlier.push(Entry { key: *digest, version: shown.version });
                *shown = Shown { version, request, ..*shown };
            }
        }
        version
    }

    /// Return the rows of the batch, except those of its digests: the hyper root after it, and the occurrences that the hyper tree
    /// does not show.
    pub(crate) fn rows(&self, change: &TreesChange, log_id: Option<LogId>) -> WriteBatch {
        let mut rows = WriteBatch::default();
        let last = self.base + self.digests.len() as u64 - 1;
        rows.put(Table::Roots, last.to_be_bytes(), rows::root_row(&change.hyper_root(), log_id));
        for hidden in change.replaced().iter().chain(&self.earlier).chain(&self.repeats) {
            rows.put(Table::Occurrences, rows::occurrence_key(&hidden.key, hidden.version), []);
        }
        for repeat in &self.repeats {
            rows.put(Table::Repeats, repeat.version.to_be_bytes(), []);
        }
        rows
    }

    /// Return the snapshots of the added events, in the order of their versions.
    pub(crate) fn snapshots(&self, change: &TreesChange) -> Vec<Snapshot> {
        let roots = change.history_roots();
        assert_eq!(self.digests.len(), roots.len(), "the plan has a root for each event");
        let events = (self.base..).zip(self.digests.iter().zip(roots));
        let snapshot = |(version, (event, root)): (u64, (&Digest, &Digest))| Snapshot {
            event_digest: *event,
            history_digest: *root,
            hyper_digest: change.hyper_root(),
            version,
        };
        events.map(snapshot).collect()
    }
}

/// Add the rows of `digests`. The first of them is version `base`, and follows `tail` in its tile. Return the digests of the last
/// tile if it is not full.
pub(crate) fn put_digests(rows: &mut WriteBatch, base: u64, tail: &[Digest], digests: &[Digest]) -> Vec<Digest> {
    let digests: Vec<_> = tail.iter().chain(digests).copied().collect();
    let tiles = digests.chunks(TILE_DIGESTS);
    for (tile, digests) in (base / TILE..).zip(tiles.clone()) {
        let row = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect::<Vec<_>>().concat();
        rows.put(Table::Digests, tile.to_be_bytes(), row);
    }
    tiles.last().filter(|last| last.len() < TILE_DIGESTS).unwrap_or_default().to_vec()
}
