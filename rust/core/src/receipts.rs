//! Signed receipts of a log: the entries of events that it holds, with proofs that they are in the tree of a checkpoint that it signed.

use std::ops::Range;

use crate::error::LogError;
use crate::log::Log;
use crate::proof::Malformed;
use crate::rows;
use crate::store::Table;
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::claim::{Proof, Run};
use crate::tlog::merkle::{ProveError, range_proof};
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

impl Log {
    /// Return the entries of a range of versions, with one proof that they are in the tree of `size` entries.
    ///
    /// # Errors
    ///
    /// [`LogError::UnknownVersion`] if the range is empty, longer than a range proof may be, or ends after the tree, or the log has fewer
    /// entries; [`LogError::Corrupt`] and [`LogError::Store`] if rows cannot be read.
    pub fn proven_entries(&self, range: Range<u64>, size: u64) -> Result<Run, LogError> {
        let len = self.len();
        if size > len {
            return Err(LogError::UnknownVersion { asked: size - 1, len });
        }
        let proof = range_proof(self, &range, size).map_err(|error| match error {
            ProveError::Source(error) => error,
            ProveError::Outside { .. } => LogError::UnknownVersion { asked: range.end.saturating_sub(1), len: size },
        })?;
        Ok(Run { first: range.start, entries: self.entries(range)?, proof: Proof::Range(proof) })
    }

    /// Return the receipt for a range of versions of one commit batch, from a checkpoint of this log and the lines that sign it.
    ///
    /// # Errors
    ///
    /// [`ReceiptError::Unfit`] unless the checkpoint is of this log, the range is within one batch, and the batch within the
    /// checkpoint; otherwise as [`Self::proven_entries`].
    pub fn signed_receipt(
        &self,
        range: Range<u64>,
        checkpoint: &Checkpoint,
        lines: Vec<Line>,
    ) -> Result<SignedReceipt, ReceiptError> {
        let head = &checkpoint.head;
        let own = self.tree_head_at(head.size())?;
        if own != *head {
            let (expected, found) = (own.root(), head.root());
            return Err(ReceiptError::Unfit(format!(
                "expected the root {expected} of size {}, found {found}",
                head.size()
            )));
        }
        let entries = self.proven_entries(range.clone(), head.size())?;
        let last = range.end - 1;
        let batch_end = self.batch_end(range.start)?;
        if batch_end < last || batch_end >= head.size() {
            let found = format!("{} to {last} of one that ends at {batch_end}", range.start);
            let expected = format!("versions of one batch that ends below {}", head.size());
            return Err(ReceiptError::Unfit(format!("expected {expected}, found {found}")));
        }
        let is_whole = batch_end == last;
        let end = if is_whole { None } else { Some(self.proven_entries(batch_end..batch_end + 1, head.size())?) };
        let snapshots = range.map(|version| self.snapshot(version)).collect::<Result<_, _>>()?;
        Ok(SignedReceipt::new(entries, end, snapshots, Note::new(&checkpoint.to_string(), lines)?)?)
    }

    /// Return the last version of the commit batch of a version.
    fn batch_end(&self, version: u64) -> Result<u64, LogError> {
        let row = self.store.first_in(Table::Roots, &version.to_be_bytes(), &u64::MAX.to_be_bytes())?;
        let missing = || LogError::Corrupt(format!("the end of the batch of version {version} is missing"));
        rows::version_in(&row.ok_or_else(missing)?.0)
    }
}
