//! Evidence against a log: what it has signed, though an honest log cannot have signed it.
//!
//! [`evidence_file`](crate::tlog::evidence_file) has the file of it, that anybody can check without a server.

use crate::hash::{Digest, evidence_name, merkle_leaf};
use crate::proof::Malformed;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::entry::{BatchEnd, Entry};
use crate::tlog::key::VerifierKey;
use crate::tlog::merkle::{verify_consistency, verify_inclusion};
use crate::tlog::note::Note;
use crate::tlog::text::Name;
use crate::tlog::trust_file::TrustFile;
use crate::verify::{VerifyError, same};

/// A leaf with the proof that it is in the tree of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenLeaf {
    /// The checkpoint.
    pub note: Note,
    /// The leaf.
    pub leaf: Leaf,
    /// As [`inclusion`](crate::tlog::merkle::inclusion) returns it.
    pub proof: Vec<Digest>,
}

/// What a file says of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// Its hash.
    Hash(Digest),
    /// Its entry, at most [`MAX_ENTRY_BYTES`](crate::tlog::tile::MAX_ENTRY_BYTES) bytes.
    Entry(Vec<u8>),
}

impl Leaf {
    /// Return the hash of the leaf.
    #[must_use]
    pub fn hash(&self) -> Digest {
        match self {
            Self::Hash(hash) => *hash,
            Self::Entry(entry) => merkle_leaf(entry),
        }
    }
}

/// An entry is as it should be by itself, but the entries before it do not lead to what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The first version of its commit batch.
    pub from: u64,
    /// The last version of its commit batch.
    pub to: u64,
    /// The roots that the entries lead to, or `None` if they are no commit batch at all.
    pub expected: Option<BatchEnd>,
}

/// What a file says that the log has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charge {
    /// It signed two roots for one size.
    SameSize {
        /// One checkpoint.
        a: Note,
        /// The other.
        b: Note,
    },
    /// It signed two trees with different entries at one index. The sizes may differ.
    SameIndex {
        /// The index.
        index: u64,
        /// The entry in one tree.
        a: ProvenLeaf,
        /// The entry in the other tree.
        b: ProvenLeaf,
    },
    /// It signed a tree with an entry that is not one of a qed log at this index.
    InvalidEntry {
        /// The index.
        index: u64,
        /// The entry.
        a: ProvenLeaf,
        /// If the entry is wrong only as part of the log: what a replay has found. That takes the entries before it to check.
        replay: Option<Replay>,
    },
    /// It signed two trees, and nobody has shown a proof that one extends the other. This proves nothing.
    Suspicion {
        /// One checkpoint.
        a: Note,
        /// The other.
        b: Note,
        /// A proof that the larger tree extends the smaller one, which refutes the suspicion.
        consistency: Option<Vec<Digest>>,
    },
}

impl Charge {
    /// Return the name of the kind in a file.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::SameSize { .. } => "same-size",
            Self::SameIndex { .. } => "same-index",
            Self::InvalidEntry { .. } => "invalid-entry",
            Self::Suspicion { .. } => "suspicion",
        }
    }

    /// Return the index of the entry that the charge is about.
    #[must_use]
    pub const fn index(&self) -> Option<u64> {
        match self {
            Self::SameIndex { index, .. } | Self::InvalidEntry { index, .. } => Some(*index),
            Self::SameSize { .. } | Self::Suspicion { .. } => None,
        }
    }
}

/// A file of evidence. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The name of the log.
    pub origin: Name,
    /// The public keys with which it signed.
    pub vkeys: Vec<VerifierKey>,
    /// What it has done.
    pub charge: Charge,
    /// When that was found, in seconds since 1970. Not verified.
    pub found_at: Option<u64>,
    /// Where the checkpoints were found. Not verified.
    pub sources: Vec<String>,
}

/// What a file of evidence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The log has done it: its signatures prove it.
    Convicted,
    /// Both checkpoints can be of one honest log.
    Innocent,
    /// The log has signed these checkpoints, and whether they contradict each other is open.
    Suspected,
    /// The log has signed a tree with this entry, and whether it is wrong can be found only by replaying the entries before it.
    Unreplayed,
}

/// A checkpoint of a file of evidence, and the keys that have signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Keys of the log, at least one.
    pub keys: Vec<VerifierKey>,
}

/// The outcome of checking a file: what it shows, and what the log has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What the file shows.
    pub verdict: Verdict,
    /// The checkpoints: two, or one of which an entry is wrong.
    pub signed: Vec<SignedHead>,
}

impl Evidence {
    /// Check the evidence with the keys of a trust file.
    ///
    /// 1. A key that the file names is one of the log in the trust file. Retired keys count for checkpoints of any size: what is signed
    ///    with them is evidence, though nobody trusts it any more.
    /// 2. Each checkpoint is signed by such a key, and is of the log that the file names.
    /// 3. Proofs lead from the leaves to the roots.
    /// 4. The verdict follows from what is left: roots of equal sizes differ, or leaves at one index, or an entry is wrong by itself.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed. The file shows nothing then.
    pub fn judge(&self, trust: &TrustFile) -> Result<Judgement, VerifyError> {
        // 1.
        let keys = self.known_keys(trust)?;
        let signed = |note: &Note| self.signed_head(note, &keys);
        match &self.charge {
            Charge::SameSize { a, b } => {
                // 2.
                let (a, b) = (signed(a)?, signed(b)?);
                same("size of the checkpoints", &a.checkpoint.head.size(), &b.checkpoint.head.size())?;
                // 4.
                let is_fork = a.checkpoint.head.root() != b.checkpoint.head.root();
                Ok(judged(if is_fork { Verdict::Convicted } else { Verdict::Innocent }, vec![a, b]))
            }
            Charge::SameIndex { index, a, b } => {
                // 2. and 3.
                let is_fork = a.leaf.hash() != b.leaf.hash();
                let (a, b) = (proven(a, *index, signed)?, proven(b, *index, signed)?);
                // 4.
                Ok(judged(if is_fork { Verdict::Convicted } else { Verdict::Innocent }, vec![a, b]))
            }
            Charge::InvalidEntry { index, a, replay } => {
                // 2. and 3.
                let head = proven(a, *index, signed)?;
                // 4.
                let verdict = verdict_on_entry(a, *index, head.checkpoint.head.size(), replay.as_ref())?;
                Ok(judged(verdict, vec![head]))
            }
            Charge::Suspicion { a, b, consistency } => {
                // 2.
                let (a, b) = (signed(a)?, signed(b)?);
                // 3.
                let is_refuted = match consistency {
                    Some(proof) => require_consistent(&a, &b, proof).map(|()| true)?,
                    None => a.checkpoint.head == b.checkpoint.head,
                };
                // 4.
                Ok(judged(if is_refuted { Verdict::Innocent } else { Verdict::Suspected }, vec![a, b]))
            }
        }
    }

    /// Return the hash that names the file: of the roots of both checkpoints, or of the root and the leaf of an invalid entry. They are
    /// not verified.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text of a note is not a checkpoint.
    pub fn name(&self) -> Result<Digest, Malformed> {
        let root = |note: &Note| Checkpoint::parse(note.unverified_text()).map(|found| *found.head.root());
        Ok(match &self.charge {
            Charge::SameSize { a, b } | Charge::Suspicion { a, b, .. } => evidence_name(&root(a)?, &root(b)?),
            Charge::SameIndex { a, b, .. } => evidence_name(&root(&a.note)?, &root(&b.note)?),
            Charge::InvalidEntry { a, .. } => evidence_name(&root(&a.note)?, &a.leaf.hash()),
        })
    }

    fn known_keys(&self, trust: &TrustFile) -> Result<Vec<VerifierKey>, VerifyError> {
        let is_known = |key: &&VerifierKey| *key.name() == self.origin && trust.log_keys().any(|known| known == *key);
        let keys: Vec<_> = self.vkeys.iter().filter(is_known).cloned().collect();
        if keys.is_empty() {
            let found: Vec<_> = self.vkeys.iter().map(VerifierKey::shown).collect();
            let expected = format!("a key of {:?} that the policy has", self.origin);
            return Err(refused("unknown key", expected, found.join(", ")));
        }
        Ok(keys)
    }

    fn signed_head(&self, note: &Note, keys: &[VerifierKey]) -> Result<SignedHead, VerifyError> {
        let verified = note.verify(keys)?;
        let checkpoint = verified.checkpoint(keys)?;
        if checkpoint.origin != self.origin {
            return Err(refused("origin", format!("{:?}", self.origin), format!("{:?}", checkpoint.origin)));
        }
        Ok(SignedHead { checkpoint, keys: verified.lines().iter().map(|line| line.key().clone()).collect() })
    }
}

const fn judged(verdict: Verdict, signed: Vec<SignedHead>) -> Judgement {
    Judgement { verdict, signed }
}

/// Return the checkpoint of a leaf, after checking that the leaf is in its tree.
fn proven(
    side: &ProvenLeaf,
    index: u64,
    signed: impl Fn(&Note) -> Result<SignedHead, VerifyError>,
) -> Result<SignedHead, VerifyError> {
    let head = signed(&side.note)?;
    verify_inclusion(&side.leaf.hash(), index, &side.proof, &head.checkpoint.head)?;
    Ok(head)
}

/// Return what an entry of a tree of `size` shows.
fn verdict_on_entry(
    proven: &ProvenLeaf,
    index: u64,
    size: u64,
    replay: Option<&Replay>,
) -> Result<Verdict, VerifyError> {
    let Leaf::Entry(bytes) = &proven.leaf else {
        return Err(refused("entry", "the bytes of an entry".into(), "a hash".into()));
    };
    if fault_of(bytes, index, size).is_some() {
        return Ok(Verdict::Convicted);
    }
    let Some(Replay { expected, .. }) = replay else { return Ok(Verdict::Innocent) };
    let claimed = Entry::from_bytes(bytes)?.batch_end;
    // Roots that the entry has anyway are no contradiction.
    let is_same = expected.is_some() && claimed == *expected;
    Ok(if is_same { Verdict::Innocent } else { Verdict::Unreplayed })
}

/// Return why these bytes cannot be entry `index` of a qed log of `size` entries; `None` if they can.
#[must_use]
pub fn fault_of(bytes: &[u8], index: u64, size: u64) -> Option<String> {
    match Entry::from_bytes(bytes) {
        Err(Malformed(reason)) => Some(reason),
        Ok(entry) if entry.version != index => {
            Some(format!("expected version {index}, which is its index, found {}", entry.version))
        }
        Ok(entry) if entry.batch_end.is_none() && index + 1 == size => {
            Some("expected the end of a commit batch, because the checkpoint ends here, found none".to_owned())
        }
        Ok(_) => None,
    }
}

fn require_consistent(a: &SignedHead, b: &SignedHead, proof: &[Digest]) -> Result<(), VerifyError> {
    let (a, b) = (&a.checkpoint.head, &b.checkpoint.head);
    let (old, new) = if a.size() <= b.size() { (a, b) } else { (b, a) };
    verify_consistency(old, new, proof)
}

fn refused(check: &'static str, expected: String, computed: String) -> VerifyError {
    VerifyError { check, expected, computed }
}
