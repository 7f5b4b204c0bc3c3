//! The rows of a commit, in the two layouts that are compared.

use std::collections::BTreeMap;

use crate::Result;
use crate::random::digest;
use crate::store::{Row, Store, Table};

/// Versions of one tile row.
pub const TILE: u64 = 64;

/// Bytes of one event in a hyper row: a 32-byte key and a 5-byte version.
const HYPER_ENTRY_BYTES: usize = 37;

/// Which rows an event changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// W1: the tile rows of the batch's events, rewritten completely, and one root row.
    Tiles,
    /// W2: W1, and for every event a row under a random 3-byte prefix, read, made longer by one entry, and written back.
    TilesAndHyper,
}

impl Layout {
    /// Return the layout named `W1` or `W2`.
    ///
    /// # Errors
    /// Any other name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "W1" => Ok(Self::Tiles),
            "W2" => Ok(Self::TilesAndHyper),
            _ => Err(format!("unknown layout {name:?}").into()),
        }
    }
}

/// A log of digests, as its store sees it.
pub struct Log<'a> {
    store: &'a dyn Store,
    layout: Layout,
    /// How many events it holds; also the version of the next one.
    pub events: u64,
    /// The digests of the last, unfinished tile.
    tile: Vec<u8>,
}

impl<'a> Log<'a> {
    /// Return the log that `store` holds, ready to append.
    ///
    /// # Errors
    /// The store's, or rows that do not fit together.
    pub fn resume(store: &'a dyn Store, layout: Layout) -> Result<Self> {
        let Some((key, _)) = store.last(Table::Roots)? else {
            return Ok(Self { store, layout, events: 0, tile: Vec::new() });
        };
        let events = u64::from_be_bytes(key.as_slice().try_into()?) + 1;
        let mut tile = Vec::new();
        if !events.is_multiple_of(TILE) {
            let key = (events / TILE).to_be_bytes();
            store.get(Table::Tiles, &key, &mut |value| tile.extend_from_slice(value))?;
        }
        // A tile row of another length is outdated, or belongs to another commit than the root row.
        if tile.len() as u64 != events % TILE * 32 {
            return Err(format!("a tile row of {} bytes for {events} events", tile.len()).into());
        }
        Ok(Self { store, layout, events, tile })
    }

    /// Append `count` events in one commit.
    ///
    /// # Errors
    /// The store's.
    pub fn append(&mut self, count: u64, sync: bool) -> Result<()> {
        let first = self.events;
        let mut rows = Vec::new();
        for version in first..first + count {
            self.tile.extend_from_slice(&digest(version));
            if (version + 1).is_multiple_of(TILE) {
                rows.push(Row {
                    table: Table::Tiles,
                    key: (version / TILE).to_be_bytes().to_vec(),
                    value: std::mem::take(&mut self.tile),
                });
            }
        }
        self.events = first + count;
        let last = self.events - 1;
        if !self.tile.is_empty() {
            rows.push(Row { table: Table::Tiles, key: (last / TILE).to_be_bytes().to_vec(), value: self.tile.clone() });
        }
        rows.push(Row { table: Table::Roots, key: last.to_be_bytes().to_vec(), value: digest(last).to_vec() });
        if self.layout == Layout::TilesAndHyper {
            self.hyper_rows(first..first + count, &mut rows)?;
        }
        self.store.commit(rows, sync)
    }

    /// Add the changed hyper rows of `versions`, each key once, to `rows`.
    fn hyper_rows(&self, versions: std::ops::Range<u64>, rows: &mut Vec<Row>) -> Result<()> {
        let mut changed: BTreeMap<[u8; 3], Vec<u8>> = BTreeMap::new();
        for version in versions {
            let entry = hyper_entry(version);
            let prefix = [entry[0], entry[1], entry[2]];
            if let Some(value) = changed.get_mut(&prefix) {
                value.extend_from_slice(&entry);
                continue;
            }
            let mut value = Vec::with_capacity(HYPER_ENTRY_BYTES);
            self.store.get(Table::Hyper, &prefix, &mut |old| value.extend_from_slice(old))?;
            value.extend_from_slice(&entry);
            changed.insert(prefix, value);
        }
        rows.extend(changed.into_iter().map(|(prefix, value)| Row {
            table: Table::Hyper,
            key: prefix.to_vec(),
            value,
        }));
        Ok(())
    }
}

/// Return the entry of event `version` in its hyper row.
pub fn hyper_entry(version: u64) -> [u8; HYPER_ENTRY_BYTES] {
    let mut entry = [0; HYPER_ENTRY_BYTES];
    entry[..32].copy_from_slice(&digest(version));
    entry[32..].copy_from_slice(&version.to_be_bytes()[3..]);
    entry
}
