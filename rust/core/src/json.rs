//! Snapshots and proofs as JSON (FORMATS.md, "JSON"): base64 for bytes, and a position as the key of each hash.
//!
//! Parsing is strict where a second way to write the same value would let a proof be changed unnoticed: positions must be exactly
//! those of the path, each once, in their only valid spelling; base64 must be padded and canonical; numbers must be integers.

use std::fmt::Write as _;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::hash::{DIGEST_BYTES, Digest};
use crate::position::{HistoryPosition, HyperPosition};
use crate::proof::{
    AbsenceProof, Answer, IncrementalProof, LaterOccurrence, Malformed, MembershipProof, Neighbour, Snapshot,
    hyper_positions, incremental_positions, membership_positions,
};

/// The longest text that is parsed. The longest honest answer, with 256 hyper and 128 history hashes, takes 45 KiB without its `Key`.
/// A server echoes the `Key`, and its length is allowed on top of this.
pub const MAX_PROOF_BYTES: usize = 64 * 1024;

/// Maximum number of hashes in one path: the 256 levels of the hyper tree.
const MAX_PATH_HASHES: usize = 256;

impl Snapshot {
    /// Return the snapshot as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(256);
        self.write_json(&mut out);
        out
    }

    /// Append the snapshot as a JSON object to `out`.
    pub fn write_json(&self, out: &mut String) {
        out.push_str("{\"EventDigest\":");
        put_digest(out, &self.event_digest);
        out.push_str(",\"HistoryDigest\":");
        put_digest(out, &self.history_digest);
        out.push_str(",\"HyperDigest\":");
        put_digest(out, &self.hyper_digest);
        put_version(out, "Version", self.version);
        out.push('}');
    }

    /// Parse a snapshot from a JSON object.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is not a valid snapshot.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let SnapshotText { event_digest, history_digest, hyper_digest, version } = parse(text, 0)?;
        Ok(Self {
            event_digest: event_digest.0,
            history_digest: history_digest.0,
            hyper_digest: hyper_digest.0,
            version,
        })
    }
}

impl Answer {
    /// Return the answer as a JSON object. `key` is the event to echo, if the request contained it.
    #[must_use]
    pub fn to_json(&self, key: Option<&[u8]>) -> String {
        match self {
            Self::Member(proof) => proof.to_json(key),
            Self::Absent(proof) => proof.to_json(key),
        }
    }

    /// Parse an answer from a JSON object: a membership proof if `Exists` is true, otherwise an absence proof.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is not a valid answer. An echoed `Key` must be the event of `KeyDigest`.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let answer: AnswerText = parse(text, key_allowance(text))?;
        if let Some(Bytes(key)) = &answer.key
            && Digest::of_event(key) != answer.key_digest.0
        {
            return Err(Malformed::because("the echoed key is not the event of the key digest"));
        }
        if answer.exists { answer.into_membership().map(Self::Member) } else { answer.into_absence().map(Self::Absent) }
    }
}

impl MembershipProof {
    /// Return the answer as a JSON object. `key` is the event to echo, if the request contained it.
    #[must_use]
    pub fn to_json(&self, key: Option<&[u8]>) -> String {
        let mut out = open_answer(true, &self.key_digest, &self.hyper_path);
        out.push_str(",\"History\":");
        put_path(&mut out, membership_positions(self.actual_version, self.query_version), &self.history_path);
        put_version(&mut out, "CurrentVersion", self.current_version);
        put_version(&mut out, "QueryVersion", self.query_version);
        put_version(&mut out, "ActualVersion", self.actual_version);
        if let Some(later) = &self.later {
            put_version(&mut out, "LatestVersion", later.version);
            out.push_str(",\"LatestHistory\":");
            put_path(&mut out, membership_positions(later.version, self.current_version), &later.history_path);
        }
        close_answer(out, &self.key_digest, key)
    }
}

impl AbsenceProof {
    /// Return the answer as a JSON object. `key` is the event to echo, if the request contained it.
    #[must_use]
    pub fn to_json(&self, key: Option<&[u8]>) -> String {
        let mut out = open_answer(false, &self.key_digest, &self.hyper_path);
        out.push_str(",\"History\":null");
        put_version(&mut out, "CurrentVersion", self.current_version);
        put_version(&mut out, "QueryVersion", self.query_version);
        put_version(&mut out, "ActualVersion", self.query_version);
        if let Some(neighbour) = &self.neighbour {
            out.push_str(",\"Neighbour\":{\"KeyDigest\":");
            put_digest(&mut out, &neighbour.key_digest);
            put_version(&mut out, "Version", neighbour.version);
            out.push_str(",\"History\":");
            let positions = membership_positions(neighbour.version, self.current_version);
            put_path(&mut out, positions, &neighbour.history_path);
            out.push('}');
        }
        close_answer(out, &self.key_digest, key)
    }
}

impl IncrementalProof {
    /// Return the proof as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::with_capacity(4096);
        let _ = write!(out, "{{\"Start\":{},\"End\":{},\"AuditPath\":", self.start, self.end);
        put_path(&mut out, incremental_positions(self.start, self.end), &self.audit_path);
        out.push('}');
        out
    }

    /// Parse a proof from a JSON object.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is not a valid incremental proof.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let IncrementalText { start, end, audit_path } = parse(text, 0)?;
        if start > end {
            return Err(Malformed::because(format!(
                "expected a start that is not after the end, found {start} and {end}"
            )));
        }
        let audit_path = in_order(audit_path, &incremental_positions(start, end), HistoryPosition::parse)?;
        Ok(Self { start, end, audit_path })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapshotText {
    event_digest: DigestText,
    history_digest: DigestText,
    hyper_digest: DigestText,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AnswerText {
    exists: bool,
    hyper: PathText,
    history: Option<PathText>,
    current_version: u64,
    query_version: u64,
    actual_version: u64,
    latest_version: Option<u64>,
    latest_history: Option<PathText>,
    key_digest: DigestText,
    key: Option<Bytes>,
    neighbour: Option<Object<NeighbourText>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NeighbourText {
    key_digest: DigestText,
    version: u64,
    history: PathText,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IncrementalText {
    start: u64,
    end: u64,
    audit_path: PathText,
}

impl AnswerText {
    fn into_membership(self) -> Result<MembershipProof, Malformed> {
        let (Some(history), None) = (self.history, self.neighbour) else {
            return Err(Malformed::because("an event that exists needs a history path and no neighbour"));
        };
        let (actual_version, query_version) = (self.actual_version, self.query_version);
        if self.latest_version == Some(actual_version) {
            return Err(Malformed::because("a latest version that equals the actual version must be left out"));
        }
        let later = match (self.latest_version, self.latest_history) {
            (None, None) => None,
            (Some(version), Some(path)) => {
                Some(LaterOccurrence { version, history_path: history_in_order(path, version, self.current_version)? })
            }
            _ => return Err(Malformed::because("a latest version and its history path must be given together")),
        };
        let proof = MembershipProof {
            key_digest: self.key_digest.0,
            current_version: self.current_version,
            query_version,
            actual_version,
            hyper_path: hyper_in_order(self.hyper, &self.key_digest.0)?,
            history_path: history_in_order(history, actual_version, query_version)?,
            later,
        };
        proof.check_shape()?;
        Ok(proof)
    }

    fn into_absence(self) -> Result<AbsenceProof, Malformed> {
        let has_version = self.latest_version.is_some() || self.actual_version != self.query_version;
        if self.history.is_some() || self.latest_history.is_some() || has_version {
            return Err(Malformed::because(
                "an event that does not exist has no history path and no version of its own",
            ));
        }
        let current_version = self.current_version;
        let neighbour =
            self.neighbour.map(|Object(neighbour)| neighbour.into_neighbour(current_version)).transpose()?;
        let proof = AbsenceProof {
            key_digest: self.key_digest.0,
            current_version,
            query_version: self.query_version,
            hyper_path: hyper_in_order(self.hyper, &self.key_digest.0)?,
            neighbour,
        };
        proof.check_shape()?;
        Ok(proof)
    }
}

impl NeighbourText {
    fn into_neighbour(self, current_version: u64) -> Result<Neighbour, Malformed> {
        let history_path = history_in_order(self.history, self.version, current_version)?;
        Ok(Neighbour { key_digest: self.key_digest.0, version: self.version, history_path })
    }
}

/// A value that must be written as an object: the derived parsers would also accept an array of the field values.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// The hashes of a path with the text of their positions, in the order of the object.
struct PathText(Vec<(String, Digest)>);

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = PathText;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of positions and hashes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PathText, A::Error> {
                let mut path = Vec::with_capacity(48);
                while let Some((position, digest)) = map.next_entry::<String, DigestText>()? {
                    if path.len() == MAX_PATH_HASHES {
                        return Err(A::Error::custom("a path of more than 256 hashes"));
                    }
                    path.push((position, digest.0));
                }
                Ok(PathText(path))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

pub(crate) struct DigestText(pub(crate) Digest);

impl<'de> Deserialize<'de> for DigestText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        let wrong_length =
            || D::Error::custom(format!("expected a digest of {DIGEST_BYTES} bytes, found {}", bytes.len()));
        Digest::from_slice(&bytes).map(Self).ok_or_else(wrong_length)
    }
}

/// Bytes in standard padded base64.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|error| D::Error::custom(format!("bad base64: {error}")))
    }
}

fn parse<'de, T: Deserialize<'de>>(text: &'de [u8], allowance: usize) -> Result<T, Malformed> {
    parse_within(text, MAX_PROOF_BYTES + allowance, MAX_PROOF_BYTES)
}

/// Parse an object of at most `most` bytes; `named` is the limit that a message names.
pub(crate) fn parse_within<'de, T: Deserialize<'de>>(
    text: &'de [u8],
    most: usize,
    named: usize,
) -> Result<T, Malformed> {
    if text.len() > most {
        return Err(Malformed::because(format!("expected at most {named} bytes of JSON, found {}", text.len())));
    }
    let parsed = serde_json::from_slice(text).map(|Object(value)| value);
    parsed.map_err(|error| Malformed::because(format!("not the expected JSON: {error}")))
}

/// Return the length of the echoed `Key`, found without parsing: a long event must not make its answer unreadable.
fn key_allowance(text: &[u8]) -> usize {
    const MARK: &[u8] = b"\"Key\":\"";
    let start = text.windows(MARK.len()).rposition(|window| window == MARK);
    start.and_then(|start| text.get(start + MARK.len()..)?.iter().position(|&byte| byte == b'"')).unwrap_or(0)
}

/// Return the hashes in the order of `positions`. The text must contain exactly these positions, each once, in any order.
fn in_order<P: Copy + Eq>(
    PathText(path): PathText,
    positions: &[P],
    parse: fn(&str) -> Option<P>,
) -> Result<Vec<Digest>, Malformed> {
    if path.len() != positions.len() {
        return Err(Malformed::because(format!("expected a path of {} hashes, found {}", positions.len(), path.len())));
    }
    let parsed: Vec<_> = path.iter().map(|(text, digest)| (parse(text), *digest)).collect();
    // There are as many entries as positions, so if every position is found, no entry is a duplicate or does not belong to the path.
    // Servers write entries in order, so look first where the entry should be.
    let find = |(place, position): (usize, &P)| {
        let is_it = |(found, _): &&(Option<P>, Digest)| *found == Some(*position);
        parsed.get(place).filter(is_it).or_else(|| parsed.iter().find(is_it)).map(|&(_, digest)| digest)
    };
    let missing =
        || Malformed::because("a path lacks one of its positions, or contains one that does not belong to it");
    positions.iter().enumerate().map(|pair| find(pair).ok_or_else(missing)).collect()
}

fn history_in_order(path: PathText, actual: u64, query: u64) -> Result<Vec<Digest>, Malformed> {
    in_order(path, &membership_positions(actual, query), HistoryPosition::parse)
}

fn hyper_in_order(path: PathText, key: &Digest) -> Result<Vec<Digest>, Malformed> {
    let positions: Vec<_> = hyper_positions(key, path.0.len()).collect();
    in_order(path, &positions, HyperPosition::parse)
}

fn open_answer(exists: bool, key_digest: &Digest, hyper_path: &[Digest]) -> String {
    let mut out = String::with_capacity(8192);
    let _ = write!(out, "{{\"Exists\":{exists},\"Hyper\":");
    put_path(&mut out, hyper_positions(key_digest, hyper_path.len()), hyper_path);
    out
}

fn close_answer(mut out: String, key_digest: &Digest, key: Option<&[u8]>) -> String {
    out.push_str(",\"KeyDigest\":");
    put_digest(&mut out, key_digest);
    out.push_str(",\"Key\":");
    match key {
        None => out.push_str("null"),
        Some(key) => put_bytes(&mut out, key),
    }
    out.push('}');
    out
}

fn put_path(out: &mut String, positions: impl IntoIterator<Item = impl std::fmt::Display>, path: &[Digest]) {
    out.push('{');
    for (i, (position, digest)) in positions.into_iter().zip(path).enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(out, "{}\"{position}\":", if i == 0 { "" } else { "," });
        put_digest(out, digest);
    }
    out.push('}');
}

pub(crate) fn put_version(out: &mut String, name: &str, version: u64) {
    let _ = write!(out, ",\"{name}\":{version}");
}

pub(crate) fn put_digest(out: &mut String, digest: &Digest) {
    put_bytes(out, digest.as_bytes());
}

pub(crate) fn put_bytes(out: &mut String, bytes: &[u8]) {
    out.push('"');
    STANDARD.encode_string(bytes, out);
    out.push('"');
}
