//! A log as the outcome of a replicated log: how far that one has been applied, and who its members are.
//!
//! A batch is written with its [`Place`], so that after a crash, which may take back what was not synced, the log itself says where
//! to go on. This crate gives places no meaning beyond their order, and does not read memberships.

use crate::error::LogError;
use crate::log::{Log, Writer};
pub use crate::rows::Place;
use crate::rows::{self, root_and_place_in};
use crate::store::{Store, Table, WriteBatch};

/// The key of the only row of its table.
const APPLIED_KEY: &[u8] = b"applied";

/// A membership and the place of the entry that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Where it takes effect.
    pub place: Place,
    /// What the replicated log makes of it.
    pub bytes: Vec<u8>,
}

impl Log {
    /// Return the place of the last entry of the replicated log that this log contains the outcome of: the default if it is not a
    /// replica.
    #[must_use]
    pub fn applied(&self) -> Place {
        self.writer.lock().applied
    }

    /// Write that everything up to `place` is applied, though its entry appends nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn pass(&self, place: Place) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        require_after(&writer, place)?;
        self.write_place(&mut writer, place, WriteBatch::default())
    }

    /// Write the membership that the entry at `place` decides.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn apply_members(&self, members: &Members) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        require_after(&writer, members.place)?;
        let mut batch = WriteBatch::default();
        put_members(&mut batch, members);
        self.write_place(&mut writer, members.place, batch)
    }

    /// Return the membership in force.
    ///
    /// # Errors
    ///
    /// [`LogError::Corrupt`] and [`LogError::Store`] if it cannot be read.
    pub fn members(&self) -> Result<Option<Members>, LogError> {
        last_members(self.store.as_ref())
    }

    /// Make everything that was applied durable, and return up to which place that is. The replicated log may then forget it.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be synced; nothing can be written then.
    pub fn sync(&self) -> Result<Place, LogError> {
        let (applied, len) = {
            let writer = self.writer.lock();
            (writer.applied, self.len())
        };
        // Batches may be written meanwhile; then more is durable than is said.
        let synced = self.store.sync().and_then(|()| self.store.note_durable(len));
        self.writer.lock().or_refuse(synced)?;
        Ok(applied)
    }

    pub(crate) fn write_place(&self, writer: &mut Writer, place: Place, mut batch: WriteBatch) -> Result<(), LogError> {
        writer.require_usable()?;
        batch.put(Table::Applied, APPLIED_KEY, place.to_bytes());
        writer.or_refuse(self.store.write(batch))?;
        writer.applied = place;
        Ok(())
    }
}

pub(crate) fn put_members(batch: &mut WriteBatch, members: &Members) {
    let row = [members.place.to_bytes().as_slice(), &members.bytes].concat();
    batch.put(Table::Members, members.place.index.to_be_bytes(), row);
}

/// Return the memberships decided at the indices `from..=to`, in order.
pub(crate) fn members_in(store: &dyn Store, from: u64, to: u64) -> Result<Vec<Members>, LogError> {
    let (mut found, mut from) = (Vec::new(), from);
    while from <= to
        && let Some((key, row)) = store.first_in(Table::Members, &from.to_be_bytes(), &to.to_be_bytes())?
    {
        from = rows::version_in(&key)?.saturating_add(1);
        found.push(members_of(&row)?);
    }
    Ok(found)
}

/// Return the greatest place in the store: no table alone has the last one.
pub(crate) fn last_applied(store: &dyn Store) -> Result<Place, LogError> {
    let last = |table| store.last_in(table, &0_u64.to_be_bytes(), &u64::MAX.to_be_bytes());
    let of_root = last(Table::Roots)?.map_or(Ok(Place::default()), |(_, row)| Ok(root_and_place_in(&row)?.1))?;
    let marked = store.get(Table::Applied, APPLIED_KEY)?;
    let marked = marked.map_or(Ok(Place::default()), |row| Place::from_slice(&row))?;
    Ok(of_root.max(marked))
}

pub(crate) fn require_after(writer: &Writer, place: Place) -> Result<(), LogError> {
    if place > writer.applied && place.term >= writer.applied.term {
        return Ok(());
    }
    Err(LogError::Corrupt(format!("the entry at {place:?} was to be applied after {:?}", writer.applied)))
}

fn last_members(store: &dyn Store) -> Result<Option<Members>, LogError> {
    let last = store.last_in(Table::Members, &0_u64.to_be_bytes(), &u64::MAX.to_be_bytes())?;
    last.map(|(_, row)| members_of(&row)).transpose()
}

fn members_of(row: &[u8]) -> Result<Members, LogError> {
    let misshapen = || LogError::Corrupt(format!("the row of a membership has {} bytes", row.len()));
    let (place, bytes) = row.split_at_checked(16).ok_or_else(misshapen)?;
    Ok(Members { place: Place::from_slice(place)?, bytes: bytes.to_vec() })
}
