//! Growing the flat part of the hyper tree, one group for a few new keys.

use rayon::prelude::*;

use super::group::{Group, Place};
use super::hashing::{AtOnce, FEW_ENTRIES, Hashing, Later};
use super::{HyperTree, flat_levels_for};
use crate::hash::Digest;
use crate::integers::usize_from;

/// Number of new keys for which one group is split. A level has at most one group for four keys, so it is complete before there are keys for
/// the next one.
const KEYS_A_SPLIT: u64 = 2;

/// Number of groups that one thread splits at a time.
const AT_A_TIME: usize = 64;

impl HyperTree {
    /// Split groups for some new keys, while there are more keys than the flat part is for. Splitting the last group of a level completes
    /// the next one.
    pub(super) fn split_groups(&mut self, new_keys: u64) {
        let mut left = usize_from(new_keys.div_ceil(KEYS_A_SPLIT));
        while left > 0 && self.flat_levels < flat_levels_for(self.len()) {
            let unsplit = self.groups.len() - self.halves.len() / 2;
            let count = left.min(unsplit);
            self.split_next(count);
            left -= count;
        }
    }

    /// Split the next `count` groups of the last flat level in two.
    #[expect(clippy::indexing_slicing, reason = "the caller counts the groups that are not split")]
    fn split_next(&mut self, count: usize) {
        let (first, width, depth) = (self.halves.len() / 2, self.groups.len(), self.flat_levels);
        if self.halves.is_empty() {
            // Reserve the whole level at once: growing step by step would copy the array over and over.
            self.hashes.reserve_exact(2 * width);
            self.halves.reserve_exact(2 * width);
        }
        let parts = self.groups[first..first + count].par_chunks_mut(AT_A_TIME).enumerate();
        let halves: Vec<_> = parts
            .map(|(part, groups)| {
                let first = width + first + part * AT_A_TIME;
                if groups.len() < FEW_ENTRIES {
                    halves_of(groups, first, depth, AtOnce)
                } else {
                    halves_of(groups, first, depth, Later::default())
                }
            })
            .collect();
        for (group, hash) in halves.into_iter().flatten() {
            self.hashes.push(hash);
            self.halves.push(group.settled());
        }
        if self.halves.len() == 2 * width {
            self.groups = std::mem::take(&mut self.halves);
            self.flat_levels += 1;
        }
    }
}

/// Return the halves of some groups, the first of which is below the flat node `first` at `depth`, with the hashes of their flat nodes.
fn halves_of<H: Hashing>(groups: &mut [Group], first: usize, depth: u16, mut hashing: H) -> Vec<(Group, Digest)> {
    let mut halves = Vec::with_capacity(2 * groups.len());
    for (index, group) in (first..).zip(groups) {
        // Nothing reads a group that is split.
        let whole = std::mem::replace(group, Group::empty(depth));
        halves.extend(whole.halves(Place::new(index, depth), &mut hashing));
    }
    let hash_of = hashing.finish();
    halves.into_iter().map(|(draft, hash)| (draft.finish(&hash_of), hash_of(hash))).collect()
}
