//! Bulk proofs as JSON and in their compact form (FORMATS.md, "JSON" and "Compact proofs").
//!
//! Neither has the keys or any position: the hashes are one string of bytes.

use std::fmt::Write as _;

use serde::Deserialize;

use crate::bulk_proof::{BulkProof, End, KeyEnd, MAX_BULK_KEYS, MAX_HISTORY_HASHES, MAX_HYPER_SIBLINGS};
use crate::compact::{Input, KIND_BULK, header, put_digests};
use crate::hash::{DIGEST_BYTES, Digest};
use crate::json::{Bytes, DigestText, Object, parse_within, put_bytes, put_digest, put_version};
use crate::proof::Malformed;

/// The longest text or form that is read. A log of 2^32 events, of which half are new to the caller, takes less than half of it.
pub const MAX_BULK_PROOF_BYTES: usize = 4 << 20;

/// Most levels of a path that are written into the byte with the kind of its end; another byte has the rest.
const SHORT_LEVELS: u16 = 0x3f;

const KIND_EMPTY: u8 = 0;
const KIND_PRESENT: u8 = 1;
const KIND_NEIGHBOUR: u8 = 2;

impl BulkProof {
    /// Return the proof as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let hashes = self.hyper.len() + self.history.len();
        let mut out = String::with_capacity(64 * self.ends.len() + hashes * DIGEST_BYTES * 4 / 3 + 64);
        let _ = write!(out, "{{\"CurrentVersion\":{},\"Ends\":[", self.current_version);
        for (number, end) in self.ends.iter().enumerate() {
            out.push_str(if number == 0 { "" } else { "," });
            put_end(&mut out, end);
        }
        out.push_str("],\"Hyper\":");
        let (mut hyper, mut history) = (Vec::new(), Vec::new());
        put_siblings(&mut hyper, &self.hyper);
        put_bytes(&mut out, &hyper);
        out.push_str(",\"History\":");
        put_digests(&mut history, &self.history);
        put_bytes(&mut out, &history);
        out.push('}');
        out
    }

    /// Parse a proof from a JSON object.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is not a valid bulk proof of any keys.
    pub fn from_json(text: &[u8]) -> Result<Self, Malformed> {
        let BulkText { current_version, ends, hyper: Bytes(hyper), history: Bytes(history) } =
            parse_within(text, MAX_BULK_PROOF_BYTES, MAX_BULK_PROOF_BYTES)?;
        if ends.len() > MAX_BULK_KEYS {
            let found = ends.len();
            return Err(Malformed::because(format!(
                "expected the ends of at most {MAX_BULK_KEYS} paths, found {found}"
            )));
        }
        let mut input = Input::of(&hyper);
        let siblings = siblings_in(&mut input)?;
        input.finish()?;
        let ends = ends.into_iter().map(|Object(end)| end.into_end()).collect::<Result<_, _>>()?;
        let (history, rest) = history.as_chunks();
        if !rest.is_empty() {
            return Err(Malformed::because("expected whole hashes in the history path"));
        }
        let history = history.iter().copied().map(Digest::new).collect();
        let proof = Self { current_version, ends, hyper: siblings, history };
        proof.check_shape()?;
        Ok(proof)
    }

    /// Return the compact form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = header(KIND_BULK);
        out.extend(self.current_version.to_be_bytes());
        out.extend(length(self.ends.len()).to_be_bytes());
        for end in &self.ends {
            put_compact_end(&mut out, end, version_bytes(self.current_version));
        }
        put_siblings(&mut out, &self.hyper);
        out.extend(length(self.history.len()).to_be_bytes());
        put_digests(&mut out, &self.history);
        out
    }

    /// Return the proof in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `bytes` are exactly what [`Self::to_bytes`] returns.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_BULK_PROOF_BYTES {
            let found = bytes.len();
            return Err(Malformed::because(format!("expected at most {MAX_BULK_PROOF_BYTES} bytes, found {found}")));
        }
        let mut input = Input::of_kind(bytes, KIND_BULK)?;
        let current_version = input.version()?;
        let keys = count(&mut input, MAX_BULK_KEYS)?;
        let ends = (0..keys).map(|_| end_in(&mut input, version_bytes(current_version))).collect::<Result<_, _>>()?;
        let hyper = siblings_in(&mut input)?;
        let hashes = count(&mut input, MAX_HISTORY_HASHES)?;
        let history = input.digests(hashes)?;
        input.finish()?;
        let proof = Self { current_version, ends, hyper, history };
        proof.check_shape()?;
        Ok(proof)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BulkText {
    current_version: u64,
    ends: Vec<Object<EndText>>,
    hyper: Bytes,
    history: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndText {
    exists: bool,
    depth: u16,
    version: Option<u64>,
    neighbour: Option<Object<NeighbourText>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NeighbourText {
    key_digest: DigestText,
    version: u64,
}

impl EndText {
    fn into_end(self) -> Result<KeyEnd, Malformed> {
        let end = match (self.exists, self.version, self.neighbour) {
            (true, Some(version), None) => End::Present { version },
            (false, None, None) => End::Empty,
            (false, None, Some(Object(NeighbourText { key_digest: DigestText(key_digest), version }))) => {
                End::Neighbour { key_digest, version }
            }
            _ => {
                return Err(Malformed::because(
                    "only an event that exists has a version, and only another a neighbour",
                ));
            }
        };
        Ok(KeyEnd { depth: self.depth, end })
    }
}

fn put_end(out: &mut String, KeyEnd { depth, end }: &KeyEnd) {
    let exists = matches!(end, End::Present { .. });
    let _ = write!(out, "{{\"Exists\":{exists},\"Depth\":{depth}");
    match end {
        End::Empty => {}
        End::Present { version } => put_version(out, "Version", *version),
        End::Neighbour { key_digest, version } => {
            out.push_str(",\"Neighbour\":{\"KeyDigest\":");
            put_digest(out, key_digest);
            put_version(out, "Version", *version);
            out.push('}');
        }
    }
    out.push('}');
}

/// Return how many bytes a version takes that is at most `current`: 1 to 8.
const fn version_bytes(current: u64) -> usize {
    let zeros = current.leading_zeros() as usize / 8;
    if zeros == 8 { 1 } else { 8 - zeros }
}

fn put_compact_end(out: &mut Vec<u8>, KeyEnd { depth, end }: &KeyEnd, version_bytes: usize) {
    let kind = match end {
        End::Empty => KIND_EMPTY,
        End::Present { .. } => KIND_PRESENT,
        End::Neighbour { .. } => KIND_NEIGHBOUR,
    };
    let levels = depth.saturating_sub(1);
    let [_, short] = levels.min(SHORT_LEVELS).to_be_bytes();
    out.push(kind << 6 | short);
    if levels >= SHORT_LEVELS {
        let [_, rest] = (levels - SHORT_LEVELS).to_be_bytes();
        out.push(rest);
    }
    if let Some(version) = end.version() {
        out.extend(version.to_be_bytes().iter().skip(8 - version_bytes));
    }
    if let End::Neighbour { key_digest, .. } = end {
        out.extend(key_digest.as_bytes());
    }
}

fn end_in(input: &mut Input<'_>, version_bytes: usize) -> Result<KeyEnd, Malformed> {
    let first = input.byte()?;
    let (kind, mut levels) = (first >> 6, u16::from(first) & SHORT_LEVELS);
    if levels == SHORT_LEVELS {
        levels += u16::from(input.byte()?);
    }
    let mut version = || {
        let bytes = input.take(version_bytes)?;
        Ok::<_, Malformed>(bytes.iter().fold(0, |version, byte| version << 8 | u64::from(*byte)))
    };
    let end = match kind {
        KIND_EMPTY => End::Empty,
        KIND_PRESENT => End::Present { version: version()? },
        KIND_NEIGHBOUR => {
            let version = version()?;
            End::Neighbour { key_digest: input.digest()?, version }
        }
        other => return Err(Malformed::because(format!("expected the end of a path of kind 0 to 2, found {other}"))),
    };
    Ok(KeyEnd { depth: levels + 1, end })
}

/// Write the number of siblings, then one bit for each, set if it is not an empty subtree, then the hashes whose bit is set.
fn put_siblings(out: &mut Vec<u8>, siblings: &[Option<Digest>]) {
    out.extend(length(siblings.len()).to_be_bytes());
    for eight in siblings.chunks(8) {
        let bits = eight.iter().enumerate();
        out.push(bits.fold(0, |byte, (i, sibling)| byte | u8::from(sibling.is_some()) << (7 - i)));
    }
    for sibling in siblings.iter().flatten() {
        out.extend(sibling.as_bytes());
    }
}

/// Read siblings. Whether one that is written out is an empty subtree depends on its depth, so verification refuses that.
fn siblings_in(input: &mut Input<'_>) -> Result<Vec<Option<Digest>>, Malformed> {
    let length = count(input, MAX_HYPER_SIBLINGS)?;
    let bits = input.take(length.div_ceil(8))?;
    let is_set = |i: usize| bits.get(i / 8).is_some_and(|byte| byte & (0x80 >> (i % 8)) != 0);
    if (length..length.next_multiple_of(8)).any(is_set) {
        return Err(Malformed::because("a hash is marked beyond the end of the hyper path"));
    }
    (0..length).map(|i| is_set(i).then(|| input.digest()).transpose()).collect()
}

fn count(input: &mut Input<'_>, most: usize) -> Result<usize, Malformed> {
    let found = u32::from_be_bytes(input.array()?);
    let fits = usize::try_from(found).ok().filter(|count| *count <= most);
    fits.ok_or_else(|| Malformed::because(format!("expected at most {most} items, found {found}")))
}

#[expect(clippy::expect_used, reason = "`check_shape` allows at most 256,000 items, and no log creates more")]
fn length(count: usize) -> u32 {
    u32::try_from(count).expect("a bulk proof has at most 256,000 items")
}
