//! Growing the flat part of the hyper tree, one bucket for each new key.

use super::hashing::{AtOnce, FEW_ENTRIES, Hashing, Later};
use super::{DigestAt, HyperTree, Node, NodeRef, flat_levels_for};
use crate::error::LogError;

/// The two buckets that replace one, with their hashes.
struct Halves<H: Hashing> {
    nodes: [NodeRef; 2],
    hashes: [H::Hash; 2],
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
            let count = left.min(unsplit);
            if count < FEW_ENTRIES {
                self.split_next(count, digest_at, AtOnce)?;
            } else {
                self.split_next(count, digest_at, Later::default())?;
            }
            left -= count;
        }
        Ok(())
    }

    /// Split the next `count` buckets of the last flat level in two.
    fn split_next<H: Hashing>(
        &mut self,
        count: usize,
        digest_at: &DigestAt<'_>,
        mut hashing: H,
    ) -> Result<(), LogError> {
        let first = self.halves.len() / 2;
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

    fn halves_of<H: Hashing>(
        &self,
        bucket: NodeRef,
        digest_at: &DigestAt<'_>,
        hashing: &mut H,
    ) -> Result<Halves<H>, LogError> {
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
