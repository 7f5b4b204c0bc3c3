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
    left: Half,
    right: Half,
}

/// A subtree with its hash one level below the branch. It is kept there because a path needs just that, and computing it from what is further below
/// could take a hash for each level.
#[derive(Debug, Clone)]
struct Half {
    trie: Trie,
    hash: Digest,
}

impl Trie {
    /// Return the trie of some entries, sorted by key, each key once.
    pub(super) fn of(entries: &[Entry], depth: u16) -> Self {
        if entries.is_empty() { Self::Empty } else { Self::Empty.with(entries, depth, &mut Vec::new()).0 }
    }

    /// Return the trie with `entries` inserted, at least one, sorted by key, each key once, and the hash of its root at `depth`. A key that was
    /// there moves to its new version; its old one is added to `replaced`.
    pub(super) fn with(&self, entries: &[Entry], depth: u16, replaced: &mut Vec<Entry>) -> (Self, Digest) {
        if let [only] = entries {
            let is_own = match self {
                Self::Empty => true,
                Self::Leaf(old) if old.key == only.key => {
                    replaced.push(**old);
                    true
                }
                Self::Leaf(_) | Self::Branch(_) => false,
            };
            if is_own {
                return (Self::Leaf(Arc::new(*only)), lone_hash(&only.key, only.version, depth, &mut AtOnce));
            }
        }
        let (left, right) = self.halves(depth);
        let (lefts, rights) = split_entries(entries, depth);
        let mut inserted = |(trie, hash): (Self, Option<Digest>), entries: &[Entry]| {
            let (trie, hash) = if entries.is_empty() {
                let hash = hash.unwrap_or_else(|| trie.hash(depth + 1));
                (trie, hash)
            } else {
                trie.with(entries, depth + 1, replaced)
            };
            Half { trie, hash }
        };
        let (left, right) = (inserted(left, lefts), inserted(right, rights));
        let key = entries.first().map_or_else(Digest::default, |first| first.key);
        let hash = AtOnce.inner(left.hash, right.hash, &key, depth);
        let joined = match (left, right) {
            (Half { trie: Self::Empty, .. }, Half { trie, .. })
            | (Half { trie, .. }, Half { trie: Self::Empty, .. }) => trie,
            (left, right) => Self::Branch(Arc::new(Branch { depth, left, right })),
        };
        (joined, hash)
    }

    /// Return the two subtrees of the node at `depth`.
    pub(super) fn children(&self, depth: u16) -> (Self, Self) {
        let ((left, _), (right, _)) = self.halves(depth);
        (left, right)
    }

    /// Return the two subtrees of the node at `depth`, each with its hash if that is known.
    fn halves(&self, depth: u16) -> ((Self, Option<Digest>), (Self, Option<Digest>)) {
        let known = |half: &Half| (half.trie.clone(), Some(half.hash));
        let empty = (Self::Empty, Some(AtOnce::empty(depth + 1)));
        let is_right = match self {
            Self::Empty => return (empty.clone(), empty),
            Self::Branch(branch) if branch.depth == depth => return (known(&branch.left), known(&branch.right)),
            Self::Leaf(leaf) => leaf.key.bit(depth),
            Self::Branch(branch) => branch.some_key().bit(depth),
        };
        let whole = (self.clone(), None);
        if is_right { (empty, whole) } else { (whole, empty) }
    }

    /// Return the hash at `depth` of the subtree that this is the trie of.
    pub(super) fn hash(&self, depth: u16) -> Digest {
        match self {
            Self::Empty => AtOnce::empty(depth),
            Self::Leaf(leaf) => lone_hash(&leaf.key, leaf.version, depth, &mut AtOnce),
            Self::Branch(branch) => {
                let key = branch.some_key();
                let hash = AtOnce.inner(branch.left.hash, branch.right.hash, &key, branch.depth);
                lift(&key, hash, branch.depth, depth, &mut AtOnce)
            }
        }
    }

    /// Return the version of `key`, or `None` if it is not in the trie.
    pub(super) fn find(&self, key: &Digest) -> Option<u64> {
        match self {
            Self::Empty => None,
            Self::Leaf(leaf) => (leaf.key == *key).then_some(leaf.version),
            Self::Branch(branch) => if key.bit(branch.depth) { &branch.right } else { &branch.left }.trie.find(key),
        }
    }

    /// Add the siblings on the path of `key` from `depth` on to `siblings`; return where the path ends.
    pub(super) fn path(&self, key: &Digest, depth: u16, siblings: &mut Vec<Digest>) -> PathEnd {
        let (mut node, mut depth) = (self, depth);
        loop {
            let (next, beside) = match node {
                Self::Empty => return PathEnd::Empty,
                Self::Leaf(leaf) if depth >= SHORTCUT_DEPTH => return PathEnd::Leaf { version: leaf.version },
                Self::Branch(branch) if branch.depth == depth => {
                    let (left, right) = (&branch.left, &branch.right);
                    let (own, beside) = if key.bit(depth) { (right, left) } else { (left, right) };
                    (&own.trie, beside.hash)
                }
                Self::Leaf(leaf) => node.beside(&leaf.key, key, depth),
                Self::Branch(branch) => node.beside(&branch.some_key(), key, depth),
            };
            depth += 1;
            siblings.push(beside);
            node = next;
        }
    }

    /// Return where the path of `key` goes on from `depth`, where all keys below this node go the way of `below`; and the hash beside it.
    fn beside(&self, below: &Digest, key: &Digest, depth: u16) -> (&Self, Digest) {
        if key.bit(depth) == below.bit(depth) {
            (self, AtOnce::empty(depth + 1))
        } else {
            (&Self::Empty, self.hash(depth + 1))
        }
    }

    /// Return its entries, sorted by key.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let (mut entries, mut rest) = (Vec::new(), vec![self]);
        while let Some(node) = rest.pop() {
            match node {
                Self::Empty => {}
                Self::Leaf(leaf) => entries.push(**leaf),
                Self::Branch(branch) => rest.extend([&branch.right.trie, &branch.left.trie]),
            }
        }
        entries
    }
}

impl Branch {
    /// Return a key below; all have the first `depth` bits in common.
    #[expect(clippy::panic, reason = "any key returned here would be wrong, and would lead to a wrong root")]
    fn some_key(&self) -> Digest {
        let mut node = &self.left.trie;
        loop {
            match node {
                Trie::Empty => panic!("a branch has leaves on both sides"),
                Trie::Branch(branch) => node = &branch.left.trie,
                Trie::Leaf(leaf) => return leaf.key,
            }
        }
    }
}
