//! Building the hyper tree of a whole log at once: each node is hashed once and written to its final place, using all threads.
//!
//! Leaves sorted by key are in the same order as their buckets. So a run of neighbouring buckets owns a contiguous part of each array
//! of the tree, and one thread builds it without sharing anything with the others. The levels above the buckets follow, bottom-up.

use rayon::prelude::*;

use super::hashing::{Hashing as _, Later, Slot};
use super::{BLANK_BRANCH, Branch, HyperTree, Leaf, NodeRef};
use super::{index_of, key_of_prefix, lift, lone_hash};
use crate::error::LogError;
use crate::hash::{Digest, HYPER_LEVELS, Message, digests, hyper_default};
use crate::integers::{height_from, usize_from};
use crate::position::HyperPosition;
use crate::proof::SHORTCUT_DEPTH;

/// Number of runs of buckets: enough that all threads finish at about the same time, few enough that the cost of starting one does
/// not matter.
const RUNS: usize = 256;

/// Number of buckets or flat nodes that one thread hashes at a time: enough to fill lanes, few enough to stay in its cache.
const PART: usize = 256;

impl HyperTree {
    /// Return the tree of the events `digests`, numbered from zero. If an event occurs several times, the tree shows its last version
    /// that is not in `repeats`. `repeats` must be sorted.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] if the tree has no room for that many keys.
    pub fn of_events(digests: &[Digest], repeats: &[u64]) -> Result<Self, LogError> {
        let keys = Keys(digests);
        let leaves = keys.leaves(repeats);
        // No leaf index exceeds the number of leaves, and there are fewer branches than leaves.
        index_of(leaves.len())?;
        let mut tree = Self::with_capacity(leaves.len() as u64);
        tree.leaves = leaves;
        tree.build_buckets(keys)?;
        tree.hash_levels();
        Ok(tree)
    }

    /// Build the tries of all buckets from the leaves, and the hashes of the last flat level.
    #[expect(
        clippy::indexing_slicing,
        reason = "a partition point is a valid index, and later runs have equal or greater ones"
    )]
    fn build_buckets(&mut self, keys: Keys<'_>) -> Result<(), LogError> {
        let (depth, buckets) = (self.flat_levels, self.buckets.len());
        let per_run = (buckets / RUNS).max(1);
        let first_of = |run: usize| self.leaves.partition_point(|leaf| leaf.bucket(depth) < run * per_run);
        let leaves_of = |run| {
            let first = first_of(run);
            (first, &self.leaves[first..first_of(run + 1)])
        };
        let leaves: Vec<_> = (0..buckets / per_run).map(leaves_of).collect();
        let counts: Vec<_> = leaves.par_iter().map(|(_, leaves)| branches_below(leaves, depth)).collect();
        self.branches = rayon::iter::repeat_n(BLANK_BRANCH, counts.iter().sum()).collect();
        let branches = cut(&mut self.branches, &counts);
        let (_, hashes) = self.hashes.split_at_mut(buckets);
        let places = self.buckets.par_chunks_mut(per_run).zip(hashes.par_chunks_mut(per_run));
        let runs = leaves.into_par_iter().zip(branches).zip(places);
        runs.try_for_each(|(((first_leaf, leaves), (first_branch, branches)), (buckets, hashes))| {
            let (hashing, unhashed_buckets, unhashed_branches) = (Later::default(), Vec::new(), Vec::new());
            let nothing = Run {
                keys,
                depth,
                buckets,
                hashes,
                branches,
                first_branch,
                built: 0,
                hashing,
                unhashed_buckets,
                unhashed_branches,
            };
            nothing.build(leaves, first_leaf)
        })
    }

    /// Hash the flat levels above the last, bottom-up.
    fn hash_levels(&mut self) {
        for depth in (0..self.flat_levels).rev() {
            let width = 1 << depth;
            let (above, below) = self.hashes.split_at_mut(2 * width);
            let (_, parents) = above.split_at_mut(width);
            let (children, _) = below.as_chunks::<2>();
            let empty = hyper_default(HYPER_LEVELS - depth - 1);
            let parts = parents.par_chunks_mut(PART).zip(children.par_chunks(PART)).enumerate();
            parts.for_each(|(part, (parents, children))| hash_parents(parents, children, part * PART, depth, &empty));
        }
    }
}

/// Hash the flat nodes `parents` at `depth`, the first of which is number `first` there, unless both children are `empty`.
#[expect(clippy::expect_used, reason = "a node without its hash would lead to a wrong root")]
fn hash_parents(parents: &mut [Digest], children: &[[Digest; 2]], first: usize, depth: u16, empty: &Digest) {
    let is_filled = |[left, right]: &[Digest; 2]| left != empty || right != empty;
    let numbered = (first as u64..).zip(children).filter(|(_, pair)| is_filled(pair));
    let mut hashes = digests(numbered.map(|(index, [left, right])| {
        // At the root the shift is by all 64 bits. That leaves no bits, which is correct: the root is on the path of every key.
        let key = key_of_prefix(index.checked_shl((64 - depth).into()).unwrap_or(0));
        Message::hyper_inner(left, right, &HyperPosition::on_path(&key, depth).to_bytes())
    }));
    for (parent, _) in parents.iter_mut().zip(children).filter(|(_, pair)| is_filled(pair)) {
        *parent = hashes.next().expect("each filled node is hashed");
    }
}

/// The keys of the leaves: the leaf holds the first 64 bits, and the log holds the whole key at the leaf's version.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a [Digest]);

impl Keys<'_> {
    /// Return the leaves of the tree, sorted by key, each key once.
    fn leaves(self, repeats: &[u64]) -> Vec<Leaf> {
        let leaf = |(version, key): (usize, &Digest)| Leaf { prefix: key.prefix64(), version: version as u64 };
        let mut leaves: Vec<_> = self.0.par_iter().enumerate().map(leaf).collect();
        if !repeats.is_empty() {
            let mut repeats = repeats.iter().peekable();
            leaves.retain(|leaf| repeats.next_if_eq(&&leaf.version).is_none());
        }
        leaves.par_sort_unstable_by_key(|leaf| (leaf.prefix, leaf.version));
        for alike in leaves.chunk_by_mut(|a, b| a.prefix == b.prefix).filter(|alike| alike.len() > 1) {
            // A stable sort, so versions of the same key stay in order. If one key occurs many times, the slice is already sorted and
            // this takes one pass.
            alike.sort_by_key(|leaf| self.whole(leaf));
        }
        leaves.dedup_by(|next, kept| {
            let is_same = next.prefix == kept.prefix && self.whole(next) == self.whole(kept);
            if is_same {
                *kept = *next;
            }
            is_same
        });
        leaves
    }

    #[expect(clippy::indexing_slicing, reason = "every leaf was made from one of these digests")]
    fn whole(self, leaf: &Leaf) -> Digest {
        self.0[usize_from(leaf.version)]
    }

    /// Return the key of a leaf, correct in at least its first `bits` bits.
    fn start(self, leaf: &Leaf, bits: u16) -> Digest {
        if bits > 64 { self.whole(leaf) } else { key_of_prefix(leaf.prefix) }
    }

    /// Return how many leading bits two keys share.
    fn shared_bits(self, a: &Leaf, b: &Leaf) -> u16 {
        if a.prefix == b.prefix {
            return self.whole(a).shared_bits(&self.whole(b));
        }
        height_from((a.prefix ^ b.prefix).leading_zeros())
    }
}

/// A run of neighbouring buckets that is being built.
struct Run<'a> {
    keys: Keys<'a>,
    /// The last flat level.
    depth: u16,
    /// The parts of the tree's arrays that belong to these buckets.
    buckets: &'a mut [NodeRef],
    hashes: &'a mut [Digest],
    branches: &'a mut [Branch],
    /// Index in the tree of the first of `branches`, and the number of branches already built.
    first_branch: usize,
    built: usize,
    hashing: Later,
    /// The buckets and branches whose hashes are missing, by their places in the arrays above.
    unhashed_buckets: Vec<(usize, Slot)>,
    unhashed_branches: Vec<(usize, Slot)>,
}

impl Run<'_> {
    /// Build the buckets from their leaves, the first of which has the index `first_leaf` in the tree.
    #[expect(clippy::indexing_slicing, reason = "chunks are never empty, and a remainder is less than the length")]
    fn build(mut self, leaves: &[Leaf], first_leaf: usize) -> Result<(), LogError> {
        let (depth, mut first_leaf) = (self.depth, first_leaf);
        for leaves in leaves.chunk_by(|a, b| a.bucket(depth) == b.bucket(depth)) {
            // A run starts at a multiple of its number of buckets.
            let place = leaves[0].bucket(depth) % self.buckets.len();
            let (bucket, slot) = self.trie(leaves, first_leaf, depth)?;
            self.buckets[place] = bucket;
            self.unhashed_buckets.push((place, slot));
            first_leaf += leaves.len();
            if self.unhashed_buckets.len() == PART {
                self.hash();
            }
        }
        self.hash();
        Ok(())
    }

    /// Hash all that was built since the last call.
    #[expect(clippy::indexing_slicing, reason = "the places are those where buckets and branches were written")]
    fn hash(&mut self) {
        let hash_of = std::mem::take(&mut self.hashing).finish();
        for (place, slot) in self.unhashed_buckets.drain(..) {
            self.hashes[place] = hash_of(slot);
        }
        for (place, slot) in self.unhashed_branches.drain(..) {
            self.branches[place].hash = hash_of(slot);
        }
    }

    /// Build the trie of `leaves` at `depth`; return it and its hash at that depth.
    #[expect(clippy::indexing_slicing, reason = "there is room for one branch fewer than there are leaves")]
    fn trie(&mut self, leaves: &[Leaf], first_leaf: usize, depth: u16) -> Result<(NodeRef, Slot), LogError> {
        let (first, last) = match leaves {
            [] => return Ok((NodeRef::EMPTY, Later::empty(depth))),
            [only] => {
                let key = self.keys.start(only, depth.max(SHORTCUT_DEPTH));
                let hash = lone_hash(&key, only.version, depth, &mut self.hashing);
                return Ok((NodeRef::leaf(index_of(first_leaf)?), hash));
            }
            [first, .., last] => (first, last),
        };
        // The bits that the first and the last key of a sorted list share are shared by all keys in it.
        let parting = self.keys.shared_bits(first, last);
        assert!(parting < HYPER_LEVELS, "each key has only one leaf");
        let is_left = |leaf: &Leaf| !self.keys.start(leaf, parting + 1).bit(parting);
        let (lefts, rights) = leaves.split_at(leaves.partition_point(is_left));
        let (left, left_hash) = self.trie(lefts, first_leaf, parting + 1)?;
        let (right, right_hash) = self.trie(rights, first_leaf + lefts.len(), parting + 1)?;
        let key = self.keys.start(first, parting);
        let hash = self.hashing.inner(left_hash, right_hash, &key, parting);
        self.branches[self.built] = Branch { left, right, depth: parting, ..BLANK_BRANCH };
        self.unhashed_branches.push((self.built, hash));
        let node = NodeRef::branch(index_of(self.first_branch + self.built)?);
        self.built += 1;
        Ok((node, lift(&key, hash, parting, depth, &mut self.hashing)))
    }
}

/// Return the number of branches in the buckets of `leaves`: one fewer per bucket than it has leaves.
fn branches_below(leaves: &[Leaf], depth: u16) -> usize {
    leaves.len() - leaves.chunk_by(|a, b| a.bucket(depth) == b.bucket(depth)).count()
}

/// Cut an array into parts of `counts` elements; return each part with the index of its first element.
fn cut<'a, T>(array: &'a mut [T], counts: &[usize]) -> Vec<(usize, &'a mut [T])> {
    let (mut rest, mut first) = (array, 0);
    let take = |&count: &usize| {
        let (part, others) = std::mem::take(&mut rest).split_at_mut(count);
        rest = others;
        first += count;
        (first - count, part)
    };
    counts.iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::{Entry, flat_levels_for};
    use super::*;

    /// Insert the events of the given versions one by one.
    fn insert(tree: &mut HyperTree, events: &[Digest], versions: impl Iterator<Item = usize>) {
        let digest_at = |version: u64| Ok(events[usize::try_from(version).unwrap()]);
        for version in versions {
            let change = tree.plan(&[Entry { key: events[version], version: version as u64 }], &digest_at).unwrap();
            tree.apply(change, &digest_at).unwrap();
        }
    }

    fn require_equal(one: &HyperTree, other: &HyperTree, events: &[Digest]) {
        let digest_at = |version: u64| Ok(events[usize::try_from(version).unwrap()]);
        assert_eq!(one.len(), other.len());
        assert_eq!(one.root(), other.root());
        for key in events {
            assert_eq!(one.find(key, &digest_at).unwrap(), other.find(key, &digest_at).unwrap());
            assert_eq!(one.path(key, &digest_at).unwrap(), other.path(key, &digest_at).unwrap());
        }
    }

    /// Events whose first `shared` bits are the same.
    fn alike(count: u32, shared: u16) -> Vec<Digest> {
        let model = Digest::of_event(b"model");
        let event = |i: u32| {
            let mut bytes = *Digest::of_event(&i.to_be_bytes()).as_bytes();
            let whole = usize::from(shared / 8);
            bytes[..whole].copy_from_slice(&model.as_bytes()[..whole]);
            let kept = !(0xff_u8 >> (shared % 8));
            bytes[whole] = model.as_bytes()[whole] & kept | bytes[whole] & !kept;
            Digest::new(bytes)
        };
        (0..count).map(event).collect()
    }

    proptest! {
        #![proptest_config(crate::seeds::searching(60))]

        #[test]
        fn a_tree_built_at_once_is_the_one_that_grew(
            picks in prop::collection::vec((0..6_u8, 0..400_u16), 1..500),
            hidden in prop::collection::btree_set(0..500_usize, 0..60),
            grown in 0..500_usize,
        ) {
            let kinds = [0, 7, 24, 32, 64, 200].map(|shared| alike(400, shared));
            let events: Vec<_> = picks.iter().map(|&(kind, i)| kinds[usize::from(kind)][usize::from(i)]).collect();
            let shown = |version: &usize| !hidden.contains(version);
            let repeats: Vec<_> = hidden.iter().map(|&version| version as u64).collect();
            let mut one_by_one = HyperTree::with_capacity(0);
            insert(&mut one_by_one, &events, (0..events.len()).filter(shown));
            require_equal(&HyperTree::of_events(&events, &repeats).unwrap(), &one_by_one, &events);

            let grown = grown.min(events.len());
            let mut on_top = HyperTree::of_events(&events[..grown], &repeats).unwrap();
            insert(&mut on_top, &events, (grown..events.len()).filter(shown));
            require_equal(&on_top, &one_by_one, &events);
        }
    }

    #[test]
    fn any_size_can_be_built_and_grows_on() {
        let events = alike(1200, 0);
        for size in [0, 1, 2, 63, 64, 65, 79, 80, 81, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025] {
            let mut tree = HyperTree::of_events(&events[..size], &[]).unwrap();
            assert_eq!(tree.flat_levels, flat_levels_for(size as u64));
            insert(&mut tree, &events, size..size + 90);
            let grown = HyperTree::of_events(&events[..size + 90], &[]).unwrap();
            require_equal(&tree, &grown, &events[..size + 90]);
        }
    }

    #[test]
    fn keys_made_to_share_a_prefix_are_told_apart() {
        for shared in [23, 24, 25, 31, 32, 33, 63, 64, 65, 66, 224] {
            let events = alike(100, shared);
            assert_eq!(events.iter().collect::<BTreeSet<_>>().len(), 100);
            let mut one_by_one = HyperTree::with_capacity(0);
            insert(&mut one_by_one, &events, 0..events.len());
            require_equal(&HyperTree::of_events(&events, &[]).unwrap(), &one_by_one, &events);
        }
    }

    #[test]
    fn a_tree_of_many_runs_is_the_one_that_grew() {
        let events = alike(9000, 0);
        let mut one_by_one = HyperTree::with_capacity(0);
        insert(&mut one_by_one, &events, 0..events.len());
        require_equal(&HyperTree::of_events(&events, &[]).unwrap(), &one_by_one, &events);
    }
}
