//! What a log needs of its store, and the settings of both engines.

use crate::Result;

/// A group of rows with separate keys: a keyspace to one engine, a column family to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `be64(version / 64)` to the event digests of those versions, 32 bytes each.
    Tiles,
    /// `be64(last version of a commit)` to its 32-byte root.
    Roots,
    /// The first 3 bytes of a key to 37 bytes for every event that has them (W2 only).
    Hyper,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Tiles, Self::Roots, Self::Hyper];

    /// Its name in both engines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiles => "tiles",
            Self::Roots => "roots",
            Self::Hyper => "hyper",
        }
    }
}

/// One row to write.
pub struct Row {
    /// The table.
    pub table: Table,
    /// Its key.
    pub key: Vec<u8>,
    /// The new value.
    pub value: Vec<u8>,
}

/// Settings, the same for both engines.
#[derive(Clone, Copy)]
pub struct Settings {
    /// Size of one memtable, in bytes.
    pub memtable_bytes: u64,
    /// Size of the block cache, shared by the tables, in bytes.
    pub cache_bytes: u64,
    /// Above this size the oldest part of the write-ahead log is flushed.
    pub journal_bytes: u64,
    /// Threads that flush and compact.
    pub workers: usize,
}

impl Settings {
    /// What a server on 2 cores would use.
    pub const SERVER: Self =
        Self { memtable_bytes: 16 << 20, cache_bytes: 64 << 20, journal_bytes: 64 << 20, workers: 2 };
    /// Small memtables, so that even a short-lived writer flushes and compacts.
    pub const TORTURE: Self = Self { memtable_bytes: 1 << 20, ..Self::SERVER };
}

/// The callback of a scan, for a key and its value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// An ordered, durable store of rows.
pub trait Store {
    /// Write `rows` all or none, and with `sync` return only when they are on disk.
    ///
    /// # Errors
    /// The engine's.
    fn commit(&self, rows: Vec<Row>, sync: bool) -> Result<()>;

    /// Call `found` with the value of `key`, if there is one, and return whether there was.
    ///
    /// # Errors
    /// The engine's.
    fn get(&self, table: Table, key: &[u8], found: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Call `each` with every row of `table` in the order of the keys.
    ///
    /// # Errors
    /// The engine's, or that of `each`.
    fn scan(&self, table: Table, each: &mut Visit<'_>) -> Result<()>;

    /// Return the row of `table` with the greatest key.
    ///
    /// # Errors
    /// The engine's.
    fn last(&self, table: Table) -> Result<Option<(Vec<u8>, Vec<u8>)>>;
}
