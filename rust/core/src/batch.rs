//! A commit batch on its way into the log: the requests, the versions they are given, and the rows that result.

use std::collections::HashMap;

use crate::error::LogError;
use crate::hash::Digest;
use crate::hyper::Entry;
use crate::log_id::LogId;
use crate::proof::Snapshot;
use crate::rows::{self, TILE, TILE_DIGESTS};
use crate::store::{Table, WriteBatch};
use crate::trees::TreesChange;

/// Events that one client asked to have appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Digests of the events, at least one.
    pub digests: Vec<Digest>,
    /// Whether an event that is already in the log is answered with its first snapshot instead of being added again.
    pub if_absent: bool,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// One snapshot an event, in the order asked.
    pub snapshots: Vec<Snapshot>,
    /// Whether the request added anything.
    pub is_new: bool,
}

/// Require that each request names an event.
pub(crate) fn require_events(requests: &[Request]) -> Result<(), LogError> {
    let is_empty = |request: &Request| request.digests.is_empty();
    if requests.iter().any(is_empty) { Err(LogError::EmptyRequest) } else { Ok(()) }
}

/// A commit batch before anything is hashed.
pub(crate) struct Draft {
    pub(crate) base: u64,
    /// The events that are added, in the order of their versions.
    pub(crate) digests: Vec<Digest>,
    /// Where the events of each request are.
    pub(crate) placed: Vec<Placed>,
    /// What the hyper tree will show.
    pub(crate) shown: HashMap<Digest, Shown>,
    /// Occurrences in this batch that a later request of it replaces.
    earlier: Vec<Entry>,
    /// Occurrences of events that stand again in one request.
    repeats: Vec<Entry>,
}

/// The outcome of a request in a draft.
pub(crate) struct Placed {
    /// The version of each event, in the order asked.
    pub(crate) versions: Vec<u64>,
    /// Whether any of them was given to this request: others of the batch may be the answer to it, and are not its own.
    pub(crate) is_new: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Shown {
    /// The version that the hyper tree will show.
    pub(crate) version: u64,
    /// The first version in this batch.
    pub(crate) first: u64,
    /// The request that `version` was given to.
    request: usize,
}

impl Draft {
    /// Return a draft without events, of a batch that begins at version `base` and holds at most those of `requests`.
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

    /// Return what the hyper tree is to show, in the order of keys.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<_> =
            self.shown.iter().map(|(&key, shown)| Entry { key, version: shown.version }).collect();
        entries.sort_unstable();
        entries
    }

    /// Give an event the next version.
    pub(crate) fn assign(&mut self, digest: &Digest, request: usize) -> u64 {
        let version = self.base + self.digests.len() as u64;
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

    /// Return the rows of the batch but for those of its digests: the hyper root after it, and what the hyper tree does not show.
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

    /// Return the snapshots of the events that are added, in the order of their versions.
    pub(crate) fn snapshots(&self, change: &TreesChange) -> Vec<Snapshot> {
        let roots = change.history_roots();
        assert_eq!(self.digests.len(), roots.len(), "each event was planned with its root");
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

/// Put the rows of `digests`, the first of which is version `base` and follows those in `tail` in its tile. Return the digests of
/// the tile that is left unfinished.
pub(crate) fn put_digests(rows: &mut WriteBatch, base: u64, tail: &[Digest], digests: &[Digest]) -> Vec<Digest> {
    let digests: Vec<_> = tail.iter().chain(digests).copied().collect();
    let tiles = digests.chunks(TILE_DIGESTS);
    for (tile, digests) in (base / TILE..).zip(tiles.clone()) {
        let row = digests.iter().map(|digest| digest.as_bytes().as_slice()).collect::<Vec<_>>().concat();
        rows.put(Table::Digests, tile.to_be_bytes(), row);
    }
    tiles.last().filter(|last| last.len() < TILE_DIGESTS).unwrap_or_default().to_vec()
}
