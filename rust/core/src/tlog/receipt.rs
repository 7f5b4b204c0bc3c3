//! Signed receipts: what a log gives for events that it added, with proofs and its signature.
//!
//! ```text
//! {"Format": "qed-receipt-1", "First": n, "Entries": [b64, …], "Proof": [b64, …],
//!  "End": null or {"Version": e, "Entry": b64, "Proof": [b64, …]}, "Snapshots": [snapshot, …], "Checkpoint": "note"}
//! ```
//!
//! The entries are consecutive and of one commit batch, with one range proof. `End` is the last entry of the batch, and null if the
//! entries reach it. There is a snapshot for each entry. Its hyper digest is that of the batch end. Its history digest is proven for the
//! last entry of the batch only.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::hash::Digest;
use crate::json::Object;
use crate::proof::{Malformed, Snapshot};
use crate::tlog::claim::{Claim, Form, MAX_RUN_HASHES, Proof, Run, Shown, verify};
use crate::tlog::entry::Entry;
use crate::tlog::evidence::{Leaf, ProvenLeaf};
use crate::tlog::fields::{SnapshotFields, Spelt, UpTo, parse, present, put_list, put_note, put_snapshots, values};
use crate::tlog::merkle::{MAX_RANGE_LEAVES, inclusion_in_range, inclusion_of_range};
use crate::tlog::note::Note;
use crate::tlog::proof_file::TlogProof;
use crate::tlog::text::{MAX_NUMBER, to_base64};
use crate::tlog::trust_file::TrustFile;
use crate::verify::VerifyError;

/// The longest receipt that is read, in bytes: 65,536 entries with their snapshots take some 18 MiB.
pub const MAX_RECEIPT_BYTES: usize = 24 * 1024 * 1024;

/// A receipt. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The entries, and the batch end if they do not reach it.
    runs: Vec<Run>,
    snapshots: Vec<Snapshot>,
    note: Note,
}

impl SignedReceipt {
    /// Return the receipt with these parts. `end` is the last entry of the batch with its range proof, if `entries` do not reach it.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless there are 1 to [`MAX_RANGE_LEAVES`] entries and a snapshot for each.
    pub fn new(entries: Run, end: Option<Run>, snapshots: Vec<Snapshot>, note: Note) -> Result<Self, Malformed> {
        let count = entries.entries.len();
        if !(1..=MAX_RANGE_LEAVES).contains(&count) {
            return Err(Malformed::because(format!(
                "expected 1 to {MAX_RANGE_LEAVES} entries in a receipt, found {count}"
            )));
        }
        if snapshots.len() != count {
            let found = snapshots.len();
            return Err(Malformed::because(format!("expected {count} snapshots, one for each entry, found {found}")));
        }
        if entries.first > MAX_NUMBER {
            return Err(Malformed::because(format!("expected a version of at most 2^63 - 1, found {}", entries.first)));
        }
        let versions = (entries.first..).zip(&snapshots);
        if let Some((version, other)) = versions.into_iter().find(|(version, snapshot)| snapshot.version != *version) {
            let found = other.version;
            return Err(Malformed::because(format!(
                "expected the snapshot of version {version}, found that of {found}"
            )));
        }
        Ok(Self { runs: std::iter::once(entries).chain(end).collect(), snapshots, note })
    }

    /// Return the receipt in a JSON object.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is anything else, has unknown or repeated fields, or is beyond a limit.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let fields: Fields = parse(text, MAX_RECEIPT_BYTES)?;
        let FormatName::Receipt1 = fields.format;
        let end = fields.end.map(|Object(end)| end.into_run());
        let entries =
            Run { first: fields.first, entries: values(fields.entries), proof: Proof::Range(values(fields.proof)) };
        let snapshots = fields.snapshots.0.into_iter().map(|Object(fields)| fields.into_snapshot()).collect();
        Self::new(entries, end, snapshots, fields.checkpoint.0)
    }

    /// Return the receipt as a JSON object on one line, without a line feed.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(512 * (self.snapshots.len() + 4));
        let mut runs = self.runs.iter();
        out.push_str("{\"Format\":\"qed-receipt-1\"");
        if let Some(run) = runs.next() {
            let _ = write!(out, ",\"First\":{},\"Entries\":", run.first);
            put_list(&mut out, run.entries.iter().map(|entry| to_base64(entry.to_bytes())));
            put_proof(&mut out, run);
        }
        out.push_str(",\"End\":");
        match runs.next() {
            None => out.push_str("null"),
            Some(run) => put_run(&mut out, run),
        }
        out.push_str(",\"Snapshots\":");
        put_snapshots(&mut out, &self.snapshots);
        out.push_str(",\"Checkpoint\":");
        put_note(&mut out, &self.note);
        out.push('}');
        out
    }

    /// Return the snapshots, one for each entry. They are claims, like all else in the receipt.
    #[must_use]
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Return the checkpoint.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Check the receipt: see [`verify`]. `event` is the digest that one of its entries must have.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, event: Option<&Digest>, trust: &TrustFile, now: u64) -> Result<Shown, VerifyError> {
        let claim = Claim { form: Form::Receipt, runs: &self.runs, snapshots: &self.snapshots, note: &self.note };
        verify(claim, event, trust, now)
    }

    /// Return the proof of the only entry as a file for tools of others, with the entry as its extra.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the receipt is about several entries, or its proof is not one of a tree of the checkpoint's size.
    pub fn to_proof(&self) -> Result<TlogProof, Malformed> {
        match self.runs.first() {
            Some(run) if run.entries.len() == 1 => proof_of(run, &self.note),
            _ => Err(Malformed::because(format!("expected a receipt of one event, found {}", self.snapshots.len()))),
        }
    }
}

impl SignedReceipt {
    /// Return an entry of the receipt with an inclusion proof, as evidence needs it.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if `index` is of no entry, or its proof is not one of a tree of the checkpoint's size.
    pub fn proven_leaf(&self, index: u64) -> Result<ProvenLeaf, Malformed> {
        let of_run = |run| Some((run, Run::entry(run, index)?));
        let missing = || Malformed::because(format!("expected an entry of the receipt, found version {index}"));
        let (run, entry) = self.runs.iter().find_map(of_run).ok_or_else(missing)?;
        let leaves: Vec<_> = run.entries.iter().map(Entry::leaf).collect();
        let proof = match &run.proof {
            Proof::Range(proof) => inclusion_in_range(index, run.first, &leaves, proof, self.note.claimed_size()?)?,
            Proof::Inclusion(path) => path.clone(),
        };
        Ok(ProvenLeaf { note: self.note.clone(), leaf: Leaf::Entry(entry.to_bytes()), proof })
    }
}

/// Return the proof of a run of one entry as a file for tools of others.
pub(super) fn proof_of(run: &Run, note: &Note) -> Result<TlogProof, Malformed> {
    let [entry] = run.entries.as_slice() else {
        return Err(Malformed::because(format!("expected one entry, found {}", run.entries.len())));
    };
    let path = match &run.proof {
        Proof::Range(proof) => inclusion_of_range(run.first, note.claimed_size()?, proof)?,
        Proof::Inclusion(path) => path.clone(),
    };
    TlogProof::new(Some(entry.to_bytes()), run.first, path, note.clone())
}

fn put_proof(out: &mut String, run: &Run) {
    let (Proof::Range(hashes) | Proof::Inclusion(hashes)) = &run.proof;
    out.push_str(",\"Proof\":");
    put_list(out, hashes.iter().map(|hash| to_base64(hash.as_bytes())));
}

/// Append a run of one entry as a JSON object.
pub(super) fn put_run(out: &mut String, run: &Run) {
    let _ = write!(out, "{{\"Version\":{}", run.first);
    for entry in &run.entries {
        let _ = write!(out, ",\"Entry\":\"{}\"", to_base64(entry.to_bytes()));
    }
    put_proof(out, run);
    out.push('}');
}

#[derive(Deserialize)]
enum FormatName {
    #[serde(rename = "qed-receipt-1")]
    Receipt1,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Fields {
    format: FormatName,
    first: u64,
    entries: UpTo<Spelt<Entry>, MAX_RANGE_LEAVES>,
    proof: UpTo<Spelt<Digest>, MAX_RUN_HASHES>,
    #[serde(deserialize_with = "present")]
    end: Option<Object<EntryFields>>,
    snapshots: UpTo<Object<SnapshotFields>, MAX_RANGE_LEAVES>,
    checkpoint: Spelt<Note>,
}

/// An entry with its range proof.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct EntryFields {
    version: u64,
    entry: Spelt<Entry>,
    proof: UpTo<Spelt<Digest>, MAX_RUN_HASHES>,
}

impl EntryFields {
    pub(super) fn into_run(self) -> Run {
        Run { first: self.version, entries: vec![self.entry.0], proof: Proof::Range(values(self.proof)) }
    }
}
