//! Whether a file shows what it claims: entries, with proofs that they are in the tree of a checkpoint, and the checkpoint.
//!
//! A [receipt](crate::tlog::receipt), a [bundle](crate::tlog::bundle) and a [proof file](crate::tlog::proof_file) are claims of different
//! forms, and [`verify`] is the one place where a claim becomes a fact.

use crate::hash::Digest;
use crate::proof::Snapshot;
use crate::tlog::entry::Entry;
use crate::tlog::merkle::{TreeHead, verify_inclusion, verify_range};
use crate::tlog::note::Note;
use crate::tlog::policy::{Endorsed, Quorum};
use crate::tlog::trust_file::TrustFile;
use crate::verify::{VerifyError, same};

/// Maximum number of hashes in the proof of a run: one on either side of each level below the root.
pub const MAX_RUN_HASHES: usize = 2 * 63;

/// The proof that the entries of a run are in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// As [`range_proof`](crate::tlog::merkle::range_proof) returns it.
    Range(Vec<Digest>),
    /// As [`inclusion`](crate::tlog::merkle::inclusion) returns it, for one entry.
    Inclusion(Vec<Digest>),
}

/// Consecutive entries with one proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Index of the first entry.
    pub first: u64,
    /// The entries.
    pub entries: Vec<Entry>,
    /// The proof.
    pub proof: Proof,
}

impl Run {
    /// Return the entry of a version.
    pub(super) fn entry(&self, version: u64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.version == version)
    }
}

/// What the runs of a claim are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The first run is within one commit batch. If it does not reach the end of the batch, a second run is the last entry of the batch.
    Receipt,
    /// Each run is one entry, in ascending order. Each snapshot is that of an entry at the end of a batch.
    Bundle,
}

/// What a file claims.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// What the runs are.
    pub form: Form,
    /// The entries.
    pub runs: &'a [Run],
    /// Snapshots of some of the entries.
    pub snapshots: &'a [Snapshot],
    /// The checkpoint.
    pub note: &'a Note,
}

/// On whose word a claim rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Witnesses enough for the policy have cosigned the checkpoint. Times are in seconds since 1970.
    Witnessed {
        /// The checkpoint existed at this time.
        existed_at: u64,
        /// It was still the newest at this time.
        confirmed_at: u64,
    },
    /// Only the log has signed.
    Signed,
}

/// What a claim has shown: all entries are in the tree of the checkpoint. Only [`verify`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    endorsed: Endorsed,
    entries: Vec<Entry>,
    batch_end: Option<Entry>,
    is_end_claimed: bool,
}

impl Shown {
    /// Return the checkpoint, with the lines of known keys.
    #[must_use]
    pub const fn endorsed(&self) -> &Endorsed {
        &self.endorsed
    }

    /// Return the entries that the claim is about, in ascending order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Return the last entry of the commit batch of a receipt. It is in the tree; see [`Self::is_end_claimed`].
    #[must_use]
    pub const fn batch_end(&self) -> Option<&Entry> {
        self.batch_end.as_ref()
    }

    /// Return whether only the log says that [`Self::batch_end`] ends the batch of the entries: another batch may end between them, among
    /// entries that the receipt does not have. The roots at the batch end are proven nevertheless, for its own version.
    #[must_use]
    pub const fn is_end_claimed(&self) -> bool {
        self.is_end_claimed
    }

    /// Return the snapshots whose roots are both proven, in ascending order: those of entries at the end of a batch.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let end = self.batch_end.filter(|end| !self.entries.contains(end));
        self.entries.iter().chain(&end).filter_map(snapshot_of).collect()
    }

    /// Return on whose word the claim rests.
    #[must_use]
    pub const fn level(&self) -> Level {
        level_of(&self.endorsed)
    }
}

/// Return on whose word a checkpoint rests.
#[must_use]
pub const fn level_of(endorsed: &Endorsed) -> Level {
    match endorsed.quorum() {
        Quorum::Met { existed_at, confirmed_at } => Level::Witnessed { existed_at, confirmed_at },
        Quorum::NotRequired | Quorum::Missing => Level::Signed,
    }
}

/// Check a claim. `event` is the digest that one of its entries must have, and `now` the current time in seconds since 1970.
///
/// The steps are those of every file that is verified, so two of them are elsewhere.
///
/// 1. The file is well-formed and within its limits. The parsers of the three forms ensure it.
/// 2. The checkpoint is one of a log of the policy.
/// 3. A key of this log has signed it, and no line of a key of the policy fails; with `RequirePq`, an ML-DSA-44 key of the log has signed.
/// 4. Cosignatures of witnesses with a time that counts are compared with the quorum.
/// 5. The claim existed at the time at which they were enough. Whether that is recent enough is for the caller to ask:
///    [`TrustFile::is_recent`] of [`Shown::endorsed`].
/// 6. Each entry is about the version that is its index, which is in the tree. Only the last entry of a run is the end of a batch. The last
///    entry of the tree is one. A receipt has the end of its batch.
/// 7. The proofs lead from the entries to the root of the checkpoint, and use each hash.
/// 8. An entry has the digest of the event. Snapshots agree with the entries: their event, and at the end of a batch both roots.
/// 9. The answer of a bundle is verified by the caller, with [`Shown::snapshots`] as the trusted ones. If the question names no version, it is
///    about the newest state: the answer is about the last entry of the tree, or it is stale. An absence is stale too if the caller
///    remembers a larger tree of the log. With `MaxAge`, an incremental answer ends at the last entry of the tree: the times of
///    cosignatures say how old the tree is, and nothing about a smaller one.
/// 10. The root is that of a pin of the same size. The caller compares it with what it remembers of the log.
/// 11. [`Shown::level`] is the level. Whether it is enough is for the caller to decide.
///
/// # Errors
///
/// [`VerifyError`] names the first check that failed.
pub fn verify(claim: Claim<'_>, event: Option<&Digest>, trust: &TrustFile, now: u64) -> Result<Shown, VerifyError> {
    // 2. to 5.
    let endorsed = trust.endorse(claim.note, now)?;
    let head = &endorsed.checkpoint().head;
    // 6.
    claim.runs.iter().try_for_each(|run| require_grammar(run, head))?;
    require_ascending(claim.runs)?;
    let (batch_end, is_end_claimed) = match claim.form {
        Form::Receipt => require_batch_end(claim.runs)?,
        Form::Bundle => (None, false),
    };
    // 7.
    claim.runs.iter().try_for_each(|run| require_included(run, head))?;
    // 8.
    let about = match claim.form {
        Form::Receipt => claim.runs.get(..1).unwrap_or_default(),
        Form::Bundle => claim.runs,
    };
    let entries: Vec<_> = about.iter().flat_map(|run| &run.entries).copied().collect();
    event.map_or(Ok(()), |event| require_event(event, &entries))?;
    claim.snapshots.iter().try_for_each(|snapshot| require_agreement(snapshot, &entries, batch_end.as_ref()))?;
    // 10.
    trust.require_pinned(endorsed.checkpoint())?;
    Ok(Shown { endorsed, entries, batch_end, is_end_claimed })
}

fn require_grammar(run: &Run, head: &TreeHead) -> Result<(), VerifyError> {
    let count = run.entries.len() as u64;
    let end = run.first.checked_add(count).filter(|end| count > 0 && *end <= head.size());
    if end.is_none() {
        let found = format!("{count} from {} on", run.first);
        return Err(refused("entries", &format!("some of the {} in the tree", head.size()), found));
    }
    for (index, entry) in (run.first..).zip(&run.entries) {
        same("version of an entry", &index, &entry.version)?;
        if entry.batch_end.is_some() && Some(index + 1) != end {
            return Err(refused("batch", "no end of a batch before the last entry", format!("one at version {index}")));
        }
        if entry.batch_end.is_none() && index + 1 == head.size() {
            let found = format!("version {index}, which is not");
            return Err(refused("last entry of the tree", "the end of a batch", found));
        }
    }
    Ok(())
}

fn require_ascending(runs: &[Run]) -> Result<(), VerifyError> {
    for (run, next) in runs.iter().zip(runs.iter().skip(1)) {
        if run.entries.last().is_none_or(|last| next.first <= last.version) {
            return Err(refused("entries", "ascending versions", format!("{} after {}", next.first, run.first)));
        }
    }
    Ok(())
}

/// Return the last entry of the batch of a receipt, and whether entries before it are missing.
fn require_batch_end(runs: &[Run]) -> Result<(Option<Entry>, bool), VerifyError> {
    let wrong = |found: &str| refused("batch end", "the last entry of the batch, once", found.to_owned());
    match runs {
        [run] => match run.entries.last().filter(|last| last.batch_end.is_some()) {
            Some(last) => Ok((Some(*last), false)),
            None => Err(wrong("none")),
        },
        [run, end] => {
            let (Some(last), [end]) = (run.entries.last(), end.entries.as_slice()) else {
                return Err(wrong("none"));
            };
            if last.batch_end.is_some() {
                return Err(wrong("a second one"));
            }
            if end.batch_end.is_none() {
                return Err(wrong(&format!("version {}, which is not", end.version)));
            }
            Ok((Some(*end), end.version - last.version > 1))
        }
        _ => Err(wrong("other entries")),
    }
}

fn require_included(run: &Run, head: &TreeHead) -> Result<(), VerifyError> {
    match (&run.proof, run.entries.as_slice()) {
        (Proof::Range(proof), entries) => {
            let leaves: Vec<_> = entries.iter().map(Entry::leaf).collect();
            verify_range(run.first, &leaves, proof, head)
        }
        (Proof::Inclusion(path), [entry]) => verify_inclusion(&entry.leaf(), run.first, path, head),
        (Proof::Inclusion(_), entries) => Err(refused("entries", "one", entries.len().to_string())),
    }
}

fn require_event(event: &Digest, entries: &[Entry]) -> Result<(), VerifyError> {
    if entries.iter().any(|entry| entry.event_digest == *event) {
        return Ok(());
    }
    let found = match entries {
        [entry] => entry.event_digest.to_string(),
        _ => format!("{} other events", entries.len()),
    };
    Err(refused("event digest", &event.to_string(), found))
}

fn require_agreement(snapshot: &Snapshot, entries: &[Entry], batch_end: Option<&Entry>) -> Result<(), VerifyError> {
    let version = snapshot.version;
    // Both lists may be long, but entries are in ascending order.
    let place = entries.binary_search_by_key(&version, |entry| entry.version).ok();
    let Some(entry) = place.and_then(|place| entries.get(place)) else {
        return Err(refused("version of a snapshot", "that of an entry", version.to_string()));
    };
    same("event digest of a snapshot", &entry.event_digest, &snapshot.event_digest)?;
    if let Some(end) = &entry.batch_end {
        same("history digest of a snapshot", &end.history_digest, &snapshot.history_digest)?;
    }
    match batch_end.unwrap_or(entry).batch_end {
        Some(end) => same("hyper digest of a snapshot", &end.hyper_digest, &snapshot.hyper_digest),
        None => Err(refused("entry of a snapshot", "one at the end of a batch", format!("version {version}, inside"))),
    }
}

fn snapshot_of(entry: &Entry) -> Option<Snapshot> {
    let (version, event_digest) = (entry.version, entry.event_digest);
    let end = entry.batch_end.as_ref()?;
    Some(Snapshot { event_digest, history_digest: end.history_digest, hyper_digest: end.hyper_digest, version })
}

fn refused(check: &'static str, expected: &str, computed: String) -> VerifyError {
    VerifyError { check, expected: expected.into(), computed }
}
