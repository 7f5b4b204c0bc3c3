//! The hyper tree: a sparse Merkle tree from event digest to version (protocol of BBVA QED; Dahlberg, Pulls and Peeters, "Efficient
//! Sparse Merkle Trees", 2016, for the empty subtrees).
//!
//! Digests are uniformly distributed, so a tree of n events is full down to about log2(n) levels and sparse below. The full part is a
//! flat array of hashes, so the index of a hash is known before any hash is read. Below each node of its last level is a *group* of eight
//! buckets, each with its hash and a few keys: of a key, a bucket keeps what tells it apart from the others and its version, ten bytes, and its
//! inner hashes are computed when they are needed. Keys that are too much alike for that, which chance does not make, are in a trie
//! instead, so that nobody can make a bucket slow.
//!
//! None of this is stored as rows. A batch is inserted by [`HyperTree::plan`] and [`HyperTree::apply`]; when a log is opened,
//! [`HyperBuilder`] builds the same tree from all of its events.

mod build;
mod group;
mod hashing;
mod plan;
mod slot;
mod split;
mod trie;

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::{Digest, HYPER_LEVELS, hyper_default};
use crate::integers::{height_from, usize_from};
use crate::proof::SHORTCUT_DEPTH;

use group::{GROUP_LEVELS, Group, Place};
use hashing::Hashing;

pub use build::{HyperBuilder, PARTS};
pub use plan::HyperChange;
pub use slot::Slot;

/// The depth that buckets have at least. Slots lack the first byte of their keys, so the flat levels must give it.
const MIN_BUCKET_DEPTH: u16 = 12;

/// Down to this depth a bucket has one key on average, or less; below it five to ten. A small tree need not be small in memory, and a bucket far
/// above the shortcut leaves, which are at depth 24, costs many hashes.
const SPARSE_DEPTH: u16 = 21;

/// Returns the event digest of a version, from any thread. It is called only for keys that share their first 48 bits, and for those of a bucket
/// that becomes a trie.
pub type DigestAt<'a> = dyn Fn(u64) -> Result<Digest, LogError> + Sync + 'a;

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
    /// The group below each node of the last flat level. If a group has been split, use `halves` instead.
    groups: Vec<Group>,
    /// The groups one level below that: two for each group that has been split. Groups are split from left to right.
    halves: Vec<Group>,
    len: u64,
}

impl HyperTree {
    /// Return an empty tree with room for `expected` keys before it has to grow.
    #[must_use]
    pub fn with_capacity(expected: u64) -> Self {
        let flat_levels = flat_levels_for(expected);
        let level_of = |index: usize| height_from(index.max(1).ilog2());
        let default = |index| hyper_default(HYPER_LEVELS - level_of(index));
        Self {
            flat_levels,
            hashes: (0..2_usize << flat_levels).into_par_iter().map(default).collect(),
            groups: (0..1_usize << flat_levels).into_par_iter().map(|_| Group::empty(flat_levels)).collect(),
            halves: Vec::new(),
            len: 0,
        }
    }

    /// Return the number of keys.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Return whether there is no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Return the number of bytes that the keys and hashes take, without those that are too much alike for a bucket.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let flat = size_of_val(self.hashes.as_slice()) + size_of_val(self.groups.as_slice());
        (flat + size_of_val(self.halves.as_slice())) as u64 + self.len * Slot::BYTES as u64
    }

    /// Return the root.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.flat(1)
    }

    /// Return the siblings on the path of `key`, from the root down, and where the path ends.
    #[must_use]
    pub fn path(&self, key: &Digest) -> (Vec<Digest>, PathEnd) {
        let mut siblings = Vec::with_capacity(48);
        let (mut index, mut depth) = (1, 0);
        loop {
            if let Some(group) = self.group(index) {
                let end = group.path(key, Place::new(index, depth), &mut siblings);
                return (siblings, end);
            }
            if self.flat(index) == hyper_default(HYPER_LEVELS - depth) {
                return (siblings, PathEnd::Empty);
            }
            index = 2 * index + usize::from(key.bit(depth));
            siblings.push(self.flat(index ^ 1));
            depth += 1;
        }
    }

    /// Return the version `key` maps to, or `None` if the key is not in the tree.
    ///
    /// # Errors
    ///
    /// Errors of `digest_at`.
    pub fn find(&self, key: &Digest, digest_at: &DigestAt<'_>) -> Result<Option<u64>, LogError> {
        let Some(version) = self.group_of(key).find(key) else { return Ok(None) };
        Ok((digest_at(version)? == *key).then_some(version))
    }

    /// Return whether the tree has `key`, or one that shares its first 48 bits.
    #[must_use]
    pub fn may_contain(&self, key: &Digest) -> bool {
        self.group_of(key).find(key).is_some()
    }

    #[expect(clippy::expect_used, reason = "if the group is not found, the key must not be reported as absent")]
    fn group_of(&self, key: &Digest) -> &Group {
        let on_path = |levels| self.group(flat_index(key, levels));
        let group = on_path(self.flat_levels).or_else(|| on_path(self.flat_levels + 1));
        group.expect("the path of every key leads through a group")
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "indices come from descending the flat levels, and the array covers all of them"
    )]
    fn flat(&self, index: usize) -> Digest {
        self.hashes[index]
    }

    /// Return the group below the flat node `index`, or `None` if its children are flat too.
    #[expect(clippy::indexing_slicing, reason = "no path descends below a group that has not been split")]
    fn group(&self, index: usize) -> Option<&Group> {
        let group = index.checked_sub(self.groups.len())?;
        match group.checked_sub(self.groups.len()) {
            Some(half) => Some(&self.halves[half]),
            None if 2 * group < self.halves.len() => None,
            None => Some(&self.groups[group]),
        }
    }
}

/// Return the number of flat levels for a number of keys.
fn flat_levels_for(keys: u64) -> u16 {
    let bits = |number: u64| height_from(number.max(1).ilog2());
    let (sparse, dense) = ((bits(keys) + 1).min(SPARSE_DEPTH), bits(keys - keys / 5).saturating_sub(2));
    // Below that depth a flat node might be a leaf. There are keys enough for it from four billion on.
    (sparse.max(dense).max(MIN_BUCKET_DEPTH) - GROUP_LEVELS).min(SHORTCUT_DEPTH)
}

/// Return the heap index of the flat node at `depth`, 1 to 56, on the path of `key`: a one, followed by the first `depth` bits of the
/// key.
fn flat_index(key: &Digest, depth: u16) -> usize {
    let bits = key.prefix64() >> (64 - depth);
    usize_from(bits | 1 << depth)
}

/// Split entries, sorted by key, by the way at `depth`.
fn split_entries(entries: &[Entry], depth: u16) -> (&[Entry], &[Entry]) {
    entries.split_at(entries.partition_point(|entry| !entry.key.bit(depth)))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::position::HyperPosition;

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
            tree.apply(change);
            assert_eq!(tree.root(), root);
            (first, turn) = (last, turn + 1);
        }
        tree
    }

    /// Return the hashes of empty subtrees by height, by their definition.
    fn defaults() -> Vec<Digest> {
        let above = |below: &Digest| Some(plain(&[below.as_bytes(), below.as_bytes()]));
        std::iter::successors(Some(plain(&[&[0, 0]])), above).take(257).collect()
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
        let empty = defaults();
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
            tree.apply(change);
            entries.retain(|old: &Entry| batch.binary_search_by_key(&old.key, |entry| entry.key).is_err());
            entries.extend(batch);
            entries.sort_unstable();
            assert_eq!(tree.root(), defined(&entries, 0, &empty), "a batch of {size} after {first}");
        }
    }

    #[test]
    fn a_version_that_no_slot_has_room_for_means_the_tree_is_full() {
        let (tree, key) = (HyperTree::with_capacity(0), Digest::of_event(b"event"));
        let plan = |version| tree.plan(&[Entry { key, version }], &|_| Ok(key));
        assert!(plan((1 << 40) - 1).is_ok());
        for version in [1 << 40, u64::MAX] {
            let refused = plan(version).unwrap_err();
            assert!(matches!(refused, LogError::Full { keys } if keys == version), "{refused}");
        }
    }

    #[test]
    fn a_group_below_any_level_has_the_defined_hash_and_paths() {
        let empty = defaults();
        for depth in 9..=SHORTCUT_DEPTH {
            let model = Digest::of_event(&depth.to_be_bytes());
            let index = flat_index(&model, depth);
            let place = Place::new(index, depth);
            let mut keys: Vec<_> = (0..60_u32)
                .map(|i| {
                    let own = Digest::of_event(&i.to_be_bytes());
                    let bits = (0..256).map(|bit| if bit < depth { model.bit(bit) } else { own.bit(bit) });
                    let mut bytes = [0; 32];
                    bits.enumerate()
                        .filter(|(_, bit)| *bit)
                        .for_each(|(place, _)| bytes[place / 8] |= 0x80 >> (place % 8));
                    Digest::new(bytes)
                })
                .collect();
            keys.sort_unstable();
            let digest_at = |version: u64| Ok(keys[usize_from(version)]);
            let (mut group, mut entries) = (Group::empty(depth), Vec::new());
            // In an order of its own, so that each key is alone, has neighbours, and comes between others.
            for place_of_key in (0..keys.len()).map(|i| i * 37 % keys.len()) {
                let entry = Entry { key: keys[place_of_key], version: place_of_key as u64 };
                let (draft, hash) =
                    group.with(&[entry], place, &digest_at, &mut hashing::AtOnce, &mut Vec::new()).unwrap();
                group.become_as(draft.finish(|hash| hash));
                entries.push(entry);
                entries.sort_unstable();
                assert_eq!(hash, defined(&entries, depth, &empty), "{} keys below depth {depth}", entries.len());
                let slots = entries.iter().map(|entry| Slot::new(&entry.key, entry.version)).collect();
                assert_eq!(Group::of(slots, place, &digest_at, &mut hashing::AtOnce).unwrap().1, hash);
                for Entry { key, version } in &entries {
                    let mut siblings = Vec::new();
                    assert_eq!(group.path(key, place, &mut siblings), PathEnd::Leaf { version: *version });
                    let end = depth + u16::try_from(siblings.len()).unwrap();
                    let leaf = crate::hash::hyper_leaf(*version, &HyperPosition::on_path(key, end).to_bytes());
                    let root = (depth..end).zip(&siblings).rev().fold(leaf, |below, (level, beside)| {
                        let (left, right) = if key.bit(level) { (*beside, below) } else { (below, *beside) };
                        crate::hash::hyper_inner(&left, &right, &HyperPosition::on_path(key, level).to_bytes())
                    });
                    assert_eq!(root, hash);
                }
            }
        }
    }

    #[test]
    fn no_flat_level_is_below_the_shortcut_leaves() {
        for keys in [0, 1 << 27, 1 << 30, 1 << 33, u64::MAX] {
            assert!((9..=SHORTCUT_DEPTH).contains(&flat_levels_for(keys)), "{keys} keys");
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
                prop_assert_eq!(tree.path(key), at_once.path(key));
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
        built.apply(change);
        assert_eq!(tree.root(), built.root());
        for key in &keys {
            assert_eq!(tree.path(key), built.path(key));
        }
    }
}
