//! The hyper tree: a sparse Merkle tree from event digest to version (protocol of BBVA QED; Dahlberg, Pulls and Peeters, "Efficient
//! Sparse Merkle Trees", 2016, for the empty subtrees).
//!
//! Digests are uniform, so a tree of n events is full down to about log2(n) levels and thin below. The full part is a flat array of
//! hashes, whose places are known before they are read; a *bucket* at its last level holds a small trie that has a node only where
//! two keys part. A key that was chosen to share many bits with others costs a deeper trie, never a scan of its bucket.
//!
//! Nothing of this is stored: the log gives it back at each start, in the order it came, through the same [`HyperTree::plan`].

use crate::error::LogError;
use crate::hash::{Digest, HYPER_LEVELS, hyper_default, hyper_inner, hyper_leaf};
use crate::position::HyperPosition;
use crate::proof::SHORTCUT_DEPTH;

/// Fewest and most levels of the flat part. 24 levels take 1 GiB.
const FLAT_LEVELS: std::ops::RangeInclusive<u16> = 4..=24;

/// Entries from which the two halves of a subtree are worth a thread each, and the depth above which they are.
const PARALLEL_ENTRIES: usize = 128;
const PARALLEL_DEPTH: u16 = 2;

/// Gives the event digest of a version, on any thread; asked only for keys that share 64 bits.
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

/// A place where keys part: all below share `depth` bits and differ in the next.
#[derive(Debug, Clone, Copy)]
struct Branch {
    hash: Digest,
    left: NodeRef,
    right: NodeRef,
    depth: u16,
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
    /// At the shortcut leaf of a version, whose event may be the key or another one.
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
    /// The trie below each node of the last flat level. Of those that have been split, see `halves`.
    buckets: Vec<NodeRef>,
    /// The tries below the nodes of the next level, two for each bucket from the left that has been split.
    halves: Vec<NodeRef>,
    leaves: Vec<Leaf>,
    branches: Vec<Branch>,
    /// Branches that growing the flat part has dissolved.
    free_branches: Vec<u32>,
}

/// What inserting some keys will change.
#[derive(Debug, Default)]
pub struct HyperChange {
    /// The root after the change.
    pub root: Digest,
    /// Keys that were in the tree before, with the version they had.
    pub replaced: Vec<Entry>,
    hashes: Vec<(usize, Digest)>,
    buckets: Vec<(usize, NodeRef)>,
    leaves: Vec<(u32, Leaf)>,
    branches: Vec<(u32, Branch)>,
    /// Leaves and branches beyond the ends of the tree's arrays, and how many dissolved branches are used again.
    new_leaves: usize,
    new_branches: usize,
    reused_branches: usize,
}

impl HyperTree {
    /// Return an empty tree with room for `expected` keys before it has to grow.
    #[must_use]
    pub fn with_capacity(expected: u64) -> Self {
        let flat_levels = flat_levels_for(expected);
        let level_of = |index: usize| u16::try_from(index.max(1).ilog2()).unwrap_or(0);
        Self {
            flat_levels,
            hashes: (0..2 << flat_levels).map(|index| hyper_default(HYPER_LEVELS - level_of(index))).collect(),
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

    /// Compute what inserting `entries` gives, changing nothing. A key that is there already moves to its new version.
    ///
    /// `entries` are sorted by key, no key twice.
    ///
    /// # Errors
    ///
    /// Those of `digest_at`; [`LogError::Corrupt`] if the tree is damaged or has no room for more keys.
    pub fn plan(&self, entries: &[Entry], digest_at: &DigestAt<'_>) -> Result<HyperChange, LogError> {
        if entries.is_empty() {
            return Ok(HyperChange { root: self.root(), ..HyperChange::default() });
        }
        let mut planner = Planner { tree: self, digest_at, free: &self.free_branches, change: HyperChange::default() };
        planner.change.root = planner.descend(1, 0, entries)?;
        Ok(planner.change)
    }

    /// Carry out a change that was planned on this very tree. While there are many keys a bucket, each key that is added also
    /// splits a bucket, so that the flat part grows a level without anyone waiting for all of it.
    ///
    /// # Errors
    ///
    /// As [`Self::plan`]; the tree is unusable then.
    pub fn apply(&mut self, change: HyperChange, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        self.leaves.resize(self.leaves.len() + change.new_leaves, Leaf { prefix: 0, version: 0 });
        self.free_branches.truncate(self.free_branches.len().saturating_sub(change.reused_branches));
        let blank = Branch { hash: Digest::default(), left: NodeRef::EMPTY, right: NodeRef::EMPTY, depth: 0 };
        self.branches.resize(self.branches.len() + change.new_branches, blank);
        put_all(&mut self.hashes, change.hashes)?;
        for (index, node) in change.buckets {
            *self.bucket_mut(index).ok_or_else(|| damaged("a change lies outside the tree"))? = node;
        }
        put_all(&mut self.leaves, change.leaves.into_iter().map(|(index, leaf)| (index as usize, leaf)))?;
        put_all(&mut self.branches, change.branches.into_iter().map(|(index, branch)| (index as usize, branch)))?;
        for _ in 0..change.new_leaves {
            if self.flat_levels >= flat_levels_for(self.len()) {
                break;
            }
            self.split_next(digest_at)?;
        }
        Ok(())
    }

    /// Return the siblings on the path of `key`, root down, and where it ends.
    ///
    /// # Errors
    ///
    /// As [`Self::plan`].
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
        let mut node = bucket;
        for depth in flat_depth..=HYPER_LEVELS {
            match node.kind() {
                Node::Empty => return Ok((siblings, PathEnd::Empty)),
                Node::Leaf(leaf) if depth >= SHORTCUT_DEPTH => {
                    return Ok((siblings, PathEnd::Leaf { version: self.leaf(leaf)?.version }));
                }
                Node::Leaf(_) | Node::Branch(_) => {}
            }
            let (left, right) = self.children(node, depth, digest_at)?;
            let (own, sibling) = if key.bit(depth) { (right, left) } else { (left, right) };
            siblings.push(self.hash_at(sibling, depth + 1, digest_at)?);
            node = own;
        }
        Err(damaged("a path has no end"))
    }

    /// Return the version `key` maps to, or nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::plan`].
    pub fn find(&self, key: &Digest, digest_at: &DigestAt<'_>) -> Result<Option<u64>, LogError> {
        let on_path = |levels| self.bucket(flat_index(key, levels));
        let bucket = on_path(self.flat_levels).or_else(|| on_path(self.flat_levels + 1));
        let mut node = bucket.ok_or_else(|| damaged("a bucket is missing"))?;
        loop {
            match node.kind() {
                Node::Empty => return Ok(None),
                Node::Leaf(leaf) => {
                    let leaf = self.leaf(leaf)?;
                    return Ok(is_key_of(&leaf, key, digest_at)?.then_some(leaf.version));
                }
                Node::Branch(branch) => {
                    let branch = self.branch(branch)?;
                    node = if key.bit(branch.depth) { branch.right } else { branch.left };
                }
            }
        }
    }

    /// Split the next bucket in two, and with the last of them begin a new level.
    fn split_next(&mut self, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        let depth = self.flat_levels;
        let bucket = self.buckets.get(self.halves.len() / 2).copied().ok_or_else(|| damaged("a bucket is missing"))?;
        let (left, right) = self.children(bucket, depth, digest_at)?;
        let hashes = [self.hash_at(left, depth + 1, digest_at)?, self.hash_at(right, depth + 1, digest_at)?];
        if let Node::Branch(index) = bucket.kind()
            && self.branch(index)?.depth == depth
        {
            self.free_branches.push(index);
        }
        if self.halves.is_empty() {
            // The whole level at once: appending would copy the array again and again.
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

    /// Return the two subtrees of `node`, which stands at `depth`.
    fn children(&self, node: NodeRef, depth: u16, digest_at: &DigestAt<'_>) -> Result<(NodeRef, NodeRef), LogError> {
        match node.kind() {
            Node::Empty => return Ok((NodeRef::EMPTY, NodeRef::EMPTY)),
            Node::Branch(index) => {
                let branch = self.branch(index)?;
                if branch.depth == depth {
                    return Ok((branch.left, branch.right));
                }
            }
            Node::Leaf(_) => {}
        }
        let is_right = self.some_key(node, depth + 1, digest_at)?.bit(depth);
        Ok(if is_right { (NodeRef::EMPTY, node) } else { (node, NodeRef::EMPTY) })
    }

    /// Return the hash of the subtree that `node` makes at `depth`.
    fn hash_at(&self, node: NodeRef, depth: u16, digest_at: &DigestAt<'_>) -> Result<Digest, LogError> {
        match node.kind() {
            Node::Empty => Ok(hyper_default(HYPER_LEVELS - depth)),
            Node::Leaf(index) => {
                let key = self.some_key(node, depth.max(SHORTCUT_DEPTH), digest_at)?;
                Ok(lone_hash(&key, self.leaf(index)?.version, depth))
            }
            Node::Branch(index) => {
                let branch = self.branch(index)?;
                if branch.depth == depth {
                    return Ok(branch.hash);
                }
                let key = self.some_key(node, branch.depth, digest_at)?;
                Ok(lift(&key, branch.hash, branch.depth, depth))
            }
        }
    }

    /// Return a key below `node` that is right in its first `bits` bits; those that all keys below share are the same in each.
    fn some_key(&self, node: NodeRef, bits: u16, digest_at: &DigestAt<'_>) -> Result<Digest, LogError> {
        let mut node = node;
        loop {
            match node.kind() {
                Node::Empty => return Err(damaged("a branch has no leaf")),
                Node::Branch(index) => node = self.branch(index)?.left,
                Node::Leaf(index) => return key_of(&self.leaf(index)?, bits, digest_at),
            }
        }
    }

    fn flat(&self, index: usize) -> Digest {
        // Indices come from descending `flat_levels` levels, for which the array has room.
        self.hashes.get(index).copied().unwrap_or_default()
    }

    /// Return the trie below the flat node `index`, or nothing if its children are flat too.
    fn bucket(&self, index: usize) -> Option<NodeRef> {
        let bucket = index.checked_sub(self.buckets.len())?;
        match bucket.checked_sub(self.buckets.len()) {
            Some(half) => self.halves.get(half).copied(),
            None if 2 * bucket < self.halves.len() => None,
            None => self.buckets.get(bucket).copied(),
        }
    }

    fn bucket_mut(&mut self, index: usize) -> Option<&mut NodeRef> {
        let bucket = index.checked_sub(self.buckets.len())?;
        match bucket.checked_sub(self.buckets.len()) {
            Some(half) => self.halves.get_mut(half),
            None => self.buckets.get_mut(bucket),
        }
    }

    fn leaf(&self, index: u32) -> Result<Leaf, LogError> {
        self.leaves.get(index as usize).copied().ok_or_else(|| damaged("a leaf is missing"))
    }

    fn branch(&self, index: u32) -> Result<Branch, LogError> {
        self.branches.get(index as usize).copied().ok_or_else(|| damaged("a branch is missing"))
    }
}

/// Inserts keys into a tree without touching it; what changes is collected.
struct Planner<'a> {
    tree: &'a HyperTree,
    digest_at: &'a DigestAt<'a>,
    /// Branches that may be used again, the next one last.
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

    /// Insert below both children of a flat node, each on a thread; return their new hashes.
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

    /// Add what another planner of the same tree has changed. Both count new nodes from the ends of the tree's arrays, so those of the
    /// other move up by as many as are here.
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

    /// Insert `entries` into the trie `node` at `depth`; return the new trie and its hash there.
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

    /// Put the only entry of a subtree where there is nothing, or over the leaf of its own key; else give nothing.
    fn place(&mut self, node: NodeRef, entry: &Entry) -> Result<Option<NodeRef>, LogError> {
        let index = match node.kind() {
            Node::Empty => {
                let index = index_of(self.tree.leaves.len() + self.change.new_leaves)?;
                self.change.new_leaves += 1;
                index
            }
            Node::Leaf(index) => {
                let leaf = self.tree.leaf(index)?;
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

    /// Write a branch in the place of the one that stood there, or in a new one.
    fn join(&mut self, node: NodeRef, branch: Branch) -> Result<NodeRef, LogError> {
        let index = match node.kind() {
            Node::Branch(index) if self.tree.branch(index)?.depth == branch.depth => index,
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

/// Return how many flat levels suit a number of keys: two to four keys a bucket.
fn flat_levels_for(keys: u64) -> u16 {
    let levels = u16::try_from(keys.max(1).ilog2()).unwrap_or(0).saturating_sub(1);
    levels.clamp(*FLAT_LEVELS.start(), *FLAT_LEVELS.end())
}

/// Return the index in heap order of the flat node at `depth`, 1 to 25, on the path of `key`: its first bits after a one.
fn flat_index(key: &Digest, depth: u16) -> usize {
    let bits = key.prefix64() >> (64 - depth);
    usize::try_from(bits | 1 << depth).unwrap_or(0)
}

fn split(entries: &[Entry], depth: u16) -> (&[Entry], &[Entry]) {
    entries.split_at(entries.partition_point(|entry| !entry.key.bit(depth)))
}

/// Return the hash at `depth` of a subtree with one key.
fn lone_hash(key: &Digest, version: u64, depth: u16) -> Digest {
    let leaf_depth = depth.max(SHORTCUT_DEPTH);
    lift(key, hyper_leaf(version, &HyperPosition::on_path(key, leaf_depth).to_bytes()), leaf_depth, depth)
}

/// Return the hash at depth `to` of a subtree that has nothing but one of `hash` at depth `from`, on the path of `key`.
fn lift(key: &Digest, hash: Digest, from: u16, to: u16) -> Digest {
    (to..from).rev().fold(hash, |below, depth| {
        let beside = hyper_default(HYPER_LEVELS - depth - 1);
        let (left, right) = if key.bit(depth) { (&beside, &below) } else { (&below, &beside) };
        hyper_inner(left, right, &HyperPosition::on_path(key, depth).to_bytes())
    })
}

/// Return the key of a leaf, right in its first `bits` bits.
fn key_of(leaf: &Leaf, bits: u16, digest_at: &DigestAt<'_>) -> Result<Digest, LogError> {
    if bits > 64 {
        return digest_at(leaf.version);
    }
    let mut bytes = [0; 32];
    let (prefix, _) = bytes.split_at_mut(8);
    prefix.copy_from_slice(&leaf.prefix.to_be_bytes());
    Ok(Digest::new(bytes))
}

fn is_key_of(leaf: &Leaf, key: &Digest, digest_at: &DigestAt<'_>) -> Result<bool, LogError> {
    Ok(leaf.prefix == key.prefix64() && digest_at(leaf.version)? == *key)
}

fn index_of(index: usize) -> Result<u32, LogError> {
    // The top bit tells leaves from branches, and references count from one.
    u32::try_from(index)
        .ok()
        .filter(|&index| index < NodeRef::LEAF - 1)
        .ok_or_else(|| damaged("the tree has no room for more keys"))
}

fn put_all<T>(array: &mut [T], values: impl IntoIterator<Item = (usize, T)>) -> Result<(), LogError> {
    for (index, value) in values {
        *array.get_mut(index).ok_or_else(|| damaged("a change lies outside the tree"))? = value;
    }
    Ok(())
}

fn damaged(what: &str) -> LogError {
    LogError::Corrupt(format!("hyper tree: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Insert `keys` in batches of the given sizes, by turns; the version of a key is its place.
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

    /// Keys of which many share long prefixes.
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
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

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
