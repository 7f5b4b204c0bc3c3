//! A log as the outcome of a replicated log: entries that append nothing, and making durable what was applied.

use crate::applied::{self, Members};
use crate::error::LogError;
use crate::log::Log;
use crate::log_id::LogId;
use crate::store::WriteBatch;

impl Log {
    /// Return the log id of the last entry of the replicated log that this log contains the outcome of: the default if it is not a
    /// replica.
    #[must_use]
    pub fn applied(&self) -> LogId {
        self.progress().applied
    }

    /// Record that everything up to `log_id` is applied, for an entry that appends nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn pass(&self, log_id: LogId) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.require_after(log_id)?;
        self.write_applied(&mut writer, log_id, WriteBatch::default())?;
        self.publish(&writer);
        Ok(())
    }

    /// Write the membership that the entry at `log_id` decides.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn apply_members(&self, members: &Members) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.require_after(members.log_id)?;
        let mut batch = WriteBatch::default();
        applied::put_members(&mut batch, members);
        self.write_applied(&mut writer, members.log_id, batch)?;
        self.publish(&writer);
        Ok(())
    }

    /// Return the membership in force.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if it cannot be read.
    pub fn members(&self) -> Result<Option<Members>, LogError> {
        applied::last_members(self.store.as_ref())
    }

    /// Make everything that was applied durable, and return up to which log id that is. The replicated log may then discard those entries.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be synced; nothing can be written then.
    pub fn sync(&self) -> Result<LogId, LogError> {
        let progress = self.progress();
        // Batches may be written meanwhile; then more is durable than is reported.
        let synced = self.store.sync().and_then(|()| self.store.note_durable(progress.len));
        synced.or_else(|error| self.writer.lock().or_refuse(Err(error)))?;
        Ok(progress.applied)
    }
}
