//! Proofs of inclusion complete in one file, `.tlog-proof` (C2SP tlog-proof): the index, the path and the checkpoint.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra base64                    at most once; not authenticated by itself
//! index 3
//! base64(hash)                    the sibling of the leaf first
//!
//! the checkpoint, a signed note
//! ```

use std::fmt;

use crate::hash::Digest;
use crate::proof::Malformed;
use crate::tlog::claim::{self, Claim, Form, Proof, Run, Shown};
use crate::tlog::entry::Entry;
use crate::tlog::merkle::{MAX_PATH_HASHES, verify_inclusion};
use crate::tlog::note::{MAX_NOTE_BYTES, Note};
use crate::tlog::policy::Endorsed;
use crate::tlog::text::{decimal, digest_from_base64, from_base64, plain_text, shown, to_base64};
use crate::tlog::trust_file::TrustFile;
use crate::verify::VerifyError;

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The most bytes that an `extra` line may hold: an entry of a bundle.
pub const MAX_EXTRA_BYTES: usize = 65_535;

/// The longest file that is read, in bytes.
pub const MAX_PROOF_FILE_BYTES: usize = MAX_NOTE_BYTES + 96 * 1024;

/// Proof that an entry is in the tree of a checkpoint, with the checkpoint. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    path: Vec<Digest>,
    note: Note,
}

impl TlogProof {
    /// Return the proof that the entry `index` is in the tree of the checkpoint `note`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if a part is beyond the limits of this module, so that [`Self::parse`] would refuse the file.
    pub fn new(extra: Option<Vec<u8>>, index: u64, path: Vec<Digest>, note: Note) -> Result<Self, Malformed> {
        Self::parse(Self { extra, index, path, note }.to_string().as_bytes())
    }

    /// Return the bytes that the proof carries along, such as the entry. The reader has to check what they are.
    #[must_use]
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// Return the index of the entry.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Return the inclusion path, at most 63 hashes.
    #[must_use]
    pub fn path(&self) -> &[Digest] {
        &self.path
    }

    /// Return the checkpoint.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Return the proof in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `bytes` are exactly what [`ToString`] gives for a proof within the limits of this module.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let limit = MAX_PROOF_FILE_BYTES;
        if bytes.len() > limit {
            return Err(Malformed::because(format!(
                "expected a proof of at most {limit} bytes, found {}",
                bytes.len()
            )));
        }
        let (head, note) = plain_text(bytes)?
            .split_once("\n\n")
            .ok_or_else(|| Malformed::because("expected an empty line before the checkpoint of the proof"))?;
        let mut lines = head.split('\n').peekable();
        match lines.next() {
            Some(HEADER) => {}
            found => return Err(wrong_line(HEADER, found)),
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).map(read_extra).transpose()?;
        let line = lines.next();
        let index =
            line.and_then(|line| line.strip_prefix("index ")).ok_or_else(|| wrong_line("index and a number", line))?;
        let index = decimal(index)?;
        if lines.clone().take(MAX_PATH_HASHES + 1).count() > MAX_PATH_HASHES {
            return Err(Malformed::because(format!(
                "expected at most {MAX_PATH_HASHES} hashes in the proof, found more"
            )));
        }
        let path = lines.map(digest_from_base64).collect::<Result<_, _>>()?;
        Ok(Self { extra, index, path, note: Note::parse(note.as_bytes())? })
    }

    /// Check that the entry with the leaf hash `leaf` is in the tree of a checkpoint that a policy has verified: [`Self::note`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, leaf: &Digest, endorsed: &Endorsed) -> Result<(), VerifyError> {
        verify_inclusion(leaf, self.index, &self.path, &endorsed.checkpoint().head)
    }

    /// Check the proof of an entry of a qed log, which is its extra: see [`claim::verify`]. `event` is the digest that it must have.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify_entry(&self, event: Option<&Digest>, trust: &TrustFile, now: u64) -> Result<Shown, VerifyError> {
        let missing = || Malformed::because("expected the entry of a qed log as extra, found none");
        let entry = Entry::from_bytes(self.extra().ok_or_else(missing)?)?;
        let run = Run { first: self.index, entries: vec![entry], proof: Proof::Inclusion(self.path.clone()) };
        claim::verify(Claim { form: Form::Bundle, runs: &[run], snapshots: &[], note: &self.note }, event, trust, now)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", to_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", to_base64(hash.as_bytes())))?;
        write!(f, "\n{}", self.note)
    }
}

fn read_extra(line: &str) -> Result<Vec<u8>, Malformed> {
    let text = line.strip_prefix("extra ").unwrap_or_default();
    // The length is compared first, so that long text is not decoded. The limit is a multiple of three, so that this is exact.
    if text.len() > MAX_EXTRA_BYTES / 3 * 4 {
        return Err(Malformed::because(format!("expected at most {MAX_EXTRA_BYTES} bytes as extra, found more")));
    }
    from_base64(text)
}

fn wrong_line(expected: &str, found: Option<&str>) -> Malformed {
    Malformed::because(format!(
        "expected {expected} as a line of the proof, found {}",
        shown(found.unwrap_or_default())
    ))
}
