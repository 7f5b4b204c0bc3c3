//! The tree over the entries as the store has it: a second way to a root, beside the tree in memory.
//!
//! A log signs a root only if both ways lead to it. A bit that flips in memory, or a bug in one of the two, would otherwise sign a root
//! that the log's own tiles do not give.

use crate::entry_rows::TILE_ENTRIES;
use crate::entry_tail::EntryTail;
use crate::error::LogError;
use crate::hash::Digest;
use crate::integers::usize_from;
use crate::log::Log;
use crate::rows;
use crate::store::Table;
use crate::tiled::{head, source_error};
use crate::tlog::entry::leaves_of;
use crate::tlog::entry_tree::KEPT_LEVEL;
use crate::tlog::merkle::{self, Subtrees, TreeHead, root_of};

impl Log {
    /// Return the head that the tree had with `size` entries, from the stored hashes of full tiles and the stored events alone.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if there are fewer entries; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn stored_tree_head_at(&self, size: u64) -> Result<TreeHead, LogError> {
        StoredTail::default().head_at(self, size)
    }
}

/// The leaves after the last full tile, as they were read from the store: for a head after each addition, at the cost of what was added.
#[derive(Debug, Default)]
pub struct StoredTail {
    tail: EntryTail,
    leaves: Vec<Digest>,
}

impl StoredTail {
    /// Return the head that the tree of a log had with `size` entries. What was read for an earlier head is not read again.
    ///
    /// # Errors
    ///
    /// As [`Log::stored_tree_head_at`].
    pub fn head_at(&mut self, log: &Log, size: u64) -> Result<TreeHead, LogError> {
        log.require_size(size)?;
        if self.tail.first() != size / TILE_ENTRIES * TILE_ENTRIES {
            self.leaves.clear();
        }
        let entries = self.tail.up_to(size, |known, first| log.entries_from(known, first, size))?;
        self.leaves.extend(leaves_of(entries.get(self.leaves.len()..).unwrap_or_default()));
        head(size, merkle::root_at(&StoredTree { log, tail: self }, size).map_err(source_error)?)
    }
}

/// The nodes of the tree, each read or computed when it is asked for.
struct StoredTree<'a> {
    log: &'a Log,
    tail: &'a StoredTail,
}

impl StoredTree<'_> {
    /// Return the stored hashes of `count` full tiles of a level of tiles.
    fn tiles(&self, level: u8, first: u64, count: u64) -> Result<Vec<Digest>, LogError> {
        let missing = |index| LogError::Corrupt(format!("the hash of tile {index} of level {level} is missing"));
        let tile = |index| {
            let row = self.log.store.get(Table::Tiles, &rows::tile_key(level, index))?;
            rows::tile_hash_in(&row.ok_or_else(|| missing(index))?)
        };
        (first..first + count).map(tile).collect()
    }
}

impl Subtrees for StoredTree<'_> {
    type Error = LogError;

    fn subtree(&self, level: u32, index: u64) -> Result<Digest, LogError> {
        // The nodes of the next lower stored level, or the entries, that are below this one.
        let count = 1_u64 << (level % KEPT_LEVEL);
        if let Some(tiles) = (level / KEPT_LEVEL).checked_sub(1) {
            let tiles = u8::try_from(tiles).map_err(|_| LogError::Bug("a tree has at most 63 levels"))?;
            return self.tiles(tiles, index * count, count).map(|hashes| root_of(&hashes));
        }
        let leaves = (index * count).checked_sub(self.tail.tail.first()).and_then(|from| {
            let from = usize_from(from);
            self.tail.leaves.get(from..from + usize_from(count))
        });
        leaves.map(root_of).ok_or(LogError::Bug("the root of a tree has no parts of full tiles but these"))
    }
}
