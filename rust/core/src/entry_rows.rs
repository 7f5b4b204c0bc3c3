//! The entries of a log from its rows, and building the tree over them.
//!
//! Entries follow from the rows of the log and from the history tree, so only the hashes of full tiles are stored, 32 bytes for 256
//! entries: computing one takes as long as adding 256 events, because the end of each commit batch has a history root.

use std::ops::{ControlFlow, Range};

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::Digest;
use crate::history::{HistoryTree, Roots};
use crate::integers::usize_from;
use crate::rows;
use crate::store::{Store, Table, WriteBatch};
use crate::tlog::entry::{BatchEnd, entries_of, leaves_of};
use crate::tlog::entry_tree::{EntryTree, FullTile};
use crate::tlog::merkle::root_of;
use crate::tlog::tile::{FULL_WIDTH, MAX_LEVEL};

/// Number of entries below a full tile.
pub const TILE_ENTRIES: u64 = FULL_WIDTH as u64;

/// Return the tree over the entries of a log, and the rows of those full tiles that were not stored: all of them in a folder that an
/// earlier build wrote.
///
/// # Errors
///
/// [`LogError::Corrupt`] if rows are missing or malformed; [`LogError::Store`] if one cannot be read.
pub fn build(store: &dyn Store, history: &HistoryTree) -> Result<(EntryTree, WriteBatch), LogError> {
    let (len, stored) = (history.len(), stored_tiles(store)?);
    let mut tiles = stored.first().cloned().unwrap_or_default();
    let (known, full) = (tiles.len() as u64, len / TILE_ENTRIES);
    if known > full {
        return Err(LogError::Corrupt(format!("it holds {len} events, but the hashes of {known} full tiles")));
    }
    let ends = hyper_roots_in(store, known * TILE_ENTRIES..len)?;
    let repeats = repeats_in(store, known * TILE_ENTRIES..len)?;
    let leaves = |tile: u64| {
        let range = tile * TILE_ENTRIES..((tile + 1) * TILE_ENTRIES).min(len);
        let digests = rows::digests(store, range.clone())?;
        let ends = within(&ends, &range, |(version, _)| *version);
        let (ends, _) = with_history(&history.edge_at(range.start)?, &digests, ends);
        let repeats = within(&repeats, &range, |version| *version);
        Ok(leaves_of(&entries_of(range.start, &digests, repeats, &ends).collect::<Vec<_>>()))
    };
    let computed = (known..full).into_par_iter().map(|tile| leaves(tile).map(|leaves| root_of(&leaves)));
    tiles.extend(computed.collect::<Result<Vec<_>, LogError>>()?);
    let mut tree = EntryTree::of_tiles(tiles);
    let rows = missing_tiles(&tree, &stored)?;
    let change = tree.plan(&leaves(full)?);
    tree.apply(change);
    Ok((tree, rows))
}

/// Return the rows of the full tiles of `tree` that are not stored.
///
/// # Errors
///
/// [`LogError::Corrupt`] if a stored one differs, or the tree does not have it.
fn missing_tiles(tree: &EntryTree, stored: &[Vec<Digest>]) -> Result<WriteBatch, LogError> {
    let mut rows = WriteBatch::default();
    for level in 0..=MAX_LEVEL {
        let computed = tree.full_tiles(level);
        let stored = stored.get(usize::from(level)).map_or(&[][..], Vec::as_slice);
        if stored.len() > computed.len() {
            let (found, expected) = (stored.len(), computed.len());
            return Err(LogError::Corrupt(format!("expected {expected} full tiles of level {level}, found {found}")));
        }
        for (index, &hash) in (0..).zip(computed) {
            match stored.get(usize_from(index)) {
                Some(stored) => require_same_tile(&FullTile { level, index, hash }, stored)?,
                None => put_tiles(&mut rows, [FullTile { level, index, hash }]),
            }
        }
    }
    Ok(rows)
}

/// Add the rows of full tiles.
pub fn put_tiles(rows: &mut WriteBatch, tiles: impl IntoIterator<Item = FullTile>) {
    for FullTile { level, index, hash } in tiles {
        rows.put(Table::Tiles, rows::tile_key(level, index), hash.as_bytes());
    }
}

/// Require that the stored hash of a full tile is the computed one.
///
/// # Errors
///
/// [`LogError::Corrupt`] if it differs or is missing; [`LogError::Store`] if it cannot be read.
pub fn require_tile(store: &dyn Store, computed: &FullTile) -> Result<(), LogError> {
    let FullTile { level, index, .. } = *computed;
    let missing = || LogError::Corrupt(format!("the hash of tile {index} of level {level} is missing"));
    let row = store.get(Table::Tiles, &rows::tile_key(level, index))?.ok_or_else(missing)?;
    require_same_tile(computed, &rows::tile_hash_in(&row)?)
}

fn require_same_tile(computed: &FullTile, stored: &Digest) -> Result<(), LogError> {
    let FullTile { level, index, hash } = computed;
    rows::require_same(&format!("the hash of tile {index} of level {level}"), stored, hash)
}

/// Return the stored hashes of full tiles, by level.
fn stored_tiles(store: &dyn Store) -> Result<Vec<Vec<Digest>>, LogError> {
    let mut levels: Vec<Vec<Digest>> = Vec::new();
    store.scan(Table::Tiles, &[], &mut |key, row| {
        let (level, index) = rows::tile_in(key)?;
        if usize::from(level) == levels.len() {
            levels.push(Vec::new());
        }
        let expected = levels.len().checked_sub(1).zip(levels.last().map(Vec::len));
        if expected != Some((level.into(), usize_from(index))) {
            return Err(LogError::Corrupt(format!(
                "tile {index} of level {level} is stored, but not the one before it"
            )));
        }
        if let Some(tiles) = levels.last_mut() {
            tiles.push(rows::tile_hash_in(row)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(levels)
}

/// Return the last versions of the commit batches that end in a range, and the hyper roots after them.
///
/// # Errors
///
/// [`LogError::Corrupt`] if a row is malformed; [`LogError::Store`] if one cannot be read.
pub fn hyper_roots_in(store: &dyn Store, range: Range<u64>) -> Result<Vec<(u64, Digest)>, LogError> {
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

/// Return the versions in a range whose events occur earlier in their bulk.
///
/// # Errors
///
/// As [`hyper_roots_in`].
pub fn repeats_in(store: &dyn Store, range: Range<u64>) -> Result<Vec<u64>, LogError> {
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

/// Return the ends of batches with the history roots added, and the history tree after the events `digests`, which follow those of
/// `history`. It can only be planned on.
pub fn with_history(
    history: &HistoryTree,
    digests: &[Digest],
    hyper_roots: &[(u64, Digest)],
) -> (Vec<(u64, BatchEnd)>, HistoryTree) {
    let versions: Vec<_> = hyper_roots.iter().map(|(version, _)| *version).collect();
    let change = history.plan(digests, Roots::At(&versions));
    let later = history.edge_after(&change);
    let end = |(&(version, hyper_digest), history_digest)| (version, BatchEnd { history_digest, hyper_digest });
    (hyper_roots.iter().zip(change.roots).map(end).collect(), later)
}

/// Return the part of an ascending list whose keys are in a range.
fn within<'a, T>(list: &'a [T], range: &Range<u64>, key: impl Fn(&T) -> u64) -> &'a [T] {
    let from = list.partition_point(|item| key(item) < range.start);
    let to = list.partition_point(|item| key(item) < range.end);
    list.get(from..to).unwrap_or_default()
}
