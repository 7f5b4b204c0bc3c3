//! Signed receipts of a log: the entries of events that it holds, with proofs that they are in the tree of a checkpoint that it signed.

use std::ops::Range;

use crate::entry_prover::EntryProver;
use crate::error::LogError;
use crate::log::Log;
use crate::proof::{Malformed, Snapshot};
use crate::rows::Rows;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::entry::Entry;
use crate::tlog::note::{Line, Note};
use crate::tlog::receipt::SignedReceipt;

/// Why a receipt could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The log could not be read, or does not have the versions.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The parts do not make a receipt that verifies.
    #[error("{0}")]
    Unfit(String),
}

impl From<Malformed> for ReceiptError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Unfit(reason)
    }
}

/// What makes the receipts of one checkpoint.
#[derive(Debug)]
pub struct ReceiptMaker<'a> {
    log: &'a Log,
    size: u64,
    entries: EntryProver<'a>,
    note: Note,
}

impl Log {
    /// Return what makes receipts from a checkpoint of this log and the lines that sign it.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Unfit`] unless the checkpoint is of this log; [`ReceiptError::Log`] if the log is shorter or cannot be read.
    pub fn receipts(&self, checkpoint: &Checkpoint, lines: Vec<Line>) -> Result<ReceiptMaker<'_>, ReceiptError> {
        let (expected, size) = (&checkpoint.head, checkpoint.head.size());
        let entries = EntryProver::new(self, size)?;
        let own = entries.head()?;
        if own != *expected {
            let (expected, found) = (own.root(), expected.root());
            return Err(ReceiptError::Unfit(format!("expected the root {expected} of size {size}, found {found}")));
        }
        Ok(ReceiptMaker { log: self, size, entries, note: Note::new(&checkpoint.to_string(), lines)? })
    }
}

impl ReceiptMaker<'_> {
    /// Return the receipt for a range of versions of one commit batch.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Unfit`] unless the range is within one batch, and the batch within the checkpoint; [`ReceiptError::Log`] as
    /// [`EntryProver::run`].
    pub fn receipt(&self, range: Range<u64>) -> Result<SignedReceipt, ReceiptError> {
        let run = self.entries.run(&range)?;
        let last = range.end - 1;
        let size = self.size;
        let unfit = |found: String| {
            let expected = format!("versions of one batch that ends below {size}");
            ReceiptError::Unfit(format!("expected {expected}, found {} to {last} of {found}", range.start))
        };
        let (batch_end, roots) =
            self.entries.batch_end(range.start)?.ok_or_else(|| unfit("one that ends later".into()))?;
        if batch_end < last {
            return Err(unfit(format!("one that ends at {batch_end}")));
        }
        let end = if batch_end == last { None } else { Some(self.entries.run(&(batch_end..batch_end + 1))?) };
        let rows = Rows::of(self.log.store.as_ref());
        let snapshot = |entry: &Entry| {
            let version = entry.version;
            let history_digest = if version == batch_end {
                roots.history_digest
            } else {
                self.log.trees.read().history().root(version, &|version| rows.group(version))?
            };
            let (event_digest, hyper_digest) = (entry.event_digest, roots.hyper_digest);
            Ok::<_, LogError>(Snapshot { event_digest, history_digest, hyper_digest, version })
        };
        let snapshots = run.entries.iter().map(snapshot).collect::<Result<_, _>>()?;
        Ok(SignedReceipt::new(run, end, snapshots, self.note.clone())?)
    }
}
