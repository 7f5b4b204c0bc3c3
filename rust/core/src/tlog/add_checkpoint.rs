//! What a log sends to a witness, and what the witness makes of it (C2SP tlog-witness, `add-checkpoint`).
//!
//! ```text
//! old 3
//! base64(hash)                    the consistency proof from the old size to the new one
//!
//! the checkpoint, a note that the log has signed
//! ```
//!
//! A witness goes from one type to the next, and each has passed one more check: [`AddCheckpoint`] is well-formed, a [`Submission`] is
//! signed by its log, a [`Growth`] extends what the witness cosigned before, and only a growth can be [cosigned](Growth::cosign).
//! Where the witness keeps what it cosigned, and the clock, are the caller's.

use std::fmt;

use crate::hash::{Digest, merkle_empty};
use crate::proof::Malformed;
use crate::tlog::checkpoint::{Checkpoint, Claim};
use crate::tlog::key::{KeyKind, VerifierKey};
use crate::tlog::merkle::{MAX_PATH_HASHES, TreeHead, verify_consistency};
use crate::tlog::note::{Line, Note, VerifiedLine, VerifiedNote};
use crate::tlog::signing::SigningKey;
use crate::tlog::text::{Name, decimal, digest_from_base64, plain_text, shown, to_base64};
use crate::verify::VerifyError;

/// The longest request that is read, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Maximum number of hashes in the consistency proof of a request.
pub const MAX_REQUEST_HASHES: usize = MAX_PATH_HASHES;

/// What the first line of a request begins with.
const OLD: &str = "old ";

/// Return the keys that the texts spell, with which one log signs.
///
/// # Errors
///
/// [`Malformed`] if a text is not a vkey of a kind with which logs sign, or two have one name and id.
pub fn log_keys<T: AsRef<str>>(vkeys: &[T]) -> Result<Vec<VerifierKey>, Malformed> {
    distinct(vkeys, "a key of kind 01 or 06", |key| key.kind().is_for_logs())
}

/// Return the keys that the texts spell, with which somebody asks the signer of the log `origin` for its signature.
///
/// A name below that of the log says whose they are, and that they are not keys of the log itself.
///
/// # Errors
///
/// [`Malformed`] if there is none; or if a text is not a vkey of kind 04 or 06 with such a name, or two have one name and id.
pub fn submitter_keys<T: AsRef<str>>(vkeys: &[T], origin: &Name) -> Result<Vec<VerifierKey>, Malformed> {
    let expected = format!("a key of kind 04 or 06 with a name below {origin}/");
    let is_below = |name: &str| name.strip_prefix(origin.as_str()).is_some_and(|rest| rest.starts_with('/'));
    let keys = distinct(vkeys, &expected, |key| key.kind().has_time() && is_below(key.name().as_str()))?;
    if keys.is_empty() {
        return Err(Malformed::because(format!("expected {expected}, found none")));
    }
    Ok(keys)
}

fn distinct<T: AsRef<str>>(
    vkeys: &[T],
    expected: &str,
    is_expected: impl Fn(&VerifierKey) -> bool,
) -> Result<Vec<VerifierKey>, Malformed> {
    let mut keys: Vec<VerifierKey> = Vec::new();
    for text in vkeys {
        let key: VerifierKey = text.as_ref().parse()?;
        let (name, id, kind) = (key.name(), key.id(), key.kind().byte());
        if !is_expected(&key) {
            return Err(Malformed::because(format!("expected {expected}, found {name:?}+{id} of kind {kind:02}")));
        }
        if keys.iter().any(|other| (other.name(), other.id()) == (name, id)) {
            return Err(Malformed::because(format!("expected each key once, found {name:?}+{id} again")));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// A request to cosign a checkpoint. It is well-formed, and nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    old: u64,
    proof: Vec<Digest>,
    note: Note,
    claim: Claim,
}

impl AddCheckpoint {
    /// Return the request to cosign the checkpoint `note`, which extends the tree of size `old` that the witness cosigned last.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if a part is beyond the limits of this module, or the text of the note is not a checkpoint.
    pub fn new(old: u64, proof: &[Digest], note: &Note) -> Result<Self, Malformed> {
        Self::parse(spelt(old, proof, note).as_bytes())
    }

    /// Return the request in `bytes`.
    ///
    /// 1. The length is within [`MAX_REQUEST_BYTES`], and the bytes are text.
    /// 2. The first empty line ends the size and the proof, which has at most [`MAX_REQUEST_HASHES`] hashes.
    /// 3. What follows is a note, and its text has the grammar of a checkpoint.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `bytes` are exactly what [`ToString`] gives for a request within these limits.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // 1.
        if bytes.len() > MAX_REQUEST_BYTES {
            let found = bytes.len();
            return Err(Malformed::because(format!(
                "expected a request of at most {MAX_REQUEST_BYTES} bytes, found {found}"
            )));
        }
        let missing = || Malformed::because("expected an empty line before the checkpoint of the request");
        let (head, note) = plain_text(bytes)?.split_once("\n\n").ok_or_else(missing)?;
        // 2.
        let mut lines = head.split('\n');
        let first = lines.next().unwrap_or_default();
        let wrong = || Malformed::because(format!("expected old and a size as the first line, found {}", shown(first)));
        let old = decimal(first.strip_prefix(OLD).ok_or_else(wrong)?)?;
        if lines.clone().take(MAX_REQUEST_HASHES + 1).count() > MAX_REQUEST_HASHES {
            return Err(Malformed::because(format!(
                "expected at most {MAX_REQUEST_HASHES} hashes in the proof, found more"
            )));
        }
        let proof = lines.map(digest_from_base64).collect::<Result<_, _>>()?;
        // 3.
        let note = Note::parse(note.as_bytes())?;
        let claim = Claim::parse(note.unverified_text())?;
        Ok(Self { old, proof, note, claim })
    }

    /// Return the name of the log that the request is about. It is not verified: use it only to choose keys.
    #[must_use]
    pub const fn claimed_origin(&self) -> &Name {
        &self.claim.origin
    }

    /// Return whether the checkpoint has extension lines. It is not verified: use it only to refuse the request.
    #[must_use]
    pub const fn has_extensions(&self) -> bool {
        !self.claim.extensions.is_empty()
    }

    /// Verify the checkpoint with the keys that the caller trusts for [`Self::claimed_origin`], which may have any name.
    ///
    /// 1. The note verifies: at least one of the keys has signed, and no line of one of them fails.
    /// 2. Extension lines, if there are any, are signed by a key of kind 01. Kind 06 does not sign them.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(self, keys: &[VerifierKey]) -> Result<Submission, VerifyError> {
        // 1.
        let log = self.note.verify(keys)?;
        // 2.
        if self.has_extensions() && !log.lines().iter().any(|line| line.key().kind() == KeyKind::Ed25519) {
            let expected = "a signature of kind 01, which covers them".into();
            return Err(VerifyError { check: "extension lines", expected, computed: "none".into() });
        }
        Ok(Submission { old: self.old, proof: self.proof, claim: self.claim, log })
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&spelt(self.old, &self.proof, &self.note))
    }
}

fn spelt(old: u64, proof: &[Digest], note: &Note) -> String {
    let hashes: String = proof.iter().map(|hash| to_base64(hash.as_bytes()) + "\n").collect();
    format!("{OLD}{old}\n{hashes}\n{note}")
}

/// A request that its log has signed. Only [`AddCheckpoint::verify`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    old: u64,
    proof: Vec<Digest>,
    claim: Claim,
    log: VerifiedNote,
}

impl Submission {
    /// Return the name of the log.
    #[must_use]
    pub const fn origin(&self) -> &Name {
        &self.claim.origin
    }

    /// Return the size that the witness has cosigned last, as the sender of the request believes.
    #[must_use]
    pub const fn old(&self) -> u64 {
        self.old
    }

    /// Return the size of the tree that the log has signed.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.claim.size
    }

    /// Return the root that the log has signed. Of size 0 it may be any hash.
    #[must_use]
    pub const fn root(&self) -> &Digest {
        &self.claim.root
    }

    /// Return the checkpoint as a note, with the lines of the log that were verified and no other line.
    #[must_use]
    pub fn signed_note(&self) -> String {
        self.log.to_string()
    }

    /// Check that the checkpoint extends `last`, which the witness cosigned last: `None` if it never cosigned one of this log.
    ///
    /// 1. A tree can have this size and root.
    /// 2. The proof shows that it extends the last tree, or the empty one.
    ///
    /// The caller has compared [`Self::old`] with the size of `last` before: the proof is one for that size.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn growth(self, last: Option<&TreeHead>) -> Result<Growth, VerifyError> {
        // 1.
        let checkpoint = self.claim.into_checkpoint()?;
        // 2.
        let empty = TreeHead::new(0, merkle_empty())?;
        verify_consistency(last.unwrap_or(&empty), &checkpoint.head, &self.proof)?;
        Ok(Growth { checkpoint, log: self.log })
    }
}

/// A checkpoint that its log has signed, and that extends what the witness cosigned last. Only [`Submission::growth`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    checkpoint: Checkpoint,
    log: VerifiedNote,
}

impl Growth {
    /// Keep the lines of the log in `earlier`, what the witness cosigned last, if it is the same checkpoint: whoever sends it again with
    /// fewer lines must not take the others from those who read it. `keys` are those of the log, and verify these lines once more.
    #[must_use]
    pub fn keeping(mut self, earlier: &Note, keys: &[VerifierKey]) -> Self {
        // A note that verifies no longer, because the log has other keys, has nothing to keep.
        if let Ok(earlier) = earlier.verify(keys) {
            self.log.join(earlier);
        }
        self
    }

    /// Cosign the checkpoint at `time`, in seconds since 1970. What is signed is written from the parsed checkpoint.
    ///
    /// Keys of kind 06 do not sign extension lines, so they give no line for a checkpoint that has some. Each signature is verified before
    /// it is returned.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if no key can sign the checkpoint, such as at time 0; if a signature does not verify; or if a key has the name and
    /// id of one of the log.
    pub fn cosign(&self, keys: &[SigningKey], time: u64) -> Result<Cosigned, VerifyError> {
        let text = self.checkpoint.to_string();
        let signs_all = |key: &&SigningKey| {
            self.checkpoint.extensions().is_empty() || key.verifier().kind() == KeyKind::Cosignature
        };
        let own: Vec<Line> =
            keys.iter().filter(signs_all).map(|key| key.sign(&self.checkpoint, time)).collect::<Result<_, _>>()?;
        let verifiers: Vec<_> = keys.iter().map(|key| key.verifier().clone()).collect();
        Note::new(&text, own.clone())?.verify(&verifiers)?;
        let of_log = self.log.lines().iter().map(VerifiedLine::line).cloned();
        let note = Note::new(&text, of_log.chain(own.iter().cloned()).collect())?;
        Ok(Cosigned { lines: own, note })
    }
}

/// A checkpoint with the signatures of its log and of the witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    lines: Vec<Line>,
    note: Note,
}

impl Cosigned {
    /// Return the signature lines of the witness, at least one: the answer to the request.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Return the checkpoint with the verified lines of the log and those of the witness. No other line of the request is in it.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }
}
