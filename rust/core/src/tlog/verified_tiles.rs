//! Tiles of a tree that somebody else keeps, each verified before it is used.
//!
//! The root of a tree follows from its *edge*, the tiles that are not full. Every full tile has its hash one level up. So from a root that
//! is trusted, tiles are verified from the top down, in any order below that, and only those that are asked for are read.

use std::collections::HashMap;

use crate::hash::{DIGEST_BYTES, Digest, merkle_leaves};
use crate::integers::usize_from;
use crate::proof::Malformed;
use crate::tlog::merkle::{ProveError, TreeHead, inclusion, root_at, root_of};
use crate::tlog::tile::{
    Content, FULL_WIDTH, InTiles, TilePath, Tiles, bundle_from_bytes, rows_of, tile_from_bytes, width_in,
};
use crate::verify::{VerifyError, same};

/// Number of hashes in a full tile.
const FULL: u64 = FULL_WIDTH as u64;

/// Tiles of one tree whose hashes lead to its root.
#[derive(Debug, Clone)]
pub struct VerifiedTiles {
    head: TreeHead,
    tiles: HashMap<(u8, u64), Vec<Digest>>,
}

/// Return the paths of the tiles of a tree of `size` leaves that are not full, from level 0 up.
#[must_use]
pub fn edge_of(size: u64) -> Vec<TilePath> {
    rows_of(size).into_iter().filter_map(|row| row.tiles_from(row.full()).next()).collect()
}

impl VerifiedTiles {
    /// Return the tree `head` with the tiles of its edge, in the order of [`edge_of`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] unless these are the tiles of its edge, and lead to its root.
    pub fn new(head: TreeHead, edge: Vec<Vec<Digest>>) -> Result<Self, VerifyError> {
        let paths = edge_of(head.size());
        same("number of tiles", &paths.len(), &edge.len())?;
        let mut tiles = HashMap::new();
        for (path, hashes) in paths.iter().zip(edge) {
            same("number of hashes in a tile", &usize::from(path.width()), &hashes.len())?;
            if let Content::Hashes(level) = path.content() {
                tiles.insert((level, path.index()), hashes);
            }
        }
        let found = Self { head, tiles };
        same("root", head.root(), &found.root_at(head.size())?)?;
        Ok(found)
    }

    /// Return the size and the root of the tree.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Return the path of tile `index` of `level` in this tree; `None` if the tree has no such tile.
    #[must_use]
    pub fn path_of(&self, level: u8, index: u64) -> Option<TilePath> {
        TilePath::new(Content::Hashes(level), index, width_in(self.head.size(), level, index)).ok()
    }

    /// Return the tiles above the entries of bundle `index` that must be added before anything below them is verified, topmost first.
    #[must_use]
    pub fn missing_above(&self, index: u64) -> Vec<TilePath> {
        self.missing_over(1, index / FULL)
    }

    /// Return the tiles that must be added before [`Self::root_at`] knows the root of the first `size` leaves, topmost first.
    #[must_use]
    pub fn missing_for_root(&self, size: u64) -> Vec<TilePath> {
        let mut missing = Vec::new();
        for row in rows_of(size).into_iter().rev().filter(|row| row.partial() > 0) {
            for path in self.missing_over(row.level(), row.full()) {
                if !missing.contains(&path) {
                    missing.push(path);
                }
            }
        }
        missing
    }

    /// Return the tiles from tile `index` of `level` upwards that are not here, topmost first.
    fn missing_over(&self, level: u8, index: u64) -> Vec<TilePath> {
        let (mut missing, mut index) = (Vec::new(), index);
        for level in level.. {
            let Some(path) = self.path_of(level, index).filter(|_| !self.tiles.contains_key(&(level, index))) else {
                break;
            };
            missing.push(path);
            index /= FULL;
        }
        missing.reverse();
        missing
    }

    /// Verify a tile by the tile above it, and keep it.
    ///
    /// # Errors
    ///
    /// As [`Self::verify`].
    pub fn add(&mut self, path: &TilePath, hashes: Vec<Digest>) -> Result<(), VerifyError> {
        self.verify(path, &hashes)?;
        if let Content::Hashes(level) = path.content() {
            self.tiles.insert((level, path.index()), hashes);
        }
        Ok(())
    }

    /// Verify the hashes of a tile by the tile above it, or those of a tile of the edge by what is known of it.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] unless they are the hashes of this tile in the tree, and the tile above was added before.
    pub fn verify(&self, path: &TilePath, hashes: &[Digest]) -> Result<(), VerifyError> {
        let Content::Hashes(level) = path.content() else {
            return Err(missing("a tile of hashes", path));
        };
        same("number of hashes in a tile", &usize::from(path.width()), &hashes.len())?;
        same("number of hashes in a tile", &width_in(self.head.size(), level, path.index()), &path.width())?;
        if path.width() < FULL_WIDTH {
            let known = self.tiles.get(&(level, path.index())).ok_or_else(|| missing("a tile of the edge", path))?;
            return same("hash of a tile", &root_of(known), &root_of(hashes));
        }
        same("hash of a tile", self.hash_of(level, path)?, &root_of(hashes))
    }

    /// Verify a bundle: its entries hash to the leaves of the tree. What the entries say is not checked.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] unless it has exactly the entries of this bundle in the tree. The tile above must have been added before.
    pub fn verify_bundle(&self, index: u64, bytes: &[u8]) -> Result<(), VerifyError> {
        let path = self.path_of(0, index).ok_or_else(|| refused("bundle", "one in the tree", index.to_string()))?;
        let leaves = merkle_leaves(&bundle_from_bytes(bytes, path.width())?);
        self.verify(&path, &leaves)
    }

    /// Return the root of the first `size` leaves of the tree.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if there are fewer, or a tile of [`Self::missing_for_root`] was not added.
    pub fn root_at(&self, size: u64) -> Result<Digest, VerifyError> {
        if size > self.head.size() {
            return Err(refused("size", &format!("at most {}", self.head.size()), size.to_string()));
        }
        root_at(&InTiles(self), size).map_err(of_tiles)
    }

    /// Return the proof that leaf `index` is in the tree. The tile of level 0 must have been added.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if there are fewer leaves, or a tile is missing.
    pub fn inclusion(&self, index: u64) -> Result<Vec<Digest>, VerifyError> {
        inclusion(&InTiles(self), index, self.head.size()).map_err(of_tiles)
    }

    /// Return the hash of a full tile, from the tile above it.
    fn hash_of(&self, level: u8, path: &TilePath) -> Result<&Digest, VerifyError> {
        let above = level.checked_add(1).and_then(|above| self.tiles.get(&(above, path.index() / FULL)));
        let hash = above.and_then(|hashes| hashes.get(usize_from(path.index() % FULL)));
        hash.ok_or_else(|| missing("the tile above", path))
    }
}

impl Tiles for &VerifiedTiles {
    type Error = VerifyError;

    fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<Digest>, VerifyError> {
        let found = self.tiles.get(&(level, index)).and_then(|hashes| hashes.get(..usize::from(width)));
        found.map(<[Digest]>::to_vec).ok_or_else(|| {
            refused("tiles", "those above and beside", format!("none of level {level} and number {index}"))
        })
    }
}

fn of_tiles(error: ProveError<VerifyError>) -> VerifyError {
    match error {
        ProveError::Source(error) => error,
        ProveError::Outside { expected, found, .. } => refused("leaves", expected, found),
    }
}

fn missing(expected: &str, path: &TilePath) -> VerifyError {
    refused("tiles", expected, format!("{path} without it"))
}

fn refused(check: &'static str, expected: &str, computed: String) -> VerifyError {
    VerifyError { check, expected: expected.into(), computed }
}

/// Return the first `width` entries of a longer bundle, as a bundle.
///
/// # Errors
///
/// [`Malformed`] unless `bytes` is a bundle of 256 entries, or `width` is 1 to 256.
pub fn shortened_bundle(bytes: &[u8], width: u16) -> Result<&[u8], Malformed> {
    let entries = bundle_from_bytes(bytes, FULL_WIDTH)?;
    let taken = entries.get(..usize::from(width)).filter(|taken| !taken.is_empty());
    let taken =
        taken.ok_or_else(|| Malformed::because(format!("expected 1 to {FULL_WIDTH} entries, found {width}")))?;
    let length: usize = taken.iter().map(|entry| 2 + entry.len()).sum();
    bytes.get(..length).ok_or_else(|| Malformed::because("expected a bundle as long as its entries, found less"))
}

/// Return the first `width` hashes of a full tile, as a tile.
///
/// # Errors
///
/// [`Malformed`] unless `bytes` is a full tile, or `width` is 1 to 256.
pub fn shortened_tile(bytes: &[u8], width: u16) -> Result<&[u8], Malformed> {
    tile_from_bytes(bytes, FULL_WIDTH)?;
    let cut = bytes.get(..usize::from(width) * DIGEST_BYTES).filter(|cut| !cut.is_empty());
    cut.ok_or_else(|| Malformed::because(format!("expected 1 to {FULL_WIDTH} hashes, found {width}")))
}
