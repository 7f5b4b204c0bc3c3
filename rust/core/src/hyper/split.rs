//! Growing the flat part of the hyper tree, one group for a few new keys.

use super::group::{Group, Place};
use super::hashing::{AtOnce, FEW_ENTRIES, Hashing, Later};
use super::{HyperTree, flat_levels_for};
use crate::integers::usize_from;

/// Number of new keys for which one group is split. A level has at most one group for eight keys, so it is complete long before there are
/// keys for the next one.
const KEYS_A_SPLIT: u64 = 4;

impl HyperTree {
    /// Split groups for some new keys, while there are more keys than the flat part is for. Splitting the last group of a level completes
    /// the next one.
    pub(super) fn split_groups(&mut self, new_keys: u64) {
        let mut left = usize_from(new_keys.div_ceil(KEYS_A_SPLIT));
        while left > 0 && self.flat_levels < flat_levels_for(self.len()) {
            let unsplit = self.groups.len() - self.halves.len() / 2;
            let count = left.min(unsplit);
            if count < FEW_ENTRIES {
                self.split_next(count, AtOnce);
            } else {
                self.split_next(count, Later::default());
            }
            left -= count;
        }
    }

    /// Split the next `count` groups of the last flat level in two.
    fn split_next<H: Hashing>(&mut self, count: usize, mut hashing: H) {
        let (first, width, depth) = (self.halves.len() / 2, self.groups.len(), self.flat_levels);
        let mut halves = Vec::with_capacity(2 * count);
        for (number, group) in self.groups.iter_mut().enumerate().skip(first).take(count) {
            halves.extend(group.halves(Place::new(width + number, depth), &mut hashing));
            // Nothing reads a group that is split.
            *group = Group::empty(depth);
        }
        if self.halves.is_empty() {
            // Reserve the whole level at once: growing step by step would copy the array over and over.
            self.hashes.reserve_exact(2 * width);
            self.halves.reserve_exact(2 * width);
        }
        let hash_of = hashing.finish();
        for (draft, hash) in halves {
            self.hashes.push(hash_of(hash));
            self.halves.push(draft.finish(&hash_of));
        }
        if self.halves.len() == 2 * width {
            self.groups = std::mem::take(&mut self.halves);
            self.flat_levels += 1;
        }
    }
}
