//! The rows that a replicated log adds to the store: the last applied entry, and the memberships.
//!
//! A batch is written together with its [`LogId`]. A crash may lose unsynced batches, so after a crash the log itself determines the
//! entry to apply next. This crate only orders log ids; it does not decode memberships.

use crate::error::LogError;
use crate::log_id::LogId;
use crate::rows::{self, root_and_log_id_in};
use crate::store::{Store, Table, WriteBatch};

/// The key of its row, beside the end of the chain of acts.
const APPLIED_KEY: &[u8] = b"applied";

/// A membership and the log id of the entry that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The entry from which it is in force.
    pub log_id: LogId,
    /// Its encoding. Only the code that replicates the log decodes it.
    pub bytes: Vec<u8>,
}

pub(crate) fn put_applied(batch: &mut WriteBatch, log_id: LogId) {
    batch.put(Table::Applied, APPLIED_KEY, log_id.to_bytes());
}

pub(crate) fn put_members(batch: &mut WriteBatch, members: &Members) {
    let row = [members.log_id.to_bytes().as_slice(), &members.bytes].concat();
    batch.put(Table::Members, members.log_id.index.to_be_bytes(), row);
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

/// Return the greatest log id in the store: that of the last root, or the one in [`Table::Applied`] if that is greater.
pub(crate) fn last_applied(store: &dyn Store) -> Result<LogId, LogError> {
    let last = |table| store.last_in(table, &0_u64.to_be_bytes(), &u64::MAX.to_be_bytes());
    let of_root = last(Table::Roots)?.map_or(Ok(LogId::default()), |(_, row)| Ok(root_and_log_id_in(&row)?.1))?;
    let marked = store.get(Table::Applied, APPLIED_KEY)?;
    let marked = marked.map_or(Ok(LogId::default()), |row| rows::log_id_in(&row))?;
    Ok(of_root.max(marked))
}

pub(crate) fn last_members(store: &dyn Store) -> Result<Option<Members>, LogError> {
    let last = store.last_in(Table::Members, &0_u64.to_be_bytes(), &u64::MAX.to_be_bytes())?;
    last.map(|(_, row)| members_of(&row)).transpose()
}

fn members_of(row: &[u8]) -> Result<Members, LogError> {
    let misshapen = || LogError::Corrupt(format!("the row of a membership has {} bytes", row.len()));
    let (log_id, bytes) = row.split_at_checked(LogId::BYTES).ok_or_else(misshapen)?;
    Ok(Members { log_id: rows::log_id_in(log_id)?, bytes: bytes.to_vec() })
}
