//! Growing the flat part of the hyper tree, one bucket for each new key.

use super::hashing::{Hashing as _, Later, Slot};
use super::{DigestAt, HyperTree, Node, NodeRef, flat_levels_for};
use crate::error::LogError;

/// The two buckets that replace one, with their hashes.
struct Halves {
    nodes: [NodeRef; 2],
    hashes: [Slot; 2],
    /// The branch of the bucket that is no longer used.
    unused: Option<u32>,
}

impl HyperTree {
    /// Split up to `count` buckets while there are more keys than the flat part is for. Splitting the last bucket of a level completes
    /// the next one.
    pub(super) fn split_buckets(&mut self, count: usize, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        let mut left = count;
        while left > 0 && self.flat_levels < flat_levels_for(self.len()) {
            let unsplit = self.buckets.len() - self.halves.len() / 2;
            self.split_next(left.min(unsplit), digest_at)?;
            left -= left.min(unsplit);
        }
        Ok(())
    }

    /// Split the next `count` buckets of the last flat level in two.
    fn split_next(&mut self, count: usize, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        let (first, mut hashing) = (self.halves.len() / 2, Later::default());
        let buckets = self.buckets.iter().skip(first).take(count);
        let halves = buckets.map(|&bucket| self.halves_of(bucket, digest_at, &mut hashing));
        let halves = halves.collect::<Result<Vec<_>, _>>()?;
        if self.halves.is_empty() {
            // Reserve the whole level at once: growing step by step would copy the array over and over.
            self.hashes.reserve_exact(2 * self.buckets.len());
            self.halves.reserve_exact(2 * self.buckets.len());
        }
        let hash_of = hashing.finish();
        for half in halves {
            self.hashes.extend(half.hashes.map(&hash_of));
            self.halves.extend(half.nodes);
            self.free_branches.extend(half.unused);
        }
        if self.halves.len() == 2 * self.buckets.len() {
            self.buckets = std::mem::take(&mut self.halves);
            self.flat_levels += 1;
        }
        Ok(())
    }

    fn halves_of(&self, bucket: NodeRef, digest_at: &DigestAt<'_>, hashing: &mut Later) -> Result<Halves, LogError> {
        let depth = self.flat_levels;
        let (left, right) = self.children(bucket, depth, digest_at)?;
        let left_hash = self.hash_at(left, depth + 1, digest_at, hashing)?;
        let right_hash = self.hash_at(right, depth + 1, digest_at, hashing)?;
        let unused = match bucket.kind() {
            Node::Branch(index) if self.branch(index).depth == depth => Some(index),
            Node::Empty | Node::Leaf(_) | Node::Branch(_) => None,
        };
        Ok(Halves { nodes: [left, right], hashes: [left_hash, right_hash], unused })
    }
}
