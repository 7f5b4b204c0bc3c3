//! The tree over the entries as the store has it: a second way to a root, beside the tree in memory.
//!
//! A log signs a root only if both ways lead to it. A bit that flips in memory, or a bug in one of the two, would otherwise sign a root
//! that the log's own tiles do not give.

use crate::error::LogError;
use crate::hash::Digest;
use crate::log::Log;
use crate::rows;
use crate::store::Table;
use crate::tiled::{head, source_error};
use crate::tlog::entry::Entry;
use crate::tlog::entry_tree::KEPT_LEVEL;
use crate::tlog::merkle::{self, Subtrees, TreeHead, root_of};

impl Log {
    /// Return the head that the tree had with `size` entries, from the stored hashes of full tiles and the stored events alone.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if there are fewer entries; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn stored_tree_head_at(&self, size: u64) -> Result<TreeHead, LogError> {
        self.require_size(size)?;
        head(size, merkle::root_at(&StoredTree(self), size).map_err(source_error)?)
    }
}

/// The nodes of the tree, each read or computed when it is asked for.
struct StoredTree<'a>(&'a Log);

impl StoredTree<'_> {
    /// Return the stored hashes of `count` full tiles of a level of tiles.
    fn tiles(&self, level: u8, first: u64, count: u64) -> Result<Vec<Digest>, LogError> {
        let missing = |index| LogError::Corrupt(format!("the hash of tile {index} of level {level} is missing"));
        let tile = |index| {
            let row = self.0.store.get(Table::Tiles, &rows::tile_key(level, index))?;
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
        let first = index * count;
        let leaves: Vec<_> = self.0.entries(first..first + count)?.iter().map(Entry::leaf).collect();
        Ok(root_of(&leaves))
    }
}
