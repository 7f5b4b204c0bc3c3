//! Inserting a batch into the hyper tree: the change is planned without touching the tree, then applied.

use super::group::{Draft, Group, Place};
use super::hashing::{AtOnce, FEW_ENTRIES, Hashing, Later};
use super::slot::require_room;
use super::{DigestAt, Entry, HyperTree, flat_index, split_entries};
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
    /// Number of keys that were not.
    new_keys: u64,
    /// The flat nodes and the groups that change, by heap index.
    hashes: Vec<(usize, Digest)>,
    groups: Vec<(usize, Group)>,
}

impl HyperTree {
    /// Compute the result of inserting `entries` without changing anything. A key that is already in the tree moves to its new
    /// version.
    ///
    /// `entries` must be sorted by key, each key once.
    ///
    /// # Errors
    ///
    /// Errors of `digest_at`; [`LogError::Full`] from version 2^40 on.
    pub fn plan(&self, entries: &[Entry], digest_at: &DigestAt<'_>) -> Result<HyperChange, LogError> {
        if entries.is_empty() {
            return Ok(HyperChange { root: self.root(), ..HyperChange::default() });
        }
        entries.iter().try_for_each(|entry| require_room(entry.version))?;
        let mut change = self.plan_below(1, 0, entries, digest_at)?;
        change.new_keys = (entries.len() - change.replaced.len()) as u64;
        Ok(change)
    }

    /// Compute the result of inserting `entries`, at least one, below the flat node `index`; its new hash is the root of the result. Large
    /// batches are planned on several threads.
    fn plan_below(
        &self,
        index: usize,
        depth: u16,
        entries: &[Entry],
        digest_at: &DigestAt<'_>,
    ) -> Result<HyperChange, LogError> {
        let is_large = entries.len() >= PARALLEL_ENTRIES && depth < PARALLEL_DEPTH;
        let (first, lefts, rights) = match split_entries(entries, depth) {
            (lefts @ [first, ..], rights @ [_, ..]) if is_large => (first, lefts, rights),
            _ if entries.len() < FEW_ENTRIES => {
                return Planner::<AtOnce>::new(self, digest_at).plan(index, depth, entries);
            }
            _ => {
                self.fetch(entries);
                return Planner::<Later>::new(self, digest_at).plan(index, depth, entries);
            }
        };
        let (left, right) = rayon::join(
            || self.plan_below(2 * index, depth + 1, lefts, digest_at),
            || self.plan_below(2 * index + 1, depth + 1, rights, digest_at),
        );
        let (mut change, right) = (left?, right?);
        change.root = AtOnce.inner(change.root, right.root, &first.key, depth);
        change.replaced.extend(right.replaced);
        change.hashes.extend(right.hashes);
        change.groups.extend(right.groups);
        change.hashes.push((index, change.root));
        Ok(change)
    }

    /// Read from memory what inserting `entries` needs. The places are known beforehand and do not depend on each other, so the processor reads
    /// many at once; the insertion itself would wait for each.
    fn fetch(&self, entries: &[Entry]) {
        let groups: Vec<_> =
            entries.iter().map(|entry| (flat_index(&entry.key, self.flat_levels), self.group_of(&entry.key))).collect();
        let read = groups.iter().fold(0, |read, (index, group)| {
            let above = (0..3).map(|up| self.flat((index >> up) ^ 1).prefix64());
            above.fold(read ^ group.fetch(), |read, hash| read ^ hash)
        });
        let read = groups.iter().fold(read, |read, (_, group)| read ^ group.fetch_slots());
        std::hint::black_box(read);
    }

    /// Apply a change that was planned on the tree in its current state. While the groups hold more keys than they should, each
    /// few added keys also split one group, so the flat part grows by a level without a pause for the whole of it.
    #[expect(clippy::indexing_slicing, reason = "the change was planned on this tree in its current state")]
    pub fn apply(&mut self, change: HyperChange) {
        for (index, hash) in change.hashes {
            self.hashes[index] = hash;
        }
        for (index, group) in change.groups {
            self.group_mut(index).become_as(group);
        }
        self.len += change.new_keys;
        self.split_groups(change.new_keys);
    }

    #[expect(clippy::indexing_slicing, reason = "the change was planned on this tree in its current state")]
    fn group_mut(&mut self, index: usize) -> &mut Group {
        let group = index - self.groups.len();
        match group.checked_sub(self.groups.len()) {
            Some(half) => &mut self.halves[half],
            None => &mut self.groups[group],
        }
    }
}

/// Inserts keys into a tree without modifying it, and collects the changes.
struct Planner<'a, H: Hashing> {
    tree: &'a HyperTree,
    digest_at: &'a DigestAt<'a>,
    hashing: H,
    replaced: Vec<Entry>,
    /// The flat nodes and the groups that change.
    flat: Vec<(usize, H::Hash)>,
    groups: Vec<(usize, Draft<H::Hash>)>,
}

impl<'a, H: Hashing> Planner<'a, H> {
    fn new(tree: &'a HyperTree, digest_at: &'a DigestAt<'a>) -> Self {
        let (hashing, replaced) = (H::default(), Vec::new());
        Self { tree, digest_at, hashing, replaced, flat: Vec::new(), groups: Vec::new() }
    }

    /// Insert `entries` below the flat node `index`; return the change with the new hash of that node as its root.
    fn plan(mut self, index: usize, depth: u16, entries: &[Entry]) -> Result<HyperChange, LogError> {
        let root = self.descend(index, depth, entries)?;
        let hash_of = self.hashing.finish();
        Ok(HyperChange {
            root: hash_of(root),
            replaced: self.replaced,
            new_keys: 0,
            hashes: self.flat.into_iter().map(|(index, number)| (index, hash_of(number))).collect(),
            groups: self.groups.into_iter().map(|(index, draft)| (index, draft.finish(&hash_of))).collect(),
        })
    }

    /// Insert `entries` below the flat node `index`; return its new hash.
    fn descend(&mut self, index: usize, depth: u16, entries: &[Entry]) -> Result<H::Hash, LogError> {
        let [first, ..] = entries else { return Ok(self.hashing.known(self.tree.flat(index))) };
        let hash = if let Some(group) = self.tree.group(index) {
            let place = Place::new(index, depth);
            let (draft, hash) = group.with(entries, place, self.digest_at, &mut self.hashing, &mut self.replaced)?;
            self.groups.push((index, draft));
            hash
        } else {
            let (lefts, rights) = split_entries(entries, depth);
            let left = self.descend(2 * index, depth + 1, lefts)?;
            let right = self.descend(2 * index + 1, depth + 1, rights)?;
            self.hashing.inner(left, right, &first.key, depth)
        };
        self.flat.push((index, hash));
        Ok(hash)
    }
}
