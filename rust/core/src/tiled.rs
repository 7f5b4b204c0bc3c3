//! A log as a transparency log: the entries about its versions, the tree over them, and its tiles.

use std::ops::Range;
use std::sync::Arc;

use crate::entry_rows::{TILE_ENTRIES, hyper_roots_in, repeats_in, with_history};
use crate::error::LogError;
use crate::hash::Digest;
use crate::history::HistoryTree;
use crate::integers::usize_from;
use crate::log::Log;
use crate::proof::Malformed;
use crate::rows::Rows;
use crate::tlog::entry::{Entry, entries_of, leaves_of};
use crate::tlog::entry_tree::KEPT_LEVEL;
use crate::tlog::merkle::{self, ProveError, Subtrees, TreeHead, root_of};
use crate::tlog::tile::{Content, FULL_WIDTH, TilePath, bundle_to_bytes, tile_to_bytes};

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

    /// Return the proof that the tree with `size` entries extends the one with `old`.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] unless `old <= size`, and the log has as many; [`LogError::Corrupt`] and [`LogError::Store`] if rows
    /// cannot be read.
    pub fn consistency(&self, old: u64, size: u64) -> Result<Vec<Digest>, LogError> {
        self.require_size(size)?;
        merkle::consistency(self, old, size).map_err(source_error)
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
            Content::Hashes(level) => {
                let Some(below) = level.checked_sub(1) else {
                    let leaves = self.leaves(path.index())?;
                    let leaves = leaves.get(..usize::from(path.width()));
                    return leaves.map(tile_to_bytes).ok_or_else(|| lacks(path));
                };
                let trees = self.trees.read();
                let nodes = trees.entries().full_tiles(below);
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
        let skipped = usize_from(range.start - first);
        if range.end / TILE_ENTRIES * TILE_ENTRIES == first {
            let mut tail = self.tail.lock();
            // Others may ask for an older tile: the tail is of the newest.
            if tail.first() <= first {
                let entries = tail.up_to(range.end, |known, first| self.entries_from(known, first, range.end))?;
                return Ok(entries.get(skipped..).unwrap_or_default().to_vec());
            }
        }
        let (mut entries, _) = self.entries_from(None, first, range.end)?;
        Ok(entries.split_off(skipped))
    }

    /// Return the entries that follow the events of a history tree, or else those from the border `first` of a tile on, up to those of `end`
    /// events; and the history tree then, which can only be planned on.
    pub(crate) fn entries_from(
        &self,
        history: Option<HistoryTree>,
        first: u64,
        end: u64,
    ) -> Result<(Vec<Entry>, HistoryTree), LogError> {
        let history = &history.map_or_else(|| self.trees.read().history().edge_at(first), Ok)?;
        let range = history.len()..end;
        let rows = Rows::of(self.store.as_ref());
        let digests: Vec<_> = range.clone().map(|version| rows.digest(version)).collect::<Result<_, _>>()?;
        let hyper_roots = hyper_roots_in(self.store.as_ref(), range.clone())?;
        let (ends, later) = with_history(history, &digests, &hyper_roots);
        let repeats = repeats_in(self.store.as_ref(), range.clone())?;
        Ok((entries_of(range.start, &digests, &repeats, &ends).collect(), later))
    }

    /// Return the hashes of the entries below tile `index`, as far as they exist.
    fn leaves(&self, index: u64) -> Result<Arc<[Digest]>, LogError> {
        if let Some(leaves) = self.leaf_cache.get(index) {
            return Ok(leaves);
        }
        let first = index * TILE_ENTRIES;
        let to = (first + TILE_ENTRIES).min(self.len());
        let leaves: Arc<[Digest]> = leaves_of(&self.entries(first..to)?).into();
        if leaves.len() == usize::from(FULL_WIDTH) {
            self.leaf_cache.put(index, Arc::clone(&leaves));
        }
        Ok(leaves)
    }

    pub(crate) fn require_size(&self, size: u64) -> Result<(), LogError> {
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

pub(crate) fn head(size: u64, root: Digest) -> Result<TreeHead, LogError> {
    TreeHead::new(size, root).map_err(impossible)
}

fn lacks(path: &TilePath) -> LogError {
    LogError::Corrupt(format!("the tree over the entries lacks {path}"))
}

fn impossible(_: Malformed) -> LogError {
    LogError::Bug("the log has more entries than a tree may have")
}

/// Return why the log could not be read, of a question that fits the tree.
pub(crate) fn source_error(error: ProveError<LogError>) -> LogError {
    match error {
        ProveError::Source(error) => error,
        ProveError::Outside { size, .. } => LogError::UnknownVersion { asked: size, len: size },
    }
}
