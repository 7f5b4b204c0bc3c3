//! A checkpoint that its log has signed, and the cosignatures that the log collects for it.
//!
//! The log sends each witness of its policy a [request](Cosigning::request), [reads](Cosigning::read) the answers, and publishes the
//! [note](Cosigning::note) with the cosignatures. Witnesses are named by their index in [`Policy::witnesses`](crate::tlog::policy::Policy::witnesses).

use crate::hash::Digest;
use crate::proof::Malformed;
use crate::tlog::add_checkpoint::AddCheckpoint;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::{Line, Note};
use crate::tlog::trust_file::TrustFile;
use crate::verify::VerifyError;

/// The longest answer of a witness that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The cosignature of a witness over the checkpoint of a [`Cosigning`]. Only [`Cosigning::begin`] and [`Cosigning::read`] make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    witness: usize,
    time: u64,
    line: Line,
}

impl Collected {
    /// Return the index of the witness.
    #[must_use]
    pub const fn witness(&self) -> usize {
        self.witness
    }

    /// Return its time in seconds since 1970, which is not 0.
    #[must_use]
    pub const fn time(&self) -> u64 {
        self.time
    }
}

/// A checkpoint that its log has signed, to be cosigned by the witnesses of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigning {
    trust: TrustFile,
    checkpoint: Checkpoint,
    text: String,
    log: Vec<Line>,
    earlier: Vec<Collected>,
}

impl Cosigning {
    /// Begin with a note. Cosignatures that it has already are kept; lines of strangers are left out.
    ///
    /// All lines under the name of the log are kept, because the caller has signed them, with keys that the policy may not have yet.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] unless a log of the policy has signed the checkpoint. See [`TrustFile::endorse`].
    pub fn begin(trust: &TrustFile, note: &Note, now: u64) -> Result<Self, VerifyError> {
        let endorsed = trust.endorse(note, now)?;
        let earlier = endorsed.cosignatures().iter().filter_map(|cosignature| {
            let key = &trust.policy().witnesses().get(cosignature.witness)?.key;
            let verified = endorsed.note().lines().iter().find(|line| line.key() == key)?;
            Some(Collected { witness: cosignature.witness, time: cosignature.time, line: verified.line().clone() })
        });
        let checkpoint = endorsed.checkpoint().clone();
        let log = note.lines().iter().filter(|line| *line.name() == checkpoint.origin).cloned().collect();
        let (earlier, text) = (earlier.collect(), endorsed.note().text().into());
        Ok(Self { trust: trust.clone(), checkpoint, text, log, earlier })
    }

    /// Return the checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Return the request to a witness that has cosigned size `old` last, with the lines of the log only.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is beyond the limits of [`AddCheckpoint`].
    pub fn request(&self, old: u64, proof: &[Digest]) -> Result<AddCheckpoint, Malformed> {
        AddCheckpoint::new(old, proof, &Note::new(&self.text, self.log.clone())?)
    }

    /// Return the cosignatures in an answer by one or more of the policy's witnesses, at most one of each.
    ///
    /// 1. The answer has at most [`MAX_ANSWER_BYTES`], and each of its lines is a signature line.
    /// 2. A line counts if a key of `witnesses` verifies it, at a time that is not 0 and not later than `now` and what clocks may differ
    ///    by. All other lines are dropped, whatever they hold.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if step 1 fails. Without any line that counts, the result is empty.
    pub fn read(&self, witnesses: &[usize], answer: &[u8], now: u64) -> Result<Vec<Collected>, Malformed> {
        // 1.
        if answer.len() > MAX_ANSWER_BYTES {
            let found = answer.len();
            return Err(Malformed::because(format!(
                "expected an answer of at most {MAX_ANSWER_BYTES} bytes, found {found}"
            )));
        }
        let lines = Note::answered(&self.text, answer)?;
        // 2.
        let latest = self.trust.latest(now);
        let of = |witness: &usize| {
            let key = &self.trust.policy().witnesses().get(*witness)?.key;
            let verified = lines.verified_by(key).into_iter();
            let timed = verified.filter_map(|line| Some((line.time()?, line)));
            let (time, line) = timed.filter(|(time, _)| (1..=latest).contains(time)).max_by_key(|(time, _)| *time)?;
            Some(Collected { witness: *witness, time, line: line.line().clone() })
        };
        Ok(witnesses.iter().filter_map(of).collect())
    }

    /// Return the note with the lines of the log, then the newest cosignature of each witness in the order of the policy.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it would be beyond the limits of a note.
    pub fn note(&self, collected: &[Collected]) -> Result<Note, Malformed> {
        let newest = |witness: usize| {
            let all = self.earlier.iter().chain(collected).filter(|one| one.witness == witness);
            all.max_by_key(|one| one.time).map(|one| one.line.clone())
        };
        let cosignatures = (0..self.trust.policy().witnesses().len()).filter_map(newest);
        Note::new(&self.text, self.log.iter().cloned().chain(cosignatures).collect())
    }
}
