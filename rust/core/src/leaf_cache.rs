//! The leaves of full tiles that were computed lately, for readers that ask for several nodes of one tile.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::hash::Digest;
use crate::integers::usize_from;

/// Number of full tiles of leaves that are kept, 8 KiB each.
const CACHED_TILES: usize = 512;

/// The leaves of full tiles that were computed lately.
#[derive(Debug)]
pub struct LeafCache(Vec<Mutex<Option<CachedLeaves>>>);

/// The number of a tile, and the hashes of its entries.
type CachedLeaves = (u64, Arc<[Digest]>);

impl LeafCache {
    fn slot(&self, index: u64) -> Option<&Mutex<Option<CachedLeaves>>> {
        self.0.get(usize_from(index) % CACHED_TILES)
    }

    /// Return the leaves of tile `index`, if they are kept.
    pub fn get(&self, index: u64) -> Option<Arc<[Digest]>> {
        let cached = self.slot(index)?.lock();
        cached.as_ref().filter(|(found, _)| *found == index).map(|(_, leaves)| Arc::clone(leaves))
    }

    /// Keep the leaves of tile `index`, in place of others.
    pub fn put(&self, index: u64, leaves: Arc<[Digest]>) {
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
