//! The encodings that all the formats share: base64, decimals and names.
//!
//! Base64 is that of RFC 4648, section 4, padded and canonical. Decimals are ASCII digits without a sign or a leading zero, at most
//! [`MAX_NUMBER`], because many readers have signed integers.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hash::Digest;
use crate::proof::Malformed;

/// The largest size, index or time.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// Maximum length of the name of a key or log, in bytes: the signed message of ML-DSA-44 has one byte for it.
pub const MAX_NAME_BYTES: usize = 255;

/// Maximum length of the origin of a qed log, in bytes. What is added to it for names of other keys still fits into a name.
pub const MAX_ORIGIN_BYTES: usize = 200;

/// How much of a text appears in an error message, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// Return the bytes as base64.
#[must_use]
pub fn to_base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Return the bytes that `text` encodes.
///
/// # Errors
///
/// [`Malformed`] unless `text` is what [`to_base64`] returns: with padding, without spaces, and with zero in the unused bits.
pub fn from_base64(text: &str) -> Result<Vec<u8>, Malformed> {
    STANDARD
        .decode(text)
        .map_err(|cause| Malformed::because(format!("expected base64, found {}: {cause}", shown(text))))
}

/// Return the digest that `text` encodes in base64.
///
/// # Errors
///
/// [`Malformed`] unless `text` is the canonical base64 of 32 bytes.
pub fn digest_from_base64(text: &str) -> Result<Digest, Malformed> {
    // The length is compared first, so that long text is not decoded.
    let bytes = if text.len() == 44 { from_base64(text)? } else { Vec::new() };
    Digest::from_slice(&bytes)
        .ok_or_else(|| Malformed::because(format!("expected 32 bytes in base64, found {}", shown(text))))
}

/// Return the number that `text` writes as a decimal.
///
/// # Errors
///
/// [`Malformed`] unless `text` is the only spelling of a number up to [`MAX_NUMBER`].
pub fn decimal(text: &str) -> Result<u64, Malformed> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let number = if canonical { text.parse().ok().filter(|number| *number <= MAX_NUMBER) } else { None };
    number.ok_or_else(|| {
        Malformed::because(format!("expected a decimal number from 0 to {MAX_NUMBER}, found {}", shown(text)))
    })
}

/// What the text of a private key begins with.
pub(super) const PRIVATE_KEY: &str = "PRIVATE+KEY+";

/// Return the start of an untrusted text, quoted and without control characters, for an error message. It never has a part of a private
/// key, which may be in the file of something else by mistake.
pub(super) fn shown(text: &str) -> String {
    if text.contains(PRIVATE_KEY) {
        return "a private key, which belongs in no other file".into();
    }
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{:?}…", text.split_at(end).0),
        None => format!("{text:?}"),
    }
}

/// Return what is wrong with a JSON text. Like [`shown`], it has no part of a private key.
pub(super) fn json_error(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    if reason.contains(PRIVATE_KEY) { shown(&reason) } else { reason }
}

/// The name of a key, which for the key of a log is the *origin* of the log.
///
/// It has 1 to [`MAX_NAME_BYTES`] bytes, without Unicode space, characters below U+0020, and `+`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Return `text` as a name.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if a name may not be spelt like that.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let wrong = |c: char| c.is_whitespace() || c < ' ' || c == '+';
        if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(wrong) {
            let found = shown(text);
            let wanted = format!("expected a name of 1 to {MAX_NAME_BYTES} bytes without spaces and +");
            return Err(Malformed::because(format!("{wanted}, found {found}")));
        }
        Ok(Self(text.into()))
    }

    /// Return `text` as the origin of a qed log, which is a URL without its scheme, such as `log.example.com/payments`.
    ///
    /// Other logs may have other origins; they are read with [`Self::parse`].
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless it has 1 to [`MAX_ORIGIN_BYTES`] of `a-z`, `0-9`, `.`, `_`, `-` and `/`, and no empty part before, after or
    /// between the slashes.
    pub fn of_log(text: &str) -> Result<Self, Malformed> {
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        if text.len() > MAX_ORIGIN_BYTES || !text.bytes().all(known) || text.split('/').any(str::is_empty) {
            let expected = format!("an origin of 1 to {MAX_ORIGIN_BYTES} of a-z, 0-9, '.', '_', '-' and single '/'");
            return Err(Malformed::because(format!("expected {expected}, found {}", shown(text))));
        }
        Self::parse(text)
    }

    /// Return the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    /// Write the name quoted, and without control characters: it may come from an attacker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Return `bytes` as the text of a note.
///
/// # Errors
///
/// [`Malformed`] unless it is UTF-8 without a byte order mark, and LF is its only control character below U+0020.
pub(super) fn plain_text(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|cause| Malformed::because(format!("expected UTF-8: {cause}")))?;
    if text.starts_with('\u{feff}') {
        return Err(Malformed::because("expected text, found a byte order mark"));
    }
    match text.bytes().find(|byte| *byte < 0x20 && *byte != b'\n') {
        None => Ok(text),
        Some(byte) => Err(Malformed::because(format!("expected text, found the control character {byte:#04x}"))),
    }
}
