//! Replaying a log batch by batch, to check each of its rows.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::entry_rows;
use crate::error::LogError;
use crate::hash::Digest;
use crate::hyper::Entry;
use crate::rows::{self, Rows};
use crate::store::{Store, Table};
use crate::tlog::entry_tree::FullTile;
use crate::trees::{NewEvents, RootsOf, Trees, shown_and_hidden};

/// Replay the first `len` events, at least one, batch by batch. Compare each hyper root, and each row of an occurrence that the hyper
/// tree does not show and of a full tile of entries, with what is stored. Require that each stored repeat is at least the second occurrence of its event in its
/// batch. Return the history root of the last event, or the value that `progress` stops with.
///
/// # Errors
///
/// [`LogError::Corrupt`] names the first row that differs; [`LogError::Store`] if one cannot be read.
#[expect(clippy::expect_used, reason = "a check of no events must not return a root of zeros")]
pub fn check<B>(
    store: &dyn Store,
    len: u64,
    progress: &mut dyn FnMut(u64) -> ControlFlow<B>,
) -> Result<ControlFlow<B, Digest>, LogError> {
    let mut replay = Replay::new(store, len)?;
    let rows = Rows::of(store);
    // Repeats appended since the check began must have digests too.
    replay.repeats.iter().filter(|&&version| version >= len).try_for_each(|&version| rows.digest(version).map(drop))?;
    let (mut history_root, mut occurrences, mut broken) = (None, 0_u64, None);
    store.scan(Table::Roots, &[], &mut |key, root| {
        let (base, last) = (replay.trees.len(), rows::version_in(key)?);
        if base >= len {
            // Appended since the check began.
            return Ok(ControlFlow::Break(()));
        }
        let digests = (base..=last).map(|version| rows.digest(version)).collect::<Result<Vec<_>, _>>()?;
        require_repeated(base, &digests, &replay.repeats)?;
        let (change, hidden) = replay.append(&digests)?;
        rows::require_same(&format!("the hyper root of version {last}"), &rows::root_in(root)?, &change.hyper_root)?;
        for tile in &change.full_tiles {
            entry_rows::require_tile(store, tile)?;
        }
        for occurrence in &hidden {
            require_occurrence(store, occurrence)?;
        }
        occurrences += hidden.len() as u64;
        history_root = Some(change.history_root);
        Ok(progress(replay.trees.len()).map_break(|value| broken = Some(value)))
    })?;
    if let Some(value) = broken {
        return Ok(ControlFlow::Break(value));
    }
    if replay.trees.len() != len {
        return Err(LogError::Corrupt(format!("its stored roots end after {} of {len} events", replay.trees.len())));
    }
    require_no_other_occurrence(store, len, occurrences)?;
    Ok(ControlFlow::Continue(history_root.expect("the caller asks for at least one event")))
}

/// Require that no stored repeat is the first occurrence of its event in its batch. Whether a later occurrence was in the same
/// request or in a different one is not stored anywhere else, and does not affect any root.
pub fn require_repeated(base: u64, digests: &[Digest], repeats: &[u64]) -> Result<(), LogError> {
    let mut seen = HashSet::with_capacity(digests.len());
    for (version, digest) in (base..).zip(digests) {
        if seen.insert(digest) && repeats.binary_search(&version).is_ok() {
            return Err(LogError::Corrupt(format!(
                "version {version} is stored as a repeat, but is the first occurrence of its event in its batch"
            )));
        }
    }
    Ok(())
}

fn require_occurrence(store: &dyn Store, &Entry { key, version }: &Entry) -> Result<(), LogError> {
    let found = store.get(Table::Occurrences, &rows::occurrence_key(&key, version))?;
    let is_missing = || LogError::Corrupt(format!("the occurrence of {key} at version {version} is not stored"));
    found.map(|_| ()).ok_or_else(is_missing)
}

/// The replay found all of its occurrences stored, so any further ones must have been appended since the check began.
fn require_no_other_occurrence(store: &dyn Store, len: u64, expected: u64) -> Result<(), LogError> {
    let (rows, mut found) = (Rows::of(store), 0_u64);
    store.scan(Table::Occurrences, &[], &mut |key, _| {
        let (event, version) = rows::occurrence_in(key)?;
        if event != rows.digest(version)? {
            return Err(LogError::Corrupt(format!(
                "the occurrence stored for version {version} is of a different event"
            )));
        }
        found += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    if found == expected || (found > expected && holds(store, len)?) {
        return Ok(());
    }
    Err(LogError::Corrupt(format!(
        "expected {expected} stored occurrences that the hyper tree does not show, found {found}"
    )))
}

/// Whether the log contains the event of `version`.
fn holds(store: &dyn Store, version: u64) -> Result<bool, LogError> {
    match Rows::of(store).digest(version) {
        Ok(_) => Ok(true),
        Err(LogError::Corrupt(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Return the versions that the hyper tree never showed, in order.
pub fn repeats(store: &dyn Store) -> Result<Vec<u64>, LogError> {
    let mut repeats = Vec::new();
    store.scan(Table::Repeats, &[], &mut |key, _| {
        repeats.push(rows::version_in(key)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(repeats)
}

/// Trees that are built up from stored rows.
struct Replay<'a> {
    store: &'a dyn Store,
    trees: Trees,
    /// Versions that the hyper tree never showed, in ascending order.
    repeats: Vec<u64>,
}

/// The roots after replaying a batch.
struct Replayed {
    history_root: Digest,
    hyper_root: Digest,
    /// The tiles of the tree over the entries that became full.
    full_tiles: Vec<FullTile>,
}

impl<'a> Replay<'a> {
    fn new(store: &'a dyn Store, expected: u64) -> Result<Self, LogError> {
        Ok(Self { store, trees: Trees::with_capacity(expected), repeats: repeats(store)? })
    }

    /// Append events, at least one, as one batch; return its roots, and the occurrences that the hyper tree no longer shows after it.
    fn append(&mut self, digests: &[Digest]) -> Result<(Replayed, Vec<Entry>), LogError> {
        let base = self.trees.len();
        let (entries, mut hidden) = shown_and_hidden(base, digests, &self.repeats);
        let stored = |version| Rows::of(self.store).digest(version);
        let digest_at = |version| rows::pending(version, base, digests).map_or_else(|| stored(version), Ok);
        let new = NewEvents { digests, shown: &entries, repeats: &self.repeats, earlier_ends: &[] };
        let change = self.trees.plan(new, RootsOf::Batches, &digest_at)?;
        let replayed = Replayed {
            history_root: change.last_history_root(),
            hyper_root: change.hyper_root(),
            full_tiles: change.full_tiles().collect(),
        };
        hidden.extend(change.replaced());
        self.trees.apply(change);
        Ok((replayed, hidden))
    }
}
