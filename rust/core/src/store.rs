//! The store that a log keeps its rows in: a trait, and an implementation in memory.
//!
//! Rows are only ever added or extended, never removed, so a reader needs no snapshot of the store: what it has read for a version
//! stays true. The one operation that a store must implement exactly is [`Store::sync`].

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;

use parking_lot::RwLock;

use crate::error::LogError;

/// The tables of a log; keys are compared byte by byte. FORMATS.md, "Tables", describes each row field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Number of a tile of versions → the event digests of these versions. The log itself.
    Digests,
    /// Last version of a commit batch → the hyper root after it, and the log id of the batch if it has one.
    Roots,
    /// Event digest and version of an occurrence that the hyper tree does not show.
    Occurrences,
    /// Version of an event that occurs earlier in the same bulk, so the hyper tree never showed this version.
    Repeats,
    /// Index in the replicated log → the membership in force from there on, which this crate does not decode.
    Members,
    /// The last applied log id, if its entry appended nothing; and the end of the chain of acts.
    Applied,
    /// Index in the replicated log → the act of that entry.
    Acts,
    /// Level and number of a full tile of the tree over the entries → its hash.
    Tiles,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 8] = [
        Self::Digests,
        Self::Roots,
        Self::Occurrences,
        Self::Repeats,
        Self::Members,
        Self::Applied,
        Self::Acts,
        Self::Tiles,
    ];

    /// Return the name of the table on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Digests => "digests",
            Self::Roots => "roots",
            Self::Occurrences => "others",
            Self::Repeats => "repeats",
            Self::Members => "members",
            Self::Applied => "applied",
            Self::Acts => "acts",
            Self::Tiles => "tiles",
        }
    }
}

/// Called with the key and value of each row of a scan; returns whether to continue.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, LogError> + 'a;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows that become visible and durable together or not at all.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch(Vec<(Table, Row)>);

impl WriteBatch {
    /// Add a row, replacing any row with the same key.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push((table, (key.into(), value.into())));
    }

    /// Return whether there is no row.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for WriteBatch {
    type Item = (Table, Row);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The storage for the rows of a log.
pub trait Store: Send + Sync {
    /// Return the value at `key`.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be read.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError>;

    /// Return the row with the lowest key in `from..=to`.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be read.
    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError>;

    /// Return the row with the highest key in `from..=to`.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be read.
    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError>;

    /// Pass the rows of a table to `visit`, from the key `from` on and in the order of keys, until `visit` breaks or fails.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if a row cannot be read; the errors of `visit`.
    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError>;

    /// Write a batch. It is visible at once but not durable yet; after a crash, either all of it is there or nothing of it.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if it cannot be written. The content of the disk is then unknown, and the caller must not write any more.
    fn write(&self, batch: WriteBatch) -> Result<(), LogError>;

    /// Make everything written so far durable. After a power cut all of it is there, and of the batches written since then a prefix.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if the operating system does not confirm the sync. The caller must not try again: pages that failed to
    /// reach the disk may have been dropped, and a second sync would succeed without them.
    fn sync(&self) -> Result<(), LogError>;

    /// Note that the first `len` events are durable, so that damage is detected if a later start finds fewer. Losing the note in a
    /// power cut is harmless, but it must never count events that are not synced.
    ///
    /// # Errors
    ///
    /// [`LogError::Store`] if the note cannot be written.
    fn note_durable(&self, len: u64) -> Result<(), LogError>;

    /// Return the last number noted; 0 if there is none or it cannot be read.
    fn noted_durable(&self) -> u64;

    /// Return where an image of the trees is kept; `None` if there is no place for files.
    fn image_path(&self) -> Option<PathBuf> {
        None
    }
}

/// A table and a key in it.
type Key = (Table, Vec<u8>);

/// A store that lives as long as the process: for tests, and for logs that need not be kept.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: RwLock<BTreeMap<Key, Vec<u8>>>,
}

impl MemoryStore {
    /// Return an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

fn range_of(table: Table, from: &[u8], to: &[u8]) -> (Bound<Key>, Bound<Key>) {
    (Bound::Included((table, from.to_vec())), Bound::Included((table, to.to_vec())))
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.rows.read().get(&(table, key.to_vec())).cloned())
    }

    fn first_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        let rows = self.rows.read();
        let found = rows.range(range_of(table, from, to)).next();
        Ok(found.map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn last_in(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Row>, LogError> {
        let rows = self.rows.read();
        let found = rows.range(range_of(table, from, to)).next_back();
        Ok(found.map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn scan(&self, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), LogError> {
        // A copy, so that `visit` can read the store while another thread waits to write to it.
        let of_table =
            |((found, key), value): (&Key, &Vec<u8>)| (*found == table).then(|| (key.clone(), value.clone()));
        let rows: Vec<Row> = self.rows.read().range((table, from.to_vec())..).map_while(of_table).collect();
        for (key, value) in &rows {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), LogError> {
        let mut rows = self.rows.write();
        for (table, (key, value)) in batch {
            rows.insert((table, key), value);
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn note_durable(&self, _len: u64) -> Result<(), LogError> {
        Ok(())
    }

    fn noted_durable(&self) -> u64 {
        0
    }
}
