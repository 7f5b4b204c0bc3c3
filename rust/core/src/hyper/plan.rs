//! Inserting a batch into the hyper tree: the change is planned without touching the tree, then applied. Also grows the flat part.

use super::{BLANK_BRANCH, Branch, DigestAt, Entry, HyperTree, Leaf, Node, NodeRef};
use super::{flat_levels_for, index_of, is_key_of, lone_hash};
use crate::error::LogError;
use crate::hash::{Digest, hyper_inner};
use crate::position::HyperPosition;

/// Number of entries from which it pays to insert into the two halves of a subtree on two threads, and the depth above which that is
/// done.
const PARALLEL_ENTRIES: usize = 128;
const PARALLEL_DEPTH: u16 = 2;

/// The changes that inserting some keys will make.
#[derive(Debug, Default)]
pub struct HyperChange {
    /// The root after the change.
    pub root: Digest,
    /// Keys that were already in the tree, with the version they had before.
    pub replaced: Vec<Entry>,
    hashes: Vec<(usize, Digest)>,
    buckets: Vec<(usize, NodeRef)>,
    leaves: Vec<(u32, Leaf)>,
    branches: Vec<(u32, Branch)>,
    /// Number of leaves and branches to add at the ends of the tree's arrays, and of unused branches to reuse.
    new_leaves: usize,
    new_branches: usize,
    reused_branches: usize,
}

impl HyperTree {
    /// Compute the result of inserting `entries` without changing anything. A key that is already in the tree moves to its new
    /// version.
    ///
    /// `entries` must be sorted by key, each key once.
    ///
    /// # Errors
    ///
    /// Errors of `digest_at`; [`LogError::Full`] if the tree has no room for more keys.
    pub fn plan(&self, entries: &[Entry], digest_at: &DigestAt<'_>) -> Result<HyperChange, LogError> {
        if entries.is_empty() {
            return Ok(HyperChange { root: self.root(), ..HyperChange::default() });
        }
        let mut planner = Planner { tree: self, digest_at, free: &self.free_branches, change: HyperChange::default() };
        planner.change.root = planner.descend(1, 0, entries)?;
        Ok(planner.change)
    }

    /// Apply a change that was planned on the tree in its current state. While the buckets hold more keys than they should, each
    /// added key also splits one bucket, so the flat part grows by a level without a pause for the whole of it.
    ///
    /// # Errors
    ///
    /// Same as [`Self::plan`]; the tree is unusable after an error.
    pub fn apply(&mut self, change: HyperChange, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        self.leaves.resize(self.leaves.len() + change.new_leaves, Leaf { prefix: 0, version: 0 });
        self.free_branches.truncate(self.free_branches.len() - change.reused_branches);
        self.branches.resize(self.branches.len() + change.new_branches, BLANK_BRANCH);
        put_all(&mut self.hashes, change.hashes);
        for (index, node) in change.buckets {
            *self.bucket_mut(index) = node;
        }
        put_all(&mut self.leaves, change.leaves.into_iter().map(|(index, leaf)| (index as usize, leaf)));
        put_all(&mut self.branches, change.branches.into_iter().map(|(index, branch)| (index as usize, branch)));
        for _ in 0..change.new_leaves {
            if self.flat_levels >= flat_levels_for(self.len()) {
                break;
            }
            self.split_next(digest_at)?;
        }
        Ok(())
    }

    /// Split the next bucket in two. Splitting the last bucket completes a new flat level.
    #[expect(
        clippy::indexing_slicing,
        reason = "splitting the last bucket starts a new level, where no bucket is split yet"
    )]
    fn split_next(&mut self, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        let depth = self.flat_levels;
        let bucket = self.buckets[self.halves.len() / 2];
        let (left, right) = self.children(bucket, depth, digest_at)?;
        let hashes = [self.hash_at(left, depth + 1, digest_at)?, self.hash_at(right, depth + 1, digest_at)?];
        if let Node::Branch(index) = bucket.kind()
            && self.branch(index).depth == depth
        {
            self.free_branches.push(index);
        }
        if self.halves.is_empty() {
            // Reserve the whole level at once: growing step by step would copy the array over and over.
            self.hashes.reserve_exact(2 * self.buckets.len());
            self.halves.reserve_exact(2 * self.buckets.len());
        }
        self.hashes.extend(hashes);
        self.halves.extend([left, right]);
        if self.halves.len() == 2 * self.buckets.len() {
            self.buckets = std::mem::take(&mut self.halves);
            self.flat_levels += 1;
        }
        Ok(())
    }

    #[expect(clippy::indexing_slicing, reason = "the change was planned on this tree in its current state")]
    fn bucket_mut(&mut self, index: usize) -> &mut NodeRef {
        let bucket = index - self.buckets.len();
        match bucket.checked_sub(self.buckets.len()) {
            Some(half) => &mut self.halves[half],
            None => &mut self.buckets[bucket],
        }
    }
}

/// Inserts keys into a tree without modifying it, and collects the changes.
struct Planner<'a> {
    tree: &'a HyperTree,
    digest_at: &'a DigestAt<'a>,
    /// Branches that may be reused; the last one is used first.
    free: &'a [u32],
    change: HyperChange,
}

impl Planner<'_> {
    /// Insert `entries`, at least one, below the flat node `index`; return its new hash.
    fn descend(&mut self, index: usize, depth: u16, entries: &[Entry]) -> Result<Digest, LogError> {
        let [first, ..] = entries else { return Ok(self.tree.flat(index)) };
        let hash = if let Some(old) = self.tree.bucket(index) {
            let (new, hash) = self.merge(old, entries, depth)?;
            if new != old {
                self.change.buckets.push((index, new));
            }
            hash
        } else {
            let (lefts, rights) = split(entries, depth);
            let (left, right) = if entries.len() >= PARALLEL_ENTRIES && depth < PARALLEL_DEPTH {
                self.descend_both(index, depth, lefts, rights)?
            } else {
                let left = self.descend(2 * index, depth + 1, lefts)?;
                (left, self.descend(2 * index + 1, depth + 1, rights)?)
            };
            hyper_inner(&left, &right, &HyperPosition::on_path(&first.key, depth).to_bytes())
        };
        self.change.hashes.push((index, hash));
        Ok(hash)
    }

    /// Insert below both children of a flat node, one thread each; return their new hashes.
    fn descend_both(
        &mut self,
        index: usize,
        depth: u16,
        lefts: &[Entry],
        rights: &[Entry],
    ) -> Result<(Digest, Digest), LogError> {
        let (tree, digest_at) = (self.tree, self.digest_at);
        let mut other = Planner { tree, digest_at, free: &[], change: HyperChange::default() };
        let (left, right) = rayon::join(
            || self.descend(2 * index, depth + 1, lefts),
            || other.descend(2 * index + 1, depth + 1, rights),
        );
        self.absorb(other.change)?;
        Ok((left?, right?))
    }

    /// Add the changes that another planner of the same tree has collected. Both count new nodes from the ends of the tree's arrays,
    /// so the indices of the other planner's new nodes are shifted by the number of new nodes in this one.
    fn absorb(&mut self, other: HyperChange) -> Result<(), LogError> {
        let (leaves, branches) = (self.tree.leaves.len(), self.tree.branches.len());
        let (leaf_shift, branch_shift) = (self.change.new_leaves, self.change.new_branches);
        let shifted = |index: u32, end: usize, shift: usize| {
            if (index as usize) < end { Ok(index) } else { index_of(index as usize + shift) }
        };
        let moved = |node: NodeRef| {
            Ok::<_, LogError>(match node.kind() {
                Node::Empty => node,
                Node::Leaf(index) => NodeRef::leaf(shifted(index, leaves, leaf_shift)?),
                Node::Branch(index) => NodeRef::branch(shifted(index, branches, branch_shift)?),
            })
        };
        for (bucket, node) in other.buckets {
            self.change.buckets.push((bucket, moved(node)?));
        }
        for (index, leaf) in other.leaves {
            self.change.leaves.push((shifted(index, leaves, leaf_shift)?, leaf));
        }
        for (index, branch) in other.branches {
            let branch = Branch { left: moved(branch.left)?, right: moved(branch.right)?, ..branch };
            self.change.branches.push((shifted(index, branches, branch_shift)?, branch));
        }
        self.change.hashes.extend(other.hashes);
        self.change.replaced.extend(other.replaced);
        self.change.new_leaves += other.new_leaves;
        self.change.new_branches += other.new_branches;
        Ok(())
    }

    /// Insert `entries` into the trie `node` at `depth`; return the new trie and its hash at that depth.
    fn merge(&mut self, node: NodeRef, entries: &[Entry], depth: u16) -> Result<(NodeRef, Digest), LogError> {
        let [first, others @ ..] = entries else {
            return Ok((node, self.tree.hash_at(node, depth, self.digest_at)?));
        };
        if others.is_empty()
            && let Some(placed) = self.place(node, first)?
        {
            return Ok((placed, lone_hash(&first.key, first.version, depth)));
        }
        let (left, right) = self.tree.children(node, depth, self.digest_at)?;
        let (lefts, rights) = split(entries, depth);
        let (left, left_hash) = self.merge(left, lefts, depth + 1)?;
        let (right, right_hash) = self.merge(right, rights, depth + 1)?;
        let hash = hyper_inner(&left_hash, &right_hash, &HyperPosition::on_path(&first.key, depth).to_bytes());
        let joined = match (left, right) {
            (NodeRef::EMPTY, only) | (only, NodeRef::EMPTY) => only,
            _ => self.join(node, Branch { hash, left, right, depth })?,
        };
        Ok((joined, hash))
    }

    /// Insert the only entry of a subtree if the subtree is empty or consists of the leaf of the same key; otherwise return `None`.
    fn place(&mut self, node: NodeRef, entry: &Entry) -> Result<Option<NodeRef>, LogError> {
        let index = match node.kind() {
            Node::Empty => {
                let index = index_of(self.tree.leaves.len() + self.change.new_leaves)?;
                self.change.new_leaves += 1;
                index
            }
            Node::Leaf(index) => {
                let leaf = self.tree.leaf(index);
                if !is_key_of(&leaf, &entry.key, self.digest_at)? {
                    return Ok(None);
                }
                self.change.replaced.push(Entry { key: entry.key, version: leaf.version });
                index
            }
            Node::Branch(_) => return Ok(None),
        };
        self.change.leaves.push((index, Leaf { prefix: entry.key.prefix64(), version: entry.version }));
        Ok(Some(NodeRef::leaf(index)))
    }

    /// Write a branch over the one that was there before, or into a new slot.
    fn join(&mut self, node: NodeRef, branch: Branch) -> Result<NodeRef, LogError> {
        let index = match node.kind() {
            Node::Branch(index) if self.tree.branch(index).depth == branch.depth => index,
            Node::Empty | Node::Leaf(_) | Node::Branch(_) => self.new_branch()?,
        };
        self.change.branches.push((index, branch));
        Ok(NodeRef::branch(index))
    }

    fn new_branch(&mut self) -> Result<u32, LogError> {
        if let [rest @ .., free] = self.free {
            self.free = rest;
            self.change.reused_branches += 1;
            return Ok(*free);
        }
        let index = index_of(self.tree.branches.len() + self.change.new_branches)?;
        self.change.new_branches += 1;
        Ok(index)
    }
}

fn split(entries: &[Entry], depth: u16) -> (&[Entry], &[Entry]) {
    entries.split_at(entries.partition_point(|entry| !entry.key.bit(depth)))
}

#[expect(
    clippy::indexing_slicing,
    reason = "the change was planned on this tree in its current state, and its arrays were extended for the new nodes"
)]
fn put_all<T>(array: &mut [T], values: impl IntoIterator<Item = (usize, T)>) {
    for (index, value) in values {
        array[index] = value;
    }
}
