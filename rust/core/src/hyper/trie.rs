//! Keys that slots cannot tell apart, or that crowd in one bucket: a trie of whole keys with a node only where two of them part.
//!
//! Digests of honest events share 48 bits, or a place with 32 others, about as often as never; anybody can mine a few that do. Each of
//! those costs its own path and some hundred bytes, and none of them makes others slower. A trie is never changed: inserting returns
//! another one that shares all subtrees but those on the paths of the new keys.

use std::sync::Arc;

use super::hashing::{AtOnce, Hashing as _};
use super::{Entry, PathEnd, lift, lone_hash, split_entries};
use crate::hash::Digest;
use crate::proof::SHORTCUT_DEPTH;

/// A trie: nothing, one key, or what parts.
#[derive(Debug, Clone)]
pub(super) enum Trie {
    Empty,
    Leaf(Arc<Entry>),
    Branch(Arc<Branch>),
}

/// A point where keys part: all keys below it share `depth` bits and differ in the next one.
#[derive(Debug)]
pub(super) struct Branch {
    depth: u16,
    hash: Digest,
    left: Trie,
    right: Trie,
}

impl Trie {
    /// Return the trie of some entries, sorted by key, each key once.
    pub(super) fn of(entries: &[Entry], depth: u16) -> Self {
        Self::Empty.with(entries, depth, &mut Vec::new()).0
    }

    /// Return the trie with `entries` inserted, sorted by key, each key once, and the hash of its root at `depth`. A key that was there
    /// moves to its new version; its old one is added to `replaced`.
    pub(super) fn with(&self, entries: &[Entry], depth: u16, replaced: &mut Vec<Entry>) -> (Self, Digest) {
        let [first, others @ ..] = entries else { return (self.clone(), self.hash(depth)) };
        let placed = match self {
            Self::Empty => others.is_empty(),
            Self::Leaf(old) if others.is_empty() && old.key == first.key => {
                replaced.push(**old);
                true
            }
            Self::Leaf(_) | Self::Branch(_) => false,
        };
        if placed {
            return (Self::Leaf(Arc::new(*first)), lone_hash(&first.key, first.version, depth, &mut AtOnce));
        }
        let (left, right) = self.children(depth);
        let (lefts, rights) = split_entries(entries, depth);
        let (left, left_hash) = left.with(lefts, depth + 1, replaced);
        let (right, right_hash) = right.with(rights, depth + 1, replaced);
        let hash = AtOnce.inner(left_hash, right_hash, &first.key, depth);
        let joined = match (left, right) {
            (Self::Empty, only) | (only, Self::Empty) => only,
            (left, right) => Self::Branch(Arc::new(Branch { depth, hash, left, right })),
        };
        (joined, hash)
    }

    /// Return the two subtrees of the node at `depth`.
    pub(super) fn children(&self, depth: u16) -> (Self, Self) {
        let is_right = match self {
            Self::Empty => return (Self::Empty, Self::Empty),
            Self::Branch(branch) if branch.depth == depth => return (branch.left.clone(), branch.right.clone()),
            Self::Leaf(leaf) => leaf.key.bit(depth),
            Self::Branch(branch) => branch.some_key().bit(depth),
        };
        if is_right { (Self::Empty, self.clone()) } else { (self.clone(), Self::Empty) }
    }

    /// Return the hash at `depth` of the subtree that this is the trie of.
    pub(super) fn hash(&self, depth: u16) -> Digest {
        match self {
            Self::Empty => AtOnce::empty(depth),
            Self::Leaf(leaf) => lone_hash(&leaf.key, leaf.version, depth, &mut AtOnce),
            Self::Branch(branch) => lift(&branch.some_key(), branch.hash, branch.depth, depth, &mut AtOnce),
        }
    }

    /// Return the version of `key`, or `None` if it is not in the trie.
    pub(super) fn find(&self, key: &Digest) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Leaf(leaf) => (leaf.key == *key).then_some(leaf.version),
            Self::Branch(branch) => if key.bit(branch.depth) { &branch.right } else { &branch.left }.find(key),
        }
    }

    /// Add the siblings on the path of `key` from `depth` on to `siblings`; return where the path ends.
    pub(super) fn path(&self, key: &Digest, depth: u16, siblings: &mut Vec<Digest>) -> PathEnd {
        let (mut node, mut depth) = (self.clone(), depth);
        loop {
            match &node {
                Self::Empty => return PathEnd::Empty,
                Self::Leaf(leaf) if depth >= SHORTCUT_DEPTH => return PathEnd::Leaf { version: leaf.version },
                Self::Leaf(_) | Self::Branch(_) => {}
            }
            let (left, right) = node.children(depth);
            let (own, sibling) = if key.bit(depth) { (right, left) } else { (left, right) };
            depth += 1;
            siblings.push(sibling.hash(depth));
            node = own;
        }
    }

    /// Return its entries, sorted by key.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let (mut entries, mut rest) = (Vec::new(), vec![self]);
        while let Some(node) = rest.pop() {
            match node {
                Self::Empty => {}
                Self::Leaf(leaf) => entries.push(**leaf),
                Self::Branch(branch) => rest.extend([&branch.right, &branch.left]),
            }
        }
        entries
    }
}

impl Branch {
    /// Return a key below; all have the first `depth` bits in common.
    #[expect(clippy::panic, reason = "any key returned here would be wrong, and would lead to a wrong root")]
    fn some_key(&self) -> Digest {
        let mut node = &self.left;
        loop {
            match node {
                Trie::Empty => panic!("a branch has leaves on both sides"),
                Trie::Branch(branch) => node = &branch.left,
                Trie::Leaf(leaf) => return leaf.key,
            }
        }
    }
}
