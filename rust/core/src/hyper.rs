//! The hyper tree: a sparse Merkle tree from event digest to version (protocol of BBVA QED; Dahlberg, Pulls and Peeters, "Efficient
//! Sparse Merkle Trees", 2016, for the empty subtrees).
//!
//! Digests are uniformly distributed, so a tree of n events is full down to about log2(n) levels and sparse below. The full part is a
//! flat array of hashes, so the index of a hash is known before any hash is read. Each node of its last level is a *bucket*: a small
//! trie with a node only where two keys diverge. A key chosen to share many bits with others makes a trie deeper, but never causes a
//! scan of its bucket.
//!
//! None of this is stored. A batch is inserted by [`HyperTree::plan`] and [`HyperTree::apply`]; when a log is opened,
//! [`HyperTree::of_events`] builds the same tree from all of its events.

mod build;
mod hashing;
mod plan;
mod split;

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::{Digest, HYPER_LEVELS, hyper_default};
use crate::integers::{height_from, usize_from};
use crate::proof::SHORTCUT_DEPTH;

use hashing::{AtOnce, Hashing};

pub use plan::HyperChange;

/// The range that the number of flat levels is kept in. 24 levels take 1 GiB.
const FLAT_LEVELS: std::ops::RangeInclusive<u16> = 4..=24;

/// Returns the event digest of a version, from any thread. It is called only for keys that share their first 64 bits.
pub type DigestAt<'a> = dyn Fn(u64) -> Result<Digest, LogError> + Sync + 'a;

/// A node of a bucket's trie: nothing, a leaf or a branch, as an index into the tree's arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NodeRef(u32);

/// The kinds of [`NodeRef`].
enum Node {
    Empty,
    Leaf(u32),
    Branch(u32),
}

impl NodeRef {
    const EMPTY: Self = Self(0);
    const LEAF: u32 = 1 << 31;

    const fn leaf(index: u32) -> Self {
        Self((index + 1) | Self::LEAF)
    }

    const fn branch(index: u32) -> Self {
        Self(index + 1)
    }

    const fn kind(self) -> Node {
        match self.0 {
            0 => Node::Empty,
            tagged if tagged & Self::LEAF != 0 => Node::Leaf((tagged & !Self::LEAF) - 1),
            untagged => Node::Branch(untagged - 1),
        }
    }
}

/// One key: its first 64 bits and the version it maps to, whose event digest in the log is the whole key.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    prefix: u64,
    version: u64,
}

/// A point where keys diverge: all keys below it share `depth` bits and differ in the next one.
#[derive(Debug, Clone, Copy)]
struct Branch {
    hash: Digest,
    left: NodeRef,
    right: NodeRef,
    depth: u16,
}

/// Placeholder in a new slot until the branch is written.
const BLANK_BRANCH: Branch =
    Branch { hash: Digest::new([0; 32]), left: NodeRef::EMPTY, right: NodeRef::EMPTY, depth: 0 };

impl Leaf {
    /// Return the index of the leaf's bucket below `levels` flat levels, 1 to 24.
    fn bucket(&self, levels: u16) -> usize {
        usize_from(self.prefix >> (64 - levels))
    }
}

/// A key and the version it maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Digest of the event.
    pub key: Digest,
    /// Its version.
    pub version: u64,
}

/// Where the path of a key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEnd {
    /// At an empty subtree.
    Empty,
    /// At the shortcut leaf of a version, whose event may be this key or a different one.
    Leaf {
        /// The version the leaf holds.
        version: u64,
    },
}

/// The hyper tree.
#[derive(Debug)]
pub struct HyperTree {
    flat_levels: u16,
    /// The flat part in heap order: the root at 1, the children of `i` at `2i` and `2i + 1`.
    hashes: Vec<Digest>,
    /// The trie below each node of the last flat level. If a bucket has been split, use `halves` instead.
    buckets: Vec<NodeRef>,
    /// The tries one level below that: two for each bucket that has been split. Buckets are split from left to right.
    halves: Vec<NodeRef>,
    leaves: Vec<Leaf>,
    branches: Vec<Branch>,
    /// Branches that became unused when the flat part grew.
    free_branches: Vec<u32>,
}

impl HyperTree {
    /// Return an empty tree with room for `expected` keys before it has to grow.
    #[must_use]
    pub fn with_capacity(expected: u64) -> Self {
        let flat_levels = flat_levels_for(expected);
        let level_of = |index: usize| height_from(index.max(1).ilog2());
        Self {
            flat_levels,
            hashes: (0..2_usize << flat_levels)
                .into_par_iter()
                .map(|index| hyper_default(HYPER_LEVELS - level_of(index)))
                .collect(),
            buckets: vec![NodeRef::EMPTY; 1 << flat_levels],
            halves: Vec::new(),
            leaves: Vec::new(),
            branches: Vec::new(),
            free_branches: Vec::new(),
        }
    }

    /// Return the number of keys.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Return whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Return the root.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.flat(1)
    }

    /// Return the siblings on the path of `key`, from the root down, and where the path ends.
    ///
    /// # Errors
    ///
    /// Same as [`Self::plan`].
    pub fn path(&self, key: &Digest, digest_at: &DigestAt<'_>) -> Result<(Vec<Digest>, PathEnd), LogError> {
        let mut siblings = Vec::with_capacity(48);
        let (mut index, mut flat_depth) = (1, 0);
        let bucket = loop {
            if let Some(bucket) = self.bucket(index) {
                break bucket;
            }
            let depth = flat_depth;
            flat_depth += 1;
            if self.flat(index) == hyper_default(HYPER_LEVELS - depth) {
                return Ok((siblings, PathEnd::Empty));
            }
            index = 2 * index + usize::from(key.bit(depth));
            siblings.push(self.flat(index ^ 1));
        };
        let (mut node, mut depth) = (bucket, flat_depth);
        loop {
            match node.kind() {
                Node::Empty => return Ok((siblings, PathEnd::Empty)),
                Node::Leaf(leaf) if depth >= SHORTCUT_DEPTH => {
                    return Ok((siblings, PathEnd::Leaf { version: self.leaf(leaf).version }));
                }
                Node::Leaf(_) | Node::Branch(_) => {}
            }
            let (left, right) = self.children(node, depth, digest_at)?;
            let (own, sibling) = if key.bit(depth) { (right, left) } else { (left, right) };
            depth += 1;
            siblings.push(self.hash_at(sibling, depth, digest_at, &mut AtOnce)?);
            node = own;
        }
    }

    /// Return the version `key` maps to, or `None` if the key is not in the tree.
    ///
    /// # Errors
    ///
    /// Same as [`Self::plan`].
    pub fn find(&self, key: &Digest, digest_at: &DigestAt<'_>) -> Result<Option<u64>, LogError> {
        let mut node = self.bucket_of(key);
        loop {
            match node.kind() {
                Node::Empty => return Ok(None),
                Node::Leaf(leaf) => {
                    let leaf = self.leaf(leaf);
                    return Ok(is_key_of(&leaf, key, digest_at)?.then_some(leaf.version));
                }
                Node::Branch(branch) => {
                    let branch = self.branch(branch);
                    node = if key.bit(branch.depth) { branch.right } else { branch.left };
                }
            }
        }
    }

    /// Return the trie of the bucket on the path of `key`.
    #[expect(clippy::expect_used, reason = "if the bucket is not found, the key must not be reported as absent")]
    fn bucket_of(&self, key: &Digest) -> NodeRef {
        let on_path = |levels| self.bucket(flat_index(key, levels));
        let bucket = on_path(self.flat_levels).or_else(|| on_path(self.flat_levels + 1));
        bucket.expect("the path of every key leads through a bucket")
    }

    /// Return the two subtrees of `node`, a node at `depth`.
    fn children(&self, node: NodeRef, depth: u16, digest_at: &DigestAt<'_>) -> Result<(NodeRef, NodeRef), LogError> {
        match node.kind() {
            Node::Empty => return Ok((NodeRef::EMPTY, NodeRef::EMPTY)),
            Node::Branch(index) => {
                let branch = self.branch(index);
                if branch.depth == depth {
                    return Ok((branch.left, branch.right));
                }
            }
            Node::Leaf(_) => {}
        }
        let is_right = self.some_key(node, depth + 1, digest_at)?.bit(depth);
        Ok(if is_right { (NodeRef::EMPTY, node) } else { (node, NodeRef::EMPTY) })
    }

    /// Return the hash of the subtree at `depth` that `node` is the root of.
    fn hash_at<H: Hashing>(
        &self,
        node: NodeRef,
        depth: u16,
        digest_at: &DigestAt<'_>,
        hashing: &mut H,
    ) -> Result<H::Hash, LogError> {
        match node.kind() {
            Node::Empty => Ok(H::empty(depth)),
            Node::Leaf(index) => {
                let key = self.some_key(node, depth.max(SHORTCUT_DEPTH), digest_at)?;
                Ok(lone_hash(&key, self.leaf(index).version, depth, hashing))
            }
            Node::Branch(index) => {
                let branch = self.branch(index);
                let hash = hashing.known(branch.hash);
                if branch.depth == depth {
                    return Ok(hash);
                }
                let key = self.some_key(node, branch.depth, digest_at)?;
                Ok(lift(&key, hash, branch.depth, depth, hashing))
            }
        }
    }

    /// Return a key below `node`, which must not be empty. At least its first `bits` bits are correct; all keys below `node` have
    /// their shared bits in common, so any of them will do.
    #[expect(clippy::panic, reason = "any key returned here would be wrong, and would lead to a wrong root")]
    fn some_key(&self, node: NodeRef, bits: u16, digest_at: &DigestAt<'_>) -> Result<Digest, LogError> {
        let mut node = node;
        loop {
            match node.kind() {
                Node::Empty => panic!("a branch has leaves on both sides"),
                Node::Branch(index) => node = self.branch(index).left,
                Node::Leaf(index) => return key_of(&self.leaf(index), bits, digest_at),
            }
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "indices come from descending the flat levels, and the array covers all of them"
    )]
    fn flat(&self, index: usize) -> Digest {
        self.hashes[index]
    }

    /// Return the trie below the flat node `index`, or `None` if its children are flat too.
    #[expect(clippy::indexing_slicing, reason = "no path descends below a bucket that has not been split")]
    fn bucket(&self, index: usize) -> Option<NodeRef> {
        let bucket = index.checked_sub(self.buckets.len())?;
        match bucket.checked_sub(self.buckets.len()) {
            Some(half) => Some(self.halves[half]),
            None if 2 * bucket < self.halves.len() => None,
            None => Some(self.buckets[bucket]),
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a leaf is stored whenever a reference to it is created")]
    fn leaf(&self, index: u32) -> Leaf {
        self.leaves[index as usize]
    }

    #[expect(clippy::indexing_slicing, reason = "a branch is stored whenever a reference to it is created")]
    fn branch(&self, index: u32) -> Branch {
        self.branches[index as usize]
    }
}

/// Return the number of flat levels for a number of keys: two to four keys per bucket.
fn flat_levels_for(keys: u64) -> u16 {
    let levels = height_from(keys.max(1).ilog2()).saturating_sub(1);
    levels.clamp(*FLAT_LEVELS.start(), *FLAT_LEVELS.end())
}

/// Return the heap index of the flat node at `depth`, 1 to 25, on the path of `key`: a one, followed by the first `depth` bits of the
/// key.
fn flat_index(key: &Digest, depth: u16) -> usize {
    let bits = key.prefix64() >> (64 - depth);
    usize_from(bits | 1 << depth)
}

/// Return the hash at `depth` of a subtree that contains one key.
fn lone_hash<H: Hashing>(key: &Digest, version: u64, depth: u16, hashing: &mut H) -> H::Hash {
    let leaf_depth = depth.max(SHORTCUT_DEPTH);
    let leaf = hashing.leaf(version, key, leaf_depth);
    lift(key, leaf, leaf_depth, depth, hashing)
}

/// Return the hash at depth `to` of a subtree that contains only the node `hash` at depth `from`, on the path of `key`.
fn lift<H: Hashing>(key: &Digest, hash: H::Hash, from: u16, to: u16, hashing: &mut H) -> H::Hash {
    (to..from).rev().fold(hash, |below, depth| {
        let beside = H::empty(depth + 1);
        let (left, right) = if key.bit(depth) { (beside, below) } else { (below, beside) };
        hashing.inner(left, right, key, depth)
    })
}

/// Return the key of a leaf, correct in at least its first `bits` bits.
fn key_of(leaf: &Leaf, bits: u16, digest_at: &DigestAt<'_>) -> Result<Digest, LogError> {
    if bits > 64 {
        return digest_at(leaf.version);
    }
    Ok(key_of_prefix(leaf.prefix))
}

/// Return the lowest key that starts with these 64 bits.
fn key_of_prefix(prefix: u64) -> Digest {
    let mut bytes = [0; 32];
    let (start, _) = bytes.split_at_mut(8);
    start.copy_from_slice(&prefix.to_be_bytes());
    Digest::new(bytes)
}

fn is_key_of(leaf: &Leaf, key: &Digest, digest_at: &DigestAt<'_>) -> Result<bool, LogError> {
    Ok(leaf.prefix == key.prefix64() && digest_at(leaf.version)? == *key)
}

fn index_of(index: usize) -> Result<u32, LogError> {
    // The top bit distinguishes leaves from branches, and references start at one.
    let fitting = u32::try_from(index).ok().filter(|&index| index < NodeRef::LEAF - 1);
    fitting.ok_or(LogError::Full { keys: index as u64 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Insert `keys` in batches, cycling through the given sizes; the version of a key is its index.
    fn grown(keys: &[Digest], sizes: &[usize]) -> HyperTree {
        let mut tree = HyperTree::with_capacity(0);
        let (mut first, mut turn) = (0, 0);
        let digest_at = |version: u64| Ok(keys[usize::try_from(version).unwrap()]);
        while first < keys.len() {
            let last = (first + sizes[turn % sizes.len()]).min(keys.len());
            let entry = |place: usize| Entry { key: keys[place], version: place as u64 };
            let mut entries: Vec<_> = (first..last).map(entry).collect();
            entries.sort_unstable();
            let change = tree.plan(&entries, &digest_at).unwrap();
            let root = change.root;
            tree.apply(change, &digest_at).unwrap();
            assert_eq!(tree.root(), root);
            (first, turn) = (last, turn + 1);
        }
        tree
    }

    fn plain(parts: &[&[u8]]) -> Digest {
        Digest::of_event(&parts.concat())
    }

    /// Return the hash at `depth` of the subtree of `entries`, sorted by key, by its definition. `empty` are the hashes of empty
    /// subtrees by height.
    fn defined(entries: &[Entry], depth: u16, empty: &[Digest]) -> Digest {
        let place = |key: &Digest| {
            let mut prefix = *key.as_bytes();
            for bit in depth..256 {
                prefix[usize::from(bit / 8)] &= !(0x80 >> (bit % 8));
            }
            [(256 - depth).to_be_bytes().as_slice(), &prefix].concat()
        };
        match entries {
            [] => empty[usize::from(256 - depth)],
            [only] if depth >= SHORTCUT_DEPTH => plain(&[&[0; 24], &only.version.to_be_bytes(), &place(&only.key)]),
            [first, ..] => {
                let (left, right) = entries.split_at(entries.partition_point(|entry| !entry.key.bit(depth)));
                let (left, right) = (defined(left, depth + 1, empty), defined(right, depth + 1, empty));
                plain(&[right.as_bytes(), left.as_bytes(), &place(&first.key)])
            }
        }
    }

    #[test]
    fn a_batch_of_any_size_leads_to_the_defined_root() {
        let above = |below: &Digest| Some(plain(&[below.as_bytes(), below.as_bytes()]));
        let empty: Vec<_> = std::iter::successors(Some(plain(&[&[0, 0]])), above).take(257).collect();
        let sizes = [1, 2, 3, 7, 8, 9, 127, 128, 129, 999, 1000, 1001];
        let (mut tree, mut keys) = (HyperTree::with_capacity(0), Vec::<Digest>::new());
        let mut entries = Vec::new();
        for size in sizes {
            let first = keys.len();
            for place in first..first + size {
                // Every tenth event occurred in an earlier batch.
                let is_new = place % 10 != 9 || first == 0;
                let earlier = keys.get(place * 7 % first.max(1)).copied();
                keys.push(earlier.filter(|_| !is_new).unwrap_or_else(|| Digest::of_event(&place.to_be_bytes())));
            }
            let digest_at = |version: u64| Ok(keys[usize::try_from(version).unwrap()]);
            let shown: BTreeMap<_, _> =
                (first..).zip(&keys[first..]).map(|(place, key)| (*key, place as u64)).collect();
            let batch: Vec<_> = shown.into_iter().map(|(key, version)| Entry { key, version }).collect();
            let change = tree.plan(&batch, &digest_at).unwrap();
            tree.apply(change, &digest_at).unwrap();
            entries.retain(|old: &Entry| batch.binary_search_by_key(&old.key, |entry| entry.key).is_err());
            entries.extend(batch);
            entries.sort_unstable();
            assert_eq!(tree.root(), defined(&entries, 0, &empty), "a batch of {size} after {first}");
        }
    }

    #[test]
    fn an_index_that_no_reference_can_hold_means_the_tree_is_full() {
        let last = (1 << 31) - 2;
        assert!(matches!(NodeRef::leaf(index_of(last).unwrap()).kind(), Node::Leaf(index) if index as usize == last));
        for index in [last + 1, 1 << 31, 1 << 32] {
            let refused = index_of(index).unwrap_err();
            assert!(matches!(refused, LogError::Full { keys } if keys == index as u64), "{refused}");
        }
    }

    /// Many of these keys share long prefixes.
    fn keys(seeds: &[(u8, u8, u16)]) -> Vec<Digest> {
        let key = |&(shared, start, rest): &(u8, u8, u16)| {
            let mut bytes = *Digest::of_event(&rest.to_be_bytes()).as_bytes();
            bytes[..usize::from(shared % 31)].fill(start % 3);
            Digest::new(bytes)
        };
        let mut keys: Vec<_> = seeds.iter().map(key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.sort_unstable_by_key(|key| Digest::of_event(key.as_bytes()));
        keys
    }

    proptest! {
        #![proptest_config(crate::seeds::searching(40))]

        #[test]
        fn the_root_is_a_function_of_the_keys(
            seeds in prop::collection::vec(any::<(u8, u8, u16)>(), 1..700),
            sizes in prop::collection::vec(1..300_usize, 1..9),
        ) {
            let keys = keys(&seeds);
            let (tree, at_once) = (grown(&keys, &sizes), grown(&keys, &[keys.len()]));
            prop_assert_eq!(tree.root(), at_once.root());
            let digest_at = |version: u64| Ok(keys[usize::try_from(version).unwrap()]);
            for (version, key) in keys.iter().enumerate() {
                prop_assert_eq!(tree.find(key, &digest_at).unwrap(), Some(version as u64));
                prop_assert_eq!(tree.path(key, &digest_at).unwrap(), at_once.path(key, &digest_at).unwrap());
            }
        }
    }

    #[test]
    fn the_flat_part_grows_a_level_at_a_time() {
        let keys: Vec<_> = (0..24_000_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        let tree = grown(&keys, &[1, 700, 33]);
        assert_eq!(tree.flat_levels, flat_levels_for(24_000));
        let digest_at = |version: u64| Ok(keys[usize::try_from(version).unwrap()]);
        let mut built = HyperTree::with_capacity(24_000);
        let mut entries: Vec<_> = (0..).zip(&keys).map(|(version, &key)| Entry { key, version }).collect();
        entries.sort_unstable();
        let change = built.plan(&entries, &digest_at).unwrap();
        built.apply(change, &digest_at).unwrap();
        assert_eq!(tree.root(), built.root());
        for key in &keys {
            assert_eq!(tree.path(key, &digest_at).unwrap(), built.path(key, &digest_at).unwrap());
        }
    }
}
