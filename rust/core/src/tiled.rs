//! A log as a transparency log: the entries about its versions, the tree over them, and its tiles.
//!
//! Entries follow from the rows of the log and from the history tree, so only the hashes of full tiles are stored, 32 bytes for 256
//! entries: computing one takes as long as adding 256 events, because the end of each commit batch has a history root.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::Digest;
use crate::history::{HistoryTree, Roots};
use crate::integers::usize_from;
use crate::log::Log;
use crate::proof::Malformed;
use crate::rows::{self, Rows};
use crate::store::{Store, Table, WriteBatch};
use crate::tlog::entry::{BatchEnd, Entry, entries_of};
use crate::tlog::entry_tree::{EntryTree, KEPT_LEVEL};
use crate::tlog::merkle::{self, ProveError, Subtrees, TreeHead, root_of};
use crate::tlog::tile::{Content, FULL_WIDTH, TilePath, bundle_to_bytes, tile_to_bytes};

/// Number of entries below a full tile.
pub(crate) const TILE_ENTRIES: u64 = FULL_WIDTH as u64;

/// Number of full tiles of leaves that are kept once they were computed, 8 KiB each.
const CACHED_TILES: usize = 512;

/// Levels of the tree between two levels of tiles.
const TILE_LEVELS: u32 = KEPT_LEVEL;

impl Log {
    /// Return the head of the tree over all entries. The last one is always the end of a commit batch.
    ///
    /// # Errors
    ///
    /// [`LogError::Bug`] if the log has more entries than a tree may have.
    pub fn tree_head(&self) -> Result<TreeHead, LogError> {
        let trees = self.trees.read();
        head(trees.entries().size(), trees.entries().root())
    }

    /// Return the head that the tree had with `size` entries.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if there are fewer; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn tree_head_at(&self, size: u64) -> Result<TreeHead, LogError> {
        self.require_size(size)?;
        head(size, merkle::root_at(self, size).map_err(source_error)?)
    }

    /// Return the file that `path` names.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if the tree does not have it yet; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be
    /// read.
    pub fn tile(&self, path: &TilePath) -> Result<Vec<u8>, LogError> {
        let len = self.len();
        if !path.is_in(len) {
            return Err(LogError::UnknownVersion { asked: path.last_entry(), len });
        }
        let first = path.index() * TILE_ENTRIES;
        let range = first..first + u64::from(path.width());
        match path.content() {
            Content::Entries => {
                let entries: Vec<_> = self.entries(range)?.iter().map(Entry::to_bytes).collect();
                bundle_to_bytes(&entries).map_err(impossible)
            }
            Content::Hashes(0) => {
                let leaves = self.leaves(path.index())?;
                let leaves = leaves.get(..usize::from(path.width()));
                leaves.map(tile_to_bytes).ok_or_else(|| lacks(path))
            }
            Content::Hashes(level) => {
                let trees = self.trees.read();
                let nodes = trees.entries().level(u32::from(level) * TILE_LEVELS);
                nodes.get(usize_from(range.start)..usize_from(range.end)).map(tile_to_bytes).ok_or_else(|| lacks(path))
            }
        }
    }

    /// Return the entries of a range of versions. It may span any number of tiles.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if the range ends after the log; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be
    /// read.
    pub fn entries(&self, range: Range<u64>) -> Result<Vec<Entry>, LogError> {
        self.require_size(range.end)?;
        // The history tree is known only where a tile begins.
        let first = range.start / TILE_ENTRIES * TILE_ENTRIES;
        let history = self.trees.read().history().edge_at(first)?;
        let rows = Rows::of(self.store.as_ref());
        let digests: Vec<_> = (first..range.end).map(|version| rows.digest(version)).collect::<Result<_, _>>()?;
        let ends = self.batch_ends(first..range.end, &history, &digests)?;
        let repeats = repeats_in(self.store.as_ref(), first..range.end)?;
        Ok(entries_of(first, &digests, &repeats, &ends).skip(usize_from(range.start - first)).collect())
    }

    fn batch_ends(
        &self,
        range: Range<u64>,
        history: &HistoryTree,
        digests: &[Digest],
    ) -> Result<Vec<(u64, BatchEnd)>, LogError> {
        Ok(with_history(history, digests, &hyper_roots_in(self.store.as_ref(), range)?))
    }

    /// Return the hashes of the entries below tile `index`, as far as they exist.
    fn leaves(&self, index: u64) -> Result<Arc<[Digest]>, LogError> {
        if let Some(leaves) = self.leaf_cache.get(index) {
            return Ok(leaves);
        }
        let first = index * TILE_ENTRIES;
        let to = (first + TILE_ENTRIES).min(self.len());
        let leaves: Arc<[Digest]> = self.entries(first..to)?.iter().map(Entry::leaf).collect();
        if leaves.len() == usize::from(FULL_WIDTH) {
            self.leaf_cache.put(index, Arc::clone(&leaves));
        }
        Ok(leaves)
    }

    fn require_size(&self, size: u64) -> Result<(), LogError> {
        let len = self.len();
        if size <= len { Ok(()) } else { Err(LogError::UnknownVersion { asked: size.saturating_sub(1), len }) }
    }
}

/// A log is where all proofs about its entries come from.
impl Subtrees for Log {
    type Error = LogError;

    fn subtree(&self, level: u32, index: u64) -> Result<Digest, LogError> {
        let missing = || LogError::Corrupt(format!("the tree over the entries lacks node {index} of level {level}"));
        if level >= KEPT_LEVEL {
            return self.trees.read().entries().level(level).get(usize_from(index)).copied().ok_or_else(missing);
        }
        let count = 1_u64 << level;
        let first = index.checked_mul(count).ok_or_else(missing)?;
        let start = usize_from(first % TILE_ENTRIES);
        let end = start + usize_from(count);
        let leaves = self.leaves(first / TILE_ENTRIES)?;
        leaves.get(start..end).map(root_of).ok_or_else(missing)
    }
}

/// The leaves of full tiles that were computed lately.
#[derive(Debug)]
pub(crate) struct LeafCache(Vec<Mutex<Option<CachedLeaves>>>);

/// The number of a tile, and the hashes of its entries.
type CachedLeaves = (u64, Arc<[Digest]>);

impl LeafCache {
    fn slot(&self, index: u64) -> Option<&Mutex<Option<CachedLeaves>>> {
        self.0.get(usize_from(index) % CACHED_TILES)
    }

    fn get(&self, index: u64) -> Option<Arc<[Digest]>> {
        let cached = self.slot(index)?.lock();
        cached.as_ref().filter(|(found, _)| *found == index).map(|(_, leaves)| Arc::clone(leaves))
    }

    fn put(&self, index: u64, leaves: Arc<[Digest]>) {
        if let Some(slot) = self.slot(index) {
            *slot.lock() = Some((index, leaves));
        }
    }
}

impl Default for LeafCache {
    fn default() -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(CACHED_TILES).collect())
    }
}

/// Return the tree over the entries of a log, and the rows of those full tiles that were not stored: all of them in a folder that an
/// earlier build wrote.
///
/// # Errors
///
/// [`LogError::Corrupt`] if rows are missing or malformed; [`LogError::Store`] if one cannot be read.
pub(crate) fn build(
    store: &dyn Store,
    history: &HistoryTree,
    digests: &[Digest],
    repeats: &[u64],
) -> Result<(EntryTree, WriteBatch), LogError> {
    let (len, mut tiles) = (digests.len() as u64, stored_tiles(store)?);
    let (stored, full) = (tiles.len() as u64, len / TILE_ENTRIES);
    if stored > full {
        return Err(LogError::Corrupt(format!("it holds {len} events, but the hashes of {stored} full tiles")));
    }
    let ends = hyper_roots_in(store, stored * TILE_ENTRIES..len)?;
    let leaves = |tile: u64| {
        let range = tile * TILE_ENTRIES..((tile + 1) * TILE_ENTRIES).min(len);
        let digests = digests.get(usize_from(range.start)..usize_from(range.end)).unwrap_or_default();
        let ends = within(&ends, &range, |(version, _)| *version);
        let ends = with_history(&history.edge_at(range.start)?, digests, ends);
        let repeats = within(repeats, &range, |version| *version);
        Ok(entries_of(range.start, digests, repeats, &ends).map(|entry| entry.leaf()).collect::<Vec<_>>())
    };
    let computed = (stored..full).into_par_iter().map(|tile| leaves(tile).map(|leaves| root_of(&leaves)));
    let computed: Vec<_> = computed.collect::<Result<_, LogError>>()?;
    let mut rows = WriteBatch::default();
    put_tiles(&mut rows, stored, &computed);
    tiles.extend(computed);
    let mut tree = EntryTree::of_tiles(tiles);
    let change = tree.plan(&leaves(full)?);
    tree.apply(change);
    Ok((tree, rows))
}

/// Add the rows of the hashes of full tiles, the first of which is tile `first`.
pub(crate) fn put_tiles<'a>(rows: &mut WriteBatch, first: u64, hashes: impl IntoIterator<Item = &'a Digest>) {
    for (tile, hash) in (first..).zip(hashes) {
        rows.put(Table::Tiles, tile.to_be_bytes(), hash.as_bytes());
    }
}

/// Require that the stored hash of a full tile is the computed one.
///
/// # Errors
///
/// [`LogError::Corrupt`] if it differs or is missing; [`LogError::Store`] if it cannot be read.
pub(crate) fn require_tile(store: &dyn Store, tile: u64, computed: &Digest) -> Result<(), LogError> {
    let row = store.get(Table::Tiles, &tile.to_be_bytes())?;
    let row = row.ok_or_else(|| LogError::Corrupt(format!("the hash of tile {tile} is missing")))?;
    rows::require_same(&format!("the hash of tile {tile}"), &rows::tile_hash_in(&row)?, computed)
}

fn stored_tiles(store: &dyn Store) -> Result<Vec<Digest>, LogError> {
    let mut tiles = Vec::new();
    store.scan(Table::Tiles, &[], &mut |key, row| {
        let (expected, found) = (tiles.len() as u64, rows::version_in(key)?);
        if found != expected {
            return Err(LogError::Corrupt(format!("expected the hash of tile {expected}, found that of tile {found}")));
        }
        tiles.push(rows::tile_hash_in(row)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(tiles)
}

/// Return the last versions of the commit batches that end in a range, and the hyper roots after them.
fn hyper_roots_in(store: &dyn Store, range: Range<u64>) -> Result<Vec<(u64, Digest)>, LogError> {
    let mut ends = Vec::new();
    store.scan(Table::Roots, &range.start.to_be_bytes(), &mut |key, row| {
        let version = rows::version_in(key)?;
        if version >= range.end {
            return Ok(ControlFlow::Break(()));
        }
        ends.push((version, rows::root_in(row)?));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(ends)
}

fn repeats_in(store: &dyn Store, range: Range<u64>) -> Result<Vec<u64>, LogError> {
    let mut repeats = Vec::new();
    store.scan(Table::Repeats, &range.start.to_be_bytes(), &mut |key, _| {
        let version = rows::version_in(key)?;
        if version >= range.end {
            return Ok(ControlFlow::Break(()));
        }
        repeats.push(version);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(repeats)
}

/// Add the history roots to the ends of batches. `digests` are the events that follow those of `history`.
pub(crate) fn with_history(
    history: &HistoryTree,
    digests: &[Digest],
    hyper_roots: &[(u64, Digest)],
) -> Vec<(u64, BatchEnd)> {
    let versions: Vec<_> = hyper_roots.iter().map(|(version, _)| *version).collect();
    let history_roots = history.plan(digests, Roots::At(&versions)).roots;
    let end = |(&(version, hyper_digest), history_digest)| (version, BatchEnd { history_digest, hyper_digest });
    hyper_roots.iter().zip(history_roots).map(end).collect()
}

/// Return the part of an ascending list whose keys are in a range.
fn within<'a, T>(list: &'a [T], range: &Range<u64>, key: impl Fn(&T) -> u64) -> &'a [T] {
    let from = list.partition_point(|item| key(item) < range.start);
    let to = list.partition_point(|item| key(item) < range.end);
    list.get(from..to).unwrap_or_default()
}

fn head(size: u64, root: Digest) -> Result<TreeHead, LogError> {
    TreeHead::new(size, root).map_err(impossible)
}

fn lacks(path: &TilePath) -> LogError {
    LogError::Corrupt(format!("the tree over the entries lacks {path}"))
}

fn impossible(_: Malformed) -> LogError {
    LogError::Bug("the log has more entries than a tree may have")
}

/// Return why the log could not be read, of a question that fits the tree.
fn source_error(error: ProveError<LogError>) -> LogError {
    match error {
        ProveError::Source(error) => error,
        ProveError::Outside { size, .. } => LogError::UnknownVersion { asked: size, len: size },
    }
}
