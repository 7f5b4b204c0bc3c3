//! Signed receipts of a log: the entries of events that it holds, with proofs that they are in the tree of a checkpoint that it signed.

use std::ops::Range;

use crate::entry_prover::EntryProver;
use crate::error::LogError;
use crate::log::Log;
use crate::proof::Malformed;
use crate::rows;
use crate::store::Table;
use crate::tlog::checkpoint::Checkpoint;
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

    /// Return the last version of the commit batch of a version.
    fn batch_end(&self, version: u64) -> Result<u64, LogError> {
        let row = self.store.first_in(Table::Roots, &version.to_be_bytes(), &u64::MAX.to_be_bytes())?;
        let missing = || LogError::Corrupt(format!("the end of the batch of version {version} is missing"));
        rows::version_in(&row.ok_or_else(missing)?.0)
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
        let batch_end = self.log.batch_end(range.start)?;
        if batch_end < last || batch_end >= self.size {
            let found = format!("{} to {last} of one that ends at {batch_end}", range.start);
            let expected = format!("versions of one batch that ends below {}", self.size);
            return Err(ReceiptError::Unfit(format!("expected {expected}, found {found}")));
        }
        let end = if batch_end == last { None } else { Some(self.entries.run(&(batch_end..batch_end + 1))?) };
        let snapshots = range.map(|version| self.log.snapshot(version)).collect::<Result<_, _>>()?;
        Ok(SignedReceipt::new(run, end, snapshots, self.note.clone())?)
    }
}
