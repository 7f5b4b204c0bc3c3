//! Verification of bulk proofs: pure functions, as in [`crate::verify`].
//!
//! Why it is sound: the verifier computes every node on the path of any key, and reads only the hashes of subtrees that no path enters.
//! So for each key the siblings of its path are known, some read and some computed, and with them the path is what a proof for this key
//! alone has: the same root, the same end, the same checks. Whatever a bulk proof shows of a key, a proof for that key alone could show
//! from the same two roots, and [`crate::verify`] says why those are sound.

use std::ops::Range;
use std::slice;

use crate::bulk_proof::{BulkKeys, BulkProof, End, KeyEnd, split};
use crate::hash::{
    Digest, HYPER_LEVELS, history_inner, history_leaf, history_partial, hyper_default, hyper_inner, hyper_leaf,
};
use crate::position::{HistoryPosition, HyperPosition};
use crate::roots::{HistoryRoot, HyperRoot};
use crate::verify::{Absent, Present, VerifyError, same};

/// What a bulk proof has shown of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The event is in the log.
    Present(Present),
    /// The event is not in the log.
    Absent(Absent),
}

/// Check that `proof` shows of each key whether it is in the log, and return that in the order of the keys.
///
/// `hyper` is a trusted root of the proof's current version. `history` is one of the same version; it may be `None` if all paths end at
/// empty subtrees, because nothing else is proven in the history tree.
///
/// 1. The proof is well-formed, has an end for each key, and is about the version of the roots.
/// 2. Each neighbour is a different event on the path of its key.
/// 3. The paths lead to the hyper root. Paths that meet at their ends end at the same thing, and each hash is used once, for a subtree
///    that no path enters.
/// 4. The leaves of all versions lead to the history root, each version with one event digest; likewise, each hash is used once. This is
///    never skipped if any path ends at a leaf: nothing else binds the events.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_bulk_proof(
    keys: &BulkKeys,
    proof: &BulkProof,
    hyper: &HyperRoot,
    history: Option<&HistoryRoot>,
) -> Result<Vec<Shown>, VerifyError> {
    // 1.
    proof.check_shape()?;
    let (keys, as_of) = (keys.as_slice(), proof.current_version);
    same("number of keys", &keys.len(), &proof.ends.len())?;
    same("current version", &hyper.version, &as_of)?;
    // 2.
    for (key, end) in keys.iter().zip(&proof.ends) {
        check_neighbour(key, end)?;
    }
    // 3.
    let mut paths = HyperPaths { keys, ends: &proof.ends, siblings: proof.hyper.iter() };
    let root = paths.node(0..keys.len(), 0)?;
    same("hyper digest", &hyper.digest, &root)?;
    require_used("hyper path", paths.siblings.len())?;
    // 4.
    check_history(keys, proof, history)?;
    let shown = |end: &KeyEnd| match end.end {
        End::Present { version } => Shown::Present(Present { version, latest_version: version, as_of }),
        End::Empty | End::Neighbour { .. } => Shown::Absent(Absent { as_of }),
    };
    Ok(proof.ends.iter().map(shown).collect())
}

fn check_neighbour(key: &Digest, end: &KeyEnd) -> Result<(), VerifyError> {
    let End::Neighbour { key_digest, .. } = &end.end else { return Ok(()) };
    let shared = key.shared_bits(key_digest);
    if (end.depth..HYPER_LEVELS).contains(&shared) {
        return Ok(());
    }
    Err(VerifyError {
        check: "neighbour",
        expected: format!("another event sharing {} bits with {key}", end.depth),
        computed: format!("{key_digest} sharing {shared}"),
    })
}

fn check_history(keys: &[Digest], proof: &BulkProof, trusted: Option<&HistoryRoot>) -> Result<(), VerifyError> {
    let leaves = leaves(keys, proof)?;
    if leaves.is_empty() {
        return require_used("history path", proof.history.len());
    }
    let Some(trusted) = trusted else {
        let expected = format!("a trusted history root of version {}", proof.current_version);
        return Err(VerifyError { check: "history digest", expected, computed: "none".into() });
    };
    same("version of the history root", &proof.current_version, &trusted.version)?;
    let mut paths = HistoryPaths { current: proof.current_version, siblings: proof.history.iter() };
    let root = paths.node(HistoryPosition::root(proof.current_version), &leaves)?;
    same("history digest", &trusted.digest, &root)?;
    require_used("history path", paths.siblings.len())
}

/// Return the versions of all leaves with their event digests, in ascending order, each once.
fn leaves(keys: &[Digest], proof: &BulkProof) -> Result<Vec<(u64, Digest)>, VerifyError> {
    let leaf = |(key, end): (&Digest, &KeyEnd)| match end.end {
        End::Present { version } => Some((version, *key)),
        End::Neighbour { key_digest, version } => Some((version, key_digest)),
        End::Empty => None,
    };
    let mut leaves: Vec<_> = keys.iter().zip(&proof.ends).filter_map(leaf).collect();
    leaves.sort_unstable();
    leaves.dedup();
    for ((first, digest), (second, other)) in leaves.iter().zip(leaves.iter().skip(1)) {
        if first == second {
            return Err(VerifyError {
                check: "events",
                expected: format!("one event at version {first}"),
                computed: format!("{digest} and {other}"),
            });
        }
    }
    Ok(leaves)
}

/// The paths of keys in the hyper tree, and the hashes beside them that are not used yet.
struct HyperPaths<'a> {
    keys: &'a [Digest],
    ends: &'a [KeyEnd],
    siblings: slice::Iter<'a, Option<Digest>>,
}

impl HyperPaths<'_> {
    /// Return the hash of the node at `depth` that the paths of `range` enter. At most 256 calls deep, since no path is longer.
    fn node(&mut self, range: Range<usize>, depth: u16) -> Result<Digest, VerifyError> {
        let ends = self.ends.get(range.clone()).unwrap_or_default();
        let Some((key, end)) = self.keys.get(range.start).zip(ends.first()) else { return Err(too_few("hyper path")) };
        if ends.iter().any(|end| end.depth == depth) {
            let version = end.end.version();
            if ends.iter().any(|end| end.depth != depth || end.end.version() != version) {
                return Err(VerifyError {
                    check: "ends of paths",
                    expected: format!("one leaf or empty subtree at depth {depth} on the path of {key}"),
                    computed: "several".into(),
                });
            }
            let leaf = |version| hyper_leaf(version, &HyperPosition::on_path(key, depth).to_bytes());
            return Ok(version.map_or_else(|| hyper_default(HYPER_LEVELS - depth), leaf));
        }
        let (left, right) = split(self.keys, &range, depth);
        let (left, right) = (self.child(left, depth + 1)?, self.child(right, depth + 1)?);
        Ok(hyper_inner(&left, &right, &HyperPosition::on_path(key, depth).to_bytes()))
    }

    /// Return the hash of the node at `depth` that the paths of `range` enter, or the next of the hashes if none does.
    fn child(&mut self, range: Range<usize>, depth: u16) -> Result<Digest, VerifyError> {
        if !range.is_empty() {
            return self.node(range, depth);
        }
        let empty = hyper_default(HYPER_LEVELS - depth);
        match self.siblings.next() {
            None => Err(too_few("hyper path")),
            Some(None) => Ok(empty),
            // One proof must not have two forms.
            Some(Some(hash)) if *hash == empty => Err(VerifyError {
                check: "hyper path",
                expected: "no hash for an empty subtree".into(),
                computed: format!("{hash} at depth {depth}"),
            }),
            Some(Some(hash)) => Ok(*hash),
        }
    }
}

/// The paths of versions in the history tree, and the hashes beside them that are not used yet.
struct HistoryPaths<'a> {
    current: u64,
    siblings: slice::Iter<'a, Digest>,
}

impl HistoryPaths<'_> {
    /// Return the hash of `position`, which the paths of all `leaves` enter; or the next of the hashes, if there are none. At most 64
    /// calls deep.
    fn node(&mut self, position: HistoryPosition, leaves: &[(u64, Digest)]) -> Result<Digest, VerifyError> {
        let Some((_, digest)) = leaves.first() else {
            return self.siblings.next().copied().ok_or_else(|| too_few("history path"));
        };
        let bytes = position.to_bytes();
        let Some((left, right)) = position.children() else { return Ok(history_leaf(digest, &bytes)) };
        let (before, after) = leaves.split_at(leaves.partition_point(|(version, _)| *version < right.index));
        let left = self.node(left, before)?;
        if right.index > self.current {
            return Ok(history_partial(&left, &bytes));
        }
        Ok(history_inner(&left, &self.node(right, after)?, &bytes))
    }
}

fn too_few(check: &'static str) -> VerifyError {
    VerifyError { check, expected: "a hash for each subtree beside the paths".into(), computed: "too few".into() }
}

fn require_used(check: &'static str, left_over: usize) -> Result<(), VerifyError> {
    same(check, &"every hash used", &if left_over == 0 { "every hash used" } else { "hashes left over" })
}
