//! The entries of a qed log in its transparency log: entry `i` is about version `i` (FORMATS.md, "Signed logs").
//!
//! Entries say all that a stranger needs to build both trees of the log again: where commit batches end, since hyper roots exist only
//! there, and which occurrence of an event in a batch the hyper tree shows.

use crate::bytes::Reader;
use crate::hash::{Digest, merkle_leaf, merkle_leaves};
use crate::proof::Malformed;
use crate::tlog::text::MAX_NUMBER;

/// First byte of every entry.
const FORMAT: u8 = 1;
/// Flag of the last entry of a commit batch.
const LAST: u8 = 1;
/// Flag of an event that occurs earlier in its bulk.
const REPEAT: u8 = 2;

/// Length of an entry inside a commit batch, in bytes.
pub const ENTRY_BYTES: usize = 42;
/// Length of the last entry of a commit batch, in bytes.
pub const LAST_ENTRY_BYTES: usize = 106;

/// What the transparency log says about one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The version, which is also the index of the entry.
    pub version: u64,
    /// Digest of the event.
    pub event_digest: Digest,
    /// The same event occurs earlier in the same bulk, so the hyper tree does not show this version.
    pub is_repeat: bool,
    /// The roots at this version, if its commit batch ends here.
    pub batch_end: Option<BatchEnd>,
}

/// The roots of both trees at the end of a commit batch: those of the snapshot of its last version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchEnd {
    /// Root of the history tree at this version.
    pub history_digest: Digest,
    /// Root of the hyper tree after the batch.
    pub hyper_digest: Digest,
}

/// Return the entries of the events `digests`, the first of which is version `first`.
///
/// `repeats` are versions of events that occur earlier in their bulk, and `ends` the last versions of commit batches with their roots;
/// both are in ascending order, begin at `first` or later, and may go on after the last event.
pub fn entries_of<'a>(
    first: u64,
    digests: &'a [Digest],
    repeats: &'a [u64],
    ends: &'a [(u64, BatchEnd)],
) -> impl Iterator<Item = Entry> + 'a {
    let (mut repeats, mut ends) = (repeats.iter().peekable(), ends.iter().peekable());
    (first..).zip(digests).map(move |(version, event_digest)| Entry {
        version,
        event_digest: *event_digest,
        is_repeat: repeats.next_if_eq(&&version).is_some(),
        batch_end: ends.next_if(|(last, _)| *last == version).map(|(_, end)| *end),
    })
}

/// Return the hashes of entries as leaves of the tree, each as by [`Entry::leaf`].
#[must_use]
pub fn leaves_of(entries: &[Entry]) -> Vec<Digest> {
    merkle_leaves(&entries.iter().map(Entry::to_bytes).collect::<Vec<_>>())
}

impl Entry {
    /// Return the bytes: [`LAST_ENTRY_BYTES`] at the end of a commit batch, otherwise [`ENTRY_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LAST_ENTRY_BYTES);
        let last = if self.batch_end.is_some() { LAST } else { 0 };
        out.extend([FORMAT, last | if self.is_repeat { REPEAT } else { 0 }]);
        out.extend(self.version.to_be_bytes());
        out.extend(self.event_digest.as_bytes());
        if let Some(end) = &self.batch_end {
            out.extend(end.history_digest.as_bytes());
            out.extend(end.hyper_digest.as_bytes());
        }
        out
    }

    /// Return the entry in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `bytes` are exactly what [`Self::to_bytes`] returns, and the version is at most [`MAX_NUMBER`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let read = |input: &mut Reader<'_>| {
            let [FORMAT, flags] = input.array()? else { return None };
            let version = input.number().filter(|version| *version <= MAX_NUMBER)?;
            let event_digest = input.digest()?;
            let batch_end = match flags & LAST {
                0 => None,
                _ => Some(BatchEnd { history_digest: input.digest()?, hyper_digest: input.digest()? }),
            };
            let known = flags & !(LAST | REPEAT) == 0;
            known.then_some(Self { version, event_digest, is_repeat: flags & REPEAT != 0, batch_end })
        };
        Reader::whole(bytes, read).ok_or_else(|| {
            let start: Vec<_> = bytes.iter().take(2).collect();
            let expected = format!("an entry of {ENTRY_BYTES} bytes, or of {LAST_ENTRY_BYTES} at the end of a batch");
            Malformed::because(format!("expected {expected}, found {} bytes that begin with {start:02x?}", bytes.len()))
        })
    }

    /// Return the hash of the entry as a leaf of the tree.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        merkle_leaf(&self.to_bytes())
    }
}
