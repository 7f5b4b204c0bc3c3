//! Signed notes: text with signature lines (C2SP signed-note).
//!
//! ```text
//! the text, whose last line ends like all others
//!
//! — name-of-the-key base64(key id ‖ signature)
//! ```
//!
//! Reading a note has two steps. [`Note::parse`] checks the grammar of all lines; what it returns can only be written as the file that
//! it was. [`Note::verify`] gives the text and the lines that known keys have verified, and nothing else.

use std::fmt;

use crate::proof::Malformed;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::key::{KeyId, KeyKind, VerifierKey};
use crate::tlog::text::{Name, from_base64, plain_text, shown, to_base64};
use crate::verify::VerifyError;

/// The longest note that is read, in bytes. A line with ML-DSA-44 takes 3.3 kB.
pub const MAX_NOTE_BYTES: usize = 256 * 1024;

/// Maximum number of signature lines of a note that is read.
pub const MAX_LINES: usize = 100;

/// What each signature line begins with: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// Length of the id of a key, in bytes.
const ID_BYTES: usize = 4;

/// A signature line, of any key and not verified.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    name: Name,
    id: KeyId,
    signature: Vec<u8>,
}

impl Line {
    pub(super) const fn new(name: Name, id: KeyId, signature: Vec<u8>) -> Self {
        Self { name, id, signature }
    }

    /// Return the line that `text` spells, without its line feed.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `text` is exactly what [`ToString`] gives for a line.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let parts = plain_text(text.as_bytes())?.strip_prefix(LINE_START).and_then(|rest| rest.split_once(' '));
        let wrong = || Malformed::because(format!("expected a signature line, found {}", shown(text)));
        let (name, signature) = parts.ok_or_else(wrong)?;
        let (name, bytes) = (Name::parse(name)?, from_base64(signature)?);
        match bytes.split_first_chunk::<ID_BYTES>() {
            Some((id, signature)) if !signature.is_empty() => Ok(Self::new(name, KeyId(*id), signature.to_vec())),
            _ => Err(wrong()),
        }
    }

    /// Return the name of the key that the line claims.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Return the id of the key that the line claims.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Return whether `key` is the one that the line claims.
    fn is_of(&self, key: &VerifierKey) -> bool {
        self.name == *key.name() && self.id == key.id()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id.0, self.signature.as_slice()].concat();
        write!(f, "{LINE_START}{} {}", self.name, to_base64(bytes))
    }
}

/// A note whose signatures are not verified, so nobody may use its text. [`ToString`] gives the file, to be kept or sent on.
#[derive(Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

impl Note {
    /// Return the note with `text` and the signature lines.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if this is not a note that everybody can read: the text does not end in a line feed, has a control character, or
    /// would be split elsewhere; there are no lines or more than [`MAX_LINES`]; or two are of the same key.
    pub fn new(text: &str, lines: Vec<Line>) -> Result<Self, Malformed> {
        require_lines(lines.len())?;
        let note = Self { text: text.into(), lines };
        let of_one_key = |(i, line): (usize, &Line)| {
            note.lines.iter().take(i).find(|other| (&other.name, other.id) == (&line.name, line.id))
        };
        if let Some(twice) = note.lines.iter().enumerate().find_map(of_one_key) {
            let (name, id) = (&twice.name, twice.id);
            return Err(Malformed::because(format!("expected one signature of each key, found two of {name:?}+{id}")));
        }
        // What is written must be what is read: this refuses text with signature lines of its own, for example.
        let read = Self::parse(note.to_string().as_bytes())?;
        if read == note {
            Ok(note)
        } else {
            Err(Malformed::because("expected text that can be told from signature lines"))
        }
    }

    /// Return the note in `bytes`.
    ///
    /// 1. The length is within [`MAX_NOTE_BYTES`], and the bytes are text.
    /// 2. The last empty line separates the text from at most [`MAX_LINES`] signature lines.
    /// 3. Every line is well-formed, whichever key it claims.
    ///
    /// # Errors
    ///
    /// [`Malformed`] unless `bytes` are exactly what [`ToString`] gives for a note.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        // 1.
        if bytes.len() > MAX_NOTE_BYTES {
            let found = bytes.len();
            return Err(Malformed::because(format!(
                "expected a note of at most {MAX_NOTE_BYTES} bytes, found {found}"
            )));
        }
        let whole = plain_text(bytes)?;
        // 2.
        let separator =
            whole.rfind("\n\n").ok_or_else(|| Malformed::because("expected an empty line after the text of a note"))?;
        let (text, rest) = whole.split_at(separator + 1);
        let lines = rest.strip_prefix('\n').and_then(|lines| lines.strip_suffix('\n'));
        let lines =
            lines.ok_or_else(|| Malformed::because("expected a note that ends in a signature line and a line feed"))?;
        require_lines(lines.split('\n').take(MAX_LINES + 1).count())?;
        // 3.
        let lines = lines.split('\n').map(Line::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), lines })
    }

    /// Return the first line of the text, which is the origin of a checkpoint. It is not verified: use it only to choose keys.
    #[must_use]
    pub fn claimed_origin(&self) -> &str {
        self.text.split('\n').next().unwrap_or_default()
    }

    /// Return the text, for checks of its grammar. It is not verified, so it may be used for nothing else.
    pub(super) fn unverified_text(&self) -> &str {
        &self.text
    }

    /// Return the note with `text` and the signature lines in `answer`, which somebody has sent who was asked to sign the text.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the answer has anything but signature lines.
    pub fn answered(text: &str, answer: &[u8]) -> Result<Self, Malformed> {
        let note = Self::parse(&[text.as_bytes(), b"\n", answer].concat())?;
        if note.text == text {
            return Ok(note);
        }
        Err(Malformed::because("expected signature lines, found an empty line among them"))
    }

    /// Return the signature lines, of any keys and not verified.
    pub(super) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Return the lines that `key` verifies. A line that fails is left out, unlike in [`Self::verify`]: a log keeps what it can use of
    /// the answer of a witness.
    pub(super) fn verified_by(&self, key: &VerifierKey) -> Vec<VerifiedLine> {
        let verified = |line: &&Line| key.verify(&self.text, &line.signature).map(|time| (time, (*line).clone()));
        let own = self.lines.iter().filter(|line| line.is_of(key));
        own.filter_map(|line| verified(&line).ok())
            .map(|(time, line)| VerifiedLine { key: key.clone(), time, line })
            .collect()
    }

    /// Return the size of the checkpoint that the text claims to be. It is not verified: use it only to write what others verify.
    pub(super) fn claimed_size(&self) -> Result<u64, Malformed> {
        Ok(Checkpoint::parse(&self.text)?.head.size())
    }

    /// Verify the note with the keys that the caller trusts.
    ///
    /// 1. A line whose name and id are those of no key is ignored, whatever it holds.
    /// 2. Every other line must verify. One that fails refuses the whole note, and so does a second line of the same key.
    /// 3. At least one line was verified.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<VerifiedNote, VerifyError> {
        let mut lines: Vec<VerifiedLine> = Vec::new();
        for line in &self.lines {
            // 1.
            let mut claimed = keys.iter().filter(|key| line.is_of(key));
            let Some(key) = claimed.next() else { continue };
            // 2.
            if let Some(other) = claimed.find(|other| *other != key) {
                return Err(refused("keys", "one of each name and id", format!("two of {}", other.shown())));
            }
            if lines.iter().any(|verified| verified.line.is_of(key)) {
                return Err(refused(
                    "signature lines",
                    "one of each key",
                    format!("two of {:?}+{}", line.name, line.id),
                ));
            }
            let time = key.verify(&self.text, &line.signature)?;
            lines.push(VerifiedLine { key: key.clone(), time, line: line.clone() });
        }
        // 3.
        if lines.is_empty() {
            let found: Vec<_> = self.lines.iter().map(|line| format!("{}+{}", line.name, line.id)).collect();
            let found = format!("those of {}", shown(&found.join(", ")));
            return Err(refused("signature lines", "one of a known key", found));
        }
        Ok(VerifiedNote { text: self.text.clone(), lines })
    }
}

impl fmt::Debug for Note {
    /// Show the lengths only: the text is not verified.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Note({} bytes, {} lines)", self.text.len(), self.lines.len())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A signature line that its key has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLine {
    key: VerifierKey,
    time: Option<u64>,
    line: Line,
}

impl VerifiedLine {
    /// Return the key that verified the line.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Return the time of the signature in seconds since 1970, if its kind has one. 0 means that the signer claims no time.
    #[must_use]
    pub const fn time(&self) -> Option<u64> {
        self.time
    }

    /// Return the line itself.
    #[must_use]
    pub const fn line(&self) -> &Line {
        &self.line
    }
}

/// The text of a note, and those of its lines that known keys have verified: at least one. Only [`Note::verify`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedNote {
    text: String,
    lines: Vec<VerifiedLine>,
}

impl VerifiedNote {
    /// Return the text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Return the verified lines, in the order of the note.
    #[must_use]
    pub fn lines(&self) -> &[VerifiedLine] {
        &self.lines
    }

    /// Add the lines of `other` whose keys have no line here, if it has the same text.
    pub(super) fn join(&mut self, other: Self) {
        if self.text == other.text {
            let is_new = |line: &VerifiedLine| !self.lines.iter().any(|own| own.key == line.key);
            let (new, _): (Vec<_>, Vec<_>) = other.lines.into_iter().partition(is_new);
            self.lines.extend(new);
        }
    }

    /// Return the checkpoint that the text is, signed by its own log, of whose keys at least one is among `logs`. It has extension lines
    /// only if the log has signed them.
    ///
    /// 1. The text is a checkpoint.
    /// 2. A verified line is by a key in `logs` whose name is the origin, of a kind with which logs sign. A key that signs for one log
    ///    says nothing about another, and a witness may have the name of a log.
    /// 3. Extension lines are left out unless such a line is by Ed25519. ML-DSA-44 does not sign them, and that a witness or another
    ///    log has signed them does not make them the log's.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the check that failed.
    pub fn checkpoint(&self, logs: &[VerifierKey]) -> Result<Checkpoint, VerifyError> {
        // 1.
        let checkpoint = Checkpoint::parse(&self.text)?;
        // 2.
        let is_own = |key: &VerifierKey| *key.name() == checkpoint.origin && key.kind().is_for_logs();
        let of_log = |line: &&VerifiedLine| is_own(&line.key) && logs.contains(&line.key);
        if !self.lines.iter().any(|line| of_log(&line)) {
            let expected = format!("{:?} as the name of a key that signed", checkpoint.origin);
            let found: Vec<_> = self.lines.iter().map(|line| format!("{:?}", line.key.name())).collect();
            return Err(refused("origin", &expected, found.join(", ")));
        }
        // 3.
        let signs_all = self.lines.iter().filter(of_log).any(|line| line.key.kind() == KeyKind::Ed25519);
        Ok(if signs_all { checkpoint } else { checkpoint.without_extensions() })
    }
}

impl fmt::Display for VerifiedNote {
    /// Write the note with the verified lines only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{}", line.line))
    }
}

fn require_lines(count: usize) -> Result<(), Malformed> {
    if count <= MAX_LINES {
        return Ok(());
    }
    Err(Malformed::because(format!("expected at most {MAX_LINES} signature lines in a note, found more")))
}

fn refused(check: &'static str, expected: &str, computed: String) -> VerifyError {
    VerifyError { check, expected: expected.into(), computed }
}
