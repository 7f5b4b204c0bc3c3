//! The fields of JSON files that hold signed claims.
//!
//! Every struct refuses unknown and repeated fields: what a person reads in a file must be covered by a check. The length of a list or
//! text is limited before it is decoded.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::hash::Digest;
use crate::json::Object;
use crate::proof::{Malformed, Snapshot};
use crate::tlog::entry::{Entry, LAST_ENTRY_BYTES};
use crate::tlog::key::VerifierKey;
use crate::tlog::note::Note;
use crate::tlog::text::{digest_from_base64, from_base64, json_error};

/// Return the value that the JSON object in `text` spells.
///
/// # Errors
///
/// [`Malformed`] if the text has more than `limit` bytes, or is anything else.
pub(super) fn parse<'de, T: Deserialize<'de>>(text: &'de [u8], limit: usize) -> Result<T, Malformed> {
    if text.len() > limit {
        return Err(Malformed::because(format!("expected at most {limit} bytes of JSON, found {}", text.len())));
    }
    let parsed = serde_json::from_slice(text).map(|Object(value)| value);
    parsed.map_err(|error| Malformed::because(format!("not the expected JSON: {}", json_error(&error))))
}

/// What a JSON string can spell.
pub(super) trait Spelling: Sized {
    /// What the string should be, for an error message.
    const EXPECTED: &'static str;

    /// Return the value that `text` spells.
    fn from_text(text: &str) -> Result<Self, Malformed>;
}

/// A value that is written as a string.
pub(super) struct Spelt<T>(pub(super) T);

impl<'de, T: Spelling> Deserialize<'de> for Spelt<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);
        impl<T: Spelling> Visitor<'_> for Text<T> {
            type Value = Spelt<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Spelt<T>, E> {
                T::from_text(text).map(Spelt).map_err(|Malformed(reason)| E::custom(reason))
            }
        }
        deserializer.deserialize_str(Text(PhantomData))
    }
}

impl Spelling for Digest {
    const EXPECTED: &'static str = "a digest in base64";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        digest_from_base64(text)
    }
}

impl Spelling for Entry {
    const EXPECTED: &'static str = "an entry in base64";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        // The length is compared first, so that long text is not decoded.
        if text.len() > LAST_ENTRY_BYTES.div_ceil(3) * 4 {
            let found = text.len();
            return Err(Malformed::because(format!(
                "expected an entry of at most {LAST_ENTRY_BYTES} bytes, found {found} of base64"
            )));
        }
        Self::from_bytes(&from_base64(text)?)
    }
}

impl Spelling for Note {
    const EXPECTED: &'static str = "a signed checkpoint";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        Self::parse(text.as_bytes())
    }
}

impl Spelling for VerifierKey {
    const EXPECTED: &'static str = "a public key as name+id+base64";

    fn from_text(text: &str) -> Result<Self, Malformed> {
        text.parse()
    }
}

/// A list of at most `N` values.
pub(super) struct UpTo<T, const N: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for UpTo<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = UpTo<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<UpTo<T, N>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    if items.len() == N {
                        return Err(A::Error::custom(format!("a list of more than {N}")));
                    }
                    items.push(item);
                }
                Ok(UpTo(items))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Return the values of a list of strings.
pub(super) fn values<T, const N: usize>(UpTo(list): UpTo<Spelt<T>, N>) -> Vec<T> {
    list.into_iter().map(|Spelt(value)| value).collect()
}

/// Read a field that must be present, though it may be null: serde takes a missing one for null otherwise.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}

/// A snapshot as [`Snapshot::to_json`] writes it, without further fields.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct SnapshotFields {
    event_digest: Spelt<Digest>,
    history_digest: Spelt<Digest>,
    hyper_digest: Spelt<Digest>,
    version: u64,
}

impl SnapshotFields {
    pub(super) const fn into_snapshot(self) -> Snapshot {
        Snapshot {
            event_digest: self.event_digest.0,
            history_digest: self.history_digest.0,
            hyper_digest: self.hyper_digest.0,
            version: self.version,
        }
    }
}

/// Append the values as a JSON list of strings. None of them has a character that JSON escapes.
pub(super) fn put_list(out: &mut String, values: impl IntoIterator<Item = String>) {
    out.push('[');
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(&value);
        out.push('"');
    }
    out.push(']');
}

/// Append the snapshots as a JSON list.
pub(super) fn put_snapshots(out: &mut String, snapshots: &[Snapshot]) {
    out.push('[');
    for (i, snapshot) in snapshots.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        snapshot.write_json(out);
    }
    out.push(']');
}

/// Append a note as a JSON string.
pub(super) fn put_note(out: &mut String, note: &Note) {
    out.push_str(&serde_json::Value::String(note.to_string()).to_string());
}
