//! The entries after the last full tile, as they were read from the store.
//!
//! An entry that ends a commit batch has a history root, which is computed from the beginning of its tile on. Whoever asks for the newest
//! entries after each addition would compute the same roots again and again.

use crate::entry_rows::TILE_ENTRIES;
use crate::error::LogError;
use crate::history::HistoryTree;
use crate::integers::usize_from;
use crate::tlog::entry::Entry;

/// The first entries of one tile. They never change, because a log only grows.
#[derive(Debug, Default)]
pub struct EntryTail {
    /// The history tree after the last of them, which can only be planned on.
    history: Option<HistoryTree>,
    first: u64,
    entries: Vec<Entry>,
}

impl EntryTail {
    /// Return the first of the entries.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Return the entries from the last border of a tile up to those of `size` events. Those that were read before are not read again.
    ///
    /// `read` returns the entries that follow the events of a history tree, and the history tree after them. It is given that tree, or
    /// none, if it is to begin at the border.
    ///
    /// # Errors
    ///
    /// That of `read`. Then all of the tile is read the next time.
    pub fn up_to(
        &mut self,
        size: u64,
        read: impl FnOnce(Option<HistoryTree>, u64) -> Result<(Vec<Entry>, HistoryTree), LogError>,
    ) -> Result<&[Entry], LogError> {
        let first = size / TILE_ENTRIES * TILE_ENTRIES;
        let wanted = usize_from(size - first);
        if self.first != first {
            *self = Self { first, ..Self::default() };
        }
        if self.entries.len() < wanted {
            let known = std::mem::take(&mut self.entries);
            let (entries, later) = read(self.history.take(), first)?;
            self.entries = known;
            self.entries.extend(entries);
            self.history = Some(later);
        }
        self.entries.get(..wanted).ok_or(LogError::Bug("all entries up to the size were read"))
    }
}
