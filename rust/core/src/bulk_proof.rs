//! Proof for many keys at one version of a log: each hash that several paths share is in it once.
//!
//! The paths of the keys end at leaves or at empty subtrees. Wherever a path turns away from a subtree that no other path enters, the
//! proof has the hash of that subtree, and no other hashes. In both trees the hashes are in order from left to right, so their
//! positions follow from the keys and from the ends of the paths, and are not written. Nor are the keys: whoever asked has them.

use std::ops::Range;

use crate::hash::{Digest, HYPER_LEVELS};
use crate::position::{HistoryPosition, history_height};
use crate::proof::{Malformed, SHORTCUT_DEPTH};

/// Maximum number of keys in a bulk proof.
pub const MAX_BULK_KEYS: usize = 1_000;

/// Maximum number of hyper siblings: one for each level of each path.
pub(crate) const MAX_HYPER_SIBLINGS: usize = MAX_BULK_KEYS * HYPER_LEVELS as usize;

/// Maximum number of history hashes, likewise.
pub(crate) const MAX_HISTORY_HASHES: usize = MAX_BULK_KEYS * 64;

/// The keys that a bulk proof is about: 1 to [`MAX_BULK_KEYS`] event digests in ascending order, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkKeys(Vec<Digest>);

impl BulkKeys {
    /// Return the keys in `digests`, which may be in any order.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if there are none or too many, or if one is repeated.
    pub fn new(mut digests: Vec<Digest>) -> Result<Self, Malformed> {
        if !(1..=MAX_BULK_KEYS).contains(&digests.len()) {
            let found = digests.len();
            return Err(Malformed::because(format!("expected 1 to {MAX_BULK_KEYS} keys, found {found}")));
        }
        digests.sort_unstable();
        match digests.iter().zip(digests.iter().skip(1)).find(|(first, second)| first == second) {
            Some((repeated, _)) => Err(Malformed::because(format!("expected each key once, found {repeated} twice"))),
            None => Ok(Self(digests)),
        }
    }

    /// Return the keys in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[Digest] {
        &self.0
    }
}

/// What is at the end of a key's path in the hyper tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The leaf of the key: the event is in the log.
    Present {
        /// The version that the hyper tree shows.
        version: u64,
    },
    /// An empty subtree: the event is not in the log.
    Empty,
    /// The leaf of another event: the event is not in the log.
    Neighbour {
        /// Digest of the other event.
        key_digest: Digest,
        /// Its version.
        version: u64,
    },
}

impl End {
    /// Return the version in the leaf, or `None` if there is no leaf.
    #[must_use]
    pub const fn version(&self) -> Option<u64> {
        match self {
            Self::Present { version } | Self::Neighbour { version, .. } => Some(*version),
            Self::Empty => None,
        }
    }
}

/// Where the path of a key ends in the hyper tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyEnd {
    /// Number of levels below the root, 1 to 256; at least 24 at a leaf.
    pub depth: u16,
    /// What is there.
    pub end: End,
}

/// Proof that some events are in the log and others are not, all at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkProof {
    /// Last version of the log that answered: both roots are those of this version.
    pub current_version: u64,
    /// Where the path of each key ends, in ascending order of the keys.
    pub ends: Vec<KeyEnd>,
    /// The siblings of the paths in the hyper tree that no other path enters, left to right; `None` stands for an empty subtree.
    pub hyper: Vec<Option<Digest>>,
    /// The same for the paths from the leaves of all versions in `ends` to the history root, in the order of [`history_siblings`].
    pub history: Vec<Digest>,
}

impl BulkProof {
    /// Check everything that does not depend on the keys.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless there are 1 to 1,000 ends, at possible depths, with versions up to the current one, and no more hashes than
    /// their paths can have.
    pub fn check_shape(&self) -> Result<(), Malformed> {
        if !(1..=MAX_BULK_KEYS).contains(&self.ends.len()) {
            let found = self.ends.len();
            return Err(Malformed::because(format!("expected the ends of 1 to {MAX_BULK_KEYS} paths, found {found}")));
        }
        for KeyEnd { depth, end } in &self.ends {
            let least = if end.version().is_some() { SHORTCUT_DEPTH } else { 1 };
            if !(least..=HYPER_LEVELS).contains(depth) {
                let found = format!("expected a path of {least} to {HYPER_LEVELS} levels, found {depth}");
                return Err(Malformed::because(found));
            }
            if end.version().is_some_and(|version| version > self.current_version) {
                let found = format!("expected versions up to {}, found a later one", self.current_version);
                return Err(Malformed::because(found));
            }
        }
        require_at_most(self.hyper.len(), self.ends.len() * usize::from(HYPER_LEVELS))?;
        require_at_most(self.history.len(), self.ends.len() * usize::from(history_height(self.current_version)))
    }

    /// Return the versions of all leaves, in ascending order, each once.
    #[must_use]
    pub fn versions(&self) -> Vec<u64> {
        let mut versions: Vec<_> = self.ends.iter().filter_map(|end| end.end.version()).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }
}

fn require_at_most(found: usize, most: usize) -> Result<(), Malformed> {
    if found <= most {
        return Ok(());
    }
    Err(Malformed::because(format!("expected at most {most} hashes in the paths of a tree, found {found}")))
}

/// A node of the hyper tree beside a path: the index of the path's key, and the node's depth.
pub(crate) type HyperSibling = (usize, u16);

/// Return the nodes of the hyper tree beside the paths of `keys` that no other path enters, left to right. `depths` are the lengths of
/// the paths in an honest tree: a path that ends inside another one, ends there too.
#[must_use]
pub(crate) fn hyper_siblings(keys: &BulkKeys, depths: &[u16]) -> Vec<HyperSibling> {
    let mut found = Vec::new();
    visit_hyper(keys.as_slice(), depths, (0..keys.0.len(), 0), &mut found);
    found
}

fn visit_hyper(keys: &[Digest], depths: &[u16], (range, depth): (Range<usize>, u16), found: &mut Vec<HyperSibling>) {
    if depths.get(range.clone()).is_none_or(|depths| depths.contains(&depth)) {
        return;
    }
    let (left, right) = split(keys, &range, depth);
    for half in [left, right] {
        if half.is_empty() {
            found.push((range.start, depth + 1));
        } else {
            visit_hyper(keys, depths, (half, depth + 1), found);
        }
    }
}

/// Return the part of `range`, whose keys share their first `depth` bits, in the left subtree and that in the right one.
pub(crate) fn split(keys: &[Digest], range: &Range<usize>, depth: u16) -> (Range<usize>, Range<usize>) {
    let left = keys.get(range.clone()).unwrap_or_default().partition_point(|key| !key.bit(depth));
    let middle = range.start + left;
    (range.start..middle, middle..range.end)
}

/// Return the nodes of the history tree at `current` beside the paths of `versions`, in ascending order, that no other path enters and
/// that exist, left to right.
#[must_use]
pub fn history_siblings(versions: &[u64], current: u64) -> Vec<HistoryPosition> {
    fn visit(node: HistoryPosition, versions: &[u64], current: u64, found: &mut Vec<HistoryPosition>) {
        if node.index > current {
            return;
        }
        if versions.is_empty() {
            found.push(node);
            return;
        }
        let Some((left, right)) = node.children() else { return };
        let (before, after) = versions.split_at(versions.partition_point(|version| *version < right.index));
        visit(left, before, current, found);
        visit(right, after, current, found);
    }
    let mut found = Vec::new();
    if !versions.is_empty() {
        visit(HistoryPosition::root(current), versions, current, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::membership_positions;

    #[test]
    fn keys_are_sorted_and_none_is_repeated() {
        let digests: Vec<_> = (0..20_u8).map(|i| Digest::of_event(&[i])).collect();
        let keys = BulkKeys::new(digests.clone()).unwrap();
        assert!(keys.as_slice().is_sorted());
        let repeated = [digests.as_slice(), &digests[3..4]].concat();
        assert!(BulkKeys::new(repeated).unwrap_err().to_string().contains(&digests[3].to_string()));
        assert!(BulkKeys::new(Vec::new()).is_err());
        let many = |count: u16| (0..count).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        assert!(BulkKeys::new(many(1_000)).is_ok());
        assert!(BulkKeys::new(many(1_001)).is_err());
    }

    #[test]
    fn one_version_has_the_siblings_of_its_own_path() {
        for (version, current) in [(0, 0), (0, 3), (2, 2), (4, 9), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let mut alone = membership_positions(version, current);
            alone.sort_unstable();
            assert_eq!(history_siblings(&[version], current), alone);
        }
        assert_eq!(history_siblings(&[], 9), []);
        let texts: Vec<_> = history_siblings(&[2, 4], 9).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["0|1", "3|0", "5|0", "6|1", "8|3"]);
    }
}
