//! A log as the outcome of a replicated log: entries that append nothing, and making durable what was applied.

use crate::error::LogError;
use crate::log::Log;
use crate::place::{self, Members, Place};
use crate::store::WriteBatch;

impl Log {
    /// Return the place of the last entry of the replicated log that this log contains the outcome of: the default if it is not a
    /// replica.
    #[must_use]
    pub fn applied(&self) -> Place {
        self.progress().applied
    }

    /// Write that everything up to `place` is applied, though its entry appends nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn pass(&self, place: Place) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.require_after(place)?;
        self.write_place(&mut writer, place, WriteBatch::default())?;
        self.publish(&writer);
        Ok(())
    }

    /// Write the membership that the entry at `place` decides.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn apply_members(&self, members: &Members) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.require_after(members.place)?;
        let mut batch = WriteBatch::default();
        place::put_members(&mut batch, members);
        self.write_place(&mut writer, members.place, batch)?;
        self.publish(&writer);
        Ok(())
    }

    /// Return the membership in force.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if it cannot be read.
    pub fn members(&self) -> Result<Option<Members>, LogError> {
        place::last_members(self.store.as_ref())
    }

    /// Make everything that was applied durable, and return up to which place that is. The replicated log may then forget it.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be synced; nothing can be written then.
    pub fn sync(&self) -> Result<Place, LogError> {
        let progress = self.progress();
        // Batches may be written meanwhile; then more is durable than is said.
        let synced = self.store.sync().and_then(|()| self.store.note_durable(progress.len));
        synced.or_else(|error| self.writer.lock().or_refuse(Err(error)))?;
        Ok(progress.applied)
    }
}
