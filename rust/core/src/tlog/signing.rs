//! Private keys, and signing with them.
//!
//! Signing is deterministic, for ML-DSA-44 too: this crate has no source of randomness. So the same key signs the same text at the same
//! time with the same bytes; Ed25519 signatures of logs have no time. Signing again after a crash makes nothing new then.

use std::fmt;

use ml_dsa::MlDsa44;

use crate::proof::Malformed;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::key::{KEY_BYTES, KeyKind, VerifierKey, checkpoint_message, cosigned_text, split_key, wrong_length};
use crate::tlog::note::Line;
use crate::tlog::text::{MAX_NUMBER, Name, PRIVATE_KEY, to_base64};

/// Maximum number of private keys in a file.
pub const MAX_FILE_KEYS: usize = 16;

/// A private key with its name. The memory of the key itself is cleared when it is dropped. Texts that it was read from or written to,
/// and copies that were made on the way, are not.
#[derive(Clone)]
pub struct SigningKey {
    verifier: VerifierKey,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    MlDsa44(Box<ml_dsa::SigningKey<MlDsa44>>),
}

impl SigningKey {
    /// Return the key that follows from 32 random bytes: an Ed25519 private key, or the seed of FIPS 204, section 5.1.
    ///
    /// # Errors
    ///
    /// [`Malformed`] in the case, which never occurs with random bytes, that the public key is not acceptable.
    pub fn from_seed(name: Name, kind: KeyKind, seed: &[u8; KEY_BYTES]) -> Result<Self, Malformed> {
        let (secret, public_key) = match kind {
            KeyKind::Ed25519 | KeyKind::Cosignature => {
                let key = ed25519_dalek::SigningKey::from_bytes(seed);
                let public_key = key.verifying_key().to_bytes().to_vec();
                (Secret::Ed25519(Box::new(key)), public_key)
            }
            KeyKind::MlDsa44 => {
                let key = ml_dsa::SigningKey::<MlDsa44>::from_seed(&(*seed).into());
                let public_key = ml_dsa::Keypair::verifying_key(&key).encode().to_vec();
                (Secret::MlDsa44(Box::new(key)), public_key)
            }
        };
        Ok(Self { verifier: VerifierKey::new(name, kind, &public_key)?, secret })
    }

    /// Return the key that `text` spells: `PRIVATE+KEY+name+id+base64(kind ‖ seed)`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the text is anything else, or its id is that of another key. The message never has a part of the seed.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let rest = text
            .strip_prefix(PRIVATE_KEY)
            .ok_or_else(|| Malformed::because(format!("expected a private key, which begins with {PRIVATE_KEY}")))?;
        // The reason can have a part of the seed, if another part of the text is missing.
        let wrong = |_| {
            Malformed::because(format!("expected a private key as {PRIVATE_KEY}name+id+base64, found another text"))
        };
        let (name, id, kind, seed) = split_key(rest).map_err(wrong)?;
        let seed = <&[u8; KEY_BYTES]>::try_from(&*seed).map_err(|_| wrong_length(KEY_BYTES, &seed))?;
        let key = Self::from_seed(name, kind, seed)?;
        if key.verifier.id() != id {
            let (expected, name) = (key.verifier.id(), key.verifier.name());
            return Err(Malformed::because(format!("expected {expected} as the id of the key {name:?}, found {id}")));
        }
        Ok(key)
    }

    /// Return the text of the private key, which [`Self::parse`] reads. It contains the secret.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let seed: [u8; KEY_BYTES] = match &self.secret {
            Secret::Ed25519(key) => key.to_bytes(),
            Secret::MlDsa44(key) => key.to_seed().into(),
        };
        let (name, id, kind) = (self.verifier.name(), self.verifier.id(), self.verifier.kind().byte());
        format!("{PRIVATE_KEY}{name}+{id}+{}", to_base64([&[kind], seed.as_slice()].concat()))
    }

    /// Return the public key.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Sign the checkpoint, with its extension lines, at `time`, in seconds since 1970, which an Ed25519 signature of a log does not have.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the time is above [`MAX_NUMBER`]; if it is 0 in a signature of a witness, which is every one of kind 04, and every
    /// one over the checkpoint of a log with another name than the key; or if the key of a log is to sign for another log.
    pub fn sign(&self, checkpoint: &Checkpoint, time: u64) -> Result<Line, Malformed> {
        let (kind, name) = (self.verifier.kind(), self.verifier.name());
        let is_own = *name == checkpoint.origin;
        if kind == KeyKind::Ed25519 && !is_own {
            let found = &checkpoint.origin;
            return Err(Malformed::because(format!("expected a checkpoint of {name:?}, found one of {found:?}")));
        }
        let is_witness = kind == KeyKind::Cosignature || !is_own;
        if time > MAX_NUMBER || (time == 0 && is_witness) {
            return Err(Malformed::because(format!("expected a time from 1 to {MAX_NUMBER}, found {time}")));
        }
        let signature = match &self.secret {
            Secret::Ed25519(key) => {
                let text = checkpoint.to_string();
                let message = if kind.has_time() { cosigned_text(&text, time) } else { text };
                ed25519_dalek::Signer::sign(&**key, message.as_bytes()).to_bytes().to_vec()
            }
            Secret::MlDsa44(key) => {
                let message = checkpoint_message(name, time, checkpoint);
                let signed = key.expanded_key().sign_deterministic(&message, &[]);
                let failed = |_| Malformed::because("expected a signature of ML-DSA-44, but signing failed");
                signed.map_err(failed)?.encode().to_vec()
            }
        };
        let time = if kind.has_time() { time.to_be_bytes().to_vec() } else { Vec::new() };
        Ok(Line::new(name.clone(), self.verifier.id(), [time, signature].concat()))
    }
}

/// Return the keys in the content of a key file: private keys of one log, one a line.
///
/// # Errors
///
/// [`Malformed`] unless there are 1 to [`MAX_FILE_KEYS`] lines with a private key each, all of one name, and none twice. The message
/// never has a part of a seed.
pub fn parse_file(content: &[u8]) -> Result<Vec<SigningKey>, Malformed> {
    let lines = std::str::from_utf8(content).ok().and_then(|text| text.strip_suffix('\n'));
    let lines = lines.ok_or_else(|| Malformed::because("expected a file of private keys, each a line of text"))?;
    if lines.split('\n').take(MAX_FILE_KEYS + 1).count() > MAX_FILE_KEYS {
        return Err(Malformed::because(format!("expected at most {MAX_FILE_KEYS} private keys in a file, found more")));
    }
    let mut keys: Vec<SigningKey> = Vec::new();
    for line in lines.split('\n') {
        let key = SigningKey::parse(line)?;
        let (name, id) = (key.verifier.name(), key.verifier.id());
        if keys.iter().any(|other| other.verifier == key.verifier) {
            return Err(Malformed::because(format!("expected each private key once, found {name:?}+{id} again")));
        }
        if let Some(other) = keys.iter().find(|other| other.verifier.name() != name) {
            let other = other.verifier.name();
            return Err(Malformed::because(format!("expected private keys of one log, found {other:?} and {name:?}")));
        }
        keys.push(key);
    }
    Ok(keys)
}

impl fmt::Debug for SigningKey {
    /// Show the public key only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?}+{})", self.verifier.name(), self.verifier.id())
    }
}
