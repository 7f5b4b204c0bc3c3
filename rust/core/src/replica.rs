//! A log that replays a replicated log: entries that append nothing, and making applied entries durable.

use crate::acts::{self, Act, ActBody, ChainEnd};
use crate::applied::{self, Members};
use crate::error::LogError;
use crate::log::Log;
use crate::log_id::LogId;
use crate::store::WriteBatch;

/// Bytes of acts after which no more are read at once.
const MOST_ACT_BYTES: usize = 512 << 10;

impl Log {
    /// Return the log id of the last entry of the replicated log whose outcome is in this log; the default if this log is not a
    /// replica.
    #[must_use]
    pub fn applied(&self) -> LogId {
        self.progress().applied
    }

    /// Record that everything up to `log_id` is applied, for an entry that appends nothing.
    ///
    /// # Errors
    ///
    /// Same as [`Self::apply`].
    pub fn pass(&self, log_id: LogId) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.require_after(log_id)?;
        self.write_applied(&mut writer, log_id, WriteBatch::default())?;
        self.publish(&writer);
        Ok(())
    }

    /// Write the membership that an entry decided and, if the entry is also an act, the act.
    ///
    /// # Errors
    ///
    /// Same as [`Self::apply`].
    pub fn apply_members(&self, members: &Members, act: Option<ActBody>) -> Result<(), LogError> {
        self.apply_deed(members.log_id, Some(members), act)
    }

    /// Write the act of the entry at `log_id`.
    ///
    /// # Errors
    ///
    /// Same as [`Self::apply`].
    pub fn apply_act(&self, log_id: LogId, act: ActBody) -> Result<(), LogError> {
        self.apply_deed(log_id, None, Some(act))
    }

    /// Write all rows of an entry at once: a crash leaves both membership and act, or neither.
    fn apply_deed(&self, log_id: LogId, members: Option<&Members>, act: Option<ActBody>) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        writer.require_after(log_id)?;
        let mut batch = WriteBatch::default();
        if let Some(members) = members {
            applied::put_members(&mut batch, members);
        }
        let act = act.map(|body| writer.acts.next(log_id, body));
        let end = act.as_ref().map_or(writer.acts, Act::end);
        acts::put_acts(&mut batch, act.as_slice(), end);
        self.write_applied(&mut writer, log_id, batch)?;
        writer.acts = end;
        self.publish(&writer);
        Ok(())
    }

    /// Return where the chain of acts ends.
    #[must_use]
    pub fn acts_end(&self) -> ChainEnd {
        self.progress().acts
    }

    /// Return where the chain of acts ended once the entry at `log_id` was applied.
    ///
    /// # Errors
    ///
    /// As [`Self::acts`].
    pub fn acts_end_at(&self, log_id: LogId) -> Result<ChainEnd, LogError> {
        acts::end_at(self.store.as_ref(), log_id.index)
    }

    /// Return acts in the order of their entries, from the first one after the entry at `after`: at most `most`, and none after those
    /// whose rows together have 512 KiB.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if a row cannot be read.
    pub fn acts(&self, after: u64, most: usize) -> Result<Vec<Act>, LogError> {
        acts::acts_in(self.store.as_ref(), (after.saturating_add(1), u64::MAX), most, MOST_ACT_BYTES)
    }

    /// Return the membership in force.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if it cannot be read.
    pub fn members(&self) -> Result<Option<Members>, LogError> {
        applied::last_members(self.store.as_ref())
    }

    /// Make everything applied so far durable, and return the log id up to which it is. The replicated log may then discard those
    /// entries.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if the log cannot be synced; nothing can be written after that.
    pub fn sync(&self) -> Result<LogId, LogError> {
        let progress = self.progress();
        // Batches may be written in the meantime; then more is durable than is reported.
        let synced = self.store.sync().and_then(|()| self.store.note_durable(progress.len));
        synced.or_else(|error| self.writer.lock().or_refuse(Err(error)))?;
        Ok(progress.applied)
    }
}
