//! The public key of a member, by which the others know it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The SHA-256 of a public key in its DER form, a `SubjectPublicKeyInfo`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKeyHash([u8; Self::BYTES]);

impl PublicKeyHash {
    /// Length of a hash.
    pub const BYTES: usize = 32;

    /// Return the hash with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Return its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for PublicKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<PublicKeyHash> for String {
    fn from(hash: PublicKeyHash) -> Self {
        format!("{hash:?}")
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hexadecimal digits")]
pub struct NotAHash;

impl TryFrom<String> for PublicKeyHash {
    type Error = NotAHash;

    fn try_from(text: String) -> Result<Self, NotAHash> {
        let digits = text.as_bytes();
        let mut bytes = [0; Self::BYTES];
        if digits.len() != 2 * Self::BYTES {
            return Err(NotAHash);
        }
        let (pairs, _) = digits.as_chunks();
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = value_of(high)? << 4 | value_of(low)?;
        }
        Ok(Self(bytes))
    }
}

const fn value_of(digit: u8) -> Result<u8, NotAHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotAHash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_hexadecimal_digits_in_json() {
        let mut bytes = [0xa5; 32];
        bytes[0] = 0x01;
        let text = format!("\"01{}\"", "a5".repeat(31));
        assert_eq!(serde_json::to_string(&PublicKeyHash::new(bytes)).unwrap(), text);
        assert_eq!(serde_json::from_str::<PublicKeyHash>(&text).unwrap().as_bytes(), &bytes);
        for wrong in ["\"\"", "\"a5\"", &text.to_uppercase(), &text.replace("01", "0g"), &text.replace("01", "\u{e9}")]
        {
            assert!(serde_json::from_str::<PublicKeyHash>(wrong).is_err(), "{wrong}");
        }
    }
}
