//! Proofs for many keys at once, from one consistent state of the log.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::bulk_proof::{BulkKeys, BulkProof, End, KeyEnd, history_siblings, hyper_siblings};
use crate::error::LogError;
use crate::hash::{Digest, HYPER_LEVELS, hyper_default};
use crate::history::GROUP;
use crate::hyper::PathEnd;
use crate::integers::usize_from;
use crate::log::Log;
use crate::position::HistoryPosition;
use crate::rows::Rows;

/// Number of history hashes that are found under one lock, which takes a fraction of a millisecond: a writer may wait for it.
const HASHES_A_LOCK: usize = 64;

/// The path of a key in the hyper tree: its siblings from the root down, and its end.
type HyperPath = (Vec<Digest>, PathEnd);

impl Log {
    /// Answer for each of `keys` whether the log contains it, as of the last version.
    ///
    /// All hyper paths are read under one lock, which a writer waits for: some milliseconds for a thousand keys. The history tree only
    /// grows, so its part needs no single view, and is read under short locks.
    ///
    /// # Errors
    ///
    /// [`LogError::Empty`] if the log has no events; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn prove_bulk(&self, keys: &BulkKeys) -> Result<BulkProof, LogError> {
        let (current_version, paths) = self.hyper_paths(keys)?;
        let mut groups = Groups::of(self);
        let ends = key_ends(keys, &paths, &mut groups)?;
        let hyper = hyper_hashes(keys, &paths, &ends);
        let mut proof = BulkProof { current_version, ends, hyper, history: Vec::new() };
        let positions = history_siblings(&proof.versions(), current_version);
        proof.history = self.history_hashes(&positions, current_version, &groups)?;
        Ok(proof)
    }

    /// Return the last version, and the path of each key in the hyper tree of that version.
    fn hyper_paths(&self, keys: &BulkKeys) -> Result<(u64, Vec<HyperPath>), LogError> {
        let trees = self.trees.read();
        let current = trees.len().checked_sub(1).ok_or(LogError::Empty)?;
        let paths = keys.as_slice().iter().map(|key| trees.hyper().path(key)).collect();
        Ok((current, paths))
    }

    fn history_hashes(
        &self,
        positions: &[HistoryPosition],
        current: u64,
        groups: &Groups<'_>,
    ) -> Result<Vec<Digest>, LogError> {
        let mut hashes = Vec::with_capacity(positions.len());
        for some in positions.chunks(HASHES_A_LOCK) {
            hashes.extend(self.trees.read().history().nodes(some, current, &|version| groups.group(version))?);
        }
        Ok(hashes)
    }
}

/// The groups of event digests around the leaves of a proof, each read once: first to tell a key from a neighbour, then for the lowest
/// hashes of the history tree.
struct Groups<'a> {
    rows: Rows<'a>,
    read: BTreeMap<u64, Vec<Digest>>,
}

impl<'a> Groups<'a> {
    fn of(log: &'a Log) -> Self {
        Self { rows: Rows::of(log.store.as_ref()), read: BTreeMap::new() }
    }

    /// Return the event digest of `version`, and keep its group.
    fn digest(&mut self, version: u64) -> Result<Digest, LogError> {
        let group = match self.read.entry(version / GROUP) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.rows.group(version)?),
        };
        let digest = group.get(usize_from(version % GROUP)).copied();
        // The log may have grown since the group was read.
        digest.map_or_else(|| self.rows.digest(version), Ok)
    }

    /// Return a group as [`Rows::group`] does.
    fn group(&self, version: u64) -> Result<Vec<Digest>, LogError> {
        let known = self.read.get(&(version / GROUP)).filter(|group| group.len() > usize_from(version % GROUP));
        known.map_or_else(|| self.rows.group(version), |group| Ok(group.clone()))
    }
}

/// Return where the paths end: the event at the version of a leaf is the key or a neighbour.
fn key_ends(keys: &BulkKeys, paths: &[HyperPath], groups: &mut Groups<'_>) -> Result<Vec<KeyEnd>, LogError> {
    let depth = |(siblings, _): &HyperPath| u16::try_from(siblings.len()).map_err(|_| LogError::Bug("a long path"));
    let empty = |path: &HyperPath| Ok(KeyEnd { depth: depth(path)?, end: End::Empty });
    let mut ends = paths.iter().map(empty).collect::<Result<Vec<_>, LogError>>()?;
    let leaf = |((key, (_, end)), found): ((_, &HyperPath), _)| match *end {
        PathEnd::Leaf { version } => Some((version, key, found)),
        PathEnd::Empty => None,
    };
    let mut leaves: Vec<_> = keys.as_slice().iter().zip(paths).zip(&mut ends).filter_map(leaf).collect();
    // Events that were added together are in the same rows, so each row is read once.
    leaves.sort_unstable_by_key(|(version, ..)| *version);
    for (version, key, found) in leaves {
        let key_digest = groups.digest(version)?;
        let is_key = key_digest == *key;
        found.end = if is_key { End::Present { version } } else { End::Neighbour { key_digest, version } };
    }
    Ok(ends)
}

fn hyper_hashes(keys: &BulkKeys, paths: &[HyperPath], ends: &[KeyEnd]) -> Vec<Option<Digest>> {
    let depths: Vec<_> = ends.iter().map(|end| end.depth).collect();
    let hash = |(key, depth): (usize, u16)| {
        let (siblings, _) = paths.get(key)?;
        let hash = siblings.get(usize::from(depth) - 1)?;
        (*hash != hyper_default(HYPER_LEVELS - depth)).then_some(*hash)
    };
    hyper_siblings(keys, &depths).into_iter().map(hash).collect()
}
