//! The Merkle tree of RFC 6962, section 2.1: roots, and proofs of inclusion, consistency and ranges.
//!
//! The tree over the leaves `[low, high)` has as its left child the tree over the largest power of two of leaves that is less than
//! `high - low`, and the rest on the right. A subtree is named by its range of leaves. The subtrees of a proof follow from the sizes and
//! indices alone (`inclusion_subtrees`, `consistency_subtrees`), so a proof is a list of hashes, and its length is known before
//! anything is hashed: a tree of at most 2^63 - 1 leaves has at most 63 levels below its root. A proof of consistency may have one hash
//! more than there are levels, that of the subtree where the older tree ends.

use std::ops::Range;

use crate::hash::{Digest, Message, digests, merkle_empty, merkle_inner};
use crate::proof::Malformed;
use crate::tlog::text::MAX_NUMBER;
use crate::verify::{VerifyError, same};

/// Maximum number of hashes in a proof of inclusion.
pub const MAX_PATH_HASHES: usize = 63;

/// Maximum number of hashes in a proof of consistency. Up to 2^62 leaves it is 63, which is all that a witness accepts.
pub const MAX_CONSISTENCY_HASHES: usize = MAX_PATH_HASHES + 1;

/// Maximum number of leaves in a range proof.
pub const MAX_RANGE_LEAVES: usize = 65_536;

/// The size of a tree and its root: what a log commits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeHead {
    size: u64,
    root: Digest,
}

impl TreeHead {
    /// Return the head of the tree with `size` leaves and the root `root`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the size is above [`MAX_NUMBER`], or 0 with another root than that of the empty tree.
    pub fn new(size: u64, root: Digest) -> Result<Self, Malformed> {
        if size > MAX_NUMBER {
            return Err(Malformed::because(format!("expected a tree of at most {MAX_NUMBER} leaves, found {size}")));
        }
        if size == 0 && root != merkle_empty() {
            let empty = merkle_empty();
            return Err(Malformed::because(format!(
                "expected the root {empty} of a tree without leaves, found {root}"
            )));
        }
        Ok(Self { size, root })
    }

    /// Return the number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Return the root.
    #[must_use]
    pub const fn root(&self) -> &Digest {
        &self.root
    }
}

/// Where the hashes of complete subtrees come from, such as memory or tiles.
pub trait Subtrees {
    /// Why a hash could not be read.
    type Error;

    /// Return the hash over the `2^level` leaves from `index * 2^level` on. All of these leaves exist.
    ///
    /// # Errors
    ///
    /// Whatever the source fails with.
    fn subtree(&self, level: u32, index: u64) -> Result<Digest, Self::Error>;
}

/// Why a root or a proof could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProveError<E> {
    /// The question does not fit the tree.
    #[error("expected {expected} in a tree of {size} leaves, found {found}")]
    Outside {
        /// What the size allows.
        expected: &'static str,
        /// The leaves asked for.
        found: String,
        /// Number of leaves of the tree.
        size: u64,
    },
    /// A hash could not be read.
    #[error("{0}")]
    Source(E),
}

/// Return the root of the tree over all of `leaves`, which are leaf hashes.
#[must_use]
pub fn root_of(leaves: &[Digest]) -> Digest {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        // The last node of an odd number is the right child of a higher one.
        let (pairs, last) = level.as_chunks::<2>();
        level = parents(pairs).chain(last.iter().copied()).collect();
    }
    level.first().copied().unwrap_or_else(merkle_empty)
}

/// Return the nodes above pairs of nodes.
pub fn parents(pairs: &[[Digest; 2]]) -> impl Iterator<Item = Digest> {
    digests(pairs.iter().map(|[left, right]| Message::merkle_inner(left, right)))
}

/// Return the root of the tree with `size` leaves.
///
/// # Errors
///
/// [`ProveError::Outside`] if the size is above [`MAX_NUMBER`]; [`ProveError::Source`] if a hash cannot be read.
pub fn root_at<S: Subtrees>(source: &S, size: u64) -> Result<Digest, ProveError<S::Error>> {
    require(size <= MAX_NUMBER, "at most 2^63 - 1 leaves", || size.to_string(), size)?;
    subtree_root(source, &(0..size))
}

/// Return the proof that leaf `index` is in the tree with `size` leaves: RFC 6962, section 2.1.1, the sibling of the leaf first.
///
/// # Errors
///
/// [`ProveError::Outside`] unless `index < size`; [`ProveError::Source`] if a hash cannot be read.
pub fn inclusion<S: Subtrees>(source: &S, index: u64, size: u64) -> Result<Vec<Digest>, ProveError<S::Error>> {
    require(index < size && size <= MAX_NUMBER, "an index below the size", || index.to_string(), size)?;
    inclusion_subtrees(index, size).iter().map(|range| subtree_root(source, range)).collect()
}

/// Return the proof that the tree with `size` leaves extends the one with `old`: RFC 6962, section 2.1.2.
///
/// It is empty if `old` is 0 or `size`.
///
/// # Errors
///
/// [`ProveError::Outside`] unless `old <= size`; [`ProveError::Source`] if a hash cannot be read.
pub fn consistency<S: Subtrees>(source: &S, old: u64, size: u64) -> Result<Vec<Digest>, ProveError<S::Error>> {
    require(old <= size && size <= MAX_NUMBER, "an older size that is not larger", || old.to_string(), size)?;
    consistency_subtrees(old, size).1.iter().map(|range| subtree_root(source, range)).collect()
}

/// Return the proof that the leaves of `range` are in the tree with `size` leaves: one proof for all of them.
///
/// The hashes are those of the subtrees wholly before or after the range, from left to right. For a single leaf they are those of
/// [`inclusion`]: first the ones on its left from the top down, then the ones on its right from the bottom up.
///
/// # Errors
///
/// [`ProveError::Outside`] if the range is empty, has more than [`MAX_RANGE_LEAVES`] leaves or ends beyond the tree;
/// [`ProveError::Source`] if a hash cannot be read.
pub fn range_proof<S: Subtrees>(
    source: &S,
    range: &Range<u64>,
    size: u64,
) -> Result<Vec<Digest>, ProveError<S::Error>> {
    let fits = range.start < range.end && range.end <= size && size <= MAX_NUMBER;
    let short = fits && range.end - range.start <= MAX_RANGE_LEAVES as u64;
    require(short, "1 to 65536 leaves", || format!("{} up to {}", range.start, range.end), size)?;
    range_subtrees(range, size).iter().map(|subtree| subtree_root(source, subtree)).collect()
}

/// Return the [`inclusion`] proof that has the hashes of a [`range_proof`] of a single leaf.
///
/// # Errors
///
/// [`Malformed`] unless `index < size` and there are as many hashes as the two require.
pub fn inclusion_of_range(index: u64, size: u64, proof: &[Digest]) -> Result<Vec<Digest>, Malformed> {
    let count = if index < size { inclusion_subtrees(index, size).len() } else { 0 };
    if index >= size || proof.len() != count {
        let found = format!("{} for leaf {index} of {size}", proof.len());
        return Err(Malformed::because(format!("expected {count} hashes, found {found}")));
    }
    let mut in_order: Vec<_> =
        inclusion_subtrees(index, size).iter().map(|subtree| subtree.start).enumerate().collect();
    in_order.sort_unstable_by_key(|(_, start)| *start);
    let mut path: Vec<_> = in_order.iter().map(|(place, _)| *place).zip(proof.iter().copied()).collect();
    path.sort_unstable_by_key(|(place, _)| *place);
    Ok(path.into_iter().map(|(_, hash)| hash).collect())
}

/// Return the [`inclusion`] proof of leaf `index`, which is one of `leaves`, from a [`range_proof`] of these leaves from `first` on.
///
/// # Errors
///
/// [`Malformed`] unless the index is one of the leaves, they are in the tree, and there are as many hashes as the range requires.
pub fn inclusion_in_range(
    index: u64,
    first: u64,
    leaves: &[Digest],
    proof: &[Digest],
    size: u64,
) -> Result<Vec<Digest>, Malformed> {
    let wrong = || Malformed::because(format!("expected a range proof of leaf {index} of {size}, found another"));
    let end = first.checked_add(leaves.len() as u64).filter(|end| *end <= size).ok_or_else(wrong)?;
    let range = Some(first..end).filter(|range| range.contains(&index)).ok_or_else(wrong)?;
    if range_subtrees(&range, size).len() != proof.len() {
        return Err(wrong());
    }
    let (mut walk, mut path) = (RangeWalk { range, leaves, proof }, Vec::new());
    walk.path(&(0..size), index, &mut path).ok_or_else(wrong)?;
    Ok(path)
}

/// Check that `leaf` is the hash of leaf `index` of the tree `head`.
///
/// 1. The index is in the tree.
/// 2. The proof has exactly the hashes that size and index require.
/// 3. They lead from the leaf to the root.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_inclusion(leaf: &Digest, index: u64, path: &[Digest], head: &TreeHead) -> Result<(), VerifyError> {
    // 1.
    if index >= head.size {
        return Err(refused("index", format!("one below the size {}", head.size), index.to_string()));
    }
    // 2.
    let subtrees = inclusion_subtrees(index, head.size);
    same("number of hashes", &subtrees.len(), &path.len())?;
    // 3.
    let joined = |hash, (subtree, other): (&Range<u64>, &Digest)| {
        if subtree.start > index { merkle_inner(&hash, other) } else { merkle_inner(other, &hash) }
    };
    same("root", &head.root, &subtrees.iter().zip(path).fold(*leaf, joined))
}

/// Check that the tree `new` extends the tree `old`: its first leaves are those of `old`.
///
/// 1. The older tree is not larger.
/// 2. The proof has exactly the hashes that the sizes require.
/// 3. Of equal sizes, the roots are equal. Every tree extends the empty one.
/// 4. The hashes give the older root.
/// 5. The hashes give the newer root.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_consistency(old: &TreeHead, new: &TreeHead, path: &[Digest]) -> Result<(), VerifyError> {
    // 1.
    if old.size > new.size {
        return Err(refused("older size", format!("at most {}", new.size), old.size.to_string()));
    }
    // 2.
    let (starts_at_old, subtrees) = consistency_subtrees(old.size, new.size);
    same("number of hashes", &subtrees.len(), &path.len())?;
    // 3.
    if old.size == new.size {
        return same("root", &old.root, &new.root);
    }
    if old.size == 0 {
        return Ok(());
    }
    let mut steps = subtrees.iter().zip(path);
    let start = if starts_at_old { Some(&old.root) } else { steps.next().map(|(_, hash)| hash) };
    let start =
        *start.ok_or_else(|| refused("number of hashes", subtrees.len().to_string(), path.len().to_string()))?;
    let (mut old_root, mut new_root) = (start, start);
    for (subtree, hash) in steps {
        if subtree.start < old.size {
            old_root = merkle_inner(hash, &old_root);
            new_root = merkle_inner(hash, &new_root);
        } else {
            new_root = merkle_inner(&new_root, hash);
        }
    }
    // 4.
    same("older root", &old.root, &old_root)?;
    // 5.
    same("newer root", &new.root, &new_root)
}

/// Check that `leaves` are the hashes of the leaves of the tree `head` from `first` on.
///
/// 1. There are 1 to [`MAX_RANGE_LEAVES`] leaves, all in the tree.
/// 2. The proof has exactly the hashes that the sizes require.
/// 3. They lead to the root.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify_range(first: u64, leaves: &[Digest], proof: &[Digest], head: &TreeHead) -> Result<(), VerifyError> {
    // 1.
    let count = leaves.len();
    let end = first.checked_add(count as u64).filter(|end| *end <= head.size);
    let Some(end) = end.filter(|_| (1..=MAX_RANGE_LEAVES).contains(&count)) else {
        let expected = format!("1 to {MAX_RANGE_LEAVES} leaves of {}", head.size);
        return Err(refused("range", expected, format!("{count} from {first} on")));
    };
    // 2.
    let subtrees = range_subtrees(&(first..end), head.size);
    same("number of hashes", &subtrees.len(), &proof.len())?;
    // 3.
    let mut walk = RangeWalk { range: first..end, leaves, proof };
    let missing = || refused("number of hashes", subtrees.len().to_string(), proof.len().to_string());
    same("root", &head.root, &walk.root(&(0..head.size)).ok_or_else(missing)?)
}

/// What is left of the leaves and the proof of a range, on a walk over the tree from left to right.
struct RangeWalk<'a> {
    range: Range<u64>,
    leaves: &'a [Digest],
    proof: &'a [Digest],
}

impl RangeWalk<'_> {
    /// Return the root of the subtree, or `None` if a hash is missing. The depth of the recursion is that of the tree, at most 63.
    fn root(&mut self, subtree: &Range<u64>) -> Option<Digest> {
        let inside = self.range.start < subtree.end && subtree.start < self.range.end;
        if inside && subtree.end - subtree.start > 1 {
            let (left, right) = halves(subtree);
            let left = self.root(&left)?;
            return Some(merkle_inner(&left, &self.root(&right)?));
        }
        let hashes = if inside { &mut self.leaves } else { &mut self.proof };
        let (hash, rest) = hashes.split_first()?;
        *hashes = rest;
        Some(*hash)
    }

    /// Return the root of the subtree as [`Self::root`] does, and append the hashes beside the path to leaf `index`, from below.
    fn path(&mut self, subtree: &Range<u64>, index: u64, path: &mut Vec<Digest>) -> Option<Digest> {
        if !subtree.contains(&index) || subtree.end - subtree.start == 1 {
            return self.root(subtree);
        }
        let (left, right) = halves(subtree);
        let (left_root, right_root) = (self.path(&left, index, path)?, self.path(&right, index, path)?);
        path.push(if left.contains(&index) { right_root } else { left_root });
        Some(merkle_inner(&left_root, &right_root))
    }
}

/// Return the subtrees beside the path from leaf `index` to the root of the tree with `size` leaves, the sibling of the leaf first.
/// Requires `index < size`.
fn inclusion_subtrees(index: u64, size: u64) -> Vec<Range<u64>> {
    let mut beside = Vec::with_capacity(MAX_PATH_HASHES);
    let mut subtree = 0..size;
    while subtree.end - subtree.start > 1 {
        let (left, right) = halves(&subtree);
        let (on_path, sibling) = if index < right.start { (left, right) } else { (right, left) };
        beside.push(sibling);
        subtree = on_path;
    }
    beside.reverse();
    beside
}

/// Return the subtrees whose hashes prove that the tree with `size` leaves extends the one with `old`, and whether the proof starts at
/// the older root, which is then not part of it. Requires `old <= size`.
fn consistency_subtrees(old: u64, size: u64) -> (bool, Vec<Range<u64>>) {
    if old == 0 || old == size {
        return (true, Vec::new());
    }
    let mut beside = Vec::with_capacity(MAX_CONSISTENCY_HASHES);
    let mut subtree = 0..size;
    while subtree.end != old {
        let (left, right) = halves(&subtree);
        let (on_path, sibling) = if old <= right.start { (left, right) } else { (right, left) };
        beside.push(sibling);
        subtree = on_path;
    }
    let starts_at_old = subtree.start == 0;
    if !starts_at_old {
        beside.push(subtree);
    }
    beside.reverse();
    (starts_at_old, beside)
}

/// Return the subtrees wholly before or after the leaves of `range`, from left to right. Requires `range` to be in the tree and not empty.
fn range_subtrees(range: &Range<u64>, size: u64) -> Vec<Range<u64>> {
    let mut outside = Vec::new();
    let mut open: Vec<Range<u64>> = std::iter::once(0..size).collect();
    while let Some(subtree) = open.pop() {
        if subtree.end <= range.start || range.end <= subtree.start {
            outside.push(subtree);
        } else if subtree.start < range.start || range.end < subtree.end {
            let (left, right) = halves(&subtree);
            open.extend([right, left]);
        }
    }
    outside
}

/// Return the left and the right child of a subtree of at least two leaves.
fn halves(subtree: &Range<u64>) -> (Range<u64>, Range<u64>) {
    let leaves = subtree.end - subtree.start;
    let middle = subtree.start + leaves.next_power_of_two() / 2;
    (subtree.start..middle, middle..subtree.end)
}

/// Return the root of a subtree from the complete ones in it. Its start is a multiple of each of them, as in every node of the tree.
fn subtree_root<S: Subtrees>(source: &S, subtree: &Range<u64>) -> Result<Digest, ProveError<S::Error>> {
    let mut complete = Vec::new();
    let mut start = subtree.start;
    while start < subtree.end {
        let level = (subtree.end - start).ilog2();
        complete.push(source.subtree(level, start >> level).map_err(ProveError::Source)?);
        start += 1 << level;
    }
    let joined = complete.into_iter().rev().reduce(|right, left| merkle_inner(&left, &right));
    Ok(joined.unwrap_or_else(merkle_empty))
}

fn require<E>(
    holds: bool,
    expected: &'static str,
    found: impl FnOnce() -> String,
    size: u64,
) -> Result<(), ProveError<E>> {
    if holds { Ok(()) } else { Err(ProveError::Outside { expected, found: found(), size }) }
}

fn refused(check: &'static str, expected: String, computed: String) -> VerifyError {
    VerifyError { check, expected, computed }
}
