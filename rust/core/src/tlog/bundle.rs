//! Signed bundles: a question, its answer, and the entries and checkpoint that show the roots that the answer rests on.
//!
//! ```text
//! {"Format": "qed-bundle-2", "Kind": "membership", "incremental" or "inclusion", "Question": …, "Answer": …,
//!  "Snapshots": [snapshot, …], "Entries": [{"Version", "Entry", "Proof"}, …], "Checkpoint": "note", "Retired": [vkey, …]}
//! ```
//!
//! Each entry has a range proof of its own. There is a snapshot and an entry for each version that the answer names, in ascending order.
//! A bundle of the kind *inclusion* shows that an event is at a version. It has one entry and no answer, and a snapshot only if
//! a batch ends at this version. `Retired` may be left out; it is a hint, and nothing is verified with these keys.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::hash::Digest;
use crate::json::{MAX_PROOF_BYTES, Object};
use crate::proof::{Answer, IncrementalProof, Malformed, Snapshot};
use crate::tlog::claim::{Claim, Form, Run, Shown, verify};
use crate::tlog::fields::{SnapshotFields, Spelt, UpTo, parse, put_list, put_note, put_snapshots, values};
use crate::tlog::key::VerifierKey;
use crate::tlog::note::{MAX_NOTE_BYTES, Note};
use crate::tlog::proof_file::TlogProof;
use crate::tlog::receipt::{EntryFields, proof_of, put_run};
use crate::tlog::text::to_base64;
use crate::tlog::trust_file::TrustFile;
use crate::verify::VerifyError;

/// The longest bundle that is read, in bytes.
pub const MAX_BUNDLE_BYTES: usize = MAX_PROOF_BYTES + 2 * MAX_NOTE_BYTES + 256 * 1024;

/// Maximum number of entries: an answer names up to two versions.
const MAX_ENTRIES: usize = 2;

/// Maximum number of retired keys that a bundle names.
const MAX_RETIRED: usize = 16;

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// Is an event in the log, as of a version?
    Membership {
        /// Digest of the event.
        digest: Digest,
        /// The version that was asked, or `None` for the latest.
        version: Option<u64>,
        /// The answer.
        answer: Answer,
    },
    /// Does the log at one version extend the log at another?
    Incremental {
        /// The earlier version that was asked.
        start: u64,
        /// The later version that was asked.
        end: u64,
        /// The answer.
        answer: IncrementalProof,
    },
    /// Is the event at this version? The entry is the answer.
    Inclusion {
        /// Digest of the event.
        digest: Digest,
        /// The version.
        version: u64,
    },
}

impl Saved {
    /// Return the versions whose entries must be in the bundle, in ascending order.
    fn versions(&self) -> Vec<u64> {
        let mut versions = match self {
            Self::Membership { answer: Answer::Member(proof), .. } => vec![proof.query_version, proof.current_version],
            Self::Membership { answer: Answer::Absent(proof), .. } => vec![proof.current_version],
            Self::Incremental { answer, .. } => vec![answer.start, answer.end],
            Self::Inclusion { version, .. } => vec![*version],
        };
        versions.dedup();
        versions
    }
}

/// A bundle. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBundle {
    saved: Saved,
    snapshots: Vec<Snapshot>,
    runs: Vec<Run>,
    note: Note,
    retired: Vec<VerifierKey>,
}

impl SignedBundle {
    /// Return the bundle with these parts: for each version that the answer names, a run of one entry, in ascending order. The snapshots
    /// follow from the entries.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the runs are of other versions, or an entry on which an answer rests is not at the end of a batch.
    pub fn new(saved: Saved, runs: Vec<Run>, note: Note) -> Result<Self, Malformed> {
        let entries = runs.iter().flat_map(|run| &run.entries);
        let ends = entries.filter_map(|entry| Some((entry, entry.batch_end?)));
        let snapshots = ends.map(|(entry, end)| Snapshot {
            event_digest: entry.event_digest,
            history_digest: end.history_digest,
            hyper_digest: end.hyper_digest,
            version: entry.version,
        });
        let bundle = Self { snapshots: snapshots.collect(), saved, runs, note, retired: Vec::new() };
        bundle.require_versions()?;
        Ok(bundle)
    }

    /// Return the bundle in a JSON object.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is anything else, has unknown or repeated fields, or is beyond a limit.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let fields: Fields<'_> = parse(text, MAX_BUNDLE_BYTES)?;
        let FormatName::Bundle2 = fields.format;
        let bundle = Self {
            saved: saved(fields.kind, fields.question.get(), fields.answer.get())?,
            snapshots: fields.snapshots.0.into_iter().map(|Object(fields)| fields.into_snapshot()).collect(),
            runs: fields.entries.0.into_iter().map(|Object(fields)| fields.into_run()).collect(),
            note: fields.checkpoint.0,
            retired: values(fields.retired),
        };
        bundle.require_versions()?;
        Ok(bundle)
    }

    /// Return the bundle as a JSON object on one line, without a line feed.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (kind, question, answer) = match &self.saved {
            Saved::Membership { digest, version, answer } => {
                let version = version.map_or_else(|| "null".into(), |version| version.to_string());
                ("membership", membership_question(digest, &version), answer.to_json(None))
            }
            Saved::Incremental { start, end, answer } => {
                ("incremental", format!("{{\"Start\":{start},\"End\":{end}}}"), answer.to_json())
            }
            Saved::Inclusion { digest, version } => {
                ("inclusion", membership_question(digest, &version.to_string()), "null".to_owned())
            }
        };
        let mut out = String::with_capacity(16 * 1024);
        let _ = write!(
            out,
            "{{\"Format\":\"qed-bundle-2\",\"Kind\":\"{kind}\",\"Question\":{question},\"Answer\":{answer}"
        );
        out.push_str(",\"Snapshots\":");
        put_snapshots(&mut out, &self.snapshots);
        out.push_str(",\"Entries\":[");
        for (i, run) in self.runs.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            put_run(&mut out, run);
        }
        out.push_str("],\"Checkpoint\":");
        put_note(&mut out, &self.note);
        if !self.retired.is_empty() {
            out.push_str(",\"Retired\":");
            put_list(&mut out, self.retired.iter().map(ToString::to_string));
        }
        out.push('}');
        out
    }

    /// Return the question and the answer.
    #[must_use]
    pub const fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Return the snapshots. They are claims, like all else in the bundle.
    #[must_use]
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Return the checkpoint.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Check everything but the answer: see [`verify`]. Its step 9 is left: verify the answer with [`Shown::snapshots`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, trust: &TrustFile, now: u64) -> Result<Shown, VerifyError> {
        let event = match &self.saved {
            Saved::Inclusion { digest, .. } => Some(digest),
            Saved::Membership { .. } | Saved::Incremental { .. } => None,
        };
        let claim = Claim { form: Form::Bundle, runs: &self.runs, snapshots: &self.snapshots, note: &self.note };
        verify(claim, event, trust, now)
    }

    /// Return the proof of the newest entry as a file for tools of others, with the entry as its extra.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if its proof is not one of a tree of the checkpoint's size.
    pub fn to_proof(&self) -> Result<TlogProof, Malformed> {
        let newest = self.runs.last().ok_or_else(|| Malformed::because("expected an entry, found none"))?;
        proof_of(newest, &self.note)
    }

    /// Check that there are the entries and the snapshots that the answer needs, and no others.
    fn require_versions(&self) -> Result<(), Malformed> {
        let wanted = self.saved.versions();
        let entries: Vec<_> = self.runs.iter().map(|run| run.first).collect();
        if entries != wanted || self.runs.iter().any(|run| run.entries.len() != 1) {
            return Err(Malformed::because(format!("expected entries of versions {wanted:?}, found {entries:?}")));
        }
        // Only the roots of an answer need a snapshot, but where a batch ends, there is one.
        let needs = |run: &&Run| {
            let has_end = run.entries.iter().any(|entry| entry.batch_end.is_some());
            has_end || !matches!(self.saved, Saved::Inclusion { .. })
        };
        let wanted: Vec<_> = self.runs.iter().filter(needs).map(|run| run.first).collect();
        let snapshots: Vec<_> = self.snapshots.iter().map(|snapshot| snapshot.version).collect();
        if snapshots != wanted {
            return Err(Malformed::because(format!("expected snapshots of versions {wanted:?}, found {snapshots:?}")));
        }
        Ok(())
    }
}

fn membership_question(digest: &Digest, version: &str) -> String {
    format!("{{\"KeyDigest\":\"{}\",\"Version\":{version}}}", to_base64(digest.as_bytes()))
}

fn saved(kind: Kind, question: &str, answer: &str) -> Result<Saved, Malformed> {
    let (question, answer) = (question.as_bytes(), answer.as_bytes());
    Ok(match kind {
        Kind::Membership => {
            let MembershipFields { key_digest: Spelt(digest), version } = parse(question, MAX_PROOF_BYTES)?;
            let found = Answer::from_json(answer)?;
            require_exact(answer, &found.to_json(None))?;
            Saved::Membership { digest, version, answer: found }
        }
        Kind::Incremental => {
            let IncrementalFields { start, end } = parse(question, MAX_PROOF_BYTES)?;
            let found = IncrementalProof::from_json(answer)?;
            require_exact(answer, &found.to_json())?;
            Saved::Incremental { start, end, answer: found }
        }
        Kind::Inclusion => {
            let MembershipFields { key_digest: Spelt(digest), version } = parse(question, MAX_PROOF_BYTES)?;
            let version = version.filter(|_| answer == b"null");
            let version = version.ok_or_else(|| Malformed::because("expected a version and no answer"))?;
            Saved::Inclusion { digest, version }
        }
    })
}

/// Refuse fields of an answer that the parser of answers ignores, because servers may send more than they have to.
fn require_exact(found: &[u8], written: &str) -> Result<(), Malformed> {
    let value = |text: &[u8]| {
        serde_json::from_slice::<Value>(text)
            .map_err(|error| Malformed::because(format!("not the expected JSON: {error}")))
    };
    if value(found)? == value(written.as_bytes())? {
        return Ok(());
    }
    Err(Malformed::because("the answer contains fields that are not verified"))
}

#[derive(Deserialize)]
enum FormatName {
    #[serde(rename = "qed-bundle-2")]
    Bundle2,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Membership,
    Incremental,
    Inclusion,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Fields<'a> {
    format: FormatName,
    kind: Kind,
    #[serde(borrow)]
    question: &'a RawValue,
    #[serde(borrow)]
    answer: &'a RawValue,
    snapshots: UpTo<Object<SnapshotFields>, MAX_ENTRIES>,
    entries: UpTo<Object<EntryFields>, MAX_ENTRIES>,
    checkpoint: Spelt<Note>,
    #[serde(default = "no_keys")]
    retired: UpTo<Spelt<VerifierKey>, MAX_RETIRED>,
}

const fn no_keys() -> UpTo<Spelt<VerifierKey>, MAX_RETIRED> {
    UpTo(Vec::new())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct MembershipFields {
    key_digest: Spelt<Digest>,
    #[serde(deserialize_with = "crate::tlog::fields::present")]
    version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct IncrementalFields {
    start: u64,
    end: u64,
}
