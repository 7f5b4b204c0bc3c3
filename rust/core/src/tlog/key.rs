//! The public keys that verify notes, and what each kind of key signs.
//!
//! | kind | used by | signs | signature after the key id |
//! |---|---|---|---|
//! | 01 Ed25519 | logs | the text of the note | 64 bytes |
//! | 04 Ed25519 cosignature | witnesses | `"cosignature/v1" LF "time " time LF` and the text | time in 8 bytes, 64 bytes |
//! | 06 ML-DSA-44 | logs and witnesses | [`checkpoint_message`] | time in 8 bytes, 2,420 bytes |
//!
//! Ed25519 is verified strictly: canonical encodings only, and no point of small order. So what is accepted here, every implementation
//! accepts; some accept more.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ml_dsa::MlDsa44;

use crate::bytes::Reader;
use crate::hash::note_key_id;
use crate::proof::Malformed;
use crate::tlog::checkpoint::{Checkpoint, Claim};
use crate::tlog::text::{MAX_NAME_BYTES, MAX_NUMBER, Name, from_base64, shown, to_base64};
use crate::verify::VerifyError;

/// Length of an Ed25519 public key, and of the seed of any key, in bytes.
pub(super) const KEY_BYTES: usize = 32;
/// Length of an Ed25519 signature, in bytes.
const ED25519_BYTES: usize = 64;
/// Length of an ML-DSA-44 signature, in bytes.
const ML_DSA_44_BYTES: usize = 2420;

/// Length of the longest text of a key: name, id and the base64 of a kind and an ML-DSA-44 key.
const MAX_KEY_TEXT_BYTES: usize = MAX_NAME_BYTES + 1 + 8 + 1 + (1 + 1312_usize).div_ceil(3) * 4;

/// The first four bytes of a hash of a key and its name. It finds a key but proves nothing: colliding ids are easy to make.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 4]);

impl KeyId {
    /// Return the id that `text` spells with eight lower-case hexadecimal digits, or `None`.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let number = u32::from_str_radix(text, 16).ok()?;
        let id = Self(number.to_be_bytes());
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a key signs, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// Ed25519 over the text of a note: the signature of a log.
    Ed25519,
    /// Ed25519 over the text of a note and a time: the cosignature of a witness.
    Cosignature,
    /// ML-DSA-44 over the tree head, the origin, the name of the signer and a time: of a log or a witness.
    MlDsa44,
}

impl KeyKind {
    /// Return the byte that stands for the kind.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
            Self::MlDsa44 => 6,
        }
    }

    /// Return the kind that `byte` stands for, or `None` if it is not supported.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Ed25519),
            4 => Some(Self::Cosignature),
            6 => Some(Self::MlDsa44),
            _ => None,
        }
    }

    /// Return whether signatures of this kind have a time.
    #[must_use]
    pub const fn has_time(self) -> bool {
        !matches!(self, Self::Ed25519)
    }

    /// Return whether a log may sign its checkpoints with a key of this kind.
    #[must_use]
    pub const fn is_for_logs(self) -> bool {
        !matches!(self, Self::Cosignature)
    }
}

/// A public key with its name: a `vkey`, as `name+id+base64(kind ‖ public key)`.
#[derive(Clone)]
pub struct VerifierKey {
    name: Name,
    id: KeyId,
    kind: KeyKind,
    public: Arc<Public>,
}

enum Public {
    Ed25519(ed25519_dalek::VerifyingKey),
    MlDsa44 { key: Box<ml_dsa::VerifyingKey<MlDsa44>>, bytes: Vec<u8> },
}

impl VerifierKey {
    /// Return the key with these bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the length is wrong, or if an Ed25519 key is not the canonical encoding of a point, or a point of small order.
    pub fn new(name: Name, kind: KeyKind, public_key: &[u8]) -> Result<Self, Malformed> {
        let public = match kind {
            KeyKind::Ed25519 | KeyKind::Cosignature => Public::Ed25519(ed25519_key(public_key)?),
            KeyKind::MlDsa44 => {
                let encoded = public_key.try_into().map_err(|_| wrong_length(1312, public_key))?;
                let key = Box::new(ml_dsa::VerifyingKey::decode(&encoded));
                Public::MlDsa44 { key, bytes: public_key.to_vec() }
            }
        };
        let id = KeyId(note_key_id(name.as_str(), kind.byte(), public_key));
        Ok(Self { name, id, kind, public: Arc::new(public) })
    }

    /// Return the name, which for the key of a log is its origin.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Return the id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Return what the key signs.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Return the bytes of the public key: 32, or 1,312 for ML-DSA-44.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &*self.public {
            Public::Ed25519(key) => key.as_bytes(),
            Public::MlDsa44 { bytes, .. } => bytes,
        }
    }

    /// Return the name and the id, for messages: a whole vkey is long, and two of them differ far from their beginning.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{:?}+{}", self.name, self.id)
    }

    /// Check what follows the key id in a signature line over `text`. Returns the time of the signature, if its kind has one.
    ///
    /// 1. The signature has the length and the time of its kind.
    /// 2. It verifies over the message that its kind prescribes.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, text: &str, signature: &[u8]) -> Result<Option<u64>, VerifyError> {
        // 1.
        let (time, signature) = self.split(signature).ok_or_else(|| {
            let expected = format!("one of kind {:02} with a time of at most {MAX_NUMBER}", self.kind.byte());
            self.refuse(&expected, format!("{} bytes", signature.len()))
        })?;
        // 2.
        let is_valid = match &*self.public {
            Public::Ed25519(key) if self.kind.has_time() => {
                verify_ed25519(key, cosigned_text(text, time).as_bytes(), signature)
            }
            Public::Ed25519(key) => verify_ed25519(key, text.as_bytes(), signature),
            Public::MlDsa44 { key, .. } => {
                let message = claim_message(&self.name, time, &Claim::parse(text)?);
                let signature = ml_dsa::Signature::<MlDsa44>::try_from(signature);
                signature.is_ok_and(|signature| key.verify_with_context(&message, &[], &signature))
            }
        };
        if is_valid {
            return Ok(self.kind.has_time().then_some(time));
        }
        let computed = "one over another text, or by another key".into();
        Err(self.refuse("one that the key verifies", computed))
    }

    /// Return the time, which is 0 if the kind has none, and the signature itself; or `None` if the length or the time is wrong.
    fn split<'a>(&self, signature: &'a [u8]) -> Option<(u64, &'a [u8])> {
        Reader::whole(signature, |input| {
            let time = if self.kind.has_time() { input.number().filter(|time| *time <= MAX_NUMBER)? } else { 0 };
            let length = if self.kind == KeyKind::MlDsa44 { ML_DSA_44_BYTES } else { ED25519_BYTES };
            Some((time, input.bytes(length)?))
        })
    }

    fn refuse(&self, expected: &str, computed: String) -> VerifyError {
        let expected = format!("{expected}, by {}", self.shown());
        VerifyError { check: "signature", expected, computed }
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind && self.public_key() == other.public_key()
    }
}

impl Eq for VerifierKey {}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.byte()], self.public_key()].concat();
        write!(f, "{}+{}+{}", self.name, self.id, to_base64(key))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({:?}+{} {:?})", self.name, self.id, self.kind)
    }
}

impl FromStr for VerifierKey {
    type Err = Malformed;

    /// Return the key that `text` spells.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is not a vkey, its id is that of another key, its kind is not supported, or the key itself is refused.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (name, id, kind, key) = split_key(text)?;
        let key = Self::new(name, kind, &key)?;
        if key.id != id {
            return Err(Malformed::because(format!(
                "expected {} as the id of the key {:?}, found {id}",
                key.id, key.name
            )));
        }
        Ok(key)
    }
}

/// Return the parts of `name+id+base64(kind ‖ key)`. The base64 may have more `+`.
pub(super) fn split_key(text: &str) -> Result<(Name, KeyId, KeyKind, Vec<u8>), Malformed> {
    if text.len() > MAX_KEY_TEXT_BYTES {
        let found = text.len();
        return Err(Malformed::because(format!("expected a key of at most {MAX_KEY_TEXT_BYTES} bytes, found {found}")));
    }
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Malformed::because(format!(
            "expected a key as name+id+base64, found {} parts",
            text.split('+').count()
        )));
    };
    let name = Name::parse(name)?;
    let id = KeyId::from_hex(id)
        .ok_or_else(|| Malformed::because(format!("expected 8 lower-case hexadecimal digits, found {}", shown(id))))?;
    let key = from_base64(key).map_err(|_| Malformed::because(format!("expected base64 after {name:?}+{id}+")))?;
    let Some((kind, key)) = key.split_first() else {
        return Err(Malformed::because(format!("expected a key after {name:?}+{id}+, found nothing")));
    };
    let unknown =
        || Malformed::because(format!("expected a key of kind 01, 04 or 06, found {kind:02x} in {name:?}+{id}"));
    let kind = KeyKind::from_byte(*kind).ok_or_else(unknown)?;
    Ok((name, id, kind, key.to_vec()))
}

/// Return the key, if its encoding is canonical and its point is not of small order.
fn ed25519_key(bytes: &[u8]) -> Result<ed25519_dalek::VerifyingKey, Malformed> {
    let bytes = <&[u8; KEY_BYTES]>::try_from(bytes).map_err(|_| wrong_length(KEY_BYTES, bytes))?;
    // The library accepts a second encoding of some points, so the point is encoded again.
    let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).ok();
    key.filter(|key| key.to_edwards().compress().as_bytes() == bytes && !key.is_weak()).ok_or_else(|| {
        Malformed::because("expected an Ed25519 key, found bytes that do not canonically encode a point of large order")
    })
}

pub(super) fn wrong_length(expected: usize, found: &[u8]) -> Malformed {
    Malformed::because(format!("expected a key of {expected} bytes, found {}", found.len()))
}

fn verify_ed25519(key: &ed25519_dalek::VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    let signature = ed25519_dalek::Signature::from_slice(signature);
    signature.is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
}

/// Return what a key of kind 04 signs: the time, then the whole text of the note with its extension lines (C2SP cosignature/v1).
pub(super) fn cosigned_text(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Return what a key of kind 06 signs: C2SP subtree/v1 for the whole tree, with an empty context.
///
/// It has the name of the signer, the time, the origin, and the size and root; extension lines are not part of it.
#[must_use]
pub fn checkpoint_message(signer: &Name, time: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    claim_message(signer, time, &Claim::from(checkpoint))
}

fn claim_message(signer: &Name, time: u64, claim: &Claim) -> Vec<u8> {
    let mut message = b"subtree/v1\n\0".to_vec();
    put_name(&mut message, signer);
    message.extend(time.to_be_bytes());
    put_name(&mut message, &claim.origin);
    message.extend(0_u64.to_be_bytes());
    message.extend(claim.size.to_be_bytes());
    message.extend(claim.root.as_bytes());
    message
}

/// Write the length of a name, which is at most 255, and the name.
fn put_name(message: &mut Vec<u8>, name: &Name) {
    #[expect(clippy::expect_used, reason = "Name::parse refuses longer names")]
    message.push(u8::try_from(name.as_str().len()).expect("a name has at most 255 bytes"));
    message.extend(name.as_str().as_bytes());
}
