//! Both trees of a log together; proofs are made from them.

use rayon::prelude::*;

use crate::error::LogError;
use crate::hash::Digest;
use crate::history::{HistoryChange, HistoryTree, Roots};
use crate::hyper::{DigestAt, Entry, HyperChange, HyperTree};
use crate::integers::usize_from;

/// From this batch size on, each tree gets its own thread.
const PARALLEL_EVENTS: usize = 32;

/// Both trees at the same version.
#[derive(Debug)]
pub struct Trees {
    history: HistoryTree,
    hyper: HyperTree,
}

/// The changes that appending some events will make to both trees.
#[derive(Debug)]
pub struct TreesChange {
    history: HistoryChange,
    hyper: HyperChange,
}

impl Trees {
    /// Return empty trees with room for `expected` events before the hyper tree has to grow.
    #[must_use]
    pub fn with_capacity(expected: u64) -> Self {
        Self { history: HistoryTree::new(), hyper: HyperTree::with_capacity(expected) }
    }

    /// Return the trees of the events `digests`; `repeats` are the versions that the hyper tree never showed, in ascending order.
    ///
    /// # Errors
    ///
    /// Same as [`HyperTree::of_events`].
    pub fn of_events(digests: &[Digest], repeats: &[u64]) -> Result<Self, LogError> {
        let (history, hyper) =
            rayon::join(|| HistoryTree::of_events(digests), || HyperTree::of_events(digests, repeats));
        Ok(Self { history, hyper: hyper? })
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

    /// Compute the result of appending `digests` without changing anything. `entries` are those of them that the hyper tree is to
    /// show, sorted by key, each key once.
    ///
    /// # Errors
    ///
    /// Same as [`HyperTree::plan`].
    pub fn plan(
        &self,
        digests: &[Digest],
        entries: &[Entry],
        roots: Roots,
        digest_at: &DigestAt<'_>,
    ) -> Result<TreesChange, LogError> {
        let history = || self.history.plan(digests, roots);
        let hyper = || self.hyper.plan(entries, digest_at);
        let (history, hyper) =
            if digests.len() < PARALLEL_EVENTS { (history(), hyper()) } else { rayon::join(history, hyper) };
        Ok(TreesChange { history, hyper: hyper? })
    }

    /// Apply a change that was planned on these trees in their current state.
    ///
    /// # Errors
    ///
    /// Same as [`HyperTree::apply`]; the trees are unusable after an error.
    pub fn apply(&mut self, change: TreesChange, digest_at: &DigestAt<'_>) -> Result<(), LogError> {
        self.history.apply(change.history);
        self.hyper.apply(change.hyper, digest_at)
    }
}

impl TreesChange {
    /// Return the requested roots of the history tree.
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
        let _ = trees.plan(&[], &[], Roots::Last, &|_| Ok(Digest::default())).unwrap().last_history_root();
    }
}
