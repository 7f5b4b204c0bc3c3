//! Inserting a batch into the hyper tree: the change is planned without touching the tree, then applied.

use super::hashing::{AtOnce, FEW_ENTRIES, Hashing, Later};
use super::{BLANK_BRANCH, Branch, DigestAt, Entry, HyperTree, Leaf, Node, NodeRef};
use super::{index_of, is_key_of, lone_hash};
use crate::error::LogError;
use crate::hash::Digest;

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

impl HyperChange {
    /// Add the changes that were planned on the same `tree` for other keys. Both count new nodes from the ends of the tree's arrays, so
    /// the indices of the new nodes of `other` are shifted by the number of new nodes here.
    fn absorb(&mut self, other: Self, tree: &HyperTree) -> Result<(), LogError> {
        let (leaves, branches) = (tree.leaves.len(), tree.branches.len());
        let (leaf_shift, branch_shift) = (self.new_leaves, self.new_branches);
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
            self.buckets.push((bucket, moved(node)?));
        }
        for (index, leaf) in other.leaves {
            self.leaves.push((shifted(index, leaves, leaf_shift)?, leaf));
        }
        for (index, branch) in other.branches {
            let branch = Branch { left: moved(branch.left)?, right: moved(branch.right)?, ..branch };
            self.branches.push((shifted(index, branches, branch_shift)?, branch));
        }
        self.hashes.extend(other.hashes);
        self.replaced.extend(other.replaced);
        self.new_leaves += other.new_leaves;
        self.new_branches += other.new_branches;
        Ok(())
    }
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
        self.plan_below(1, 0, entries, &self.free_branches, digest_at)
    }

    /// Compute the result of inserting `entries`, at least one, below the flat node `index`; its new hash is the root of the result. New
    /// branches are taken from the end of `free`. Large batches are planned on several threads.
    fn plan_below(
        &self,
        index: usize,
        depth: u16,
        entries: &[Entry],
        free: &[u32],
        digest_at: &DigestAt<'_>,
    ) -> Result<HyperChange, LogError> {
        let is_large = entries.len() >= PARALLEL_ENTRIES && depth < PARALLEL_DEPTH;
        let (first, lefts, rights) = match split(entries, depth) {
            (lefts @ [first, ..], rights @ [_, ..]) if is_large => (first, lefts, rights),
            _ if entries.len() < FEW_ENTRIES => {
                return Planner::<AtOnce>::new(self, digest_at, free).plan(index, depth, entries);
            }
            _ => return Planner::<Later>::new(self, digest_at, free).plan(index, depth, entries),
        };
        let (left, right) = rayon::join(
            || self.plan_below(2 * index, depth + 1, lefts, free, digest_at),
            || self.plan_below(2 * index + 1, depth + 1, rights, &[], digest_at),
        );
        let (mut change, right) = (left?, right?);
        change.root = AtOnce.inner(change.root, right.root, &first.key, depth);
        change.absorb(right, self)?;
        change.hashes.push((index, change.root));
        Ok(change)
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
        self.split_buckets(change.new_leaves, digest_at)
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
struct Planner<'a, H: Hashing> {
    tree: &'a HyperTree,
    digest_at: &'a DigestAt<'a>,
    /// Branches that may be reused; the last one is used first.
    free: &'a [u32],
    change: HyperChange,
    hashing: H,
    /// The flat nodes that change, and the hashes of the branches of `change`, in the same order.
    flat: Vec<(usize, H::Hash)>,
    branch_hashes: Vec<H::Hash>,
}

impl<'a, H: Hashing> Planner<'a, H> {
    fn new(tree: &'a HyperTree, digest_at: &'a DigestAt<'a>, free: &'a [u32]) -> Self {
        let (change, hashing) = (HyperChange::default(), H::default());
        Self { tree, digest_at, free, change, hashing, flat: Vec::new(), branch_hashes: Vec::new() }
    }

    /// Insert `entries` below the flat node `index`; return the change with the new hash of that node as its root.
    fn plan(mut self, index: usize, depth: u16, entries: &[Entry]) -> Result<HyperChange, LogError> {
        let root = self.descend(index, depth, entries)?;
        let (mut change, hash_of) = (self.change, self.hashing.finish());
        change.root = hash_of(root);
        change.hashes = self.flat.into_iter().map(|(index, slot)| (index, hash_of(slot))).collect();
        for ((_, branch), slot) in change.branches.iter_mut().zip(self.branch_hashes) {
            branch.hash = hash_of(slot);
        }
        Ok(change)
    }

    /// Insert `entries` below the flat node `index`; return its new hash.
    fn descend(&mut self, index: usize, depth: u16, entries: &[Entry]) -> Result<H::Hash, LogError> {
        let [first, ..] = entries else { return Ok(self.hashing.known(self.tree.flat(index))) };
        let hash = if let Some(old) = self.tree.bucket(index) {
            let (new, hash) = self.merge(old, entries, depth)?;
            if new != old {
                self.change.buckets.push((index, new));
            }
            hash
        } else {
            let (lefts, rights) = split(entries, depth);
            let left = self.descend(2 * index, depth + 1, lefts)?;
            let right = self.descend(2 * index + 1, depth + 1, rights)?;
            self.hashing.inner(left, right, &first.key, depth)
        };
        self.flat.push((index, hash));
        Ok(hash)
    }

    /// Insert `entries` into the trie `node` at `depth`; return the new trie and its hash at that depth.
    fn merge(&mut self, node: NodeRef, entries: &[Entry], depth: u16) -> Result<(NodeRef, H::Hash), LogError> {
        let [first, others @ ..] = entries else {
            return Ok((node, self.tree.hash_at(node, depth, self.digest_at, &mut self.hashing)?));
        };
        if others.is_empty()
            && let Some(placed) = self.place(node, first)?
        {
            return Ok((placed, lone_hash(&first.key, first.version, depth, &mut self.hashing)));
        }
        let (left, right) = self.tree.children(node, depth, self.digest_at)?;
        let (lefts, rights) = split(entries, depth);
        let (left, left_hash) = self.merge(left, lefts, depth + 1)?;
        let (right, right_hash) = self.merge(right, rights, depth + 1)?;
        let hash = self.hashing.inner(left_hash, right_hash, &first.key, depth);
        let joined = match (left, right) {
            (NodeRef::EMPTY, only) | (only, NodeRef::EMPTY) => only,
            _ => self.join(node, Branch { left, right, depth, ..BLANK_BRANCH }, hash)?,
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
    fn join(&mut self, node: NodeRef, branch: Branch, hash: H::Hash) -> Result<NodeRef, LogError> {
        let index = match node.kind() {
            Node::Branch(index) if self.tree.branch(index).depth == branch.depth => index,
            Node::Empty | Node::Leaf(_) | Node::Branch(_) => self.new_branch()?,
        };
        self.change.branches.push((index, branch));
        self.branch_hashes.push(hash);
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
