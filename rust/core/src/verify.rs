//! Verification of proofs against roots that the verifier already trusts: pure functions, no store, no clock.
//!
//! The question and the trusted roots always come from the caller; the proof is never used as a source for anything the caller
//! already has. The functions return what was proven; nothing else in the proof is proven. The shape of the proof types bounds the
//! work: at most 256 hyper hashes and 128 history levels.
//!
//! Why it is sound: a root binds one hash to each position, because leaf, inner and default preimages have different lengths and all
//! but the default contain their position. A shortcut leaf binds only the first bits of its key and a version; the history root of
//! the current version binds that version to one event digest, in every kind of answer. So for a given pair of roots there is either
//! a membership proof or an absence proof of a key, never both. It does not show that the server built the hyper tree from the whole
//! history: only a replay can show that.

use std::slice;

use crate::hash::{
    self, Digest, HYPER_LEVELS, Message, history_inner, history_leaf, history_partial, hyper_default, hyper_leaf,
};
use crate::position::{HistoryPosition, HyperPosition, history_height};
use crate::proof::{
    AbsenceProof, IncrementalProof, Malformed, MembershipProof, Neighbour, Snapshot, incremental_positions,
};
use crate::roots::{HistoryRoot, HyperRoot};

/// What a membership proof has shown: the event is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// A version at which the event occurs.
    pub version: u64,
    /// A later version at which the event occurs, after the requested version; or `version` if the hyper tree shows no such version.
    pub latest_version: u64,
    /// The version that the answer is for: the history root of this version contains the event at `version`.
    pub as_of: u64,
}

/// What an absence proof has shown: the event is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absent {
    /// The event does not occur at any version up to this one.
    pub as_of: u64,
}

/// What an incremental proof has shown: the log at `end` begins with the log at `start`, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extends {
    /// The earlier version.
    pub start: u64,
    /// The later version.
    pub end: u64,
}

/// The proof does not show what it claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: expected {expected}, computed {computed}")]
pub struct VerifyError {
    /// The check that failed, as in "history digest".
    pub check: &'static str,
    /// The value that the caller's question and snapshots require.
    pub expected: String,
    /// The value that follows from the proof.
    pub computed: String,
}

impl From<Malformed> for VerifyError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self { check: "shape", expected: "a well-formed proof".into(), computed: reason }
    }
}

/// Check that `proof` shows the event `digest` to be in the log, at or before the requested version.
///
/// `asked` is the requested version, or `None` for the latest. `hyper` is a trusted root of the proof's current version; `history`
/// must include a root of its query version and, if there is a later occurrence, a root of its current version.
///
/// 1. The proof is well-formed and about `digest`.
/// 2. Its versions match the question and the roots.
/// 3. The hyper path has exactly the siblings of the key's own path. The type ensures this, because it stores no positions.
/// 4. The hyper path leads from the latest version to the hyper root.
/// 5. The history path leads from `digest` at the actual version to the history root of the query version. This is never skipped:
///    nothing else binds the event.
/// 6. A later occurrence has a history path of its own, from `digest` at the latest version to the history root of the current
///    version.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_membership(
    digest: &Digest,
    proof: &MembershipProof,
    asked: Option<u64>,
    hyper: &HyperRoot,
    history: &[HistoryRoot],
) -> Result<Present, VerifyError> {
    // 1.
    proof.check_shape()?;
    same("key digest", digest, &proof.key_digest)?;
    // 2. and 3.
    same("current version", &hyper.version, &proof.current_version)?;
    same("query version", &asked_version(asked, hyper), &proof.query_version)?;
    // 4.
    let latest_version = proof.latest_version();
    let end = HyperEnd::Leaf { version: latest_version };
    let (root, shown) = fold_both(
        HyperFold::new(digest, &proof.hyper_path, end),
        HistoryFold::new(digest, proof.actual_version, proof.query_version, &proof.history_path),
    )?;
    same("hyper digest", &hyper.digest, &root)?;
    // 5.
    same_root("history digest", history, shown)?;
    // 6.
    if let Some(later) = &proof.later {
        let shown = fold_history(digest, later.version, proof.current_version, &later.history_path)?;
        same_root("history digest of the latest version", history, shown)?;
    }
    Ok(Present { version: proof.actual_version, latest_version, as_of: proof.query_version })
}

/// Check that `proof` shows the event `digest` not to be in the log.
///
/// `asked` is the requested version, or `None` for the latest. `hyper` is a trusted root of the proof's current version; if the path
/// ends at another event, `history` must include a root of the same version.
///
/// 1. The proof is about `digest`, and its versions match the question and the roots.
/// 2. The hyper path leads to the hyper root, either from an empty subtree or from a neighbour's leaf.
/// 3. The neighbour is a different event on the same path, and its history path leads to the history root.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_absence(
    digest: &Digest,
    proof: &AbsenceProof,
    asked: Option<u64>,
    hyper: &HyperRoot,
    history: &[HistoryRoot],
) -> Result<Absent, VerifyError> {
    // 1.
    proof.check_shape()?;
    same("key digest", digest, &proof.key_digest)?;
    same("current version", &hyper.version, &proof.current_version)?;
    same("query version", &asked_version(asked, hyper), &proof.query_version)?;
    // 2.
    let end = match &proof.neighbour {
        None => HyperEnd::Empty,
        Some(neighbour) => HyperEnd::Leaf { version: neighbour.version },
    };
    same("hyper digest", &hyper.digest, &fold_hyper(digest, &proof.hyper_path, end))?;
    // 3.
    if let Some(neighbour) = &proof.neighbour {
        verify_neighbour(digest, proof, neighbour, history)?;
    }
    Ok(Absent { as_of: proof.current_version })
}

fn verify_neighbour(
    digest: &Digest,
    proof: &AbsenceProof,
    neighbour: &Neighbour,
    history: &[HistoryRoot],
) -> Result<(), VerifyError> {
    let shared = digest.shared_bits(&neighbour.key_digest);
    let is_other = shared < HYPER_LEVELS;
    if !is_other || usize::from(shared) < proof.hyper_path.len() {
        return Err(VerifyError {
            check: "neighbour",
            expected: format!("another event sharing {} bits", proof.hyper_path.len()),
            computed: format!("{} sharing {shared}", neighbour.key_digest),
        });
    }
    let shown = fold_history(&neighbour.key_digest, neighbour.version, proof.current_version, &neighbour.history_path)?;
    same_root("history digest of the neighbour", history, shown)
}

/// Check that `proof` shows the log of root `end` to extend the log of root `start`.
///
/// 1. The proof is about the versions of the two roots.
/// 2. The path leads to the digest of `start`.
/// 3. The same path leads to the digest of `end`.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_incremental(
    proof: &IncrementalProof,
    start: &HistoryRoot,
    end: &HistoryRoot,
) -> Result<Extends, VerifyError> {
    // 1.
    proof.check_shape()?;
    same("start version", &start.version, &proof.start)?;
    same("end version", &end.version, &proof.end)?;
    // 2. and 3.
    let nodes = nodes_of(proof);
    let start_root = root_from(&nodes, HistoryPosition::root(proof.start), proof.start).ok_or_else(path_too_short)?;
    same("history digest of the start", &start.digest, &start_root)?;
    let end_root = root_from(&nodes, HistoryPosition::root(proof.end), proof.end).ok_or_else(path_too_short)?;
    same("history digest of the end", &end.digest, &end_root)?;
    Ok(Extends { start: proof.start, end: proof.end })
}

/// Check that a new snapshot belongs to the log of a trusted root, and that its event is at its version.
///
/// `proof` is the incremental proof between the two versions, whichever comes first. An incremental path contains the leaves at both
/// ends, so no second proof is needed for the event. This does not check the hyper digest of `added`.
///
/// 1. The proof leads from the earlier of the two history roots to the later one.
/// 2. Its leaf at the version of `added` is the event of `added`.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_addition(proof: &IncrementalProof, trusted: &HistoryRoot, added: &Snapshot) -> Result<(), VerifyError> {
    // 1.
    let own = added.history_root();
    let (start, end) = if trusted.version <= own.version { (trusted, &own) } else { (&own, trusted) };
    verify_incremental(proof, start, end)?;
    // 2.
    let position = HistoryPosition::above(added.version, 0);
    let found = root_from(&nodes_of(proof), position, proof.end).ok_or_else(path_too_short)?;
    same("leaf of the added event", &history_leaf(&added.event_digest, &position.to_bytes()), &found)
}

/// Check that the snapshots of one bulk belong to one log: every event is at its version, and every history digest is correct for it.
///
/// `proof` is the incremental proof from the version of the first snapshot in `added` to that of the last. The root of each version
/// is recomputed from it and from the events. This does not link any snapshot to a root that was trusted before, and does not check
/// hyper digests.
///
/// 1. The versions are consecutive.
/// 2. The proof leads from the history root of the first snapshot to that of the last.
/// 3. Starting from the subtrees that the proof gives for everything before the bulk, the events lead to every history digest.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_bulk(proof: &IncrementalProof, added: &[Snapshot]) -> Result<(), VerifyError> {
    let (Some(first), Some(last)) = (added.first(), added.last()) else { return Ok(()) };
    // 1.
    for (before, after) in added.iter().zip(added.iter().skip(1)) {
        // No version follows the greatest 64-bit number, and a server may well claim that number.
        let next = before.version.checked_add(1).map_or_else(|| "none".to_owned(), |version| version.to_string());
        same("version in the bulk", &next, &after.version.to_string())?;
    }
    // 2.
    verify_incremental(proof, &first.history_root(), &last.history_root())?;
    // 3.
    let before = nodes_of(proof).into_iter().take_while(|(position, _)| position.index < first.version);
    let mut frozen: Vec<_> = before.map(|(position, digest)| (position, *digest)).collect();
    for snapshot in added {
        let root = append_leaf(&mut frozen, snapshot);
        same("history digest in the bulk", &snapshot.history_digest, &root)?;
    }
    Ok(())
}

/// Append the event of `added` to the complete subtrees before it, left to right, and return the history root at its version.
fn append_leaf(frozen: &mut Vec<(HistoryPosition, Digest)>, added: &Snapshot) -> Digest {
    let mut position = HistoryPosition::above(added.version, 0);
    let mut node = history_leaf(&added.event_digest, &position.to_bytes());
    // A subtree is complete once its last leaf is there, so a right child is merged with its left sibling.
    while let Some(&(left, hash)) =
        frozen.last().filter(|(left, _)| *left == position.sibling() && left.index < position.index)
    {
        frozen.pop();
        position = HistoryPosition::above(left.index, position.height + 1);
        node = history_inner(&hash, &node, &position.to_bytes());
    }
    frozen.push((position, node));
    let mut rest = frozen.iter().rev().skip(1).peekable();
    for height in position.height..history_height(added.version) {
        let own = HistoryPosition::above(added.version, height);
        let parent = HistoryPosition::above(added.version, height + 1).to_bytes();
        node = match rest.next_if(|(left, _)| *left == own.sibling()) {
            Some((_, left)) => history_inner(left, &node, &parent),
            None => history_partial(&node, &parent),
        };
    }
    node
}

fn nodes_of(proof: &IncrementalProof) -> Vec<(HistoryPosition, &Digest)> {
    incremental_positions(proof.start, proof.end).into_iter().zip(&proof.audit_path).collect()
}

/// Return the version that an honest server answers for: the requested one, or the last one if no version was requested or it is
/// beyond the log.
fn asked_version(asked: Option<u64>, current: &HyperRoot) -> u64 {
    asked.map_or(current.version, |version| version.min(current.version))
}

/// Where a hyper path ends.
#[derive(Clone, Copy)]
enum HyperEnd {
    Empty,
    Leaf { version: u64 },
}

/// Return the hyper root that follows from `path`, root down, if the path of `key` ends at `end`.
fn fold_hyper(key: &Digest, path: &[Digest], end: HyperEnd) -> Digest {
    let mut fold = HyperFold::new(key, path, end);
    while let Some(message) = fold.next() {
        fold.node = message.digest();
    }
    fold.node
}

/// Return the history root of `query` that follows from `path`, leaf up, if `digest` is at version `actual`.
fn fold_history(digest: &Digest, actual: u64, query: u64, path: &[Digest]) -> Result<HistoryRoot, VerifyError> {
    let mut fold = HistoryFold::new(digest, actual, query, path);
    while let Some(message) = fold.next() {
        fold.node = message.digest();
    }
    fold.root()
}

/// Return both roots. The two paths do not depend on each other, so a node of each is hashed at once.
fn fold_both(mut hyper: HyperFold<'_>, mut history: HistoryFold<'_>) -> Result<(Digest, HistoryRoot), VerifyError> {
    loop {
        match (hyper.next(), history.next()) {
            (Some(above), Some(beside)) => [hyper.node, history.node] = hash::pair(&above, &beside),
            (Some(above), None) => hyper.node = above.digest(),
            (None, Some(beside)) => history.node = beside.digest(),
            (None, None) => return history.root().map(|root| (hyper.node, root)),
        }
    }
}

/// A path in the hyper tree on its way up.
struct HyperFold<'a> {
    key: &'a Digest,
    /// The siblings that are not used yet, root down.
    siblings: slice::Iter<'a, Digest>,
    depth: u16,
    position: HyperPosition,
    node: Digest,
}

impl<'a> HyperFold<'a> {
    fn new(key: &'a Digest, path: &'a [Digest], end: HyperEnd) -> Self {
        #[expect(clippy::expect_used, reason = "`check_shape` was called before and allows at most 256 hashes")]
        let depth = u16::try_from(path.len()).expect("a hyper path has at most 256 hashes");
        let position = HyperPosition::on_path(key, depth);
        let node = match end {
            HyperEnd::Empty => hyper_default(HYPER_LEVELS - depth),
            HyperEnd::Leaf { version } => hyper_leaf(version, &position.to_bytes()),
        };
        Self { key, siblings: path.iter(), depth, position, node }
    }

    /// Go up one level, and return the message whose hash is the new `node`; `None` at the root.
    fn next(&mut self) -> Option<Message<2>> {
        let sibling = self.siblings.next_back()?;
        self.depth -= 1;
        self.position = self.position.parent();
        let (left, right) = if self.key.bit(self.depth) { (sibling, &self.node) } else { (&self.node, sibling) };
        Some(Message::hyper_inner(left, right, &self.position.to_bytes()))
    }
}

/// A path in the history tree at `query` on its way up.
struct HistoryFold<'a> {
    actual: u64,
    query: u64,
    /// The siblings that are not used yet, leaf up.
    siblings: slice::Iter<'a, Digest>,
    height: u16,
    node: Digest,
}

impl<'a> HistoryFold<'a> {
    fn new(digest: &Digest, actual: u64, query: u64, path: &'a [Digest]) -> Self {
        let node = history_leaf(digest, &HistoryPosition::above(actual, 0).to_bytes());
        Self { actual, query, siblings: path.iter(), height: 0, node }
    }

    /// Go up to the next node with two children, and return the message whose hash is the new `node`; `None` at the root, or if there
    /// is no sibling.
    fn next(&mut self) -> Option<Message<2>> {
        while self.height < history_height(self.query) {
            let own = HistoryPosition::above(self.actual, self.height);
            let sibling = own.sibling();
            let parent = HistoryPosition::above(self.actual, self.height + 1).to_bytes();
            if sibling.index <= self.query {
                let hash = self.siblings.next()?;
                self.height += 1;
                let (left, right) = if sibling.index < own.index { (hash, &self.node) } else { (&self.node, hash) };
                return Some(Message::history_inner(left, right, &parent));
            }
            self.height += 1;
            self.node = history_partial(&self.node, &parent);
        }
        None
    }

    /// Return the root, once there is no next node.
    fn root(&self) -> Result<HistoryRoot, VerifyError> {
        if self.height < history_height(self.query) {
            return Err(path_too_short());
        }
        Ok(HistoryRoot { version: self.query, digest: self.node })
    }
}

/// Return the hash of `node` in the tree at `version`, from the hashes of an incremental path.
fn root_from(nodes: &[(HistoryPosition, &Digest)], node: HistoryPosition, version: u64) -> Option<Digest> {
    if let Ok(found) = nodes.binary_search_by_key(&order(node), |&(position, _)| order(position)) {
        return nodes.get(found).map(|&(_, digest)| *digest);
    }
    let (left, right) = node.children()?;
    let left = root_from(nodes, left, version)?;
    if right.index > version {
        return Some(history_partial(&left, &node.to_bytes()));
    }
    let right = root_from(nodes, right, version)?;
    Some(history_inner(&left, &right, &node.to_bytes()))
}

/// The sort order of an incremental path: left to right; no two of its nodes begin at the same version.
fn order(position: HistoryPosition) -> (u64, u16) {
    (position.index, position.height)
}

fn path_too_short() -> VerifyError {
    VerifyError { check: "history path", expected: "a whole path".into(), computed: "a path that is too short".into() }
}

/// Check that a value that follows from the proof is the one expected.
pub(crate) fn same<T: PartialEq + ToString>(
    check: &'static str,
    expected: &T,
    computed: &T,
) -> Result<(), VerifyError> {
    if expected == computed {
        return Ok(());
    }
    Err(VerifyError { check, expected: expected.to_string(), computed: computed.to_string() })
}

/// Check that a root of the version of `shown` is trusted, and that every trusted root of that version is equal to `shown`.
fn same_root(check: &'static str, trusted: &[HistoryRoot], shown: HistoryRoot) -> Result<(), VerifyError> {
    let mut of_version = trusted.iter().filter(|root| root.version == shown.version).peekable();
    if of_version.peek().is_none() {
        return Err(VerifyError {
            check,
            expected: format!("a trusted history root of version {}", shown.version),
            computed: "none".into(),
        });
    }
    of_version.try_for_each(|root| same(check, &root.digest, &shown.digest))
}
