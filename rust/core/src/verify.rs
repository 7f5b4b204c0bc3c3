//! Proofs against snapshots that the verifier already trusts: pure functions, no store, no clock.
//!
//! What is asked and what is trusted always comes from the caller; nothing is taken from the proof where the caller has its own.
//! Work is bounded by the shape of the proof types: at most 256 hyper hashes and 64 history levels.
//!
//! Why it is sound: a root binds one hash to each position, because leaf, inner and default preimages have different lengths and
//! every one but the default names its position. A shortcut leaf binds only the first bits of its key and a version; the history
//! root binds that version to one event digest. So for one pair of roots there is either a membership or an absence proof of a
//! key, never both. What it does not show is that the server built the hyper tree from the whole history: that takes a replay.
//!
//! A membership of an older occurrence (its latest version comes after the one asked) binds the event to its actual version alone. The
//! latest version is only where the hyper path ends: nothing shows that the event stands there, or that it does not stand again between
//! the actual and the asked version.

use crate::hash::{
    Digest, HYPER_LEVELS, history_inner, history_leaf, history_partial, hyper_default, hyper_inner, hyper_leaf,
};
use crate::position::{HistoryPosition, HyperPosition, history_height};
use crate::proof::{
    AbsenceProof, IncrementalProof, Malformed, MembershipProof, Neighbour, Snapshot, incremental_positions,
};

/// The proof does not show what it claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{check}: expected {expected}, computed {computed}")]
pub struct VerifyError {
    /// The check that failed, as in "history digest".
    pub check: &'static str,
    /// What the caller's question and snapshots demand.
    pub expected: String,
    /// What the proof gives.
    pub computed: String,
}

impl From<Malformed> for VerifyError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self { check: "shape", expected: "a well-formed proof".into(), computed: reason }
    }
}

/// Check that `proof` shows the event `digest` to be in the log, at or below the version asked.
///
/// `asked` is the version that was asked for, or nothing for the latest. `query` is the caller's snapshot of the proof's query version,
/// of which the history digest counts; `current` that of its current version, of which the hyper digest counts.
///
/// 1. The proof is well-formed and about `digest`.
/// 2. Its versions are those of the question and of the snapshots.
/// 3. The hyper path has exactly the siblings of the key's own path: by the type, which stores no positions.
/// 4. The hyper path leads from the latest version to the hyper digest.
/// 5. The history path leads from `digest` at the actual version to the history digest. Never skipped: only this binds the event.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_membership(
    digest: &Digest,
    proof: &MembershipProof,
    asked: Option<u64>,
    query: &Snapshot,
    current: &Snapshot,
) -> Result<(), VerifyError> {
    // 1.
    proof.check_shape()?;
    same("key digest", digest, &proof.key_digest)?;
    // 2. and 3.
    same("current version", &current.version, &proof.current_version)?;
    same("query version", &asked_version(asked, current), &proof.query_version)?;
    same("version of the query snapshot", &proof.query_version, &query.version)?;
    // 4.
    let end = HyperEnd::Leaf { version: proof.latest_version };
    same("hyper digest", &current.hyper_digest, &fold_hyper(digest, &proof.hyper_path, end))?;
    // 5.
    let history = fold_history(digest, proof.actual_version, proof.query_version, &proof.history_path)?;
    same("history digest", &query.history_digest, &history)
}

/// Check that `proof` shows the event `digest` not to be in the log of the caller's snapshot `current`.
///
/// 1. The proof is about `digest`, and its versions are those of the question and of the snapshot.
/// 2. The hyper path leads to the hyper digest, either from an empty subtree or from a neighbour's leaf.
/// 3. The neighbour is another event that shares the path, and its history path leads to the history digest.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_absence(
    digest: &Digest,
    proof: &AbsenceProof,
    asked: Option<u64>,
    current: &Snapshot,
) -> Result<(), VerifyError> {
    // 1.
    proof.check_shape()?;
    same("key digest", digest, &proof.key_digest)?;
    same("current version", &current.version, &proof.current_version)?;
    same("query version", &asked_version(asked, current), &proof.query_version)?;
    // 2.
    let end = match &proof.neighbour {
        None => HyperEnd::Empty,
        Some(neighbour) => HyperEnd::Leaf { version: neighbour.version },
    };
    same("hyper digest", &current.hyper_digest, &fold_hyper(digest, &proof.hyper_path, end))?;
    // 3.
    proof.neighbour.as_ref().map_or(Ok(()), |neighbour| verify_neighbour(digest, proof, neighbour, current))
}

fn verify_neighbour(
    digest: &Digest,
    proof: &AbsenceProof,
    neighbour: &Neighbour,
    current: &Snapshot,
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
    let history = fold_history(&neighbour.key_digest, neighbour.version, current.version, &neighbour.history_path)?;
    same("history digest of the neighbour", &current.history_digest, &history)
}

/// Check that `proof` shows the log of snapshot `end` to extend the log of snapshot `start`.
///
/// 1. The proof is about the two snapshots' versions.
/// 2. The path gives the history digest of `start`.
/// 3. The same path gives the history digest of `end`.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_incremental(proof: &IncrementalProof, start: &Snapshot, end: &Snapshot) -> Result<(), VerifyError> {
    // 1.
    proof.check_shape()?;
    same("start version", &start.version, &proof.start)?;
    same("end version", &end.version, &proof.end)?;
    // 2. and 3.
    let nodes: Vec<_> = incremental_positions(proof.start, proof.end).into_iter().zip(&proof.audit_path).collect();
    let start_root = root_from(&nodes, HistoryPosition::root(proof.start), proof.start).ok_or_else(path_too_short)?;
    same("history digest of the start", &start.history_digest, &start_root)?;
    let end_root = root_from(&nodes, HistoryPosition::root(proof.end), proof.end).ok_or_else(path_too_short)?;
    same("history digest of the end", &end.history_digest, &end_root)
}

/// The version a truthful server answers: the one asked, or the last one if that is beyond the log or none was asked.
fn asked_version(asked: Option<u64>, current: &Snapshot) -> u64 {
    asked.map_or(current.version, |version| version.min(current.version))
}

/// Where a hyper path ends.
#[derive(Clone, Copy)]
enum HyperEnd {
    Empty,
    Leaf { version: u64 },
}

/// Return the hyper root that `path`, root down, gives for a path of `key` that ends so.
fn fold_hyper(key: &Digest, path: &[Digest], end: HyperEnd) -> Digest {
    let depths = 1..=u16::try_from(path.len()).unwrap_or(HYPER_LEVELS).min(HYPER_LEVELS);
    let last = *depths.end();
    let start = match end {
        HyperEnd::Empty => hyper_default(HYPER_LEVELS - last),
        HyperEnd::Leaf { version } => hyper_leaf(version, &HyperPosition::on_path(key, last).to_bytes()),
    };
    depths.zip(path).rev().fold(start, |below, (depth, sibling)| {
        let position = HyperPosition::on_path(key, depth - 1).to_bytes();
        let (left, right) = if key.bit(depth - 1) { (sibling, &below) } else { (&below, sibling) };
        hyper_inner(left, right, &position)
    })
}

/// Return the history root at `query` that `path`, leaf up, gives for `digest` at version `actual`.
fn fold_history(digest: &Digest, actual: u64, query: u64, path: &[Digest]) -> Result<Digest, VerifyError> {
    let mut siblings = path.iter();
    let mut node = history_leaf(digest, &HistoryPosition::above(actual, 0).to_bytes());
    for height in 0..history_height(query) {
        let own = HistoryPosition::above(actual, height);
        let sibling = own.sibling();
        let parent = HistoryPosition::above(actual, height + 1).to_bytes();
        node = if sibling.index > query {
            history_partial(&node, &parent)
        } else {
            let hash = siblings.next().ok_or_else(path_too_short)?;
            let (left, right) = if sibling.index < own.index { (hash, &node) } else { (&node, hash) };
            history_inner(left, right, &parent)
        };
    }
    Ok(node)
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

/// The order of an incremental path: left to right; no two of its nodes begin at one version.
fn order(position: HistoryPosition) -> (u64, u16) {
    (position.index, position.height)
}

fn path_too_short() -> VerifyError {
    VerifyError { check: "history path", expected: "a whole path".into(), computed: "a path that is too short".into() }
}

fn same<T: PartialEq + ToString>(check: &'static str, expected: &T, computed: &T) -> Result<(), VerifyError> {
    if expected == computed {
        return Ok(());
    }
    Err(VerifyError { check, expected: expected.to_string(), computed: computed.to_string() })
}
