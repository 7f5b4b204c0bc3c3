//! The trees of a log together; proofs are made from them.

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::Digest;
use crate::history::{HistoryChange, HistoryTree, Roots};
use crate::hyper::{DigestAt, Entry, HyperChange, HyperTree};
use crate::integers::usize_from;
use crate::tlog::entry::{BatchEnd, entries_of, leaves_of};
use crate::tlog::entry_tree::{EntryChange, EntryTree, FullTile};

/// From this batch size on, each tree gets its own thread.
const PARALLEL_EVENTS: usize = 32;

/// The trees at the same version.
#[derive(Debug)]
pub struct Trees {
    history: HistoryTree,
    hyper: HyperTree,
    entries: EntryTree,
}

/// The changes that appending some events will make to all trees.
#[derive(Debug)]
pub struct TreesChange {
    history: HistoryChange,
    hyper: HyperChange,
    entries: EntryChange,
}

/// Which roots of the history tree a change has. A root costs one hash per level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootsOf {
    /// The root at each new version.
    Events,
    /// The root at the last version of each batch.
    Batches,
}

/// Events to be appended: one or more whole commit batches.
#[derive(Debug, Clone, Copy)]
pub struct NewEvents<'a> {
    /// Their digests, in order.
    pub digests: &'a [Digest],
    /// Those that the hyper tree is to show, sorted by key, each key once.
    pub shown: &'a [Entry],
    /// Versions of events that occur earlier in their bulk, in ascending order. Versions of other events may be among them.
    pub repeats: &'a [u64],
    /// The last versions of all batches but the last one, with the hyper roots after them.
    pub earlier_ends: &'a [(u64, Digest)],
}

impl Trees {
    /// Return empty trees with room for `expected` events before the hyper tree has to grow.
    #[must_use]
    pub fn with_capacity(expected: u64) -> Self {
        let (history, hyper) = (HistoryTree::new(), HyperTree::with_capacity(expected));
        Self { history, hyper, entries: EntryTree::of_tiles(Vec::new()) }
    }

    /// Return these trees, which must be of the same events.
    #[must_use]
    pub const fn of(history: HistoryTree, hyper: HyperTree, entries: EntryTree) -> Self {
        Self { history, hyper, entries }
    }

    /// Return the number of events.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.history.len()
    }

    /// Return the history tree.
    #[must_use]
    pub const fn history(&self) -> &HistoryTree {
        &self.history
    }

    /// Return the hyper tree.
    #[must_use]
    pub const fn hyper(&self) -> &HyperTree {
        &self.hyper
    }

    /// Return the tree over the entries.
    #[must_use]
    pub const fn entries(&self) -> &EntryTree {
        &self.entries
    }

    /// Compute the result of appending events without changing anything.
    ///
    /// # Errors
    ///
    /// Same as [`HyperTree::plan`].
    pub fn plan(
        &self,
        new: NewEvents<'_>,
        roots_of: RootsOf,
        digest_at: &DigestAt<'_>,
    ) -> Result<TreesChange, LogError> {
        let NewEvents { digests, shown, repeats, earlier_ends } = new;
        let base = self.len();
        let last = digests.len().checked_sub(1).map(|last| base + last as u64);
        let ends: Vec<_> = earlier_ends.iter().map(|(version, _)| *version).chain(last).collect();
        let roots = if roots_of == RootsOf::Events { Roots::Each } else { Roots::At(&ends) };
        let history = || self.history.plan(digests, roots);
        let hyper = || self.hyper.plan(shown, digest_at);
        let (history, hyper) =
            if digests.len() < PARALLEL_EVENTS { (history(), hyper()) } else { rayon::join(history, hyper) };
        let hyper = hyper?;
        let end = |((number, &version), hyper_digest): ((usize, &u64), Digest)| {
            let number = if roots == Roots::Each { usize_from(version - base) } else { number };
            Some((version, BatchEnd { history_digest: *history.roots.get(number)?, hyper_digest }))
        };
        let hyper_roots = earlier_ends.iter().map(|(_, root)| *root).chain([hyper.root]);
        let ends: Vec<_> = ends.iter().enumerate().zip(hyper_roots).filter_map(end).collect();
        let repeats = repeats.get(repeats.partition_point(|version| *version < base)..).unwrap_or_default();
        let entries: Vec<_> = entries_of(base, digests, repeats, &ends).collect();
        Ok(TreesChange { history, hyper, entries: self.entries.plan(&leaves_of(&entries)) })
    }

    /// Apply a change that was planned on these trees in their current state.
    pub fn apply(&mut self, change: TreesChange) {
        self.history.apply(change.history);
        self.entries.apply(change.entries);
        self.hyper.apply(change.hyper);
    }
}

impl TreesChange {
    /// Return the requested roots of the history tree, in the order of versions.
    #[must_use]
    pub fn history_roots(&self) -> &[Digest] {
        &self.history.roots
    }

    /// Return the root of the history tree after the change.
    ///
    /// # Panics
    ///
    /// If the change appends no event: a tree without events has no root.
    #[must_use]
    #[expect(clippy::expect_used, reason = "zeros must never be used as a root")]
    pub fn last_history_root(&self) -> Digest {
        *self.history.roots.last().expect("the root of the last event is always computed")
    }

    /// Return the root of the hyper tree after the change.
    #[must_use]
    pub const fn hyper_root(&self) -> Digest {
        self.hyper.root
    }

    /// Return the tiles of the tree over the entries that become full, those of one level in order.
    pub fn full_tiles(&self) -> impl Iterator<Item = FullTile> {
        self.entries.full_tiles()
    }

    /// Return the keys that were already in the hyper tree, with the version they had before.
    #[must_use]
    pub fn replaced(&self) -> &[Entry] {
        &self.hyper.replaced
    }
}

/// Return the occurrences among `digests` that the hyper tree shows once all of them are appended, sorted by key, each key once; and
/// the occurrences that it does not show then. `base` is the version of the first digest. `repeats`, in ascending order, are versions
/// that the tree never shows.
#[must_use]
pub fn shown_and_hidden(base: u64, digests: &[Digest], repeats: &[u64]) -> (Vec<Entry>, Vec<Entry>) {
    let mut repeats = repeats.iter().skip(repeats.partition_point(|&version| version < base)).peekable();
    let (mut shown, mut hidden) = (Vec::with_capacity(digests.len()), Vec::new());
    for (version, &key) in (base..).zip(digests) {
        let is_repeat = repeats.next_if_eq(&&version).is_some();
        if is_repeat { &mut hidden } else { &mut shown }.push(Entry { key, version });
    }
    shown.sort_unstable();
    // For equal keys, the tree shows the occurrence with the highest version, which is the last one here.
    shown.dedup_by(|next, kept| {
        let is_same = next.key == kept.key;
        if is_same {
            hidden.push(std::mem::replace(kept, *next));
        }
        is_same
    });
    (shown, hidden)
}

/// Return the occurrences among `digests`, the first of which is version 0, that the hyper tree does not show: as [`shown_and_hidden`],
/// with a seventh of its memory, on all threads.
#[must_use]
pub fn hidden_in(digests: &[Digest], repeats: &[u64]) -> Vec<Entry> {
    let prefix = |(version, key): (usize, &Digest)| (key.prefix64(), version as u64);
    let mut alike: Vec<_> = digests.par_iter().enumerate().map(prefix).collect();
    alike.par_sort_unstable();
    let groups = alike.par_chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    groups.flat_map_iter(|group| hidden_among(digests, group, repeats)).collect()
}

/// The same for events whose digests begin alike, which are rarely different ones.
#[expect(clippy::indexing_slicing, reason = "the versions are indices of the digests")]
fn hidden_among(digests: &[Digest], group: &[(u64, u64)], repeats: &[u64]) -> Vec<Entry> {
    let mut entries: Vec<_> =
        group.iter().map(|&(_, version)| Entry { key: digests[usize_from(version)], version }).collect();
    entries.sort_unstable();
    let is_shown = |entry: &&Entry| repeats.binary_search(&entry.version).is_err();
    let hidden_of = |same: &[Entry]| {
        let shown = same.iter().rfind(is_shown).map(|entry| entry.version);
        same.iter().filter(|entry| Some(entry.version) != shown).copied().collect::<Vec<_>>()
    };
    entries.chunk_by(|a, b| a.key == b.key).flat_map(hidden_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the root of the last event is always computed")]
    fn a_change_that_appends_nothing_has_no_history_root() {
        let trees = Trees::with_capacity(0);
        let nothing = NewEvents { digests: &[], shown: &[], repeats: &[], earlier_ends: &[] };
        let change = trees.plan(nothing, RootsOf::Batches, &|_| Ok(Digest::default())).unwrap();
        let _ = change.last_history_root();
    }
}
