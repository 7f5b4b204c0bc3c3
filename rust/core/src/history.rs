//! The history tree: append-only, one leaf per version (Crosby and Wallach, "Efficient Data Structures for Tamper-Evident Logging",
//! 2009, section 3; positions are part of what is hashed, as in QED).
//!
//! Frozen nodes of height 4 and above are kept in memory, at four bytes per event. Lower nodes are computed from the event digests
//! below them, at most sixteen, which the caller reads from the log.

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::{Digest, history_inner, history_leaf, history_partial};
use crate::integers::usize_from;
use crate::position::{HistoryPosition, history_height};
use crate::proof::{incremental_positions, membership_positions};

/// The lowest height at which frozen nodes are kept in memory.
const KEPT_HEIGHT: u16 = 4;

/// Number of leaves below a frozen node of that height.
pub const GROUP: u64 = 1 << KEPT_HEIGHT;

/// [`GROUP`] as a length.
const GROUP_LEAVES: usize = 1 << KEPT_HEIGHT;

/// Number of levels below the root of a tree of 2^64 leaves.
const LEVELS: usize = 64;

/// Returns the event digests of the group of [`GROUP`] versions that contains a version, at least up to that version.
pub type Group<'a> = dyn Fn(u64) -> Result<Vec<Digest>, LogError> + 'a;

/// The frozen nodes of a history tree.
#[derive(Debug)]
pub struct HistoryTree {
    len: u64,
    /// `kept[h - 4][i]` is the frozen node of height `h` above the leaves `i * 2^h ..`.
    kept: Vec<Vec<Digest>>,
    edge: Edge,
}

/// For each height, the last frozen node that is a left child: the left siblings of the next events to be appended.
#[derive(Debug, Clone, Copy)]
struct Edge([Digest; LEVELS]);

impl Default for Edge {
    fn default() -> Self {
        Self([Digest::default(); LEVELS])
    }
}

/// Which roots a change should include. A root costs one hash per level; appending a leaf without its root costs three hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots<'a> {
    /// The root at each new version.
    Each,
    /// The roots at these versions, in ascending order.
    At(&'a [u64]),
}

/// The changes that appending some events will make.
#[derive(Debug, Default)]
pub struct HistoryChange {
    /// The roots that were requested, in the order of versions.
    pub roots: Vec<Digest>,
    /// Number of events to append.
    len: u64,
    frozen: Vec<(u16, Digest)>,
    edge: Edge,
}

impl HistoryTree {
    /// Return the tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self { len: 0, kept: Vec::new(), edge: Edge::default() }
    }

    /// Return the tree of the events `digests`, equal to the tree that appending them would build. Each level is hashed on all
    /// threads.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "`last` is the last valid index, and the even index below it is valid too"
    )]
    pub fn of_events(digests: &[Digest]) -> Self {
        let (groups, rest) = digests.as_chunks::<GROUP_LEAVES>();
        let mut tree = Self { len: (digests.len() - rest.len()) as u64, ..Self::new() };
        let group = |(index, group): (usize, &[Digest; GROUP_LEAVES])| {
            frozen(group, HistoryPosition { index: index as u64 * GROUP, height: KEPT_HEIGHT })
        };
        let mut level: Vec<_> = groups.par_iter().enumerate().map(group).collect();
        for (height, left) in (KEPT_HEIGHT..).zip(tree.edge.0.iter_mut().skip(KEPT_HEIGHT.into())) {
            let Some(last) = level.len().checked_sub(1) else { break };
            *left = level[last & !1];
            let above = level.as_chunks::<2>().0.par_iter().enumerate().map(|(index, [left, right])| {
                let position = HistoryPosition { index: (index as u64) << (height + 1), height: height + 1 };
                history_inner(left, right, &position.to_bytes())
            });
            let above = above.collect();
            tree.kept.push(std::mem::replace(&mut level, above));
        }
        let change = tree.plan(rest, Roots::At(&[]));
        tree.apply(change);
        tree
    }

    /// Return the number of leaves.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Return whether the tree has no leaves.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Compute the result of appending `digests` without changing anything.
    #[must_use]
    pub fn plan(&self, digests: &[Digest], roots: Roots<'_>) -> HistoryChange {
        let mut change = HistoryChange { edge: self.edge, ..HistoryChange::default() };
        for (version, digest) in (self.len..).zip(digests) {
            let highest = change.freeze(version, digest);
            change.len += 1;
            let is_wanted = match roots {
                Roots::Each => true,
                Roots::At(versions) => versions.get(change.roots.len()) == Some(&version),
            };
            if is_wanted {
                change.roots.push(change.root(version, highest));
            }
        }
        change
    }

    /// Return the tree of the first `len` events, a multiple of [`GROUP`], which can only be planned on.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if this tree is shorter.
    pub fn edge_at(&self, len: u64) -> Result<Self, LogError> {
        let mut edge = Edge::default();
        for (height, left) in (0..).zip(&mut edge.0) {
            if len >> height & 1 == 1 {
                let position = HistoryPosition { index: (len >> height ^ 1) << height, height };
                *left = self.kept(position, len).ok_or_else(|| missing(position))?;
            }
        }
        Ok(Self { len, kept: Vec::new(), edge })
    }

    /// Return the tree after a change that was planned on this one; it can only be planned on.
    #[must_use]
    pub const fn edge_after(&self, change: &HistoryChange) -> Self {
        Self { len: self.len + change.len, kept: Vec::new(), edge: change.edge }
    }

    /// Apply a change that was planned on the tree in its current state.
    #[expect(clippy::indexing_slicing, reason = "a missing level was added just before")]
    pub fn apply(&mut self, change: HistoryChange) {
        self.len += change.len;
        for (height, digest) in change.frozen {
            let level = usize::from(height - KEPT_HEIGHT);
            if self.kept.len() <= level {
                self.kept.resize_with(level + 1, Vec::new);
            }
            self.kept[level].push(digest);
        }
        self.edge = change.edge;
    }

    /// Return the root at `version`.
    ///
    /// # Errors
    ///
    /// Errors of `group`; [`LogError::Corrupt`] if the tree or the group is too short.
    pub fn root(&self, version: u64, group: &Group<'_>) -> Result<Digest, LogError> {
        self.node(HistoryPosition::root(version), version, group)
    }

    /// Return the siblings on the path from leaf `actual` to the root at `query`, in the order of [`membership_positions`].
    ///
    /// # Errors
    ///
    /// Same as [`Self::root`].
    pub fn membership_path(&self, actual: u64, query: u64, group: &Group<'_>) -> Result<Vec<Digest>, LogError> {
        self.nodes(&membership_positions(actual, query), query, group)
    }

    /// Return the nodes of an incremental path, in the order of [`incremental_positions`].
    ///
    /// # Errors
    ///
    /// Same as [`Self::root`].
    pub fn incremental_path(&self, start: u64, end: u64, group: &Group<'_>) -> Result<Vec<Digest>, LogError> {
        self.nodes(&incremental_positions(start, end), end, group)
    }

    fn nodes(&self, positions: &[HistoryPosition], version: u64, group: &Group<'_>) -> Result<Vec<Digest>, LogError> {
        positions.iter().map(|&position| self.node(position, version, group)).collect()
    }

    /// Return the hash of a node in the tree at `version`; the node must exist in that tree.
    #[expect(clippy::expect_used, reason = "leaves were handled above, before children are needed")]
    fn node(&self, position: HistoryPosition, version: u64, group: &Group<'_>) -> Result<Digest, LogError> {
        if let Some(kept) = self.kept(position, version) {
            return Ok(kept);
        }
        if position.height == 0 {
            let digests = group(position.index)?;
            let digest = digests.get(usize_from(position.index % GROUP)).ok_or_else(|| missing(position))?;
            return Ok(history_leaf(digest, &position.to_bytes()));
        }
        let (left, right) = position.children().expect("only leaves have no children");
        let left = self.node(left, version, group)?;
        if right.index > version {
            return Ok(history_partial(&left, &position.to_bytes()));
        }
        let right = self.node(right, version, group)?;
        Ok(history_inner(&left, &right, &position.to_bytes()))
    }

    /// Return a node from memory, if it is kept there and its last leaf is not after `version`.
    fn kept(&self, position: HistoryPosition, version: u64) -> Option<Digest> {
        let last = position.index.checked_add(1_u64.checked_shl(position.height.into())? - 1)?;
        let level = position.height.checked_sub(KEPT_HEIGHT)?;
        let nodes = self.kept.get(usize::from(level)).filter(|_| last <= version)?;
        nodes.get(usize_from(position.index.checked_shr(position.height.into())?)).copied()
    }
}

impl Default for HistoryTree {
    fn default() -> Self {
        Self::new()
    }
}

impl HistoryChange {
    /// Add the leaf of `version` and every node that it completes; return the height and hash of the highest of them.
    fn freeze(&mut self, version: u64, digest: &Digest) -> (u16, Digest) {
        let mut node = history_leaf(digest, &HistoryPosition::above(version, 0).to_bytes());
        let mut height = 0;
        for left in &mut self.edge.0 {
            if height >= KEPT_HEIGHT {
                self.frozen.push((height, node));
            }
            if version >> height & 1 == 0 {
                *left = node;
                break;
            }
            height += 1;
            node = history_inner(left, &node, &HistoryPosition::above(version, height).to_bytes());
        }
        (height, node)
    }

    /// Return the root at `version`, which must be the last version, from the highest node that it completed.
    fn root(&self, version: u64, (height, node): (u16, Digest)) -> Digest {
        let above = (height..history_height(version)).zip(self.edge.0.iter().skip(height.into()));
        above.fold(node, |node, (height, left)| {
            let parent = HistoryPosition::above(version, height + 1).to_bytes();
            if version >> height & 1 == 0 {
                history_partial(&node, &parent)
            } else {
                history_inner(left, &node, &parent)
            }
        })
    }
}

/// Return the frozen node at `position`. `digests` must be exactly the events below it.
#[expect(clippy::indexing_slicing, reason = "a leaf without a digest must not get a hash")]
fn frozen(digests: &[Digest], position: HistoryPosition) -> Digest {
    let Some((left, right)) = position.children() else { return history_leaf(&digests[0], &position.to_bytes()) };
    let (lefts, rights) = digests.split_at(digests.len() / 2);
    history_inner(&frozen(lefts, left), &frozen(rights, right), &position.to_bytes())
}

fn missing(position: HistoryPosition) -> LogError {
    LogError::Corrupt(format!("the history tree lacks node {position}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_built_at_once_is_the_one_that_grew() {
        let events: Vec<_> = (0..1100_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        let sizes = (0..70).chain([127, 128, 129, 255, 256, 257, 511, 512, 513, 1008, 1023, 1024, 1025, 1040]);
        for size in sizes {
            let mut grown = HistoryTree::new();
            for event in &events[..size] {
                let change = grown.plan(std::slice::from_ref(event), Roots::Each);
                grown.apply(change);
            }
            let built = HistoryTree::of_events(&events[..size]);
            assert_eq!((built.len, &built.kept), (grown.len, &grown.kept), "{size} events");
            let rest = &events[size..size + 40];
            assert_eq!(built.plan(rest, Roots::Each).roots, grown.plan(rest, Roots::Each).roots, "{size} events");

            let group = size / GROUP_LEAVES * GROUP_LEAVES;
            let edge = grown.edge_at(group as u64).unwrap();
            let versions: Vec<_> = (size as u64..size as u64 + 40).collect();
            let roots = edge.plan(&events[group..size + 40], Roots::At(&versions)).roots;
            assert_eq!(roots, grown.plan(rest, Roots::Each).roots, "{size} events");
        }
    }
}
