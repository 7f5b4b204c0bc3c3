//! The history tree: append-only, one leaf per version (Crosby and Wallach, "Efficient Data Structures for Tamper-Evident Logging",
//! 2009, section 3; positions are part of what is hashed, as in QED).
//!
//! Frozen nodes of height 4 and above are kept in memory, at four bytes per event. Lower nodes are computed from the event digests
//! below them, at most sixteen, which the caller reads from the log.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::{self, Digest, Message, history_inner, history_leaf, history_partial};
use crate::integers::usize_from;
use crate::position::{HistoryPosition, history_height};
use crate::proof::{incremental_positions, membership_positions};

/// The lowest height at which frozen nodes are kept in memory.
const KEPT_HEIGHT: u16 = 4;

/// Number of leaves below a frozen node of that height.
pub const GROUP: u64 = 1 << KEPT_HEIGHT;

/// [`GROUP`] as a length.
const GROUP_LEAVES: usize = 1 << KEPT_HEIGHT;

/// Number of nodes or groups that one thread hashes at a time: enough to fill lanes, few enough to stay in its cache.
const PART: usize = 256;

/// Number of levels below the root of a tree of 2^64 leaves.
const LEVELS: usize = 64;

/// Returns the event digests of the group of [`GROUP`] versions that contains a version, at least up to that version.
pub type Group<'a> = dyn Fn(u64) -> Result<Vec<Digest>, LogError> + 'a;

/// The frozen nodes of a history tree.
#[derive(Debug)]
pub struct HistoryTree {
    len: u64,
    /// `kept[h - 4][i]` is the frozen node of height `h` above the leaves `i * 2^h ..`.
    kept: Vec<Vec<Digest>>,
    edge: Edge,
}

/// For each height, the last frozen node that is a left child: the left siblings of the next events to be appended.
#[derive(Debug, Clone, Copy)]
struct Edge([Digest; LEVELS]);

impl Default for Edge {
    fn default() -> Self {
        Self([Digest::default(); LEVELS])
    }
}

/// Which roots a change should include. A root costs one hash per level; appending a leaf without its root costs three hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots<'a> {
    /// The root at each new version.
    Each,
    /// The roots at these versions, in ascending order.
    At(&'a [u64]),
}

/// The changes that appending some events will make.
#[derive(Debug, Default)]
pub struct HistoryChange {
    /// The roots that were requested, in the order of versions.
    pub roots: Vec<Digest>,
    /// Number of events to append.
    len: u64,
    frozen: Vec<(u16, Digest)>,
    edge: Edge,
}

impl HistoryTree {
    /// Return the tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self { len: 0, kept: Vec::new(), edge: Edge::default() }
    }

    /// Return the tree of the groups with these `nodes`, as [`group_nodes`] gives them, and of the events `rest` after them, equal to the
    /// tree that appending all events would build. Each level is hashed on all threads.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "`last` is the last valid index, and the even index below it is valid too"
    )]
    pub fn of_groups(nodes: Vec<Digest>, rest: &[Digest]) -> Self {
        let mut tree = Self { len: nodes.len() as u64 * GROUP, ..Self::new() };
        let mut level = nodes;
        for (height, left) in (KEPT_HEIGHT..).zip(tree.edge.0.iter_mut().skip(KEPT_HEIGHT.into())) {
            let Some(last) = level.len().checked_sub(1) else { break };
            *left = level[last & !1];
            let above = in_parts(level.as_chunks::<2>().0, |first, pairs| parents(pairs, first, height + 1));
            tree.kept.push(std::mem::replace(&mut level, above));
        }
        let change = tree.plan(rest, Roots::At(&[]));
        tree.apply(change);
        tree
    }

    /// Return the number of leaves.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Return whether the tree has no leaves.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Return the number of bytes that the kept nodes take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kept.iter().map(|level| size_of_val(level.as_slice()) as u64).sum()
    }

    /// Return the nodes of the groups in a range that are whole.
    #[must_use]
    pub fn group_nodes(&self, range: Range<usize>) -> &[Digest] {
        let nodes = self.kept.first().map_or(&[][..], Vec::as_slice);
        nodes.get(range.start..range.end.min(nodes.len())).unwrap_or_default()
    }

    /// Compute the result of appending `digests` without changing anything. The nodes of one height are hashed together.
    #[must_use]
    pub fn plan(&self, digests: &[Digest], roots: Roots<'_>) -> HistoryChange {
        let mut change = HistoryChange { edge: self.edge, len: digests.len() as u64, ..HistoryChange::default() };
        let (mut paths, mut next) = (leaves(self.len, digests, roots), Vec::with_capacity(digests.len()));
        for height in 0.. {
            change.collect(height, &paths);
            let Some(left) = change.edge.0.get_mut(usize::from(height)).filter(|_| !paths.is_empty()) else { break };
            ascend(&paths, height, left, &mut next);
            std::mem::swap(&mut paths, &mut next);
        }
        change
    }

    /// Return the tree of the first `len` events, a multiple of [`GROUP`], which can only be planned on.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] if this tree is shorter.
    pub fn edge_at(&self, len: u64) -> Result<Self, LogError> {
        let mut edge = Edge::default();
        for (height, left) in (0..).zip(&mut edge.0) {
            if len >> height & 1 == 1 {
                let position = HistoryPosition { index: (len >> height ^ 1) << height, height };
                *left = self.kept(position, len).ok_or_else(|| missing(position))?;
            }
        }
        Ok(Self { len, kept: Vec::new(), edge })
    }

    /// Return the tree after a change that was planned on this one; it can only be planned on.
    #[must_use]
    pub const fn edge_after(&self, change: &HistoryChange) -> Self {
        Self { len: self.len + change.len, kept: Vec::new(), edge: change.edge }
    }

    /// Apply a change that was planned on the tree in its current state.
    #[expect(clippy::indexing_slicing, reason = "a missing level was added just before")]
    pub fn apply(&mut self, change: HistoryChange) {
        self.len += change.len;
        for (height, digest) in change.frozen {
            let level = usize::from(height - KEPT_HEIGHT);
            if self.kept.len() <= level {
                self.kept.resize_with(level + 1, Vec::new);
            }
            self.kept[level].push(digest);
        }
        self.edge = change.edge;
    }

    /// Return the root at `version`.
    ///
    /// # Errors
    ///
    /// Errors of `group`; [`LogError::Corrupt`] if the tree or the group is too short.
    pub fn root(&self, version: u64, group: &Group<'_>) -> Result<Digest, LogError> {
        self.node(HistoryPosition::root(version), version, group)
    }

    /// Return the siblings on the path from leaf `actual` to the root at `query`, in the order of [`membership_positions`].
    ///
    /// # Errors
    ///
    /// Same as [`Self::root`].
    pub fn membership_path(&self, actual: u64, query: u64, group: &Group<'_>) -> Result<Vec<Digest>, LogError> {
        self.nodes(&membership_positions(actual, query), query, group)
    }

    /// Return the nodes of an incremental path, in the order of [`incremental_positions`].
    ///
    /// # Errors
    ///
    /// Same as [`Self::root`].
    pub fn incremental_path(&self, start: u64, end: u64, group: &Group<'_>) -> Result<Vec<Digest>, LogError> {
        self.nodes(&incremental_positions(start, end), end, group)
    }

    /// Return the hashes of nodes in the tree at `version`; all of them must exist in that tree.
    ///
    /// # Errors
    ///
    /// Same as [`Self::root`].
    pub(crate) fn nodes(
        &self,
        positions: &[HistoryPosition],
        version: u64,
        group: &Group<'_>,
    ) -> Result<Vec<Digest>, LogError> {
        positions.iter().map(|&position| self.node(position, version, group)).collect()
    }

    /// Return the hash of a node in the tree at `version`; the node must exist in that tree.
    #[expect(clippy::expect_used, reason = "leaves were handled above, before children are needed")]
    fn node(&self, position: HistoryPosition, version: u64, group: &Group<'_>) -> Result<Digest, LogError> {
        if let Some(kept) = self.kept(position, version) {
            return Ok(kept);
        }
        if position.height == 0 {
            let digests = group(position.index)?;
            let digest = digests.get(usize_from(position.index % GROUP)).ok_or_else(|| missing(position))?;
            return Ok(history_leaf(digest, &position.to_bytes()));
        }
        let (left, right) = position.children().expect("only leaves have no children");
        let left = self.node(left, version, group)?;
        if right.index > version {
            return Ok(history_partial(&left, &position.to_bytes()));
        }
        let right = self.node(right, version, group)?;
        Ok(history_inner(&left, &right, &position.to_bytes()))
    }

    /// Return a node from memory, if it is kept there and its last leaf is not after `version`.
    fn kept(&self, position: HistoryPosition, version: u64) -> Option<Digest> {
        let last = position.index.checked_add(1_u64.checked_shl(position.height.into())? - 1)?;
        let level = position.height.checked_sub(KEPT_HEIGHT)?;
        let nodes = self.kept.get(usize::from(level)).filter(|_| last <= version)?;
        nodes.get(usize_from(position.index.checked_shr(position.height.into())?)).copied()
    }
}

impl Default for HistoryTree {
    fn default() -> Self {
        Self::new()
    }
}

impl HistoryChange {
    /// Keep those of the nodes at `height` that are complete or a wanted root.
    fn collect(&mut self, height: u16, paths: &[Path]) {
        if height >= KEPT_HEIGHT {
            let complete = paths.iter().filter(|path| path.is_complete(height));
            self.frozen.extend(complete.map(|path| (height, path.node)));
        }
        // Earlier versions have lower roots, so these are in the order of versions, too.
        let wanted = paths.iter().filter(|path| path.is_wanted && history_height(path.version) == height);
        self.roots.extend(wanted.map(|path| path.node));
    }
}

/// The path of a new leaf up to some height: its node there, in the tree at its version.
#[derive(Debug, Clone, Copy)]
struct Path {
    version: u64,
    node: Digest,
    /// The root at this version is wanted.
    is_wanted: bool,
}

impl Path {
    /// Return whether the version is the last one below its node at `height`: no later event changes the node.
    const fn is_complete(&self, height: u16) -> bool {
        self.version.trailing_ones() >= height as u32
    }

    /// Return whether the node at `height`, at most 63, is a right child.
    const fn is_right(&self, height: u16) -> bool {
        self.version >> height & 1 == 1
    }

    /// Return whether a root above `height` needs the node.
    const fn leads_to_root(&self, height: u16) -> bool {
        self.is_wanted && history_height(self.version) > height
    }

    /// Return the path one level above `height`, for a path without others. That costs less than what [`ascend`] prepares.
    fn parent(&self, height: u16, left: &mut Digest) -> Option<Self> {
        let position = self.position(height + 1);
        if self.is_right(height) {
            return Some(Self { node: history_inner(left, &self.node, &position), ..*self });
        }
        if self.is_complete(height) {
            *left = self.node;
        }
        self.leads_to_root(height).then(|| Self { node: history_partial(&self.node, &position), ..*self })
    }

    fn position(&self, height: u16) -> [u8; 10] {
        HistoryPosition::above(self.version, height).to_bytes()
    }
}

/// Return the paths of the events `digests` from version `base` on, at their leaves.
fn leaves(base: u64, digests: &[Digest], roots: Roots<'_>) -> Vec<Path> {
    let leaf = |(version, digest): (u64, &Digest)| {
        Message::history_leaf(digest, &HistoryPosition::above(version, 0).to_bytes())
    };
    let nodes = hash::digests((base..).zip(digests).map(leaf));
    let mut wanted = match roots {
        Roots::Each => None,
        Roots::At(versions) => Some(versions.iter().peekable()),
    };
    let mut is_wanted = |version| wanted.as_mut().is_none_or(|next| next.next_if_eq(&&version).is_some());
    (base..).zip(nodes).map(|(version, node)| Path { version, node, is_wanted: is_wanted(version) }).collect()
}

/// Write the paths one level above `height`, at most 63, to `next`, as far as anything needs them. `left` is the last complete left
/// child at `height` before them, and after the call the last one among them.
#[expect(clippy::expect_used, reason = "a path without its node would end in the root of another version")]
fn ascend(paths: &[Path], height: u16, left: &mut Digest, next: &mut Vec<Path>) {
    next.clear();
    if let [path] = paths {
        next.extend(path.parent(height, left));
        return;
    }
    let is_left = |path: &Path| !path.is_right(height) && path.is_complete(height);
    let mut beside = *left;
    let mut inner = hash::digests(paths.iter().filter_map(|path| {
        if is_left(path) {
            beside = path.node;
        }
        path.is_right(height).then(|| Message::history_inner(&beside, &path.node, &path.position(height + 1)))
    }));
    let is_partial = |path: &Path| !path.is_right(height) && path.leads_to_root(height);
    let lone = paths.iter().filter(|path| is_partial(path));
    let mut partial = hash::digests(lone.map(|path| Message::history_partial(&path.node, &path.position(height + 1))));
    for path in paths {
        let node = if path.is_right(height) {
            inner.next().expect("each right child has a parent")
        } else if is_partial(path) {
            partial.next().expect("each partial node is hashed")
        } else {
            continue;
        };
        next.push(Path { node, ..*path });
    }
    if let Some(last) = paths.iter().rfind(|path| is_left(path)) {
        *left = last.node;
    }
}

/// Return the frozen nodes above whole groups of events, the first of which is version `base`, a multiple of [`GROUP`]; and the events after
/// the last whole group. The groups are hashed on all threads.
#[must_use]
pub fn group_nodes(base: u64, digests: &[Digest]) -> (Vec<Digest>, &[Digest]) {
    let (groups, rest) = digests.as_chunks::<GROUP_LEAVES>();
    let base = usize_from(base / GROUP);
    let nodes = in_parts(groups, |first, groups| {
        let first = base + first;
        let leaf = |(version, digest): (u64, &Digest)| {
            Message::history_leaf(digest, &HistoryPosition::above(version, 0).to_bytes())
        };
        let leaves = (first as u64 * GROUP..).zip(groups.as_flattened());
        let mut level: Vec<_> = hash::digests(leaves.map(leaf)).collect();
        for height in 1..=KEPT_HEIGHT {
            let first = first * (GROUP_LEAVES >> height);
            level = parents(level.as_chunks::<2>().0, first, height).collect();
        }
        level
    });
    (nodes, rest)
}

/// Return the nodes at `height` above pairs of frozen nodes, the first of which is number `first` at its height.
fn parents(pairs: &[[Digest; 2]], first: usize, height: u16) -> impl Iterator<Item = Digest> {
    let numbered = (first as u64..).zip(pairs);
    hash::digests(numbered.map(move |(index, [left, right])| {
        let position = HistoryPosition { index: index << height, height };
        Message::history_inner(left, right, &position.to_bytes())
    }))
}

/// Return what `nodes_of` makes of `items`, given in parts with the number of the first item, on all threads.
fn in_parts<'a, T: Sync, N: IntoIterator<Item = Digest>>(
    items: &'a [T],
    nodes_of: impl Fn(usize, &'a [T]) -> N + Sync + Send,
) -> Vec<Digest> {
    let parts = items.par_chunks(PART).enumerate();
    parts.flat_map_iter(|(part, items)| nodes_of(part * PART, items)).collect()
}

fn missing(position: HistoryPosition) -> LogError {
    LogError::Corrupt(format!("the history tree lacks node {position}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Return a node of the tree of `events` at `version` by its definition, with nothing shared with the code above but positions.
    fn defined(events: &[Digest], version: u64, position: HistoryPosition) -> Digest {
        let place = position.to_bytes();
        let Some((left, right)) = position.children() else {
            return plain(&[events[usize_from(position.index)].as_bytes(), &place]);
        };
        let left = defined(events, version, left);
        if right.index > version {
            return plain(&[left.as_bytes(), &place]);
        }
        plain(&[left.as_bytes(), defined(events, version, right).as_bytes(), &place])
    }

    fn built(events: &[Digest]) -> HistoryTree {
        // In two parts, as a start reads them.
        let (first, second) = events.split_at(events.len() / 2 / GROUP_LEAVES * GROUP_LEAVES);
        let ((mut nodes, _), (later, rest)) = (group_nodes(0, first), group_nodes(first.len() as u64, second));
        nodes.extend(later);
        HistoryTree::of_groups(nodes, rest)
    }

    fn plain(parts: &[&[u8]]) -> Digest {
        Digest::of_event(&parts.concat())
    }

    #[test]
    fn roots_of_a_bulk_of_any_size_are_the_defined_ones() {
        let events: Vec<_> = (0..3200_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        for base in [0, 1, 2, 3, 7, 15, 16, 100, 1000, 1023, 1024, 2047] {
            let tree = built(&events[..base]);
            for size in [1, 2, 3, 5, 17, 999, 1000, 1001] {
                let change = tree.plan(&events[base..base + size], Roots::Each);
                assert_eq!(change.roots.len(), size);
                // The ends, and every 97th between them: each costs as many hashes as the tree has nodes.
                for index in (0..size).filter(|index| index % 97 == 0 || index + 3 > size) {
                    let version = (base + index) as u64;
                    let expected = defined(&events, version, HistoryPosition::root(version));
                    assert_eq!(change.roots[index], expected, "{base} events, {size} more, version {version}");
                }
            }
        }
    }

    #[test]
    fn a_bulk_makes_the_tree_that_single_events_make() {
        let events: Vec<_> = (0..3200_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        for base in [0, 1, 15, 16, 1000, 1023] {
            for size in [1, 2, 3, 5, 17, 999, 1000, 1001, 2000] {
                let (mut at_once, mut one_by_one) = [(); 2].map(|()| built(&events[..base])).into();
                at_once.apply(at_once.plan(&events[base..base + size], Roots::At(&[])));
                for event in &events[base..base + size] {
                    one_by_one.apply(one_by_one.plan(std::slice::from_ref(event), Roots::Each));
                }
                let nodes = |tree: &HistoryTree| (tree.len, tree.kept.clone(), tree.edge.0);
                assert_eq!(nodes(&at_once), nodes(&one_by_one), "{base} events, {size} more");
            }
        }
    }

    #[test]
    fn a_tree_built_at_once_is_the_one_that_grew() {
        let events: Vec<_> = (0..1100_u32).map(|i| Digest::of_event(&i.to_be_bytes())).collect();
        let sizes = (0..70).chain([127, 128, 129, 255, 256, 257, 511, 512, 513, 1008, 1023, 1024, 1025, 1040]);
        for size in sizes {
            let mut grown = HistoryTree::new();
            for event in &events[..size] {
                let change = grown.plan(std::slice::from_ref(event), Roots::Each);
                grown.apply(change);
            }
            let built = built(&events[..size]);
            assert_eq!((built.len, &built.kept), (grown.len, &grown.kept), "{size} events");
            let rest = &events[size..size + 40];
            assert_eq!(built.plan(rest, Roots::Each).roots, grown.plan(rest, Roots::Each).roots, "{size} events");

            let group = size / GROUP_LEAVES * GROUP_LEAVES;
            let edge = grown.edge_at(group as u64).unwrap();
            let versions: Vec<_> = (size as u64..size as u64 + 40).collect();
            let roots = edge.plan(&events[group..size + 40], Roots::At(&versions)).roots;
            assert_eq!(roots, grown.plan(rest, Roots::Each).roots, "{size} events");
        }
    }
}
