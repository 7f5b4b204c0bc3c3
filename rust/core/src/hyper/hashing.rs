//! When the nodes of the hyper tree are hashed: at once, or many later, level by level.
//!
//! A path is hashed from its leaf up, each node after its child, while the nodes of one level are independent. So a batch is inserted
//! without hashing anything, and then [`Later`] hashes all nodes of a level together.

use crate::hash::{Digest, HYPER_LEVELS, Message, digests, hyper_default, hyper_inner, hyper_leaf};
use crate::position::HyperPosition;

/// Number of entries below which it costs more to collect the nodes of a level than it saves to hash them together.
pub(super) const FEW_ENTRIES: usize = 8;

/// Number of waiting nodes from which on they are hashed: enough to fill lanes, few enough to stay in the processor's cache.
const MANY: usize = 4096;

/// A way to hash the nodes of a tree, children before parents.
pub(super) trait Hashing: Default {
    /// The hash of a node, or a reference to it until it is hashed.
    type Hash: Copy;

    /// Return the hash of an empty subtree at `depth`.
    fn empty(depth: u16) -> Self::Hash;

    /// Return a hash that is known.
    fn known(&mut self, hash: Digest) -> Self::Hash;

    /// Hash the shortcut leaf of a version at `depth` on the path of `key`.
    fn leaf(&mut self, version: u64, key: &Digest, depth: u16) -> Self::Hash;

    /// Hash the node at `depth` on the path of `key`.
    fn inner(&mut self, left: Self::Hash, right: Self::Hash, key: &Digest, depth: u16) -> Self::Hash;

    /// Hash all nodes that are still waiting; return what gives the hash of each.
    fn finish(self) -> impl Fn(Self::Hash) -> Digest;
}

/// Hashes each node at once.
#[derive(Default)]
pub(super) struct AtOnce;

impl Hashing for AtOnce {
    type Hash = Digest;

    fn empty(depth: u16) -> Digest {
        hyper_default(HYPER_LEVELS - depth)
    }

    fn known(&mut self, hash: Digest) -> Digest {
        hash
    }

    fn leaf(&mut self, version: u64, key: &Digest, depth: u16) -> Digest {
        hyper_leaf(version, &HyperPosition::on_path(key, depth).to_bytes())
    }

    fn inner(&mut self, left: Digest, right: Digest, key: &Digest, depth: u16) -> Digest {
        hyper_inner(&left, &right, &HyperPosition::on_path(key, depth).to_bytes())
    }

    fn finish(self) -> impl Fn(Digest) -> Digest {
        |hash| hash
    }
}

/// Hashes nodes level by level, at the latest when all are asked for. It keeps 64 bits of each key: nodes deeper than that are in tries, which are
/// hashed at once.
pub(super) struct Later {
    /// The hashes by number, those of empty subtrees first. Those of waiting nodes are blank.
    hashes: Vec<Digest>,
    leaves: Vec<WaitingLeaf>,
    /// The other waiting nodes, by depth.
    levels: Vec<Vec<WaitingNode>>,
    waiting: usize,
}

/// The number of a hash in [`Later`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(u32);

impl Default for Later {
    fn default() -> Self {
        let hashes = (0..=HYPER_LEVELS).map(hyper_default).collect();
        Self { hashes, leaves: Vec::new(), levels: Vec::new(), waiting: 0 }
    }
}

struct WaitingLeaf {
    version: u64,
    prefix: u64,
    depth: u16,
    number: Number,
}

struct WaitingNode {
    prefix: u64,
    left: Number,
    right: Number,
    number: Number,
}

impl Hashing for Later {
    type Hash = Number;

    fn empty(depth: u16) -> Number {
        Number((HYPER_LEVELS - depth).into())
    }

    #[expect(clippy::expect_used, reason = "another number would be that of another hash")]
    fn known(&mut self, hash: Digest) -> Number {
        let number = u32::try_from(self.hashes.len()).expect("a batch has fewer nodes than memory has room for hashes");
        self.hashes.push(hash);
        Number(number)
    }

    fn leaf(&mut self, version: u64, key: &Digest, depth: u16) -> Number {
        let number = self.wait();
        self.leaves.push(WaitingLeaf { version, prefix: key.prefix64(), depth, number });
        number
    }

    #[expect(clippy::indexing_slicing, reason = "the level was added just before")]
    fn inner(&mut self, left: Number, right: Number, key: &Digest, depth: u16) -> Number {
        let number = self.wait();
        let level = usize::from(depth);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        self.levels[level].push(WaitingNode { prefix: key.prefix64(), left, right, number });
        number
    }

    #[expect(clippy::indexing_slicing, reason = "a number is the index of a hash")]
    fn finish(mut self) -> impl Fn(Number) -> Digest {
        self.hash_waiting();
        move |number| self.hashes[number.0 as usize]
    }
}

impl Later {
    /// Return the number of a new node.
    fn wait(&mut self) -> Number {
        if self.waiting >= MANY {
            self.hash_waiting();
        }
        self.waiting += 1;
        self.known(Digest::default())
    }

    /// Hash the waiting nodes, from the deepest level up. Each was added after its children, so these are deeper, or hashed already.
    #[expect(clippy::indexing_slicing, reason = "a number is the index of a hash")]
    fn hash_waiting(&mut self) {
        let leaf = |leaf: &WaitingLeaf| {
            Message::hyper_leaf(leaf.version, &HyperPosition::of_prefix(leaf.prefix, leaf.depth).to_bytes())
        };
        for (leaf, hash) in self.leaves.iter().zip(digests(self.leaves.iter().map(leaf))) {
            self.hashes[leaf.number.0 as usize] = hash;
        }
        self.leaves.clear();
        let mut done = Vec::new();
        for (depth, nodes) in (0..=HYPER_LEVELS).zip(&mut self.levels).rev() {
            let message = |node: &WaitingNode| {
                let position = HyperPosition::of_prefix(node.prefix, depth).to_bytes();
                Message::hyper_inner(&self.hashes[node.left.0 as usize], &self.hashes[node.right.0 as usize], &position)
            };
            done.extend(digests(nodes.iter().map(message)));
            for (node, hash) in nodes.drain(..).zip(done.drain(..)) {
                self.hashes[node.number.0 as usize] = hash;
            }
        }
        self.waiting = 0;
    }
}
