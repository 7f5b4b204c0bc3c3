//! What the tests share: the vectors, and the tree of RFC 6962 as its definition says, one call a line.

use std::collections::HashMap;
use std::sync::LazyLock;

use qed_core::hash::{Digest, merkle_empty, merkle_inner, merkle_leaf};
use qed_core::proof::Malformed;
use qed_core::tlog::checkpoint::Checkpoint;
use qed_core::tlog::key::{KeyKind, VerifierKey};
use qed_core::tlog::merkle::Subtrees;
use qed_core::tlog::note::{Line, Note, VerifiedNote};
use qed_core::tlog::signing::SigningKey;
use qed_core::tlog::text::{Name, digest_from_base64, from_base64, to_base64};
use qed_core::tlog::tile::{Content, TilePath, Tiles, rows_of, tile_from_bytes, tile_to_bytes};
use qed_core::verify::VerifyError;
use serde_json::Value;

pub static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../tests/vectors/trust.json")).unwrap());

/// Return the string at a JSON pointer of the vectors.
pub fn text(pointer: &str) -> &'static str {
    VECTORS.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}"))
}

pub fn strings(value: &'static Value) -> Vec<&'static str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

pub fn hashes(value: &'static Value) -> Vec<Digest> {
    strings(value).into_iter().map(digest_of).collect()
}

/// Return a digest in hexadecimal or base64, whichever the vector has.
pub fn digest_of(text: &str) -> Digest {
    Digest::from_hex(text).unwrap_or_else(|| digest_from_base64(text).unwrap())
}

pub fn bytes_of_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

pub fn vkey(pointer: &str) -> VerifierKey {
    text(pointer).parse().unwrap()
}

pub fn signing_key(name: &str, kind: KeyKind, seed: &str) -> SigningKey {
    SigningKey::from_seed(Name::parse(name).unwrap(), kind, digest_of(seed).as_bytes()).unwrap()
}

pub fn log_key() -> SigningKey {
    signing_key(text("/own/origin"), KeyKind::Ed25519, text("/own/log/seed"))
}

pub fn ml_dsa_key() -> SigningKey {
    signing_key(text("/own/origin"), KeyKind::MlDsa44, text("/own/mldsa/seed"))
}

pub fn witness_key() -> SigningKey {
    signing_key(text("/own/witness/name"), KeyKind::Cosignature, text("/own/witness/seed"))
}

/// The recorded checkpoint of five entries, signed by its log.
pub fn honest() -> &'static str {
    text("/own/checkpoints/5/note")
}

/// The text of [`honest`].
pub fn body() -> String {
    let (body, _) = honest().split_once("\n\n").unwrap();
    format!("{body}\n")
}

pub fn checkpoint() -> Checkpoint {
    Checkpoint::parse(&body()).unwrap()
}

/// Parse a note and verify it with the keys of the log and its witness.
pub fn verify(note: &str) -> Result<VerifiedNote, VerifyError> {
    Note::parse(note.as_bytes())?.verify(&[log_key().verifier().clone(), witness_key().verifier().clone()])
}

/// Sign the text of a checkpoint.
pub fn sign(key: &SigningKey, text: &str, time: u64) -> Line {
    key.sign(&Checkpoint::parse(text).unwrap(), time).unwrap()
}

/// Sign any text with an Ed25519 key, as [`SigningKey::sign`] refuses to.
pub fn sign_anything(key: &SigningKey, text: &str, time: u64) -> Line {
    let secret = key.to_secret_text();
    let seed = from_base64(secret.splitn(5, '+').nth(4).unwrap()).unwrap();
    let secret = ed25519_dalek::SigningKey::from_bytes(seed[1..].try_into().unwrap());
    let (message, time) = match key.verifier().kind() {
        KeyKind::Cosignature => (format!("cosignature/v1\ntime {time}\n{text}"), time.to_be_bytes().to_vec()),
        _ => (text.to_owned(), Vec::new()),
    };
    let signature = ed25519_dalek::Signer::sign(&secret, message.as_bytes()).to_bytes();
    let bytes = [&key.verifier().id().0, time.as_slice(), &signature].concat();
    Line::parse(&format!("— {} {}", key.verifier().name(), to_base64(bytes))).unwrap()
}

/// Return a line under a name and id with any bytes behind the id.
pub fn line(name: &str, id: [u8; 4], signature: &[u8]) -> String {
    format!("— {name} {}\n", to_base64([id.as_slice(), signature].concat()))
}

pub fn assert_malformed(note: &str) {
    assert!(Note::parse(note.as_bytes()).is_err(), "{note:?}");
}

/// The time of all signatures of the vectors that have one.
pub const TIME: u64 = 1_767_225_600;

/// The leaves of a tree. Every hash is computed from the definition, each time.
pub struct Leaves(pub Vec<Digest>);

impl Leaves {
    pub fn numbered(count: u64) -> Self {
        Self((0..count).map(|i| merkle_leaf(&i.to_be_bytes())).collect())
    }

    /// `MTH(D[low:high])` of RFC 6962, section 2.1.
    pub fn root(&self, low: usize, high: usize) -> Digest {
        match high - low {
            0 => merkle_empty(),
            1 => self.0[low],
            _ => {
                let middle = low + split(high - low);
                merkle_inner(&self.root(low, middle), &self.root(middle, high))
            }
        }
    }

    /// `PATH(m, D[low:high])` of section 2.1.1.
    pub fn path(&self, m: usize, low: usize, high: usize) -> Vec<Digest> {
        if high - low == 1 {
            return Vec::new();
        }
        let middle = low + split(high - low);
        let (mut path, sibling) = if m < middle {
            (self.path(m, low, middle), self.root(middle, high))
        } else {
            (self.path(m, middle, high), self.root(low, middle))
        };
        path.push(sibling);
        path
    }

    /// `SUBPROOF(m, D[low:high], b)` of section 2.1.2, where `m` is counted from 0 and not from `low`.
    pub fn subproof(&self, m: usize, low: usize, high: usize, is_known: bool) -> Vec<Digest> {
        if m == high {
            return if is_known { Vec::new() } else { vec![self.root(low, high)] };
        }
        let middle = low + split(high - low);
        let (mut proof, sibling) = if m <= middle {
            (self.subproof(m, low, middle, is_known), self.root(middle, high))
        } else {
            (self.subproof(m, middle, high, false), self.root(low, middle))
        };
        proof.push(sibling);
        proof
    }

    /// The walk of a range proof over the tree, left first.
    pub fn range(&self, first: usize, end: usize, low: usize, high: usize) -> Vec<Digest> {
        if high <= first || end <= low {
            return vec![self.root(low, high)];
        }
        if high - low == 1 {
            return Vec::new();
        }
        let middle = low + split(high - low);
        [self.range(first, end, low, middle), self.range(first, end, middle, high)].concat()
    }

    /// The files of all tiles of the tree with these leaves.
    pub fn tiles(&self) -> Files {
        let mut files = HashMap::new();
        for row in rows_of(self.0.len() as u64) {
            let span = 256_usize.pow(u32::from(row.level()));
            for path in row.tiles_from(0) {
                let start = usize::try_from(path.index()).unwrap() * 256;
                let hashes: Vec<_> =
                    (start..start + usize::from(path.width())).map(|i| self.root(i * span, (i + 1) * span)).collect();
                files.insert(path.to_string(), tile_to_bytes(&hashes));
            }
        }
        Files(files)
    }
}

/// The largest power of two below `count`.
fn split(count: usize) -> usize {
    let mut power = 1;
    while power * 2 < count {
        power *= 2;
    }
    power
}

impl Subtrees for Leaves {
    type Error = Malformed;

    fn subtree(&self, level: u32, index: u64) -> Result<Digest, Malformed> {
        let (low, span) = (usize::try_from(index << level).unwrap(), 1 << level);
        assert!(low + span <= self.0.len(), "asked for a subtree that is not complete");
        Ok(self.root(low, low + span))
    }
}

/// Tiles by their paths.
pub struct Files(pub HashMap<String, Vec<u8>>);

impl Tiles for Files {
    type Error = Malformed;

    /// Look for the full tile first, then for the partial one of any width.
    fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<Digest>, Malformed> {
        (width..=256)
            .rev()
            .find_map(|width| {
                let path = TilePath::new(Content::Hashes(level), index, width).unwrap().to_string();
                self.0.get(&path).map(|bytes| tile_from_bytes(bytes, width))
            })
            .unwrap_or_else(|| Err(Malformed(format!("no tile {index} of level {level}"))))
    }
}
