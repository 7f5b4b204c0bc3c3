//! [Evidence](crate::tlog::evidence) as a file, that anybody can check without a server.
//!
//! ```text
//! {"Format": "qed-fork-1", "Kind": "same-size", "same-index", "invalid-entry" or "suspicion", "Origin": name, "Vkeys": [vkey, …],
//!  "Index": n, "A": side, "B": side, "Replay": [from, to], "Expected": {"HistoryDigest", "HyperDigest"},
//!  "Consistency": [b64, …], "FoundAt": seconds, "Sources": [text, …]}
//! side = {"Checkpoint": "note", "LeafHash": b64 or "Entry": b64, "Proof": [b64, …]}
//! ```
//!
//! Which fields there are depends on the kind, see [`Charge`]. `FoundAt` and `Sources` may be left out; nothing verifies them.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use crate::hash::Digest;
use crate::json::Object;
use crate::proof::Malformed;
use crate::tlog::entry::BatchEnd;
use crate::tlog::evidence::{Charge, Evidence, Leaf, ProvenLeaf, Replay};
use crate::tlog::fields::{Spelling, Spelt, UpTo, parse, put_list, put_note, values};
use crate::tlog::key::VerifierKey;
use crate::tlog::merkle::{MAX_CONSISTENCY_HASHES, MAX_PATH_HASHES};
use crate::tlog::note::{MAX_NOTE_BYTES, Note};
use crate::tlog::text::{MAX_NUMBER, Name, from_base64, to_base64};
use crate::tlog::tile::MAX_ENTRY_BYTES;

/// The longest file that is read, in bytes: two notes in JSON, an entry and some proofs.
pub const MAX_EVIDENCE_BYTES: usize = 4 * MAX_NOTE_BYTES + 512 * 1024;

/// Maximum number of keys that a file names.
const MAX_KEYS: usize = 16;

/// Maximum number of places where the checkpoints were found.
const MAX_SOURCES: usize = 16;

/// Maximum length of the name of such a place, in bytes.
const MAX_SOURCE_BYTES: usize = 2048;

impl Evidence {
    /// Return the evidence in a JSON object.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is anything else, has fields that its kind does not have or repeats one, or is beyond a limit.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let fields: Fields = parse(text, MAX_EVIDENCE_BYTES)?;
        fields.into_evidence()
    }

    /// Return the evidence as a JSON object on one line, without a line feed.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        let (kind, origin) = (self.charge.kind(), quoted(self.origin.as_str()));
        let _ = write!(out, "{{\"Format\":\"qed-fork-1\",\"Kind\":\"{kind}\",\"Origin\":{origin},\"Vkeys\":");
        put_list(&mut out, self.vkeys.iter().map(ToString::to_string));
        if let Some(index) = self.charge.index() {
            let _ = write!(out, ",\"Index\":{index}");
        }
        match &self.charge {
            Charge::SameSize { a, b } => put_notes(&mut out, a, b),
            Charge::SameIndex { a, b, .. } => {
                put_leaf(&mut out, "A", a);
                put_leaf(&mut out, "B", b);
            }
            Charge::InvalidEntry { a, replay, .. } => {
                put_leaf(&mut out, "A", a);
                if let Some(replay) = replay {
                    put_replay(&mut out, replay);
                }
            }
            Charge::Suspicion { a, b, consistency } => {
                put_notes(&mut out, a, b);
                if let Some(hashes) = consistency {
                    out.push_str(",\"Consistency\":");
                    put_hashes(&mut out, hashes);
                }
            }
        }
        if let Some(found_at) = self.found_at {
            let _ = write!(out, ",\"FoundAt\":{found_at}");
        }
        if !self.sources.is_empty() {
            let sources: Vec<_> = self.sources.iter().map(|source| quoted(source)).collect();
            let _ = write!(out, ",\"Sources\":[{}]", sources.join(","));
        }
        out.push('}');
        out
    }
}

#[derive(Deserialize)]
enum FormatName {
    #[serde(rename = "qed-fork-1")]
    Fork1,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    SameSize,
    SameIndex,
    InvalidEntry,
    Suspicion,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Fields {
    format: FormatName,
    kind: Kind,
    origin: Spelt<Name>,
    vkeys: UpTo<Spelt<VerifierKey>, MAX_KEYS>,
    index: Option<u64>,
    a: Object<SideFields>,
    b: Option<Object<SideFields>>,
    replay: Option<(u64, u64)>,
    expected: Option<Object<RootFields>>,
    consistency: Option<UpTo<Spelt<Digest>, MAX_CONSISTENCY_HASHES>>,
    found_at: Option<u64>,
    #[serde(default = "no_sources")]
    sources: UpTo<Spelt<Source>, MAX_SOURCES>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SideFields {
    checkpoint: Spelt<Note>,
    leaf_hash: Option<Spelt<Digest>>,
    entry: Option<Spelt<EntryBytes>>,
    proof: Option<UpTo<Spelt<Digest>, MAX_PATH_HASHES>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RootFields {
    history_digest: Spelt<Digest>,
    hyper_digest: Spelt<Digest>,
}

const fn no_sources() -> UpTo<Spelt<Source>, MAX_SOURCES> {
    UpTo(Vec::new())
}

impl Fields {
    fn into_evidence(self) -> Result<Evidence, Malformed> {
        let FormatName::Fork1 = self.format;
        self.require_fields()?;
        let (kind, index, consistency) = (self.kind, self.index, self.consistency.map(values));
        let replay = self.replay.map(|(from, to)| {
            let expected = self.expected.map(|Object(roots)| BatchEnd {
                history_digest: roots.history_digest.0,
                hyper_digest: roots.hyper_digest.0,
            });
            Replay { from, to, expected }
        });
        let (Object(a), b) = (self.a, self.b.map(|Object(side)| side));
        let charge = match (kind, index, b) {
            (Kind::SameSize, None, Some(b)) => Charge::SameSize { a: a.into_note()?, b: b.into_note()? },
            (Kind::Suspicion, None, Some(b)) => Charge::Suspicion { a: a.into_note()?, b: b.into_note()?, consistency },
            (Kind::SameIndex, Some(index), Some(b)) => {
                Charge::SameIndex { index, a: a.into_leaf()?, b: b.into_leaf()? }
            }
            (Kind::InvalidEntry, Some(index), None) => Charge::InvalidEntry { index, a: a.into_leaf()?, replay },
            _ => return Err(wrong_fields()),
        };
        let vkeys = values(self.vkeys);
        let sources = values(self.sources).into_iter().map(|Source(text)| text).collect();
        Ok(Evidence { origin: self.origin.0, vkeys, charge, found_at: self.found_at, sources })
    }

    /// Refuse fields that a kind does not have: a reader of the file would believe that they were checked.
    fn require_fields(&self) -> Result<(), Malformed> {
        let numbers = [self.index, self.found_at].into_iter().flatten();
        let ends = self.replay.into_iter().flat_map(|(from, to)| [from, to]);
        let has_replay = self.replay.is_some();
        let is_of_batch =
            self.replay.is_none_or(|(from, to)| self.index.is_some_and(|index| (from..=to).contains(&index)));
        let fits = (!has_replay || self.kind == Kind::InvalidEntry)
            && (self.expected.is_none() || has_replay)
            && (self.consistency.is_none() || self.kind == Kind::Suspicion)
            && numbers.chain(ends).all(|number| number <= MAX_NUMBER);
        if fits && is_of_batch && !self.vkeys.0.is_empty() { Ok(()) } else { Err(wrong_fields()) }
    }
}

impl SideFields {
    fn into_note(self) -> Result<Note, Malformed> {
        match self {
            Self { checkpoint: Spelt(note), leaf_hash: None, entry: None, proof: None } => Ok(note),
            _ => Err(wrong_fields()),
        }
    }

    fn into_leaf(self) -> Result<ProvenLeaf, Malformed> {
        let leaf = match (self.leaf_hash, self.entry) {
            (Some(Spelt(hash)), None) => Leaf::Hash(hash),
            (None, Some(Spelt(EntryBytes(entry)))) => Leaf::Entry(entry),
            _ => return Err(wrong_fields()),
        };
        let proof = values(self.proof.ok_or_else(wrong_fields)?);
        Ok(ProvenLeaf { note: self.checkpoint.0, leaf, proof })
    }
}

fn wrong_fields() -> Malformed {
    Malformed::because("expected evidence with the fields of its kind, found others")
}

/// Where something was found.
struct Source(String);

impl Spelling for Source {
    const EXPECTED: &'static str = "a source as text";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_SOURCE_BYTES {
            let found = text.len();
            return Err(Malformed::because(format!(
                "expected a source of at most {MAX_SOURCE_BYTES} bytes, found {found}"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// An entry that need not be one of a qed log.
struct EntryBytes(Vec<u8>);

impl Spelling for EntryBytes {
    const EXPECTED: &'static str = "an entry in base64";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        // The length is compared first, so that long text is not decoded. The limit is a multiple of three, so that this is exact.
        if text.len() > MAX_ENTRY_BYTES / 3 * 4 {
            return Err(Malformed::because(format!(
                "expected an entry of at most {MAX_ENTRY_BYTES} bytes, found more"
            )));
        }
        from_base64(text).map(Self)
    }
}

impl Spelling for Name {
    const EXPECTED: &'static str = "the name of a log";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        Self::parse(text)
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn put_notes(out: &mut String, a: &Note, b: &Note) {
    for (name, note) in [("A", a), ("B", b)] {
        let _ = write!(out, ",\"{name}\":{{\"Checkpoint\":");
        put_note(out, note);
        out.push('}');
    }
}

fn put_leaf(out: &mut String, name: &str, side: &ProvenLeaf) {
    let _ = write!(out, ",\"{name}\":{{\"Checkpoint\":");
    put_note(out, &side.note);
    let _ = match &side.leaf {
        Leaf::Hash(hash) => write!(out, ",\"LeafHash\":\"{}\"", to_base64(hash.as_bytes())),
        Leaf::Entry(entry) => write!(out, ",\"Entry\":\"{}\"", to_base64(entry)),
    };
    out.push_str(",\"Proof\":");
    put_hashes(out, &side.proof);
    out.push('}');
}

fn put_replay(out: &mut String, replay: &Replay) {
    let _ = write!(out, ",\"Replay\":[{},{}]", replay.from, replay.to);
    if let Some(BatchEnd { history_digest, hyper_digest }) = &replay.expected {
        let (history, hyper) = (to_base64(history_digest.as_bytes()), to_base64(hyper_digest.as_bytes()));
        let _ = write!(out, ",\"Expected\":{{\"HistoryDigest\":\"{history}\",\"HyperDigest\":\"{hyper}\"}}");
    }
}

fn put_hashes(out: &mut String, hashes: &[Digest]) {
    put_list(out, hashes.iter().map(|hash| to_base64(hash.as_bytes())));
}
