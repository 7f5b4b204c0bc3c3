//! Proofs about many entries of a log in the tree of one size. What several proofs need is read and hashed once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::entry_rows::TILE_ENTRIES;
use crate::error::LogError;
use crate::hash::Digest;
use crate::integers::usize_from;
use crate::log::Log;
use crate::tiled::head;
use crate::tlog::claim::{Proof, Run};
use crate::tlog::entry::{BatchEnd, Entry, leaves_of};
use crate::tlog::entry_tree::KEPT_LEVEL;
use crate::tlog::merkle::{ProveError, Subtrees, TreeHead, parents, range_proof, root_at};

/// What proves entries of a log. It grows with the number of tiles whose entries are asked for.
#[derive(Debug)]
pub struct EntryProver<'a> {
    log: &'a Log,
    size: u64,
    tiles: RefCell<HashMap<u64, Rc<TileNodes>>>,
}

/// The entries of a tile that the tree has, and all complete subtrees over them.
#[derive(Debug)]
struct TileNodes {
    entries: Vec<Entry>,
    /// `levels[l][i]` is the hash over the `2^l` entries from `i * 2^l` of the tile on.
    levels: Vec<Vec<Digest>>,
}

impl TileNodes {
    fn new(entries: Vec<Entry>) -> Self {
        let mut levels = Vec::new();
        let mut level = leaves_of(&entries);
        while !level.is_empty() {
            let above = parents(level.as_chunks::<2>().0).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        Self { entries, levels }
    }
}

impl<'a> EntryProver<'a> {
    /// Return what proves entries in the tree that `log` had with `size` entries.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if it has fewer.
    pub fn new(log: &'a Log, size: u64) -> Result<Self, LogError> {
        log.require_size(size)?;
        Ok(Self { log, size, tiles: RefCell::default() })
    }

    /// Return the head of the tree.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn head(&self) -> Result<TreeHead, LogError> {
        head(self.size, root_at(self, self.size).map_err(|error| self.source_error(self.size, error))?)
    }

    /// Return the entries of a range of versions, with one proof for all of them.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if the range is empty, longer than a range proof may be, or ends after the tree;
    /// [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn run(&self, range: &Range<u64>) -> Result<Run, LogError> {
        let proof = range_proof(self, range, self.size);
        let proof = proof.map_err(|error| self.source_error(range.end.saturating_sub(1), error))?;
        let entries = range.clone().map(|version| self.entry(version)).collect::<Result<_, _>>()?;
        Ok(Run { first: range.start, entries, proof: Proof::Range(proof) })
    }

    /// Return the last version of the commit batch of a version, and the roots there; nothing if the tree does not reach so far.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn batch_end(&self, version: u64) -> Result<Option<(u64, BatchEnd)>, LogError> {
        for index in version / TILE_ENTRIES..self.size.div_ceil(TILE_ENTRIES) {
            let tile = self.tile(index)?;
            let end_of = |entry: &Entry| Some((entry.version, entry.batch_end?));
            if let Some(end) = tile.entries.iter().filter(|entry| entry.version >= version).find_map(end_of) {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn entry(&self, version: u64) -> Result<Entry, LogError> {
        let tile = self.tile(version / TILE_ENTRIES)?;
        let missing = || LogError::UnknownVersion { asked: version, len: self.size };
        tile.entries.get(usize_from(version % TILE_ENTRIES)).copied().ok_or_else(missing)
    }

    fn tile(&self, index: u64) -> Result<Rc<TileNodes>, LogError> {
        if let Some(tile) = self.tiles.borrow().get(&index) {
            return Ok(Rc::clone(tile));
        }
        let first = index * TILE_ENTRIES;
        let entries = self.log.entries(first..(first + TILE_ENTRIES).min(self.size))?;
        let tile = Rc::new(TileNodes::new(entries));
        self.tiles.borrow_mut().insert(index, Rc::clone(&tile));
        Ok(tile)
    }

    fn source_error(&self, asked: u64, error: ProveError<LogError>) -> LogError {
        match error {
            ProveError::Source(error) => error,
            // An empty or too long range, or one that ends after the tree.
            ProveError::Outside { .. } => LogError::UnknownVersion { asked, len: self.size },
        }
    }
}

impl Subtrees for EntryProver<'_> {
    type Error = LogError;

    fn subtree(&self, level: u32, index: u64) -> Result<Digest, LogError> {
        if level >= KEPT_LEVEL {
            return self.log.subtree(level, index);
        }
        let missing = || LogError::Corrupt(format!("the tree over the entries lacks node {index} of level {level}"));
        let tiles = KEPT_LEVEL - level;
        let tile = self.tile(index >> tiles)?;
        let within = usize_from(index & ((1 << tiles) - 1));
        tile.levels.get(level as usize).and_then(|nodes| nodes.get(within)).copied().ok_or_else(missing)
    }
}
