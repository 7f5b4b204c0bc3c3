//! Trust files: a policy, and what else somebody demands of a log.
//!
//! ```text
//! {"Format": "qed-trust-1", "Policy": "the text of a policy",
//!  "Retired": [{"Vkey", "MaxSize"}], "MaxAge": seconds or null, "Skew": 300, "RequirePq": false, "Pins": [{"Size", "Root"}]}
//! ```
//!
//! All but the first two may be left out. A bare [policy](crate::tlog::policy) is a trust file too.

use serde::Deserialize;

use crate::hash::Digest;
use crate::json::Object;
use crate::proof::Malformed;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::fields::{Spelt, UpTo};
use crate::tlog::key::{KeyKind, VerifierKey};
use crate::tlog::merkle::TreeHead;
use crate::tlog::note::Note;
use crate::tlog::policy::{Endorsed, MAX_PARTIES, MAX_POLICY_BYTES, Policy, PolicyError};
use crate::tlog::text::{MAX_NUMBER, json_error};
use crate::verify::{VerifyError, same};

/// How far ahead of the reader's clock the time of a cosignature may be, in seconds, if the file names no other.
pub const DEFAULT_SKEW_S: u64 = 300;

/// The longest trust file that is read, in bytes. JSON takes up to twice the bytes of the policy.
pub const MAX_TRUST_FILE_BYTES: usize = 2 * MAX_POLICY_BYTES;

/// Maximum number of pins.
const MAX_PINS: usize = 1000;

/// The content is not a trust file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustFileError {
    /// A line of the policy is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A line of the JSON is wrong.
    #[error("line {line} of the trust file: {reason}")]
    Json {
        /// The line, counted from 1.
        line: usize,
        /// What was expected and what was found.
        reason: String,
    },
    /// The parts of the file do not agree.
    #[error("the trust file: {0}")]
    Whole(String),
}

/// What somebody demands of a log before believing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFile {
    policy: Policy,
    retired: Vec<(VerifierKey, u64)>,
    max_age_s: Option<u64>,
    skew_s: u64,
    requires_pq: bool,
    pins: Vec<TreeHead>,
}

impl TrustFile {
    /// Return the trust file in `content`.
    ///
    /// # Errors
    ///
    /// [`TrustFileError`] names the first line that is wrong. Besides, a maximum age needs a quorum, and pins need a policy of one log:
    /// otherwise they would be ignored.
    pub fn parse(content: &[u8]) -> Result<Self, TrustFileError> {
        // No line of a policy begins like this.
        if content.trim_ascii_start().first() == Some(&b'{') {
            return Self::parse_json(content);
        }
        Ok(Self {
            policy: Policy::parse(content)?,
            retired: Vec::new(),
            max_age_s: None,
            skew_s: DEFAULT_SKEW_S,
            requires_pq: false,
            pins: Vec::new(),
        })
    }

    fn parse_json(content: &[u8]) -> Result<Self, TrustFileError> {
        if content.len() > MAX_TRUST_FILE_BYTES {
            let found = content.len();
            return Err(whole(format!("expected at most {MAX_TRUST_FILE_BYTES} bytes, found {found}")));
        }
        let wrong = |error: serde_json::Error| TrustFileError::Json { line: error.line(), reason: json_error(&error) };
        let Object(fields): Object<Fields> = serde_json::from_slice(content).map_err(wrong)?;
        let FormatName::Trust1 = fields.format;
        let mut policy = Policy::parse(fields.policy.as_bytes())?;
        let mut retired = Vec::new();
        for Object(Retired { vkey: Spelt(key), max_size }) in fields.retired.0 {
            policy = policy.with_retired(key.clone(), require_number(max_size)?).map_err(|error| whole(error.0))?;
            retired.push((key, max_size));
        }
        let pins: Result<Vec<_>, _> =
            fields.pins.0.into_iter().map(|Object(pin)| TreeHead::new(pin.size, pin.root.0)).collect();
        let (max_age_s, skew_s) = (fields.max_age.map(require_number).transpose()?, require_number(fields.skew)?);
        let pins = pins.map_err(|Malformed(reason)| whole(reason))?;
        let file = Self { policy, retired, max_age_s, skew_s, requires_pq: fields.require_pq, pins };
        file.require_sense()?;
        Ok(file)
    }

    /// Refuse demands that could never be checked.
    fn require_sense(&self) -> Result<(), TrustFileError> {
        if self.max_age_s.is_some() && !self.policy.has_quorum() {
            return Err(whole("expected a quorum, whose times MaxAge is about, found quorum none".into()));
        }
        let mut origins = self.policy.logs().iter().map(|log| log.key.name());
        let first = origins.next();
        if let Some(other) = origins.find(|origin| Some(*origin) != first).filter(|_| !self.pins.is_empty()) {
            return Err(whole(format!("expected one log, which the pins are about, found also {other:?}")));
        }
        for (i, pin) in self.pins.iter().enumerate() {
            if self.pins.iter().skip(i + 1).any(|other| other.size() == pin.size() && other.root() != pin.root()) {
                return Err(whole(format!("expected one root of size {} in the pins, found two", pin.size())));
            }
        }
        Ok(())
    }

    /// Return the policy. It has the retired keys.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Return the keys with which the logs sign, or have signed.
    pub fn log_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.policy.logs().iter().map(|log| &log.key).chain(self.retired.iter().map(|(key, _)| key))
    }

    /// Return how old the times of the quorum may be, in seconds, or `None` if any age will do.
    #[must_use]
    pub const fn max_age_s(&self) -> Option<u64> {
        self.max_age_s
    }

    /// Return the witnesses whose name is below that of a log: their operator is likely that of the log, and witnesses nothing.
    #[must_use]
    pub fn doubtful_witnesses(&self) -> Vec<&VerifierKey> {
        let is_below = |key: &VerifierKey| {
            let name = key.name().as_str();
            let below = |origin: &str| name.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/'));
            self.policy.logs().iter().any(|log| below(log.key.name().as_str()))
        };
        self.policy.witnesses().iter().map(|witness| &witness.key).filter(|key| is_below(key)).collect()
    }

    /// Check who has signed a checkpoint: steps 2 to 4 of [`verify`](crate::tlog::claim::verify). `now` is in seconds since 1970.
    ///
    /// Cosignatures may be missing: ask [`Endorsed::quorum`].
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn endorse(&self, note: &Note, now: u64) -> Result<Endorsed, VerifyError> {
        let endorsed = self.policy.verify_log(note, self.latest(now))?;
        let (origin, size) = (&endorsed.checkpoint().origin, endorsed.checkpoint().head.size());
        let counts = |key: &VerifierKey| {
            let is_retired = |(retired, max_size): &(VerifierKey, u64)| retired == key && size <= *max_size;
            self.policy.logs().iter().any(|log| log.key == *key) || self.retired.iter().any(is_retired)
        };
        let is_pq = |key: &VerifierKey| key.kind() == KeyKind::MlDsa44 && key.name() == origin && counts(key);
        if self.requires_pq && !endorsed.note().lines().iter().any(|line| is_pq(line.key())) {
            let found: Vec<_> = endorsed.note().lines().iter().map(|line| line.key().shown()).collect();
            let expected = "a signature of the log with ML-DSA-44, which RequirePq demands".into();
            return Err(VerifyError { check: "signature lines", expected, computed: found.join(", ") });
        }
        Ok(endorsed)
    }

    /// Return the latest time that a cosignature may have which is read at `now`: clocks may differ.
    pub(super) fn latest(&self, now: u64) -> u64 {
        now.saturating_add(self.skew_s).min(MAX_NUMBER)
    }

    /// Return whether a checkpoint is recent enough to tell the present state of the log: the quorum is met by cosignatures that are at
    /// most as old as the file allows. Proofs that something was in the log do not need it.
    #[must_use]
    pub fn is_recent(&self, endorsed: &Endorsed, now: u64) -> bool {
        self.max_age_s.is_none_or(|age| endorsed.is_met_since(now.saturating_sub(age)))
    }

    /// Check that the root of a checkpoint is that of the pin of its size, if there is one.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] if it is another.
    pub fn require_pinned(&self, checkpoint: &Checkpoint) -> Result<(), VerifyError> {
        let head = &checkpoint.head;
        let pin = self.pins.iter().find(|pin| pin.size() == head.size());
        pin.map_or(Ok(()), |pin| same("pinned root", pin.root(), head.root()))
    }
}

#[derive(Deserialize)]
enum FormatName {
    #[serde(rename = "qed-trust-1")]
    Trust1,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Fields {
    format: FormatName,
    policy: String,
    #[serde(default = "empty")]
    retired: UpTo<Object<Retired>, MAX_PARTIES>,
    max_age: Option<u64>,
    #[serde(default = "default_skew_s")]
    skew: u64,
    #[serde(default)]
    require_pq: bool,
    #[serde(default = "empty")]
    pins: UpTo<Object<Pin>, MAX_PINS>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Retired {
    vkey: Spelt<VerifierKey>,
    max_size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Pin {
    size: u64,
    root: Spelt<Digest>,
}

const fn empty<T, const N: usize>() -> UpTo<T, N> {
    UpTo(Vec::new())
}

const fn default_skew_s() -> u64 {
    DEFAULT_SKEW_S
}

fn require_number(number: u64) -> Result<u64, TrustFileError> {
    if number <= MAX_NUMBER {
        return Ok(number);
    }
    Err(whole(format!("expected sizes and seconds up to {MAX_NUMBER}, found {number}")))
}

const fn whole(reason: String) -> TrustFileError {
    TrustFileError::Whole(reason)
}
