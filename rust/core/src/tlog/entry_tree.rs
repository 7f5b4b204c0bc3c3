//! The Merkle tree over the entries of a log, as far as it is kept in memory.
//!
//! The hashes of full tiles and all nodes above them are kept, at an eighth of a byte per entry. Nodes inside a tile are computed from
//! the entries below them, at most 256.

use rayon::prelude::*;

use crate::hash::{Digest, merkle_empty, merkle_inner};
use crate::tlog::merkle::parents;
use crate::tlog::tile::FULL_WIDTH;

/// Number of pairs that one thread hashes at a time.
const PART: usize = 256;

/// The lowest level whose nodes are kept: each is above one full tile of leaves.
pub const KEPT_LEVEL: u32 = FULL_WIDTH.trailing_zeros();

/// Number of levels of a tree of 2^63 - 1 leaves.
const LEVELS: usize = 63;

/// The nodes of the tree over some entries.
#[derive(Debug)]
pub struct EntryTree {
    size: u64,
    /// `kept[l][i]` is the node above the `2^(8 + l)` leaves from `i * 2^(8 + l)` on.
    kept: Vec<Vec<Digest>>,
    edge: Edge,
}

/// For each level, the last complete node that is a left child: the left siblings of the next leaves.
#[derive(Debug, Clone, Copy)]
struct Edge([Digest; LEVELS]);

/// A node that is above one or more full tiles of leaves.
#[derive(Debug, Clone, Copy)]
struct Node {
    level: u32,
    /// Number of the node in its level.
    index: u64,
    hash: Digest,
}

/// The hash of a full tile, which is one of the hashes of a tile one level up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullTile {
    /// Level of the tile.
    pub level: u8,
    /// Number of the tile in its level.
    pub index: u64,
    /// The tree hash over its 256 hashes.
    pub hash: Digest,
}

/// The changes that appending some leaves will make.
#[derive(Debug)]
pub struct EntryChange {
    count: u64,
    kept: Vec<Node>,
    edge: Edge,
}

impl EntryTree {
    /// Return the tree over as many full tiles as there are `tiles`, which are their hashes.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "`last` is the last valid index, and the even index below it is valid too"
    )]
    pub fn of_tiles(tiles: Vec<Digest>) -> Self {
        let mut edge = Edge([Digest::default(); LEVELS]);
        let size = tiles.len() as u64 * u64::from(FULL_WIDTH);
        let (mut kept, mut level) = (Vec::new(), tiles);
        for left in edge.0.iter_mut().skip(KEPT_LEVEL as usize) {
            let Some(last) = level.len().checked_sub(1) else { break };
            *left = level[last & !1];
            let above = level.as_chunks::<2>().0.par_chunks(PART).flat_map_iter(parents).collect();
            kept.push(std::mem::replace(&mut level, above));
        }
        Self { size, kept, edge }
    }

    /// Return the number of bytes that the kept nodes take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.iter().map(|level| size_of_val(level.as_slice()) as u64).sum()
    }

    /// Return the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Return the root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let complete = self.edge.0.iter().enumerate().filter(|(level, _)| self.size >> level & 1 == 1);
        // From right to left: each complete subtree is the left sibling of all that is right of it.
        let joined =
            complete.fold(None, |right, (_, left)| Some(right.map_or(*left, |right| merkle_inner(left, &right))));
        joined.unwrap_or_else(merkle_empty)
    }

    /// Compute the result of appending leaves, given by their hashes, without changing anything. The nodes of one level are hashed
    /// together.
    #[must_use]
    pub fn plan(&self, leaves: &[Digest]) -> EntryChange {
        let mut change = EntryChange { count: leaves.len() as u64, kept: Vec::new(), edge: self.edge };
        let (mut first, mut nodes) = (self.size, leaves.to_vec());
        for (level, left) in (0..).zip(&mut change.edge.0) {
            if nodes.is_empty() {
                break;
            }
            if level >= KEPT_LEVEL {
                let numbered = (first..).zip(&nodes);
                change.kept.extend(numbered.map(|(index, &hash)| Node { level, index, hash }));
            }
            if first % 2 == 1 {
                nodes.insert(0, *left);
            }
            let (pairs, rest) = nodes.as_chunks::<2>();
            if let Some(last) = rest.first().or_else(|| pairs.last().map(|[last, _]| last)) {
                *left = *last;
            }
            nodes = parents(pairs).collect();
            first /= 2;
        }
        change
    }

    /// Apply a change that was planned on the tree in its current state.
    #[expect(clippy::indexing_slicing, reason = "a missing level was added just before")]
    pub fn apply(&mut self, change: EntryChange) {
        self.size += change.count;
        for node in change.kept {
            let level = (node.level - KEPT_LEVEL) as usize;
            if self.kept.len() <= level {
                self.kept.resize_with(level + 1, Vec::new);
            }
            self.kept[level].push(node.hash);
        }
        self.edge = change.edge;
    }

    /// Return the nodes of `level`, which is at least [`KEPT_LEVEL`], above `2^level` leaves each.
    #[must_use]
    pub fn level(&self, level: u32) -> &[Digest] {
        let kept = level.checked_sub(KEPT_LEVEL).and_then(|level| self.kept.get(level as usize));
        kept.map_or(&[], Vec::as_slice)
    }

    /// Return the hashes of the full tiles of a level of tiles, in order.
    #[must_use]
    pub fn full_tiles(&self, level: u8) -> &[Digest] {
        self.level((u32::from(level) + 1) * KEPT_LEVEL)
    }
}

impl EntryChange {
    /// Return the tiles that become full, those of one level in order.
    pub fn full_tiles(&self) -> impl Iterator<Item = FullTile> {
        self.kept.iter().filter(|node| node.level % KEPT_LEVEL == 0).filter_map(|node| {
            let level = u8::try_from(node.level / KEPT_LEVEL - 1).ok()?;
            Some(FullTile { level, index: node.index, hash: node.hash })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::merkle_leaf;
    use crate::tlog::merkle::root_of;

    #[test]
    fn a_tree_that_grew_is_the_one_over_all_leaves_and_over_its_tiles() {
        let leaves: Vec<_> = (0..70_000_u32).map(|i| merkle_leaf(&i.to_be_bytes())).collect();
        let mut grown = EntryTree::of_tiles(Vec::new());
        let steps = [0, 1, 2, 3, 252, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 70_000];
        for (from, to) in steps.into_iter().zip(steps.into_iter().skip(1)) {
            let change = grown.plan(&leaves[from..to]);
            let full: Vec<_> = change.full_tiles().collect();
            assert_eq!(full.len(), to / 256 - from / 256 + to / 65_536 - from / 65_536, "{to} leaves");
            grown.apply(change);
            for FullTile { level, index, hash } in full {
                assert_eq!(grown.full_tiles(level)[usize::try_from(index).unwrap()], hash, "{level} {index}");
            }
            assert_eq!(grown.root(), root_of(&leaves[..to]), "{to} leaves");

            let tiles: Vec<_> = leaves[..to].chunks_exact(256).map(root_of).collect();
            assert_eq!(grown.level(KEPT_LEVEL), tiles, "{to} leaves");
            let mut built = EntryTree::of_tiles(tiles);
            built.apply(built.plan(&leaves[to / 256 * 256..to]));
            assert_eq!(
                (built.size(), &built.kept, built.root()),
                (grown.size(), &grown.kept, grown.root()),
                "{to} leaves"
            );
        }
    }
}
