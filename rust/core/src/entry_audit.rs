//! Replaying a log from the entries that it has published, and comparing every root that they claim.
//!
//! The entries are those of a tree that the log has signed, so whatever is wrong with them is proof against it.

use crate::audit::Audit;
use crate::error::LogError;
use crate::hash::Digest;
use crate::replay::require_repeated;
use crate::tlog::entry::{BatchEnd, Entry};
use crate::tlog::evidence::{Replay, fault_of};

/// Maximum number of entries in a commit batch.
pub const MAX_BATCH_ENTRIES: usize = 1 << 20;

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Index of the entry.
    pub index: u64,
    /// The batch that had to be replayed to find it; `None` if the entry is wrong by itself.
    pub replay: Option<Replay>,
    /// What was expected and what was found.
    pub reason: String,
}

/// Why entries could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// An entry is wrong.
    #[error("entry {}: {}", .0.index, .0.reason)]
    Found(Finding),
    /// There is no room for so many events.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The log that entries lead to, in memory: about 110 bytes an event.
#[derive(Debug, Default)]
pub struct EntryAudit {
    audit: Audit,
    /// Number of entries up to the last batch whose roots are right.
    replayed: u64,
    end: Option<BatchEnd>,
    /// The entries after the last batch that ended.
    open: Vec<Entry>,
    /// What is wrong with the first entry that is.
    found: Option<Finding>,
}

impl EntryAudit {
    /// Return the number of entries that were appended.
    #[must_use]
    pub fn next_entry(&self) -> u64 {
        self.replayed + self.open.len() as u64
    }

    /// Return the number of entries up to the last batch that ended: these were replayed, and led to its roots.
    #[must_use]
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Return the roots after the last batch that ended.
    #[must_use]
    pub const fn end(&self) -> Option<&BatchEnd> {
        self.end.as_ref()
    }

    /// Return the root of the tree over the entries that were replayed.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.audit.entry_root()
    }

    /// Return the latest version of an event among the entries that were replayed.
    ///
    /// # Errors
    ///
    /// As [`Audit::find`].
    pub fn find(&self, event: &Digest) -> Result<Option<u64>, LogError> {
        self.audit.find(event)
    }

    /// Append the next entry of a tree of `size`.
    ///
    /// 1. It is well-formed, about the version that is its index, and ends a batch if it is the last one of the tree.
    /// 2. A batch has at most [`MAX_BATCH_ENTRIES`] entries.
    /// 3. A repeated event occurs earlier in its batch, and not as a repeat.
    /// 4. At the end of a batch, both roots are those that the events lead to.
    ///
    /// # Errors
    ///
    /// [`AuditError::Found`] names the first check that failed, of this entry or of one before it. [`AuditError::Log`] if the log is full.
    pub fn append(&mut self, bytes: &[u8], size: u64) -> Result<(), AuditError> {
        if let Some(found) = &self.found {
            return Err(AuditError::Found(found.clone()));
        }
        let outcome = self.append_next(bytes, size);
        if let Err(AuditError::Found(found)) = &outcome {
            self.found = Some(found.clone());
        }
        outcome
    }

    fn append_next(&mut self, bytes: &[u8], size: u64) -> Result<(), AuditError> {
        // 1.
        let index = self.next_entry();
        if let Some(reason) = fault_of(bytes, index, size) {
            return Err(AuditError::Found(Finding { index, replay: None, reason }));
        }
        let entry = Entry::from_bytes(bytes).map_err(|_| LogError::Bug("an entry without fault is not one"))?;
        self.open.push(entry);
        // 2.
        let from = self.replayed();
        if self.open.len() > MAX_BATCH_ENTRIES {
            let reason = format!("expected a commit batch of at most {MAX_BATCH_ENTRIES} entries, found more");
            return Err(found(index, Replay { from, to: index, expected: None }, reason));
        }
        match entry.batch_end {
            Some(end) => self.replay(from, index, end),
            None => Ok(()),
        }
    }

    fn replay(&mut self, from: u64, to: u64, claimed: BatchEnd) -> Result<(), AuditError> {
        let digests: Vec<_> = self.open.iter().map(|entry| entry.event_digest).collect();
        let repeats: Vec<_> = self.open.iter().filter(|entry| entry.is_repeat).map(|entry| entry.version).collect();
        self.open.clear();
        // 3.
        if let Err(LogError::Corrupt(reason)) = require_repeated(from, &digests, &repeats) {
            return Err(found(to, Replay { from, to, expected: None }, reason));
        }
        // 4.
        let computed = self.audit.append_batch(&digests, &repeats)?;
        if computed != claimed {
            let (name, claimed, root) = if computed.history_digest == claimed.history_digest {
                ("hyper", claimed.hyper_digest, computed.hyper_digest)
            } else {
                ("history", claimed.history_digest, computed.history_digest)
            };
            let reason = format!("it claims the {name} root {claimed}, but the entries lead to {root}");
            return Err(found(to, Replay { from, to, expected: Some(computed) }, reason));
        }
        (self.end, self.replayed) = (Some(computed), to + 1);
        Ok(())
    }
}

const fn found(index: u64, replay: Replay, reason: String) -> AuditError {
    AuditError::Found(Finding { index, replay: Some(replay), reason })
}
