//! Building the hyper tree of a whole log at once: each node is hashed once and written to its final place, using all threads.
//!
//! The slots of all keys are sorted into their groups as they come, so nothing but the tree itself takes memory. When all are there, each
//! group is hashed, and then the levels above, bottom-up.

use rayon::prelude::*;

use super::group::{Group, Place, room_for};
use super::hashing::{Hashing as _, Later};
use super::slot::{Slot, require_room};
use super::{DigestAt, GROUP_LEVELS, HyperTree, MIN_BUCKET_DEPTH};
use crate::error::LogError;
use crate::hash::{Digest, HYPER_LEVELS, Message, digests, hyper_default};
use crate::integers::usize_from;
use crate::position::HyperPosition;

/// Number of groups or flat nodes that one thread hashes at a time: enough to fill lanes, few enough to stay in its cache.
const AT_A_TIME: usize = 256;

/// Number of leading bits that the keys of a part of the tree have in common: each part has whole groups, at any size of the tree.
const PART_BITS: u16 = MIN_BUCKET_DEPTH - GROUP_LEVELS;

/// Number of parts of a tree.
pub const PARTS: usize = 1 << PART_BITS;

/// A hyper tree whose keys are not all there.
#[derive(Debug)]
pub struct HyperBuilder {
    tree: HyperTree,
    /// The slots of each group, in any order.
    groups: Vec<Vec<Slot>>,
    /// Slots that a group has room for from the first one on.
    room: usize,
}

impl HyperBuilder {
    /// Return a builder for about `expected` keys.
    #[must_use]
    pub fn new(expected: u64) -> Self {
        let tree = HyperTree::with_capacity(expected);
        let room = room_for(usize_from(expected) / tree.groups.len() + 1);
        let groups = vec![Vec::new(); tree.groups.len()];
        Self { tree, groups, room }
    }

    /// Add a key, which must not be added with another version.
    ///
    /// # Errors
    ///
    /// [`LogError::Full`] from version 2^40 on.
    pub fn add(&mut self, key: &Digest, version: u64) -> Result<(), LogError> {
        require_room(version)?;
        self.push(usize_from(key.prefix64() >> (64 - self.tree.flat_levels)), Slot::new(key, version));
        Ok(())
    }

    /// Add slots whose keys begin with the byte `first`, in the order of their keys. A slot may be added twice.
    #[expect(clippy::indexing_slicing, reason = "there is a group for all flat nodes")]
    pub fn add_slots(&mut self, first: u8, slots: &[Slot]) {
        let shift = 64 - self.tree.flat_levels;
        let group_of = |slot: &Slot| usize_from(slot.key(first).prefix64() >> shift);
        for run in slots.chunk_by(|a, b| group_of(a) == group_of(b)) {
            let group = run.first().map_or(0, group_of);
            let slots = &mut self.groups[group];
            // No more: what is left free between groups is of no use to anything else.
            slots.reserve_exact(room_for(slots.len() + run.len()) - slots.len());
            slots.extend_from_slice(run);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "there is a group for all flat nodes")]
    fn push(&mut self, group: usize, slot: Slot) {
        let slots = &mut self.groups[group];
        if slots.len() == slots.capacity() {
            // Not doubled: there are many groups.
            slots.reserve_exact(if slots.is_empty() { self.room } else { room_for(1) });
        }
        slots.push(slot);
    }

    /// Hash everything; return the tree.
    ///
    /// # Errors
    ///
    /// Errors of `digest_at`; [`LogError::Corrupt`] if a key was added with two versions.
    pub fn finish(self, digest_at: &DigestAt<'_>) -> Result<HyperTree, LogError> {
        let Self { mut tree, mut groups, .. } = self;
        let (width, depth) = (groups.len(), tree.flat_levels);
        let (_, hashes) = tree.hashes.split_at_mut(width);
        let slots = groups.par_chunks_mut(AT_A_TIME).zip(tree.groups.par_chunks_mut(AT_A_TIME));
        let parts = slots.zip(hashes.par_chunks_mut(AT_A_TIME)).enumerate();
        let lens = parts.map(|(part, ((slots, groups), hashes))| {
            let (mut hashing, first) = (Later::default(), width + part * AT_A_TIME);
            let mut drafts = Vec::with_capacity(slots.len());
            let mut len = 0;
            for (index, slots) in (first..).zip(slots) {
                let (draft, hash) =
                    Group::of(std::mem::take(slots), Place::new(index, depth), digest_at, &mut hashing)?;
                len += draft.len();
                drafts.push((draft, hash));
            }
            let hash_of = hashing.finish();
            for ((draft, hash), (group, place)) in drafts.into_iter().zip(groups.iter_mut().zip(hashes)) {
                *group = draft.finish(&hash_of);
                *place = hash_of(hash);
            }
            Ok::<_, LogError>(len)
        });
        tree.len = lens.try_reduce(|| 0, |a, b| Ok(a + b))?;
        tree.hash_levels();
        Ok(tree)
    }
}

impl HyperTree {
    /// Return the slots of all keys of a part, 0 to 511, in the order of their keys. Their first bytes are those of the number of the part.
    #[must_use]
    pub fn part(&self, part: usize) -> Vec<Slot> {
        let (width, mut slots) = (self.groups.len() / PARTS, Vec::new());
        for index in self.groups.len() + part * width..self.groups.len() + (part + 1) * width {
            match self.group(index) {
                Some(group) => group.collect(&mut slots),
                None => {
                    for half in [2 * index, 2 * index + 1] {
                        if let Some(group) = self.group(half) {
                            group.collect(&mut slots);
                        }
                    }
                }
            }
        }
        slots
    }

    /// Hash the flat levels above the last, bottom-up.
    fn hash_levels(&mut self) {
        for depth in (0..self.flat_levels).rev() {
            let width = 1 << depth;
            let (above, below) = self.hashes.split_at_mut(2 * width);
            let (_, parents) = above.split_at_mut(width);
            let (children, _) = below.as_chunks::<2>();
            let empty = hyper_default(HYPER_LEVELS - depth - 1);
            let parts = parents.par_chunks_mut(AT_A_TIME).zip(children.par_chunks(AT_A_TIME)).enumerate();
            parts.for_each(|(part, (parents, children))| {
                hash_parents(parents, children, part * AT_A_TIME, depth, &empty);
            });
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

/// Return the lowest key that starts with these 64 bits.
fn key_of_prefix(prefix: u64) -> Digest {
    let mut bytes = [0; 32];
    let (start, _) = bytes.split_at_mut(8);
    start.copy_from_slice(&prefix.to_be_bytes());
    Digest::new(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::{Entry, flat_levels_for};
    use super::*;

    /// Return the tree of the events `digests`, of which it shows the last version that is not in `repeats`.
    fn built(digests: &[Digest], repeats: &[u64]) -> HyperTree {
        let shown = (0..).zip(digests).filter(|(version, _)| !repeats.contains(version));
        let shown: BTreeMap<_, _> = shown.map(|(version, key)| (*key, version)).collect();
        let mut builder = HyperBuilder::new(shown.len() as u64);
        for (key, version) in &shown {
            builder.add(key, *version).unwrap();
        }
        builder.finish(&|version| Ok(digests[usize_from(version)])).unwrap()
    }

    /// Insert the events of the given versions one by one.
    fn insert(tree: &mut HyperTree, events: &[Digest], versions: impl Iterator<Item = usize>) {
        let digest_at = |version: u64| Ok(events[usize_from(version)]);
        for version in versions {
            let change = tree.plan(&[Entry { key: events[version], version: version as u64 }], &digest_at).unwrap();
            tree.apply(change);
        }
    }

    fn require_equal(one: &HyperTree, other: &HyperTree, events: &[Digest]) {
        let digest_at = |version: u64| Ok(events[usize_from(version)]);
        assert_eq!(one.len(), other.len());
        assert_eq!(one.root(), other.root());
        for key in events {
            assert_eq!(one.find(key, &digest_at).unwrap(), other.find(key, &digest_at).unwrap());
            assert_eq!(one.path(key), other.path(key));
        }
        for part in 0..PARTS {
            assert_eq!(one.part(part), other.part(part));
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
            require_equal(&built(&events, &repeats), &one_by_one, &events);

            let grown = grown.min(events.len());
            let mut on_top = built(&events[..grown], &repeats);
            insert(&mut on_top, &events, (grown..events.len()).filter(shown));
            require_equal(&on_top, &one_by_one, &events);
        }
    }

    #[test]
    fn any_size_can_be_built_and_grows_on() {
        let events = alike(16_500, 0);
        for size in [0, 1, 2, 63, 1023, 1024, 1025, 4095, 4096, 8100, 8191, 8192, 8193, 16_383, 16_384, 16_400] {
            let mut tree = built(&events[..size], &[]);
            assert_eq!(tree.flat_levels, flat_levels_for(size as u64));
            insert(&mut tree, &events, size..size + 90);
            require_equal(&tree, &built(&events[..size + 90], &[]), &events[..size + 90]);
        }
    }

    #[test]
    fn keys_made_to_share_a_prefix_are_told_apart() {
        for shared in [15, 20, 23, 24, 25, 31, 32, 33, 42, 47, 48, 49, 63, 64, 65, 66, 224] {
            let events = alike(100, shared);
            assert_eq!(events.iter().collect::<BTreeSet<_>>().len(), 100);
            let mut one_by_one = HyperTree::with_capacity(0);
            insert(&mut one_by_one, &events, 0..events.len());
            require_equal(&built(&events, &[]), &one_by_one, &events);
        }
    }

    #[test]
    fn a_tree_of_many_parts_is_the_one_that_grew() {
        let events = alike(9000, 0);
        let mut one_by_one = HyperTree::with_capacity(0);
        insert(&mut one_by_one, &events, 0..events.len());
        require_equal(&built(&events, &[]), &one_by_one, &events);
    }

    #[test]
    fn a_slot_may_come_twice_and_a_key_with_two_versions_is_refused() {
        let events = alike(3, 8);
        let digest_at = |version: u64| Ok(events[usize_from(version) % 3]);
        let mut builder = HyperBuilder::new(0);
        for (version, key) in (0..).zip(&events) {
            builder.add(key, version).unwrap();
            builder.add_slots(key.as_bytes()[0], &[Slot::new(key, version)]);
        }
        assert_eq!(builder.finish(&digest_at).unwrap().root(), built(&events, &[]).root());
        let mut builder = HyperBuilder::new(0);
        builder.add(&events[1], 1).unwrap();
        builder.add(&events[1], 4).unwrap();
        let refused = builder.finish(&digest_at).unwrap_err();
        assert!(matches!(&refused, LogError::Corrupt(reason) if reason.contains("versions 1 and 4")), "{refused}");
    }
}
