//! Snapshots and proofs, as types that cannot have a wrong shape.
//!
//! A path contains only hashes: the node of each follows from the versions and the key. So a path cannot lack a hash, have one too
//! many, or have one at a wrong position. Text that names the positions is checked where it is decoded ([`crate::json`]).

use crate::hash::{Digest, HYPER_LEVELS};
use crate::position::{HistoryPosition, HyperPosition, history_height};

/// Depth from which a hyper subtree with one key is a shortcut leaf; above it, paths are always written out in full.
pub const SHORTCUT_DEPTH: u16 = 24;

/// The text or the bytes are not a valid value of their type, such as a proof; the message says what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Return the error with its reason.
    pub(crate) fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// What a client receives for an event that it added: the event's digest and version, and the roots of both trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Digest of the event.
    pub event_digest: Digest,
    /// Root of the history tree at `version`.
    pub history_digest: Digest,
    /// Root of the hyper tree after the commit batch that `version` belongs to.
    pub hyper_digest: Digest,
    /// Zero-based position of the event in the log.
    pub version: u64,
}

/// Proof that an event is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipProof {
    /// Digest of the event.
    pub key_digest: Digest,
    /// Last version of the log that answered; the hyper path leads to its root.
    pub current_version: u64,
    /// Version the history path leads to, at most `current_version`.
    pub query_version: u64,
    /// Version at which the event is shown to be: the one that the hyper tree shows or, if that is after `query_version`, the latest
    /// occurrence at or before `query_version`. If an event occurs several times in one request, the tree shows the first of them.
    pub actual_version: u64,
    /// Siblings from the root down, 24 to 256.
    pub hyper_path: Vec<Digest>,
    /// Siblings from the leaf up, in the order of [`membership_positions`].
    pub history_path: Vec<Digest>,
    /// Where the hyper path ends, if the event was added again after `query_version`; otherwise it ends at `actual_version`.
    pub later: Option<LaterOccurrence>,
}

/// An occurrence of the event after the one that the membership proof is about: the one that the hyper tree shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaterOccurrence {
    /// Its version, in `query_version + 1 ..= current_version` of the proof.
    pub version: u64,
    /// Siblings from its leaf to the root at `current_version`, in the order of [`membership_positions`]. Without them nothing would
    /// bind this version to the event, and one pair of roots could show the event to be both present and absent.
    pub history_path: Vec<Digest>,
}

/// Proof that an event is not in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsenceProof {
    /// Digest of the event that is absent.
    pub key_digest: Digest,
    /// Last version of the log that answered; the hyper path leads to its root.
    pub current_version: u64,
    /// The requested version, at most `current_version`.
    pub query_version: u64,
    /// Siblings from the root down to the empty subtree or the neighbour's leaf, 1 to 256.
    pub hyper_path: Vec<Digest>,
    /// The other event whose shortcut leaf ends the path, or `None` if the path ends at an empty subtree.
    pub neighbour: Option<Neighbour>,
}

/// The event at the place in the hyper tree where the absent event would have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Digest of that event.
    pub key_digest: Digest,
    /// Its version, at most the proof's `current_version`.
    pub version: u64,
    /// Siblings from its leaf to the root at `current_version`, in the order of [`membership_positions`].
    pub history_path: Vec<Digest>,
}

/// Proof that the log at `end` extends the log at `start`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncrementalProof {
    /// The earlier version.
    pub start: u64,
    /// The later version.
    pub end: u64,
    /// Hashes of the nodes in [`incremental_positions`].
    pub audit_path: Vec<Digest>,
}

/// The answer of a log to a query for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The event is in the log.
    Member(MembershipProof),
    /// The event is not in the log.
    Absent(AbsenceProof),
}

/// Return the siblings of a membership path, leaf to root: the siblings on the path from leaf `actual` to the root at `query` that
/// exist at `query`. At most 64; `actual <= query`.
#[must_use]
pub fn membership_positions(actual: u64, query: u64) -> Vec<HistoryPosition> {
    siblings(actual, query).collect()
}

/// Return the number of hashes of a membership path: that of [`membership_positions`].
fn membership_length(actual: u64, query: u64) -> usize {
    siblings(actual, query).count()
}

fn siblings(actual: u64, query: u64) -> impl Iterator<Item = HistoryPosition> {
    (0..history_height(query))
        .map(move |height| HistoryPosition::above(actual, height).sibling())
        .filter(move |sibling| sibling.index <= query)
}

/// Return the nodes of an incremental path, left to right: the leaves `start` and `end`, and the largest subtrees of the tree at
/// `end` that contain neither. At most 128; `start <= end`.
#[must_use]
pub fn incremental_positions(start: u64, end: u64) -> Vec<HistoryPosition> {
    fn visit(node: HistoryPosition, start: u64, end: u64, found: &mut Vec<HistoryPosition>) {
        if node.index > end {
            return;
        }
        match node.children() {
            Some((left, right)) if node.is_above(start) || node.is_above(end) => {
                visit(left, start, end, found);
                visit(right, start, end, found);
            }
            _ => found.push(node),
        }
    }
    let mut found = Vec::new();
    visit(HistoryPosition::root(end), start, end, &mut found);
    found
}

/// Return the siblings of a hyper path of `length` hashes, root down.
pub fn hyper_positions(key: &Digest, length: usize) -> impl Iterator<Item = HyperPosition> {
    (1..=HYPER_LEVELS).take(length).map(|depth| HyperPosition::sibling_on_path(key, depth))
}

impl MembershipProof {
    /// Return the version that the hyper path ends at: that of the later occurrence, if there is one, or the actual version.
    #[must_use]
    pub fn latest_version(&self) -> u64 {
        self.later.as_ref().map_or(self.actual_version, |later| later.version)
    }

    /// Check that the lengths of the paths match the versions.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `actual <= query <= current`, a later occurrence is in `query + 1 ..= current`, and all paths have the
    /// length that their versions require.
    pub fn check_shape(&self) -> Result<(), Malformed> {
        let &Self { current_version, query_version, actual_version, .. } = self;
        require_order(&[actual_version, query_version, current_version])?;
        require_hyper_length(&self.hyper_path, SHORTCUT_DEPTH)?;
        require_length(&self.history_path, membership_length(actual_version, query_version))?;
        let Some(later) = &self.later else { return Ok(()) };
        require_later(later.version, query_version, current_version)?;
        require_length(&later.history_path, membership_length(later.version, current_version))
    }
}

impl AbsenceProof {
    /// Check that the lengths of the paths match the versions.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `query <= current` and the paths have the lengths that their versions require. A path that ends at a
    /// neighbour has at least 24 hashes, since no shortcut leaf is higher up.
    pub fn check_shape(&self) -> Result<(), Malformed> {
        require_order(&[self.query_version, self.current_version])?;
        require_hyper_length(&self.hyper_path, if self.neighbour.is_some() { SHORTCUT_DEPTH } else { 1 })?;
        if let Some(neighbour) = &self.neighbour {
            require_order(&[neighbour.version, self.current_version])?;
            require_length(&neighbour.history_path, membership_length(neighbour.version, self.current_version))?;
        }
        Ok(())
    }
}

impl IncrementalProof {
    /// Check that the path has the length that its versions require.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `start <= end` and the path has exactly the hashes of [`incremental_positions`].
    pub fn check_shape(&self) -> Result<(), Malformed> {
        require_order(&[self.start, self.end])?;
        require_length(&self.audit_path, incremental_positions(self.start, self.end).len())
    }
}

pub(crate) fn require_order(versions: &[u64]) -> Result<(), Malformed> {
    if versions.is_sorted() {
        return Ok(());
    }
    Err(Malformed::because(format!("expected versions in ascending order, found {versions:?}")))
}

/// Check that a later occurrence comes after the requested version and is in the log.
pub(crate) fn require_later(version: u64, query: u64, current: u64) -> Result<(), Malformed> {
    if query < version && version <= current {
        return Ok(());
    }
    Err(Malformed::because(format!("expected a latest version above {query} and at most {current}, found {version}")))
}

fn require_length(path: &[Digest], expected: usize) -> Result<(), Malformed> {
    if path.len() == expected {
        return Ok(());
    }
    Err(Malformed::because(format!("expected a history path of {expected} hashes, found {}", path.len())))
}

fn require_hyper_length(path: &[Digest], shortest: u16) -> Result<(), Malformed> {
    if (usize::from(shortest)..=usize::from(HYPER_LEVELS)).contains(&path.len()) {
        return Ok(());
    }
    let found = path.len();
    Err(Malformed::because(format!("expected a hyper path of {shortest} to {HYPER_LEVELS} hashes, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(positions: &[HistoryPosition]) -> Vec<String> {
        positions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn membership_paths_hold_the_siblings_that_exist() {
        assert_eq!(texts(&membership_positions(0, 0)), Vec::<String>::new());
        assert_eq!(texts(&membership_positions(0, 3)), ["1|0", "2|1"]);
        assert_eq!(texts(&membership_positions(2, 2)), ["0|1"]);
        assert_eq!(texts(&membership_positions(4, 9)), ["5|0", "6|1", "0|2", "8|3"]);
        assert_eq!(membership_positions(0, u64::MAX).len(), 64);
    }

    #[test]
    fn incremental_paths_hold_both_leaves_and_the_rest_whole() {
        assert_eq!(texts(&incremental_positions(0, 3)), ["0|0", "1|0", "2|0", "3|0"]);
        assert_eq!(texts(&incremental_positions(2, 8)), ["0|1", "2|0", "3|0", "4|2", "8|0"]);
        assert!(incremental_positions(u64::MAX / 3, u64::MAX).len() <= 128);
    }
}
